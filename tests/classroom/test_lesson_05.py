"""The exercises of lesson 05: right answers pass, and each mistake is told as what it is."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rcnn_edu import ops
from rcnn_edu.classroom import check
from rcnn_edu.classroom.lesson_05_mask_loss import MASK_LOSS, compare_losses
from rcnn_edu.classroom.lesson_05_paste_masks import PASTE_MASKS
from tests.classroom import answers_05 as answers
from tests.classroom.changes import changed


@pytest.mark.parametrize(
    ("exercise", "answer", "cases"),
    [
        ("mask_loss", answers.mask_loss, 10),
        ("mask_loss", answers.loss_with_a_loop, 10),
        ("mask_loss", answers.loss_with_gather, 10),
        ("paste_masks", answers.paste_masks, 11),
        ("paste_masks", answers.paste_with_grid_sample, 11),
        ("paste_masks", answers.paste_with_numpy, 11),
    ],
)
def test_right_answers_pass(exercise: str, answer: Callable[..., Any], cases: int) -> None:
    verdict = check(exercise, answer)
    assert verdict.message == f"All {cases} cases, worked and random, agree with the reference."
    assert verdict.passed
    assert verdict.function is answer


@pytest.mark.parametrize(
    ("exercise", "stub", "pointer", "reference"),
    [
        ("mask_loss", answers.mask_loss_stub, "Begin with one RoI: which channel", ops.mask_loss),
        ("paste_masks", answers.paste_masks_stub, "Begin with one mask and one row of pixels", ops.paste_masks),
    ],
)
def test_the_untouched_stubs_get_a_pointer(
    exercise: str, stub: Callable[..., Any], pointer: str, reference: Callable[..., Any]
) -> None:
    verdict = check(exercise, stub)
    assert verdict.message.startswith(f"Your function returns nothing yet. {pointer}")
    assert (verdict.passed, verdict.begun) == (False, False)
    assert verdict.function is reference


@pytest.mark.parametrize("answer", [answers.mask_loss, answers.paste_masks])
def test_the_solutions_are_short_enough_to_read(answer: Callable[..., Any]) -> None:
    assert len(inspect.getsource(answer).splitlines()) <= 15


def test_the_first_loss_by_hand() -> None:
    """The lesson's table: 0.127 + 0.313 + 0.693 + 1.313 over four cells."""
    first, *_, empty = MASK_LOSS.worked
    assert ops.mask_loss(*first.arguments.values()).item() == pytest.approx(2.446 / 4, abs=1e-3)
    nothing = ops.mask_loss(*empty.arguments.values())
    assert (nothing.item(), nothing.requires_grad) == (0, True)


def test_the_first_paste_by_hand() -> None:
    first = PASTE_MASKS.worked[0]
    assert ops.paste_masks(*first.arguments.values())[0].tolist() == [
        [0] * 7,
        [0, 0, 0.25, 0.75, 0.75, 0.25, 0],
        [0] * 7,
    ]


# Mistakes, made as a learner makes them: in the solution's own text


CHOSEN = "mask_logits[torch.arange(len(labels)), labels - 1]"
CELLS = "F.binary_cross_entropy_with_logits(chosen, mask_targets, reduction="


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([("labels - 1", "labels")], "The channel is off by one"),
        ([(CHOSEN, "mask_logits"), ("mask_targets, r", "mask_targets[:, None].expand_as(chosen), r")], "All channels"),
        ([(CHOSEN, "mask_logits[:, 0]")], "One channel serves all classes"),
        ([(CHOSEN, "mask_logits.max(dim=1).values")], "The channel with the largest logit"),
        ([("(chosen, mask", "(chosen.sigmoid(), mask")], "The sigmoid is applied twice"),
        ([("_with_logits(chosen", "(chosen.sigmoid()")], "The logarithm is taken of a probability"),
        ([("_with_logits(chosen", "(mask_logits.softmax(1)[range(len(labels)), labels - 1]")], "There is a softmax"),
        ([("max(1, chosen.numel())", "chosen.numel()")], "the mean of no pixels is NaN"),
        ([('"sum"', '"mean"'), (" / max(1, chosen.numel())", "")], "the mean of no pixels is NaN"),
        ([(" / max(1, chosen.numel())", "")], "The loss is a sum over pixels"),
        ([("chosen.numel()", "len(chosen)")], "The loss is a sum over pixels"),
        ([("mask_targets, r", "mask_targets.round(), r")], "The targets are rounded to 0 and 1"),
        ([("mask_targets, r", "1 - mask_targets, r")], "The targets are turned round"),
        (
            [(CELLS, "F.mse_loss(chosen.sigmoid(), mask_targets, reduction=")],
            "The difference of probability and target",
        ),
        (
            [("    total", "    if len(labels) == 0:\n        return torch.tensor(0.0)\n    total")],
            "the 0 is a new one, without a graph",
        ),
        ([("    total", "    if len(labels) == 0:\n        return 0.0\n    total")], "the 0 is a new one, without a"),
        ([("return total", "return total.detach()")], "it has lost its graph"),
        ([("return total / max(1, chosen.numel())", "return (total / max(1, chosen.numel())).item()")], "its graph"),
        ([("    total", "    labels -= 1\n    total")], "Your function changes its argument labels"),
        ([("return total", "return -total")], "Every value is -1 times what it should be"),
        ([("chosen, mask", "mask_logits, mask")], "it raises ValueError"),
        ([("return total / max(1, chosen.numel())", "return None")], "Your function returns nothing yet"),
    ],
)
def test_a_slip_in_the_loss_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("mask_loss", changed(answers.mask_loss, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


def test_classes_that_compete_are_diagnosed() -> None:
    def compete(mask_logits: Tensor, labels: Tensor, mask_targets: Tensor) -> Tensor:
        goal = torch.zeros_like(mask_logits)
        goal[range(len(labels)), labels - 1] = mask_targets
        return F.binary_cross_entropy_with_logits(mask_logits, goal, reduction="sum") / max(1, mask_logits.numel())

    assert check("mask_loss", compete).message.startswith("The other classes' masks learn to be empty")


@pytest.mark.parametrize(
    ("got", "fault"),
    [
        (torch.tensor(0.5, requires_grad=True), None),
        (torch.tensor([0.5], requires_grad=True), None),
        (torch.tensor(0.5), "no gradient leads"),
        (0.5, "no gradient leads"),
        (np.float32(0.5), "no gradient leads"),
        (torch.tensor(0.6, requires_grad=True), "off by 0.1"),
        (torch.tensor(float("nan"), requires_grad=True), "NaN"),
        (torch.zeros(2), "shape (2,)"),
    ],
)
def test_losses_are_compared_with_their_graph(got: Any, fault: str | None) -> None:
    found = compare_losses(torch.tensor(0.5, requires_grad=True), got)
    assert (found is None) if fault is None else (found is not None and fault in found)


X, Y = "(torch.arange(W) + 0.5 - x1) * w / (x2 - x1) - 0.5", "(torch.arange(H) + 0.5 - y1) * h / (y2 - y1) - 0.5"
START = "    n, h, w = mask_probs.shape\n"


def both(before: str, after: str) -> list[tuple[str, str]]:
    return [
        (before, after),
        (before.translate(str.maketrans("xWw", "yHh")), after.translate(str.maketrans("xWw", "yHh"))),
    ]


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        (both("(W) + 0.5", "(W)"), "Half a pixel off"),
        (both(" / (x2 - x1) - 0.5", " / (x2 - x1)"), "Half a cell off"),
        (
            [(X, "(torch.arange(W) - x1) * w / (x2 - x1)"), (Y, "(torch.arange(H) - y1) * h / (y2 - y1)")],
            "Pixels and cel",
        ),
        (both("* w / (x2 - x1) - 0.5", "* (w - 1) / (x2 - x1)"), "The outer cells' centres are put on the sides"),
        (both("/ (x2 - x1)", "/ (x2 - x1 + 1)"), "The box is one pixel too large"),
        ([("boxes.tolist()", "boxes.round().tolist()")], "The box is rounded to whole pixels"),
        ([("boxes.tolist()", "boxes.int().tolist()")], "The box is rounded to whole pixels"),
        ([("boxes.tolist()", "(boxes.int() + torch.tensor([0, 0, 1, 1])).tolist()")], "The box is cut to whole pixels"),
        ([("(y[:, None]", "(y.clamp(0, h - 1)[:, None]"), ("(x[:, None]", "(x.clamp(0, w - 1)[:, None]")], "reach out"),
        ([("y1, x2, y2", "x1, y2, x2"), ("(x1,", "(y1,")], "The box is read with x and y swapped"),
        ([("mask_probs[i]", "mask_probs[i].sigmoid()")], "The masks are probabilities already"),
        ([("return pasted", "return (pasted >= 0.5).float()")], "The result is cut to 0 and 1"),
        ([("H, W = image_size", "W, H = image_size")], "image_size is read as (W, H)"),
        (
            [(START, START + "    boxes = boxes.clamp(min=0).minimum(torch.tensor(image_size * 2)[[1, 0, 3, 2]])\n")],
            "A box that reaches over the border is clipped",
        ),
        ([("return pasted", "return pasted.sum(0)")], "the result has shape (3, 7) where (1, 3, 7)"),
        ([("return pasted", "return pasted[:, None]")], "the result has shape (1, 1, 3, 7) where (1, 3, 7)"),
        ([(START, START + "    boxes += 0.5\n")], "Your function changes its argument boxes"),
        ([("    return pasted\n", "    return None\n")], "Your function returns nothing yet"),
        ([("return pasted", "return pasted.double()")], "the result is of torch.float64"),
    ],
)
def test_a_slip_in_the_paste_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("paste_masks", changed(answers.paste_masks, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([("align_corners=False", "align_corners=True")], "The outer cells' centres are put on the sides"),
        ([("align_corners=False", 'align_corners=False, padding_mode="border"')], "The outer cells reach out over"),
        ([("align_corners=False", 'align_corners=False, mode="nearest"')], "Each pixel takes the value of the cell"),
        ([("W) + 0.5", "W)"), ("H) + 0.5", "H)")], "Half a pixel off"),
        ([("x1, y1, x2, y2 = boxes", "y1, x1, y2, x2 = boxes")], "The box is read with x and y swapped"),
    ],
)
def test_a_slip_with_grid_sample_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("paste_masks", changed(answers.paste_with_grid_sample, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message
