"""The exercise of lesson 08: right answers pass, and each mistake is told as what it is."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rcnn_edu.classroom import check
from rcnn_edu.classroom.checks import Case
from rcnn_edu.classroom.lesson_08_merge import MERGE, compare_detections, merge
from rcnn_edu.models.multi_scale import mirror
from rcnn_edu.ops import box_iou
from tests.classroom import answers_08 as answers
from tests.classroom.changes import changed


def cases() -> list[Case]:
    return [*MERGE.worked, *MERGE.random(torch.Generator().manual_seed(0))]


@pytest.mark.parametrize("answer", [answers.with_a_list, answers.mirrored_first, answers.by_hand])
def test_right_answers_pass(answer: Callable[..., Any]) -> None:
    verdict = check("merge", answer)
    assert verdict.message == "All 15 cases, worked and random, agree with the reference."
    assert verdict.passed
    assert verdict.function is answer


def test_the_untouched_stub_gets_a_pointer() -> None:
    verdict = check("merge", answers.stub)
    assert verdict.message.startswith("Your function returns nothing yet. Begin with a single view")
    assert (verdict.passed, verdict.begun) == (False, False)
    assert verdict.function is merge


def test_the_solution_is_short_enough_to_read() -> None:
    assert len(inspect.getsource(answers.with_a_list).splitlines()) <= 16


@pytest.mark.parametrize(
    ("what", "boxes", "labels"),
    [
        ("one view at scale 1", [[60, 10, 90, 50], [10, 20, 30, 60]], [2, 1]),  # the better one first
        ("one view at scale 2", [[12, 20, 30, 60], [70, 75, 90, 95]], [1, 1]),
        ("one mirrored view", [[58, 10, 88, 50], [10, 20, 30, 64]], [2, 1]),
        ("a mirrored view at scale 0.5", [[10, 20, 30, 60], [76, 60, 96, 90]], [1, 3]),
        ("two views that see one object twice", [[60, 10, 90, 50], [12, 20, 30, 60], [70, 75, 90, 95]], [2, 1, 1]),
        ("two classes in one place", [[60, 10, 90, 50], [10, 20, 30, 60], [10, 20, 30, 60]], [2, 1, 3]),
        ("a view that sees nothing", [[60, 10, 90, 50], [10, 20, 30, 60]], [2, 1]),
    ],
)
def test_the_worked_cases_by_hand(what: str, boxes: list[list[float]], labels: list[int]) -> None:
    (case,) = [case for case in MERGE.worked if case.what == what]
    found = merge(**case.arguments)
    assert found["boxes"].tolist() == boxes
    assert found["labels"].tolist() == labels


def test_four_views_of_two_objects_give_each_once() -> None:
    (case,) = [case for case in MERGE.worked if case.what == "four views"]
    assert merge(**case.arguments)["scores"].tolist() == pytest.approx([0.9, 0.8, 0.6, 0.3])


def test_no_case_hangs_on_a_rounding() -> None:
    for case in cases():
        views, width, iou_thresh, _ = case.arguments.values()
        boxes = [view["boxes"] / view["scale"] for view in views]
        boxes = [mirror(b, (100, width)) if v["flipped"] else b for b, v in zip(boxes, views, strict=True)]
        iou = box_iou(torch.cat(boxes), torch.cat(boxes))
        assert (iou - iou_thresh).abs().min() > 1e-3, case.what
        scores = torch.cat([view["scores"] for view in views]).sort().values
        assert scores.diff().min() > 5e-4, case.what


# Mistakes, made as a learner makes them: in the solution's own text


DIVIDED = 'view["boxes"] / view["scale"]'
STACK = "[width - x2, y1, width - x1, y2]"
KEEP = "batched_nms(boxes, scores, labels, iou_thresh)[:max_detections]"
BEFORE = (
    "    keep = batched_nms",
    "    best = scores.argsort(descending=True)[:max_detections]\n"
    "    boxes, scores, labels = boxes[best], scores[best], labels[best]\n    keep = batched_nms",
)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([(DIVIDED, 'view["boxes"]')], "Boxes stay in the pixels of their view"),
        ([(DIVIDED, 'view["boxes"] * view["scale"]')], "Boxes are multiplied by the scale"),
        ([('if view["flipped"]', "if False")], "Boxes of a mirrored view are not mirrored back"),
        ([(STACK, "[width - 1 - x2, y1, width - 1 - x1, y2]")], "Boxes of a mirrored view come back one pixel too far"),
        ([(STACK, "[width - x1, y1, width - x2, y2]")], "Mirrored boxes end before they begin"),
        ([('if view["flipped"]', "if True")], "Every view is mirrored back"),
        (
            [(DIVIDED, 'view["boxes"]'), ("restored.append(boxes)", 'restored.append(boxes / view["scale"])')],
            "The two steps of the way back are of different frames",
        ),
        (
            [(STACK, '[width * view["scale"] - x2, y1, width * view["scale"] - x1, y2]')],
            "The two steps of the way back are of different frames",
        ),
        ([(KEEP, "scores.argsort(descending=True)[:max_detections]")], "Copies are left"),
        ([(KEEP, "batched_nms(boxes, scores, labels * 0, iou_thresh)[:max_detections]")], "Boxes of different classes"),
        ([("labels, iou_thresh)", "labels, 0.5)")], "The threshold is always 0.5"),
        ([("[:max_detections]", "")], "There are more detections than max_detections"),
        ([("[:max_detections]", "[:100]")], "There are more detections than max_detections"),
        ([BEFORE], "The best are picked before copies are gone"),
        ([(KEEP, f"{KEEP}.sort().values")], "The detections come in the order of the views"),
        ([('"labels": labels[keep]', '"labels": labels')], "Boxes and scores are chosen, but the labels are not"),
        (
            [('{"boxes": boxes[keep]', '{"boxes": torch.cat([view["boxes"] for view in views])[keep]')],
            "The right boxes are chosen, but the answer has them in their views' pixels",
        ),
        ([('"labels": labels[keep], ', "")], "a dict with ['boxes', 'scores'] where a dict with boxes, labels and"),
        ([("    return {", "    return boxes\n    return {")], "it returns a value of type Tensor where a dict with"),
        ([(f"boxes = {DIVIDED}", f'view["boxes"] /= view["scale"]\n        boxes = {DIVIDED[:13]}')], "Your function"),
        ([("[keep], ", "[keep].tolist(), ")], "All 15 cases, worked and random, agree"),
        ([('"scores": scores[keep]', '"scores": scores[keep] / 2')], "of scores, the result is off by up to 0.45"),
        ([("restored.append(boxes)", "restored = [boxes]")], "it raises"),
    ],
)
def test_a_slip_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("merge", changed(answers.with_a_list, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


BOXES = [[0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 5.0, 5.0]]


@pytest.mark.parametrize(
    ("got", "fault"),
    [
        ({"boxes": BOXES, "labels": [1, 2], "scores": [0.9, 0.5]}, None),
        ({"boxes": BOXES, "labels": torch.tensor([1.0, 2.0]), "scores": [0.9, 0.5], "masks": None}, None),
        ({"boxes": BOXES, "labels": [1, 1], "scores": [0.9, 0.5]}, "of labels, the result is off by up to 1"),
        ({"boxes": BOXES[::-1], "labels": [2, 1], "scores": [0.5, 0.9]}, "the detections do not come best first"),
        ({"boxes": BOXES[:1], "labels": [1], "scores": [0.9]}, "it has 1 detections, and another number is expected"),
        ({"boxes": BOXES, "labels": [1], "scores": [0.9, 0.5]}, "are of shapes (2, 4), (1,), (2,): each detection"),
        ({"boxes": [3.0, 4.0], "labels": [1, 2], "scores": [0.9, 0.5]}, "of boxes, the result has shape (2,)"),
        ({"boxes": ["a"], "labels": [1, 2], "scores": [0.9, 0.5]}, "are not three tensors"),
        ({"boxes": BOXES, "labels": [1, 2]}, "a dict with ['boxes', 'labels'] where a dict"),
        ((BOXES, [1, 2], [0.9, 0.5]), "a value of type tuple where a dict"),
    ],
)
def test_detections_are_compared_in_plain_words(got: Any, fault: str | None) -> None:
    expected = {"boxes": torch.tensor(BOXES), "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.5])}
    found = compare_detections(expected, got)
    assert (found is None) if fault is None else (found is not None and fault in found)
