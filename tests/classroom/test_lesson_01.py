"""The exercises of lesson 01: right answers pass, and each mistake is told as what it is."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from rcnn_edu import ops
from rcnn_edu.classroom import check
from rcnn_edu.classroom.checks import Case, Exercise
from rcnn_edu.classroom.lesson_01_bilinear_sample import BILINEAR_SAMPLE, bilinear_sample
from rcnn_edu.classroom.lesson_01_roi_align import ROI_ALIGN
from tests.classroom import answers_01 as answers
from tests.classroom import changes


def cases_of(exercise: Exercise) -> list[Case]:
    return [*exercise.worked, *exercise.random(torch.Generator().manual_seed(0))]


# Right answers


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("bilinear_sample", answers.bilinear_sample),
        ("bilinear_sample", answers.sample_with_hats),
        ("bilinear_sample", answers.sample_with_numpy),
        ("bilinear_sample", answers.sample_with_grid_sample),
        ("roi_align", answers.roi_align),
        ("roi_align", answers.align_with_gather),
        ("roi_align", answers.align_with_torchvision),
    ],
)
def test_right_answers_pass(name: str, answer: Callable[..., Any]) -> None:
    verdict = check(name, answer)
    assert (
        verdict.message
        == f"All {27 if name == 'bilinear_sample' else 12} cases, worked and random, agree with the reference."
    )
    assert verdict.passed
    assert verdict.function is answer


@pytest.mark.parametrize(("answer", "most_lines"), [(answers.bilinear_sample, 12), (answers.roi_align, 25)])
def test_solutions_are_short_enough_to_read(answer: Callable[..., Any], most_lines: int) -> None:
    assert len(inspect.getsource(answer).splitlines()) <= most_lines


@pytest.mark.parametrize(
    ("name", "stub", "pointer"),
    [
        ("bilinear_sample", answers.bilinear_sample_stub, "Begin with a position inside the grid"),
        ("roi_align", answers.roi_align_stub, "Begin with one RoI and one bin"),
    ],
)
def test_untouched_stubs_get_a_pointer(name: str, stub: Callable[..., Any], pointer: str) -> None:
    verdict = check(name, stub)
    assert verdict.message.startswith(f"Your function returns nothing yet. {pointer}")
    assert (verdict.passed, verdict.begun) == (False, False)
    reference = {"bilinear_sample": bilinear_sample, "roi_align": ops.roi_align}[name]
    assert verdict.function is reference


# The references


@pytest.mark.parametrize(
    ("y", "x", "value"),
    [(1.25, 0.6, 13.1), (1, 2, 12), (2, 1.75, 21.75), (-0.4, 1.3, 1.3), (0.7, 3.8, 10), (-1.4, 1, 0)],
)
def test_the_worked_samples_by_hand(y: float, x: float, value: float) -> None:
    grid = torch.tensor([[0.0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23]])
    assert bilinear_sample(grid, float(y), float(x)).item() == pytest.approx(value)
    worked = [case.arguments for case in BILINEAR_SAMPLE.worked]
    assert any(torch.equal(a["feature"], grid) and (a["y"], a["x"]) == (y, x) for a in worked)


def test_the_first_worked_roi_by_hand() -> None:
    # The bin's centre is at (2.2, 1.8) in pixels, thus 1.7 cells right and 1.3 down; the map there is 10 y + x.
    case = ROI_ALIGN.worked[0].arguments
    assert case["rois"].tolist() == [pytest.approx([0, 1.2, 0.8, 3.2, 2.8])]
    assert ops.roi_align(*case.values()).flatten().tolist() == pytest.approx([10 * 1.3 + 1.7])


@given(st.floats(0, 4), st.floats(0, 6), st.integers(0, 99))
def test_inside_the_grid_the_reference_is_grid_sample(y: float, x: float, seed: int) -> None:
    feature = torch.rand(5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    place = torch.tensor([x / 3 - 1, y / 2 - 1], dtype=torch.float64).view(1, 1, 1, 2)
    oracle = F.grid_sample(feature[None, None], place, padding_mode="border", align_corners=True)
    torch.testing.assert_close(bilinear_sample(feature, y, x), oracle[0, 0, 0, 0], rtol=0, atol=1e-12)


@given(st.floats(-3, 8), st.floats(-3, 10))
def test_anywhere_the_reference_is_a_roi_align_of_one_sample(y: float, x: float) -> None:
    feature = torch.arange(35, dtype=torch.float64).view(5, 7) ** 2
    roi = torch.tensor([[0, x, y, x, y]], dtype=torch.float64)
    oracle = ops.roi_align(feature[None, None], roi + torch.tensor([0, 0.5, 0.5, 0.5, 0.5]), 1, 1.0, 1)
    near_the_edge = min(abs(abs(y - 2) - 3), abs(abs(x - 3) - 4)) < 1e-9  # where the rule jumps to 0
    if not near_the_edge:
        torch.testing.assert_close(bilinear_sample(feature, y, x), oracle[0, 0, 0, 0], rtol=0, atol=1e-9)


# Mistakes


def test_no_random_roi_lies_where_a_rounding_could_go_either_way() -> None:
    for case in cases_of(ROI_ALIGN):
        rois, size, scale, ratio = list(case.arguments.values())[1:]
        corners = rois[:, 1:].double() * scale - 0.5
        for low, high, bins in ((corners[:, 1], corners[:, 3], size[0]), (corners[:, 0], corners[:, 2], size[1])):
            shares = torch.arange(2 * bins * ratio + 1, dtype=torch.float64) / (
                2 * bins * ratio
            )  # edges, samples, and between
            halves = torch.cat([torch.stack([low, high]), torch.lerp(low[:, None], high[:, None], shares).T]) * 2
            assert (halves - halves.round()).abs().min() > 1e-4, case.what


# Mistakes, made as a learner makes them: in the solution's own text


changed = partial(
    changes.changed, bin_cells=lambda start, i, size: round(start + (i + 1) * size) - round(start + i * size)
)


CLAMP = "y, x = min(max(y, 0), H - 1), min(max(x, 0), W - 1)"
FAR = "y < -1 or y > H or x < -1 or x > W"
BLEND = "upper * (1 - down) + lower * down"
GUARD = "min(top + 1, H - 1), min(left + 1, W - 1)"
SHARES = "down, along = y - top, x - left"


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        (
            [(f"feature[{a}, {b}]", f"feature[{b}, {a}]") for a in ("top", "bottom") for b in ("left", "right")],
            "x and y look swapped",
        ),
        ([("H, W = feature.shape", "W, H = feature.shape")], "Height and width look swapped"),
        ([("H, W = ", "y, x = x, y\n    H, W = ")], "x and y look swapped"),
        ([(BLEND, "feature[round(y), round(x)]")], "A rounding is left in"),
        ([(CLAMP, "pass"), (BLEND, "feature[round(y), round(x)]")], "A rounding is left in"),
        ([(BLEND, "feature[top, left]")], "Your value is that of one cell, the one before"),
        ([("int(y), int(x)", "round(y), round(x)")], "The neighbours are found by rounding"),
        ([(BLEND, "upper")], "Your value changes along x only"),
        ([("(1 - along)", "1"), ("right] * along", "right] * 0")], "Your value changes along y only"),
        ([(SHARES, "down, along = top + 1 - y, left + 1 - x")], "The shares go to the wrong neighbours"),
        ([(BLEND, "lower * (1 - down) + upper * down")], "Along y the shares"),
        ([(SHARES, "down, along = y - top, left + 1 - x")], "Along x the shares"),
        (
            [(CLAMP, "pass"), ("int(y), int(x)", "math.floor(y), math.floor(x)")],
            "The clamp at the border is missing: ind",
        ),
        (
            [(CLAMP, "pass"), ("int(y), int(x)", "math.floor(y), math.floor(x)"), (GUARD, "top + 1, left + 1")],
            "The clamp at the border is missing: index -1",
        ),
        ([(CLAMP, "pass")], "The clamp at the border is missing, and int() hides it"),
        ([(CLAMP, "pass"), (GUARD, "top + 1, left + 1")], "The clamp at the border is missing, and int() hides it"),
        ([(FAR, "False")], "The rule for positions far outside is missing"),
        ([(FAR, "y < 0 or y > H - 1 or x < 0 or x > W - 1")], "Your value is 0 as soon as the position leaves"),
        ([(FAR, "y < -1 or y > H - 1 or x < -1 or x > W - 1")], "Your value is 0 as soon as the position leaves"),
        ([(FAR, "(y < -1 or y > H) and (x < -1 or x > W)")], "Your value is 0 only where y and x are both"),
        ([(CLAMP, f"y, x = y - 0.5, x - 0.5\n    {CLAMP}")], "Half a cell off"),
        ([("H, W = ", "y, x = y - 0.5, x - 0.5\n    H, W = ")], "Half a cell off"),
        ([(BLEND, f"2 * ({BLEND})")], "Every value is 2 times what it should be"),
        ([(GUARD, "top + 1, left + 1")], "it raises IndexError"),
        ([(BLEND, f"int({BLEND})")], "For a position between four cells, the result is 13, off by 0.1."),
    ],
)
def test_a_slip_in_the_sample_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("bilinear_sample", changed(answers.bilinear_sample, *changes))
    assert not verdict.passed
    assert hint in verdict.message
    assert "something else" not in verdict.message


CORNER = "corner * spatial_scale - 0.5"
Y = "y1 + (i + (k + 0.5) / n) * bin_height"
X = "x1 + (j + (k + 0.5) / n) * bin_width"
BIN = "(y2 - y1) / h, (x2 - x1) / w"


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([(CORNER, "round(corner * spatial_scale) - 0.5")], "The RoI is rounded to whole cells"),
        ([(CORNER, f"round({CORNER})")], "The RoI is rounded to whole cells"),
        ([(CORNER, "int(corner * spatial_scale) - 0.5")], "The RoI's corners are cut to whole cells"),
        ([(CORNER, f"math.floor({CORNER})")], "The RoI's corners are cut to whole cells"),
        (
            [
                (Y, "round(y1 + i * bin_height) + (k + 0.5) / n * bin_cells(y1, i, bin_height)"),
                (X, "round(x1 + j * bin_width) + (k + 0.5) / n * bin_cells(x1, j, bin_width)"),
            ],
            "The borders of the bins are rounded",
        ),
        ([("(feature, y, x)", "(feature, round(y), round(x))")], "The samples are rounded to whole cells"),
        ([(CORNER, "corner * spatial_scale")], "Half a pixel off"),
        ([(CORNER, "corner * spatial_scale + 0.5")], "The half-pixel shift goes the wrong way"),
        ([(CORNER, "(corner - 0.5) * spatial_scale")], "The half-pixel shift is made in image pixels"),
        (
            [(CORNER, "corner * spatial_scale"), (BIN, "max(y2 - y1, 1) / h, max(x2 - x1, 1) / w")],
            "This is the legacy RoIAlign",
        ),
        ([(BIN, "max(y2 - y1, 1) / h, max(x2 - x1, 1) / w")], "RoIs smaller than a cell are stretched"),
        ([("x1, y1, x2, y2 =", "y1, x1, y2, x2 =")], "The RoI's columns are read with x and y swapped"),
        ([("(feature, y, x)", "(feature, x, y)")], "The map is read with x and y swapped"),
        ([("features[int(batch_index)]", "features[0]")], "The batch index is not heeded"),
        ([("features[int(batch_index)]", "features[r]")], "The batch index is not heeded"),
        ([("(batch_index, *corners)", "(*corners, batch_index)")], "The RoI's columns are read from the wrong end"),
        ([(BIN, "y2 / h, x2 / w")], "The last two columns of a RoI are read as width and height"),
        ([(CORNER, "corner - 0.5")], "The RoI is still in image pixels"),
        ([(CORNER, "corner / spatial_scale - 0.5")], "spatial_scale is applied the wrong way round or twice"),
        ([(BIN, "(y2 - y1 + 1) / h, (x2 - x1 + 1) / w")], "The RoI is one pixel too large"),
        ([("(i + (k", "((k"), ("(j + (k", "((k")], "All bins of a RoI lie at its first bin"),
        ([(BIN, "(y2 - y1) / w, (x2 - x1) / h")], "The bins' height and width are divided by the wrong one"),
        ([("y1 + (i", "(i"), ("x1 + (j", "(j")], "The bins are laid out from the map's first cell"),
        ([("(k + 0.5) / n", "k / n")], "The samples start at a bin's edge"),
        ([("(k + 0.5) / n", "(k + 1) / (n + 1)")], "The samples lie too close together"),
        ([("w), n = output_size, sampling_ratio", "w), n = output_size, 1")], "There is only one sample in each bin"),
        ([("w), n = output_size, sampling_ratio", "w), n = output_size, 2")], "There are always two samples"),
        (
            [("for y in ys for x in xs", "for y, x in zip(ys, xs)"), ("n**2", "n")],
            "The samples lie on a bin's diagonal",
        ),
        ([(" / n**2", "")], "The samples of a bin are added up"),
        ([("n**2", "n")], "The samples of a bin are added up"),
        ([("sum(samples) / n**2", "max(samples)")], "Each bin takes its largest sample"),
        ([("(h, w), n", "(w, h), n")], "output_size is read as (w, h)"),
        (
            [("h, w)\n", "w, h)\n"), ("i, j]", "j, i]")],
            "a result of shape (1, 1, 3, 2) should be of shape (1, 1, 2, 3)",
        ),
        (
            [("h, w)\n", "w, h)\n"), ("r, c, i, j]", "r, c, j, i]")],
            "Your values are right, but the axes come in another",
        ),
        ([("features.new_zeros(", "torch.zeros(")], "All 12 cases, worked and random, agree"),
        ([("return output", "return output.double()")], "the result is of torch.float64"),
        ([("return output", "return output[:, 0]")], "the result has shape"),
        ([("sum(samples)", "sum(sample)")], "it raises NameError (name 'sample' is not defined)"),
        ([("for r, (batch", "rois[:, 1:] *= 1.5\n    for r, (batch")], "Your function changes its argument rois"),
    ],
)
def test_a_slip_in_roi_align_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("roi_align", changed(answers.roi_align, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


@pytest.mark.parametrize(
    ("name", "both", "hints"),
    [
        (
            "bilinear_sample",
            [(FAR, "False"), (BLEND, "feature[round(y), round(x)]")],
            ("A rounding is left in", "The rule for positions far outside is missing"),
        ),
        (
            "bilinear_sample",
            [(SHARES, "down, along = top + 1 - y, left + 1 - x"), (FAR, "y < 0 or y > H - 1 or x < 0 or x > W - 1")],
            ("Your value is 0 as soon", "The shares go to the wrong neighbours"),
        ),
        (
            "roi_align",
            [("features[int(batch_index)]", "features[0]"), ("sum(samples) / n**2", "max(samples)")],
            ("Each bin takes its largest sample", "The batch index is not heeded"),
        ),
    ],
)
def test_of_two_mistakes_one_is_told_at_a_time(name: str, both: list[tuple[str, str]], hints: tuple[str, str]) -> None:
    answer = getattr(answers, name)
    first = check(name, changed(answer, *both)).message
    assert first.startswith(hints)
    assert first.endswith("something else is left.")
    remaining = [check(name, changed(answer, change)).message for change in both]
    assert all(message.startswith(hints) for message in remaining)
    assert remaining[0] != remaining[1]
