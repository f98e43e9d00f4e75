"""The exercise of lesson 07: right answers pass, and each mistake is told as what it is."""

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rcnn_edu.classroom import check
from rcnn_edu.classroom.checks import Case
from rcnn_edu.classroom.lesson_07_soft_nms import SOFT_NMS, compare_pairs, soft_nms
from rcnn_edu.ops import box_iou
from tests.classroom import answers_07 as answers
from tests.classroom.changes import changed


def cases() -> list[Case]:
    return [*SOFT_NMS.worked, *SOFT_NMS.random(torch.Generator().manual_seed(0))]


@pytest.mark.parametrize("answer", [answers.with_a_loop, answers.with_plain_numbers, answers.with_numpy])
def test_right_answers_pass(answer: Callable[..., Any]) -> None:
    verdict = check("soft_nms", answer)
    assert verdict.message == "All 12 cases, worked and random, agree with the reference."
    assert verdict.passed
    assert verdict.function is answer


def test_the_untouched_stub_gets_a_pointer() -> None:
    verdict = check("soft_nms", answers.stub)
    assert verdict.message.startswith("Your function returns nothing yet. Begin with two boxes")
    assert (verdict.passed, verdict.begun) == (False, False)
    assert verdict.function is soft_nms


def test_the_solution_is_short_enough_to_read() -> None:
    assert len(inspect.getsource(answers.with_a_loop).splitlines()) <= 16


@pytest.mark.parametrize(
    ("what", "keep", "new_scores"),
    [
        ("two boxes", [0, 1], [0.9, 0.3289]),  # 0.8 exp(-(2/3)^2 / 0.5)
        ("three boxes, of which the second falls behind the third", [0, 2, 1], [0.9, 0.5605, 0.2902]),
        ("three boxes, the best one last", [2, 1, 0], [0.9, 0.5605, 0.2902]),
        ("a box that falls below score_thresh", [0, 2], [0.9, 0.5605]),
        ("boxes that do not touch", [1, 0], [0.8, 0.6]),
        ("no boxes at all", [], []),
    ],
)
def test_the_worked_cases_by_hand(what: str, keep: list[int], new_scores: list[float]) -> None:
    (case,) = [case for case in SOFT_NMS.worked if case.what == what]
    kept, left = soft_nms(*case.arguments.values())
    assert kept.tolist() == keep
    assert left.tolist() == pytest.approx(new_scores, abs=1e-4)


def test_no_case_hangs_on_a_rounding() -> None:
    for case in cases():
        boxes, scores, sigma, score_thresh = case.arguments.values()
        keep, left = soft_nms(boxes, scores, sigma, 1e-9)
        values = sorted([*left.tolist(), score_thresh])
        assert min((b - a for a, b in itertools.pairwise(values)), default=1) > 1e-4, case.what
        iou = box_iou(boxes, boxes)
        assert all((iou - limit).abs().min() > 1e-4 for limit in (0.3, 0.5) if len(iou)), case.what
        assert len(keep) == len(boxes)


# Mistakes, made as a learner makes them: in the solution's own text


FACTOR = "torch.exp(-(iou[best] ** 2) / sigma)"
TAKEN = "        left[best] = 0  # taken\n"
SCORE = "float(left[best])"
ANSWER = "torch.tensor(keep, dtype=torch.long), torch.tensor(new_scores)"
IN_INPUT_ORDER = (
    "torch.tensor(sorted(keep), dtype=torch.long), torch.tensor([s for _, s in sorted(zip(keep, new_scores))])"
)
ORDERED = "order = scores.argsort(descending=True)\n    boxes, scores = boxes[order], scores[order]\n    iou = "


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([("(iou[best] ** 2)", "iou[best]")], "The overlap enters as it is"),
        ([("/ sigma", "/ sigma ** 2")], "This is the bell curve of the textbooks"),
        ([("/ sigma", "/ (2 * sigma ** 2)")], "This is the bell curve of the textbooks"),
        ([("/ sigma", "* sigma")], "Sigma is on the wrong side"),
        ([("exp(-(", "exp((")], "Scores rise with the overlap"),
        ([(FACTOR, f"(1 - {FACTOR})")], "The Gaussian is subtracted from 1"),
        ([(FACTOR, "(1 - iou[best])")], "This is the linear method"),
        ([(FACTOR, f"torch.where(iou[best] > 0.3, {FACTOR}, 1)")], "The decay begins only above a threshold"),
        ([(FACTOR, "(iou[best] <= 0.5)")], "This is plain NMS"),
        ([("/ sigma", "/ 0.5")], "Sigma is always 0.5"),
        ([("left = left *", "left = (left > 0) * scores *")], "Each decay begins at the first score again"),
        ([(SCORE, f"{SCORE} * math.exp(-1 / sigma)")], "The taken box decays as well"),
        ([("left.max() >= score_thresh", "left.max() > 0")], "No box is ever dropped"),
        ([("left.max() >= score_thresh", "left.max() >= 0.001")], "The cut is always at 0.001"),
        ([(SCORE, "float(scores[best])")], "The first scores are returned"),
        ([(ANSWER, IN_INPUT_ORDER)], "The boxes come in the order of the input"),
        ([("iou = ", ORDERED)], "keep counts within a list that was sorted or has shrunk"),
        ([(ANSWER, "torch.tensor(new_scores), torch.tensor(keep)")], "keep holds numbers that are no indices"),
        ([(ANSWER, "torch.tensor(keep)")], "returns a value of type Tensor where a pair (keep, new_scores)"),
        ([(ANSWER, "keep, new_scores")], "All 12 cases, worked and random, agree"),
        ([(ANSWER, "torch.tensor(keep), left")], "new_scores"),
        ([("left = left * ", "left *= "), ("scores.clone()", "scores")], "Your function changes its argument scores"),
        ([("len(left) and ", "")], "For no boxes at all, it raises"),
        (
            [("    return", "    new_scores = [0.5] * len(keep)\n    return")],
            "keep is right, but of new_scores the resul",
        ),
    ],
)
def test_a_slip_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("soft_nms", changed(answers.with_a_loop, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


def test_of_two_mistakes_one_is_told_at_a_time() -> None:
    both = (("(iou[best] ** 2)", "iou[best]"), ("left.max() >= score_thresh", "left.max() > 0"))
    message = check("soft_nms", changed(answers.with_a_loop, *both)).message
    assert message.startswith("The overlap enters as it is")
    assert message.endswith("something else is left.")


@pytest.mark.parametrize(
    ("got", "fault"),
    [
        (([2, 0], [0.9, 0.5]), None),
        ([torch.tensor([2.0, 0.0]), torch.tensor([0.9, 0.5])], None),
        (([2, 0, 1], [0.9, 0.5, 0.1]), "it keeps 3 boxes, and another number is expected"),
        (([0, 2], [0.9, 0.5]), "it keeps the right boxes in another order"),
        (([1, 0], [0.9, 0.5]), "it keeps the boxes [1, 0]"),
        (([2, 0], [0.9]), "keep has shape (2,) and new_scores (1,)"),
        (([2, 0], [0.9, 0.4]), "keep is right, but of new_scores the result is off by up to 0.1"),
        (([2, 0], torch.tensor([0.9, 0.5], dtype=torch.float64)), "keep is right, but of new_scores the result is of"),
        (([0.9, 0.5], [2, 0]), "keep holds numbers that are no indices"),
        ((["a"], [0.9]), "are not two lists of numbers"),
        ((None, None), "are not two lists of numbers"),
        (([2, 0], [0.9, 0.5], 1), "a value of type tuple where a pair"),
        (3, "a value of type int where a pair"),
    ],
)
def test_pairs_are_compared_in_plain_words(got: Any, fault: str | None) -> None:
    expected = torch.tensor([2, 0]), torch.tensor([0.9, 0.5])
    found = compare_pairs(expected, got)
    assert (found is None) if fault is None else (found is not None and fault in found)
