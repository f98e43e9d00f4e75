"""The exercises of lesson 00: right answers pass, and each mistake is told as what it is."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rcnn_edu import ops
from rcnn_edu.classroom import check
from rcnn_edu.classroom.lesson_00_box_iou import BOX_IOU
from rcnn_edu.classroom.lesson_00_encode_boxes import DECODE_BOXES, ENCODE_BOXES
from tests.classroom import answers_00 as answers
from tests.classroom.changes import changed

# Right answers


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("box_iou", answers.box_iou),
        ("box_iou", answers.iou_with_loops),
        ("box_iou", answers.iou_with_torchvision),
        ("box_iou", answers.iou_with_a_small_number),
        ("encode_boxes", answers.encode_boxes),
        ("encode_boxes", answers.encode_by_columns),
        ("encode_boxes", answers.encode_with_numpy),
        ("decode_boxes", answers.decode_boxes),
        ("decode_boxes", answers.decode_by_columns),
        ("decode_boxes", answers.decode_with_torchvision),
    ],
)
def test_right_answers_pass(name: str, answer: Callable[..., Any]) -> None:
    verdict = check(name, answer)
    cases = {"box_iou": 11, "encode_boxes": 10, "decode_boxes": 10}[name]
    assert verdict.message == f"All {cases} cases, worked and random, agree with the reference."
    assert verdict.passed
    assert verdict.function is answer


@pytest.mark.parametrize(
    ("answer", "most_lines"), [(answers.box_iou, 12), (answers.encode_boxes, 8), (answers.decode_boxes, 8)]
)
def test_solutions_are_short_enough_to_read(answer: Callable[..., Any], most_lines: int) -> None:
    assert len(inspect.getsource(answer).splitlines()) <= most_lines


@pytest.mark.parametrize(
    ("name", "stub", "pointer"),
    [
        ("box_iou", answers.box_iou_stub, "Begin with one pair of boxes on paper"),
        ("encode_boxes", answers.encode_boxes_stub, "Begin with the centre and the size"),
        ("decode_boxes", answers.decode_boxes_stub, "Begin at the end of encoding"),
    ],
)
def test_untouched_stubs_get_a_pointer(name: str, stub: Callable[..., Any], pointer: str) -> None:
    verdict = check(name, stub)
    assert verdict.message.startswith(f"Your function returns nothing yet. {pointer}")
    assert (verdict.passed, verdict.begun) == (False, False)
    assert verdict.function is getattr(ops, name)


# The references


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("two boxes that overlap", [[6 / 26]]),
        ("a box inside another", [[8 / 64]]),
        ("boxes that lie apart", [[0, 0]]),
        ("boxes that only touch", [[0, 0]]),
        ("boxes smaller than a pixel", [[0.08 / 0.32]]),
        ("an image without objects", [[], []]),
        ("two boxes without area", [[0]]),
    ],
)
def test_the_worked_overlaps_by_hand(what: str, values: list[list[float]]) -> None:
    (case,) = [case for case in BOX_IOU.worked if case.what == what]
    assert torch.allclose(ops.box_iou(**case.arguments), torch.tensor(values, dtype=torch.float32))


@pytest.mark.parametrize(
    ("what", "deltas"),
    [
        ("a box a tenth of its width too far to the left", [0.1, 0, 0, 0]),
        ("a box half as wide as the object", [-0.0, 0, 0.6931472, 0]),
        ("a box that is right", [0, 0, 0, 0]),
    ],
)
def test_the_worked_deltas_by_hand(what: str, deltas: list[float]) -> None:
    (case,) = [case for case in ENCODE_BOXES.worked if case.what == what]
    assert torch.allclose(ops.encode_boxes(**case.arguments), torch.tensor([deltas], dtype=torch.float32))


def test_decoding_s_cases_do_not_reach_the_limit_on_growth() -> None:
    """A learner's version without the limit, which the lesson tells only afterwards, is right."""
    for case in (*DECODE_BOXES.worked, *DECODE_BOXES.random(torch.Generator().manual_seed(0))):
        growth = case.arguments["deltas"][:, 2:] / torch.tensor(case.arguments["weights"][2:])
        assert (growth < ops.boxes.MAX_LOG_SCALE - 1).all()


# Mistakes, made as a learner makes them: in the solution's own text


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([("(end - start)", "(end - start + 1)")], "A side is one pixel too long somewhere"),
        ([(".clamp(min=0)", "")], "Boxes that lie apart seem to overlap"),
        (
            [("boxes1[:, 2:] - boxes1[:, :2], boxes2[:, 2:] - boxes2[:, :2]", "boxes1[:, 2:], boxes2[:, 2:]")],
            "last two",
        ),
        ([(" - intersection\n", "\n")], "What the boxes share is counted twice"),
        (
            [("area1[:, None] + area2 - intersection", "torch.minimum(area1[:, None], area2)")],
            "Your value is the share",
        ),
        ([("torch.maximum(", "torch.minimum("), ("end = torch.minimum", "end = torch.maximum")], "What you take for"),
        ([("shared[..., 0] * shared[..., 1]", "shared.sum(-1)")], "For two boxes that overlap, the result is off"),
        ([("torch.where(union > 0, union, 1)", "union")], "the result holds NaN: look for a division by zero"),
        ([("torch.where(union > 0, union, 1)", "union.clamp(min=1)")], "Something is added to the union"),
        ([("boxes1[:, None], boxes2[None]", "boxes1, boxes2"), ("area1[:, None]", "area1")], "Row i of the first"),
        (
            [
                ("boxes1[:, None], boxes2[None]", "boxes1[None], boxes2[:, None]"),
                ("area1[:, None]", "area1"),
                ("area2 - i", "area2[:, None] - i"),
            ],
            "the axes come in another order",
        ),
        ([("    return ", "    boxes1 += 1\n    return ")], "Your function changes its argument boxes1"),
    ],
)
def test_a_slip_in_box_iou_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("box_iou", changed(answers.box_iou, *changes))
    assert not verdict.passed
    assert hint in verdict.message
    assert "something else" not in verdict.message


@pytest.mark.parametrize(
    ("name", "changes", "hint"),
    [
        ("encode_boxes", [("(gt_centre - centre)", "(centre - gt_centre)")], "turn the sign of dx and dy round"),
        ("encode_boxes", [("(gt_centre - centre) / size", "(gt_centre - centre) / gt_size")], "in sizes of the ground"),
        ("encode_boxes", [("(gt_centre - centre) / size", "gt_centre - centre")], "measured in pixels"),
        ("encode_boxes", [("torch.log(gt_size / size)", "gt_size / size")], "The logarithm is missing"),
        ("encode_boxes", [("torch.log(", "torch.log2(")], "The logarithm has another base"),
        ("encode_boxes", [(" + gt_size / 2", ""), (" + size / 2", "")], "The way leads from corner to corner"),
        ("encode_boxes", [(" + gt_size / 2", " + gt_size"), (" + size / 2", " + size")], "from corner to corner"),
        ("encode_boxes", [(" * torch.tensor(weights)", "")], "The weights are left out"),
        ("encode_boxes", [("deltas * torch", "deltas / torch")], "You divide by the weights"),
        ("decode_boxes", [("deltas / torch", "deltas * torch")], "You multiply by the weights"),
        ("decode_boxes", [("size * torch.exp(deltas[:, 2:])", "size * deltas[:, 2:]")], "The exponential is missing"),
        ("decode_boxes", [("torch.exp(deltas[:, 2:])", "(1 + deltas[:, 2:])")], "The exponential is missing"),
        ("decode_boxes", [("deltas[:, :2] * size", "deltas[:, :2]")], "dx and dy are taken for pixels"),
        ("decode_boxes", [(" + size / 2 +", " +")], "as if its corner had been moved"),
        ("decode_boxes", [("[centre - size / 2, centre + size / 2]", "[centre, size]")], "are a width and a height"),
        ("decode_boxes", [("- size / 2, ", "- size, "), ("+ size / 2]", "+ size]")], "twice as large"),
    ],
)
def test_a_slip_in_the_codec_is_diagnosed(name: str, changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check(name, changed(getattr(answers, name), *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message
