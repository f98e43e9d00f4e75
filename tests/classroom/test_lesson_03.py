"""The exercise of lesson 03: right answers pass, and each mistake is told as what it is."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rcnn_edu import ops
from rcnn_edu.classroom import check
from rcnn_edu.classroom.checks import Case
from rcnn_edu.classroom.lesson_03_assign_anchors_to_gt import ASSIGN_ANCHORS_TO_GT, compare_assignments
from tests.classroom import answers_03 as answers
from tests.classroom.changes import changed


def cases() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    return [*ASSIGN_ANCHORS_TO_GT.worked, *ASSIGN_ANCHORS_TO_GT.random(generator)]


@pytest.mark.parametrize("answer", [answers.with_a_loop, answers.with_matrices, answers.with_numpy])
def test_right_answers_pass(answer: Callable[..., Any]) -> None:
    verdict = check("assign_anchors_to_gt", answer)
    assert verdict.message == "All 17 cases, worked and random, agree with the reference."
    assert verdict.passed
    assert verdict.function is answer


def test_the_untouched_stub_gets_a_pointer() -> None:
    verdict = check("assign_anchors_to_gt", answers.stub)
    assert verdict.message.startswith("Your function returns nothing yet. Begin with the IoUs of all pairs")
    assert (verdict.passed, verdict.begun) == (False, False)
    assert verdict.function is ops.assign_anchors_to_gt


def test_the_solution_is_short_enough_to_read() -> None:
    assert len(inspect.getsource(answers.with_a_loop).splitlines()) <= 20


@pytest.mark.parametrize(
    ("what", "labels"),
    [
        ("one object", [1, 1, -1, 0, 0]),  # IoU 1, 0.8, 0.5, 1/7 and 0
        ("a second object, which only one anchor touches", [1, 1, -1, 0, 1]),
        ("IoUs of exactly the thresholds", [1, 1, -1]),
        ("two anchors that tie", [1, 1, 0]),
        ("two anchors that tie but for the last bit", [1, 1]),
        ("an object that no anchor touches", [1, 1, -1, 0, 0]),
        ("a small object beside a large one", [1, 1, 1]),
        ("a positive anchor that is another object's best", [1, 1]),
        ("an image without objects", [0, 0, 0, 0, 0]),
    ],
)
def test_the_worked_cases_by_hand(what: str, labels: list[int]) -> None:
    (case,) = [case for case in ASSIGN_ANCHORS_TO_GT.worked if case.what == what]
    assert ops.assign_anchors_to_gt(*case.arguments.values())[0].tolist() == labels


def test_no_case_has_an_anchor_that_is_the_best_of_two() -> None:
    """Which of the two it learns is the package's own choice: a learner's loop may choose otherwise."""
    for case in cases():
        iou = ops.box_iou(case.arguments["anchors"], case.arguments["gt_boxes"])
        if iou.numel():
            assert ((iou >= iou.amax(dim=0) - 1e-6) & (iou > 0)).sum(dim=1).max() <= 1, case.what


# Mistakes, made as a learner makes them: in the solution's own text


BEST = "(iou[:, j] >= iou[:, j].max() - 1e-6) & (iou[:, j] > 0)"
TOUCHES = " & (iou[:, j] > 0)"
LEARN = "        matched_gt_boxes[best] = gt_boxes[j]\n"
EMPTY = "    if len(gt_boxes) == 0:\n        return labels, matched_gt_boxes\n"


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([(TOUCHES, "")], "A ground truth that no anchor touches turns every anchor positive"),
        ([(BEST, "iou[:, j] == iou[:, j].max()")], "A ground truth that no anchor touches turns every anchor positive"),
        ([(LEARN, "")], "A rescued anchor is matched to the ground truth that it overlaps most itself"),
        ([("        labels[best] = 1\n", "")], "Some object's best anchor is not positive"),
        ([("range(len(gt_boxes))", "[]")], "Some object's best anchor is not positive"),
        ([(BEST, "iou[:, j].argmax()[None] if iou[:, j].max() > 0 else []")], "Only one anchor is rescued"),
        ([(BEST, "(iou[:, j] == iou[:, j].max()) & (iou[:, j] > 0)")], "Ties are found by comparing floats"),
        ([("best_iou >= pos", "best_iou > pos")], "An IoU of exactly a threshold ends up on the wrong side"),
        ([("best_iou >= neg", "best_iou > neg")], "An IoU of exactly a threshold ends up on the wrong side"),
        ([("best_iou >= neg_iou_thresh", "best_iou >= 0.3"), ("= pos_iou_thresh", "= 0.7")], "The thresholds are 0.7"),
        ([("] = -1", "] = 0")], "There is no ignored middle"),
        ([("] = -1", "] = 1")], "There is no ignored middle"),
        (
            [("best_iou >= neg_iou_thresh] = -1", "best_iou < neg_iou_thresh] = -1")],
            "Negative and ignored look swapped",
        ),
        (
            [
                (
                    "matched_gt_boxes = torch.zeros_like(anchors)",
                    "matched_gt_boxes = torch.zeros(len(anchors), dtype=torch.long)",
                ),
                ("gt_boxes[matched]", "matched"),
                ("= gt_boxes[j]", "= j"),
            ],
            "The second result holds the numbers of the ground truths",
        ),
        ([(BEST, "(iou[:, j] == best_iou) & (iou[:, j] > 0)")], "The best-anchor rule looks along the wrong axis"),
        ([(EMPTY, "")], "An image without objects is not provided for"),
        ([(BEST, f"{BEST} & (labels != 1)")], "An anchor that is positive anyway is left as it is"),
        ([(BEST, f"{BEST} & (iou[:, j] >= neg_iou_thresh)")], "An object whose best anchor overlaps it by less"),
        ([("return labels, matched_gt_boxes", "return labels")], "returns a value of type Tensor where two tensors"),
        ([("    return labels, matched_gt_boxes\n", "    return None\n")], "Your function returns nothing yet"),
        ([("gt_boxes[j]\n", "gt_boxes[0]\n")], "the labels are right, but not the positive anchors' boxes"),
        ([("    for j", "    labels = labels[:1]\n    for j")], "it raises IndexError"),
        ([("labels[best] = 1", "labels[best] = 2")], "5 labels are wrong, the first that of anchor 0, to you 2"),
        ([("dtype=torch.long", "dtype=torch.int32")], "All 17 cases, worked and random, agree"),
        ([("    for j", "    gt_boxes *= 2\n    for j")], "Your function changes its argument gt_boxes"),
    ],
)
def test_a_slip_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("assign_anchors_to_gt", changed(answers.with_a_loop, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


@pytest.mark.parametrize(
    ("got", "fault"),
    [
        ((torch.tensor([1, 0]), torch.tensor([[0.0, 0, 1, 1], [5, 5, 5, 5]])), None),  # a negative's box is free
        (
            (torch.tensor([True, False]), [[0.0] * 4] * 2),
            "the positive anchors' boxes: it returns a value of type list",
        ),
        ((torch.tensor([1, 0]), torch.zeros(2, 4)), "boxes: the result is off by up to 1, most at [0, 2]"),
        ((torch.tensor([1, 0, 0]), torch.zeros(3, 4)), "with the labels: the result has shape (3,) where (2,)"),
        ((torch.tensor([-1, 0]), torch.zeros(2, 4)), "1 of 2 labels are wrong, the first that of anchor 0, to you ign"),
        (("1, 0", torch.zeros(2, 4)), "with the labels: it returns a value of type str"),
        (torch.zeros(2), "two tensors are expected"),
    ],
)
def test_assignments_are_compared_where_they_mean_something(got: Any, fault: str | None) -> None:
    expected = torch.tensor([1, 0]), torch.tensor([[0.0, 0, 1, 1], [0, 0, 0, 0]])
    found = compare_assignments(expected, got)
    assert (found is None) if fault is None else (found is not None and fault in found)
