"""The exercises of lesson 09: right answers pass, and each mistake is told as what it is."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rcnn_edu.classroom import check
from rcnn_edu.classroom.checks import Case
from rcnn_edu.classroom.lesson_09_match_detections import MATCH_DETECTIONS, compare_flags, match_detections
from rcnn_edu.classroom.lesson_09_precision_at_recalls import (
    PRECISION_AT_RECALLS,
    RECALLS,
    compare_curves,
    precision_at_recalls,
)
from rcnn_edu.training import evaluate_results
from tests.classroom import answers_09 as answers
from tests.classroom.changes import changed


def cases(exercise: Any) -> list[Case]:
    return [*exercise.worked, *exercise.random(torch.Generator().manual_seed(0))]


# Matching


@pytest.mark.parametrize("answer", [answers.match_with_a_loop, answers.match_in_plain_python, answers.match_with_numpy])
def test_right_matchings_pass(answer: Callable[..., Any]) -> None:
    verdict = check("match_detections", answer)
    assert verdict.message == "All 14 cases, worked and random, agree with the reference."
    assert verdict.passed
    assert verdict.function is answer


def test_the_untouched_stubs_get_pointers() -> None:
    verdict = check("match_detections", answers.match_stub)
    assert verdict.message.startswith("Your function returns nothing yet. Begin with one object and two detections")
    assert (verdict.passed, verdict.begun) == (False, False)
    assert verdict.function is match_detections
    verdict = check("precision_at_recalls", answers.precision_stub)
    assert verdict.message.startswith("Your function returns nothing yet. Begin with the order")
    assert (verdict.passed, verdict.begun) == (False, False)
    assert verdict.function is precision_at_recalls


def test_the_solutions_are_short_enough_to_read() -> None:
    for solution in (answers.match_with_a_loop, answers.precision_with_tensors):
        assert len(inspect.getsource(solution).splitlines()) <= 12


@pytest.mark.parametrize(
    ("what", "right"),
    [
        ("one detection on one object", [True]),
        ("two detections on one object", [True, False]),
        ("two detections on one object, the better one last", [False, True]),
        ("two objects side by side", [True, True, False]),  # the second takes what is left, at 0.6
        ("a detection that overlaps two objects enough", [True, True]),  # the first takes the second object
        ("an IoU of exactly the threshold", [True, False]),
        ("a stricter threshold", [True, False]),
        ("an image without objects", [False, False]),
        ("an image without detections", []),
    ],
)
def test_the_worked_matchings_by_hand(what: str, right: list[bool]) -> None:
    (case,) = [case for case in MATCH_DETECTIONS.worked if case.what == what]
    assert match_detections(*case.arguments.values()).tolist() == right


def test_no_matching_hangs_on_a_tie() -> None:
    for case in cases(MATCH_DETECTIONS):
        scores, iou, _ = case.arguments.values()
        assert len(scores.unique()) == len(scores), case.what
        assert all(len(row.unique()) == len(row) for row in iou), case.what


def test_the_matching_is_pycocotools_s() -> None:
    """And the curve with it, at all ten thresholds: two objects that overlap, and one apart."""
    objects = [[0, 0, 10, 10], [4, 0, 10, 10], [40, 40, 10, 10]]  # x, y, width, height
    boxes = [[1, 0, 10, 10], [1.5, 0, 10, 10], [3, 0, 10, 10], [41, 40, 10, 10], [70, 70, 5, 5]]
    scores = [0.6, 0.9, 0.8, 0.7, 0.95]
    coco = {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": bbox, "area": 100, "iscrowd": 0} for bbox in objects],
    }
    results = [
        {"image_id": 1, "category_id": 1, "bbox": bbox, "score": score}
        for bbox, score in zip(boxes, scores, strict=True)
    ]
    accuracy = evaluate_results(results, coco)["bbox"]
    corners = [torch.tensor(rows).float() for rows in (boxes, objects)]
    left, right = (torch.cat([rows[:, :2], rows[:, :2] + rows[:, 2:]], dim=1) for rows in corners)
    shared = (torch.minimum(left[:, None, 2:], right[:, 2:]) - torch.maximum(left[:, None, :2], right[:, :2])).clamp(0)
    both = shared.prod(dim=2)
    iou = both / ((left[:, None, 2:] - left[:, None, :2]).prod(2) + 100 - both)
    for row, threshold in enumerate(accuracy.per_threshold):
        flags = match_detections(torch.tensor(scores), iou, threshold)
        curve = precision_at_recalls(torch.tensor(scores), flags, len(objects))
        np.testing.assert_allclose(curve.numpy(), accuracy.precision[row, 0], atol=1e-12)


SORTED = "scores.argsort(descending=True)"
REACHES = "overlap.max() >= iou_thresh"
FREE = "torch.where(free, iou[index], 0)"


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([("            free[overlap.argmax()] = False\n", "")], "Several detections find the same object"),
        ([(SORTED, "torch.arange(len(scores))")], "The detections choose in the order of the list"),
        ([(SORTED, "scores.argsort()")], "The worst score chooses first"),
        (
            [
                (SORTED, "iou.amax(1).argsort(descending=True)"),
                ("    for", "    if iou.numel() == 0: return right\n    for"),
            ],
            "The detection that overlaps an object most gets it",
        ),
        (
            [(FREE, "iou[index]"), ("free.any() and ", "free.any() and free[overlap.argmax()] and ")],
            "A detection whose favourite object is taken gives up",
        ),
        (
            [("overlap.argmax()", "(overlap >= iou_thresh).int().argmax()")],
            "A detection takes the first free object that it overlaps enough",
        ),
        ([(REACHES, "overlap.max() > iou_thresh")], "An IoU of exactly iou_thresh does not count"),
        ([(REACHES, "overlap.max() >= 0.5")], "The IoU that a match needs is always 0.5"),
        ([("return right", f"return right[{SORTED}]")], "The answers come in the order of the scores"),
        ([("free.any() and ", "")], "An image without objects is not provided for"),
        (
            [("dtype=torch.bool)\n    free", "dtype=torch.long) - 1\n    free"), ("] = True", "] = overlap.argmax()")],
            "The result holds the numbers of the objects",
        ),
        ([("return right", "return right.any()")], "the result has shape () where (1,) is expected"),
        ([("return right", "return right[:1]")], "the result has shape (1,) where (2,) is expected"),
        ([("return right", "return right.long()")], "All 14 cases, worked and random, agree"),
        ([("return right", "return ~right")], "For one detection on one object, 1 of 1 answers are wrong"),
        ([("    for index", "    iou *= 2\n    for index")], "Your function changes its argument iou"),
    ],
)
def test_a_slip_in_the_matching_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("match_detections", changed(answers.match_with_a_loop, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


@pytest.mark.parametrize(
    ("got", "fault"),
    [
        ([True, False], None),
        (np.array([1, 0]), None),
        (torch.tensor([1.0, 0.0]), None),
        ([True, True], "1 of 2 answers are wrong, the first that on detection 1, to you right"),
        (torch.tensor([3, 0]), "1 of 2 answers are wrong, the first that on detection 0, to you 3"),
        ([True], "the result has shape (1,) where (2,) is expected"),
        ([None, True], "a list of something else"),
        ("yes, no", "it returns a value of type str"),
    ],
)
def test_flags_are_compared_by_what_they_mean(got: Any, fault: str | None) -> None:
    found = compare_flags(torch.tensor([True, False]), got)
    assert (found is None) if fault is None else (found is not None and fault in found)


# The curve


@pytest.mark.parametrize(
    "answer",
    [
        answers.precision_with_tensors,
        answers.precision_with_loops,
        answers.precision_with_numpy,
        answers.precision_as_a_matrix,
    ],
)
def test_right_curves_pass(answer: Callable[..., Any]) -> None:
    verdict = check("precision_at_recalls", answer)
    assert verdict.message == "All 12 cases, worked and random, agree with the reference."
    assert verdict.function is answer


@pytest.mark.parametrize(
    ("what", "average"),
    [
        ("one detection, right, on the only object", 1.0),
        # Precision 1, 1/2, 2/3 at recalls 1/3, 1/3, 2/3: 1 up to 0.33, 2/3 up to 0.66, then nothing.
        ("three detections, of which the second is wrong", (34 * 1 + 33 * 2 / 3) / 101),
        ("the same three in another order", (34 * 1 + 33 * 2 / 3) / 101),
        ("a wrong one that scores the most", 67 * (2 / 3) / 101),
        ("objects that nobody finds", 29 / 101),  # two of seven: recalls up to 0.28
        ("nothing right", 0.0),
        ("no detections at all", 0.0),
    ],
)
def test_the_worked_curves_by_hand(what: str, average: float) -> None:
    (case,) = [case for case in PRECISION_AT_RECALLS.worked if case.what == what]
    curve = precision_at_recalls(*case.arguments.values())
    assert curve.shape == (101,)
    assert float(curve.mean()) == pytest.approx(average)


def test_the_recalls_are_pycocotools_s() -> None:
    assert RECALLS.tolist() == np.linspace(0.0, 1.0, 101).tolist()


def test_no_curve_hangs_on_a_rounding() -> None:
    for case in cases(PRECISION_AT_RECALLS):
        scores, right, num_objects = case.arguments.values()
        assert len(scores.unique()) == len(scores), case.what
        assert right.sum() <= num_objects, case.what
        for hits in range(1, num_objects):  # a recall is a hundredth only where that is exact in binary
            share = 100 * hits / num_objects
            assert abs(share - round(share)) > 0.01 or round(share) % 25 == 0, case.what


ORDER = "[scores.argsort(descending=True)]"
BEST = "precision.flip(0).cummax(0).values.flip(0)"
PLACE = "    return torch.cat([best, torch.zeros(1)])[place]\n"


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([(ORDER, "")], "The detections are taken as they come"),
        ([("descending=True", "")], "The worst score comes first"),
        ([(BEST, "precision")], "The precision at a recall is the one of the moment"),
        ([(BEST, "precision.cummax(0).values")], "The curve is made monotone from the wrong side"),
        ([("hits / num_objects", "hits / right.sum().clamp(min=1)")], "Recall is counted against the objects that"),
        ([("hits / num_objects", "hits / len(hits)")], "Recall is counted against the detections"),
        (
            [
                ("precision = hits / torch.arange(1, len(hits) + 1)", "recall = hits / torch.arange(1, len(hits) + 1)"),
                ("recall = hits / num_objects", "precision = hits / num_objects"),
            ],
            "Precision and recall look swapped",
        ),
        (
            [(PLACE, "    return best[place.clamp(max=len(best) - 1)] if len(best) else best.new_zeros(101)\n")],
            "the last",
        ),
        (
            [(PLACE, "    return best[place[place < len(best)]] if len(best) else best.new_zeros(101)\n")],
            "are left out",
        ),
        (
            [("dtype=torch.float64))", "dtype=torch.float64), right=True)")],
            "A recall that is reached exactly is passed",
        ),
        ([("linspace(0, 1, 101", "linspace(0, 1, 11")], "These are the 11 recalls of PASCAL VOC 2007"),
        ([("[place]\n", "[place].mean()\n")], "A single number is returned, the average"),
        (
            [
                (
                    "    return torch.cat([best, torch.zeros(1)])[place]\n",
                    "    best[0]\n    return torch.cat([best, torch.zeros(1)])[place]\n",
                )
            ],
            "A class without a single detection is not provided for",
        ),
        ([("[place]\n", "[place] * 100\n")], "Every value is 100 times what it should be"),
        ([("double", "float"), ("float64", "float32")], "All 12 cases, worked and random, agree"),
    ],
)
def test_a_slip_in_the_curve_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("precision_at_recalls", changed(answers.precision_with_tensors, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


@pytest.mark.parametrize(
    ("got", "fault"),
    [
        ([1.0, 0.0], None),
        (np.array([1, 0], dtype=np.float32), None),
        (torch.tensor([1.0, 0.0]), None),
        ([1.0], "the result has shape (1,) where (2,) is expected"),
        ([[1.0], None], "a list of something else than numbers"),
        (None, "it returns None"),
    ],
)
def test_curves_are_compared_by_their_values(got: Any, fault: str | None) -> None:
    found = compare_curves(torch.tensor([1.0, 0.0], dtype=torch.float64), got)
    assert (found is None) if fault is None else (found is not None and fault in found)
