"""The exercises of lesson 02: right answers pass, and each mistake is told as what it is."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rcnn_edu.classroom import check
from rcnn_edu.classroom.lesson_02_assign_fpn_levels import ASSIGN_FPN_LEVELS, compare_levels
from rcnn_edu.classroom.lesson_02_merge_top_down import MERGE_TOP_DOWN, merge_top_down
from rcnn_edu.models import FPN
from rcnn_edu.ops import assign_fpn_levels
from tests.classroom import answers_02 as answers
from tests.classroom.changes import changed


@pytest.mark.parametrize("answer", [answers.merge, answers.merge_with_einsum, answers.merge_with_numpy])
def test_right_merges_pass(answer: Callable[..., Any]) -> None:
    verdict = check("merge_top_down", answer)
    assert verdict.message == "All 10 cases, worked and random, agree with the reference."
    assert verdict.passed
    assert verdict.function is answer


@pytest.mark.parametrize("answer", [answers.levels, answers.levels_with_a_loop, answers.levels_with_borders])
def test_right_levels_pass(answer: Callable[..., Any]) -> None:
    verdict = check("assign_fpn_levels", answer)
    assert verdict.message == "All 15 cases, worked and random, agree with the reference."
    assert verdict.passed


@pytest.mark.parametrize(
    ("exercise", "stub", "words"),
    [
        ("merge_top_down", answers.merge_stub, "Begin with the lateral map"),
        ("assign_fpn_levels", answers.levels_stub, "Begin with the square root of each box's area"),
    ],
)
def test_the_untouched_stub_gets_a_pointer(exercise: str, stub: Callable[..., Any], words: str) -> None:
    verdict = check(exercise, stub)
    assert verdict.message.startswith(f"Your function returns nothing yet. {words}")
    assert (verdict.passed, verdict.begun) == (False, False)


def test_the_reference_is_what_the_package_s_pyramid_does() -> None:
    fpn = FPN([3, 4], 8, p6=None)
    generator = torch.Generator().manual_seed(0)
    fine = torch.randn(2, 3, 7, 11, generator=generator)
    coarse = torch.randn(2, 4, 4, 6, generator=generator)
    lateral = fpn.laterals[0]
    weight, bias = lateral.get_parameter("weight"), lateral.get_parameter("bias")
    merged = merge_top_down(fine, weight, bias, fpn.laterals[1](coarse))
    torch.testing.assert_close(fpn.outputs[0](merged), fpn([fine, coarse])[0])


@pytest.mark.parametrize("answer", [answers.merge, answers.levels])
def test_the_solutions_are_short_enough_to_read(answer: Callable[..., Any]) -> None:
    assert len(inspect.getsource(answer).splitlines()) <= 12


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("four cells under one", [[110, 120], [130, 140]]),
        ("a lateral bias", [[-390, -380], [-370, -360]]),
        ("two channels into one", [[107, 115], [107, 115]]),  # 100 + 10 · 1 − 3, 100 + 10 · 2 − 5
        ("two values above", [[110, 120, 230, 240]] * 2),
        ("an odd number of columns, five under three", [[110, 120, 230, 240, 350]] * 2),
        ("an odd number of rows", [[110, 120], [130, 140], [-150, -140]]),
    ],
)
def test_the_worked_merges_by_hand(what: str, expected: list[list[float]]) -> None:
    (case,) = [case for case in MERGE_TOP_DOWN.worked if case.what == what]
    assert merge_top_down(*case.arguments.values())[0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("a box of the canonical size", [4]),
        ("boxes of 336 and 447 px", [4, 4]),
        ("each border between two levels", [2, 3, 3, 4, 4, 5]),
        ("three shapes of the same area", [3, 3, 3]),
        ("very small and very large boxes", [2, 2, 5]),
        ("other levels", [3, 3, 4, 6]),
        ("another canonical size", [2, 3, 4, 4]),
        ("another canonical level", [2, 3, 4]),
        ("no boxes", []),
    ],
)
def test_the_worked_levels_by_hand(what: str, expected: list[int]) -> None:
    (case,) = [case for case in ASSIGN_FPN_LEVELS.worked if case.what == what]
    assert assign_fpn_levels(*case.arguments.values()).tolist() == expected


# Mistakes, made as a learner makes them: in the solution's own text

SIZED = 'size=lateral.shape[-2:], mode="nearest"'


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([(SIZED, 'scale_factor=2, mode="nearest"')], "The coarser map is doubled, and at odd sizes"),
        ([("nearest", "nearest-exact")], "At odd sizes the coarser map is stretched"),
        ([("nearest", "bilinear")], "blended with their neighbours"),
        ([("nearest", "bicubic")], "blended with their neighbours"),
        ([("lateral + enlarged", "lateral")], "Nothing comes down from the level above"),
        ([("lateral + enlarged", "enlarged")], "The lateral map takes no part"),
        ([("lateral + enlarged", "(lateral + enlarged) / 2")], "The two maps are averaged"),
        ([("lateral + enlarged", "lateral.maximum(enlarged)")], "the larger value of each cell"),
        ([("lateral + enlarged", "torch.cat([lateral, enlarged], 1)")], "The two maps are stacked"),
        ([("weight, bias)\n", "weight)\n")], "bias is left out"),
        ([("lateral + enlarged", "(lateral + enlarged).relu()")], "There is a ReLU that the paper has not"),
        ([("F.conv2d(feature, weight, bias)", "F.conv2d(feature, weight, bias).relu()")], "There is a ReLU"),
        ([("lateral + enlarged", "lateral * enlarged")], "For four cells under one, the result is off by"),
        ([("lateral + enlarged", "2 * (lateral + enlarged)")], "Every value is 2 times what it should be"),
        ([("    return", "    above *= 2\n    return")], "Your function changes its argument above"),
        ([("lateral + enlarged", "(lateral + enlarged).permute(0, 2, 3, 1)")], "the axes come in another order"),
    ],
)
def test_a_slip_of_the_merge_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("merge_top_down", changed(answers.merge, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


def test_cutting_the_wrong_end_and_tiling_are_told() -> None:
    def wrong_end(feature: Tensor, weight: Tensor, bias: Tensor, above: Tensor) -> Tensor:
        height, width = feature.shape[2:]
        doubled = F.interpolate(above, scale_factor=2)
        return F.conv2d(feature, weight, bias) + doubled[:, :, doubled.shape[2] - height :, doubled.shape[3] - width :]

    def tiled(feature: Tensor, weight: Tensor, bias: Tensor, above: Tensor) -> Tensor:
        lateral = F.conv2d(feature, weight, bias)
        return lateral + torch.tile(above, (1, 1, 2, 2))[:, :, : feature.shape[2], : feature.shape[3]]

    def shrunk(feature: Tensor, weight: Tensor, bias: Tensor, above: Tensor) -> Tensor:
        return F.conv2d(feature, weight, bias)[:, :, ::2, ::2] + above

    assert "cut off at the wrong end" in check("merge_top_down", wrong_end).message
    assert "laid side by side" in check("merge_top_down", tiled).message
    assert "The result has the size of the coarser map" in check("merge_top_down", shrunk).message


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([("torch.floor", "torch.round")], "rounded to the nearest whole number, so that a box of 336 px goes to P5"),
        ([("torch.floor", "torch.ceil")], "The level is rounded up"),
        ([("torch.floor", "torch.trunc")], "All 15 cases, worked and random, agree"),  # what is below 0 is clamped
        ([(".sqrt()", "")], "The levels change twice as fast"),
        ([("torch.log2", "torch.log")], "The logarithm has another base than 2"),
        ([("torch.log2", "torch.log10")], "The logarithm has another base than 2"),
        ([("canonical_level + torch", "canonical_level - torch")], "The fraction is upside down"),
        ([("(width * height).sqrt()", "torch.maximum(width, height)")], "A single side decides"),
        ([("(width * height).sqrt()", "width")], "A single side decides"),
        ([("(width * height).sqrt()", "(width + height) / 2")], "A single side decides"),
        ([("boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]", "boxes[:, 2], boxes[:, 3]")], "corner is taken"),
        ([("boxes[:, 0], ", "boxes[:, 0] + 1, "), ("boxes[:, 1]\n", "boxes[:, 1] + 1\n")], "A pixel is added"),
        ([(".clamp(min_level, max_level)", "")], "levels that there are none of"),
        ([("(min_level, max_level)", "(min=min_level)")], "levels that there are none of"),
        ([("max_level).long()", "max_level).long() - min_level")], "The levels are counted from 0"),
        ([("/ canonical_size", "/ 224"), ("canonical_level +", "4 +")], "The canonical size is 224 on level 4"),
        ([(".long()", ".tolist()")], "it returns a value of type list where a tensor of shape (1,)"),
        ([("    width", "    boxes += 1\n    width")], "Your function changes its argument boxes"),
        ([("level.clamp", "3 + 0 * level.clamp")], "1 of 1 levels are wrong, the first that of box 0, to you 3"),
    ],
)
def test_a_slip_of_the_level_rule_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("assign_fpn_levels", changed(answers.levels, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


def test_no_case_lies_so_close_to_a_border_that_a_last_bit_decides() -> None:
    """Squares on the borders themselves are whole powers of two of the canonical size, which floats hold exactly."""
    for case in [*ASSIGN_FPN_LEVELS.worked, *ASSIGN_FPN_LEVELS.random(torch.Generator().manual_seed(0))]:
        boxes, *_, size, _ = case.arguments.values()
        exact = torch.log2((boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt() / size)
        apart = (exact - exact.round()).abs()
        assert ((apart == 0) | (apart > 1e-3)).all(), case.what


@pytest.mark.parametrize(
    ("got", "fault"),
    [
        (torch.tensor([4, 2]), None),
        (torch.tensor([4.0, 2.0]), None),
        (torch.tensor([4, 2], dtype=torch.int8), None),
        (torch.tensor([4, 3]), "1 of 2 levels are wrong, the first that of box 1, to you 3"),
        (torch.tensor([4]), "the result has shape (1,) where (2,) is expected"),
        (torch.tensor([4.0, torch.nan]), "NaN"),
        (None, "it returns None"),
    ],
)
def test_levels_are_compared_as_numbers(got: Any, fault: str | None) -> None:
    found = compare_levels(torch.tensor([4, 2]), got)
    assert (found is None) if fault is None else (found is not None and fault in found)
