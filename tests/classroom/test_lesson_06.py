"""The exercises of lesson 06: right answers pass, and each mistake is told as what it is."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rcnn_edu.classroom import check
from rcnn_edu.classroom.lesson_06_refine_boxes import REFINE_BOXES, compare_detached, refine_boxes
from rcnn_edu.classroom.lesson_06_relabel_boxes import RELABEL_BOXES, compare_candidates, relabel_boxes
from rcnn_edu.models import Cascade
from rcnn_edu.models.box_head import RoISampler
from rcnn_edu.ops import sample_rois
from tests.classroom import answers_06 as answers
from tests.classroom.changes import changed

# refine_boxes


@pytest.mark.parametrize("answer", [answers.refine_with_ops, answers.refine_with_torchvision, answers.refine_by_hand])
def test_right_refinements_pass(answer: Callable[..., Any]) -> None:
    verdict = check("refine_boxes", answer)
    assert verdict.message == "All 12 cases, worked and random, agree with the reference."
    assert verdict.passed
    assert verdict.function is answer


def test_the_untouched_stub_of_refine_boxes_gets_a_pointer() -> None:
    verdict = check("refine_boxes", answers.refine_stub)
    assert verdict.message.startswith("Your function returns nothing yet. Begin with the stage's weights")
    assert (verdict.passed, verdict.begun) == (False, False)
    assert verdict.function is refine_boxes


@pytest.mark.parametrize(
    ("what", "boxes"),
    [
        ("one box at stage 1", [[22, 10, 42, 20]]),  # a tenth of its width to the right
        ("one box that grows", [[10, 10, 50, 20]]),  # twice as wide about its middle
        (
            "boxes that reach over each border, at stage 2",
            [[0, 20, 15, 40], [69, 20, 80, 40], [20, 0, 40, 12.5], [20, 49, 40, 60]],  # half a box, and cut
        ),
        ("no boxes", []),
    ],
)
def test_the_worked_refinements_by_hand(what: str, boxes: list[list[float]]) -> None:
    (case,) = [case for case in REFINE_BOXES.worked if case.what == what]
    got = refine_boxes(**case.arguments)
    torch.testing.assert_close(got, torch.tensor(boxes, dtype=torch.float32).view(-1, 4))
    assert not got.requires_grad


def test_a_box_that_leaves_the_image_stays_in_its_row() -> None:
    (case,) = [case for case in REFINE_BOXES.worked if "altogether" in case.what]
    got = refine_boxes(**case.arguments)
    assert got.shape == (3, 4)
    assert got[1].tolist() == [80, 10, 80, 30]


def test_it_is_what_the_cascade_does_between_its_stages() -> None:
    for number, head in enumerate(Cascade(3, 4).stages, start=1):
        for case in REFINE_BOXES.random(torch.Generator().manual_seed(1)):
            deltas, boxes, size = case.arguments["deltas"], case.arguments["boxes"], case.arguments["size"]
            [moved] = head.decode(deltas[:, None], [boxes], [size])
            assert torch.equal(moved[:, 0].detach(), refine_boxes(deltas, boxes, number, size))


WEIGHTS = "(10.0 * stage, 10.0 * stage, 5.0 * stage, 5.0 * stage)"


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([(WEIGHTS, "(10.0, 10.0, 5.0, 5.0)")], "The deltas' weights are those of stage 1 at every stage"),
        ([(", weights)", ")")], "The deltas' weights are those of stage 1 at every stage"),
        ([(WEIGHTS, "(10 / stage, 10 / stage, 5 / stage, 5 / stage)")], "The weights shrink with the stage"),
        ([("    weights", "    stage += 1\n    weights")], "The stages count from 1 here"),
        ([("5.0 * stage, 5.0 * stage", "5.0, 5.0")], "The weights of the place grow with the stage, but not"),
        ([("decode_boxes(deltas,", "decode_boxes(deltas * torch.tensor(weights) ** 2,")], "The deltas are multiplied"),
        ([(WEIGHTS, "(1, 1, 1, 1)")], "The deltas are decoded without weights"),
        ([("clip_boxes(moved, size)", "moved")], "Boxes reach over the image's border"),
        (
            [("boxes, weights", "clip_boxes(boxes, size), weights"), ("clip_boxes(moved, size)", "moved")],
            "Boxes reach over the image's border",
        ),
        ([("clip_boxes(moved, size)", "moved.clamp(min=0)")], "Boxes are cut at 0, but not at the right"),
        ([("moved, size)", "moved, size[::-1])")], "Height and width are swapped"),
        ([("moved, size)", "moved, (size[0] - 1, size[1] - 1))")], "Boxes are clipped to the last pixel's index"),
        (
            [("clip_boxes(moved, size)", "clip_boxes(moved, size)[(moved[:, 0] < size[1]) & (moved[:, 2] > 0)]")],
            "A box that clipping left empty is dropped",
        ),
        ([(".detach()", "")], "The boxes are right, but gradients still flow through them"),
        ([("    moved", "    deltas[:] = 0\n    moved")], "it raises RuntimeError"),
        ([("    moved", "    boxes[:] = 0\n    moved")], "Your function changes its argument boxes"),
        ([(".detach()", "[:, None]")], "has shape (1, 1, 4) where (1, 4) is expected"),
    ],
)
def test_a_slip_in_refine_boxes_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("refine_boxes", changed(answers.refine_with_ops, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


def test_a_graph_is_a_fault_only_where_none_is_expected() -> None:
    boxes = torch.ones(1, 4)
    assert compare_detached(boxes, boxes.clone().requires_grad_()) is not None
    assert compare_detached(boxes, boxes.clone()) is None
    assert compare_detached(boxes, [[1.0] * 4]) is not None


# relabel_boxes


@pytest.mark.parametrize("answer", [answers.relabel_with_max, answers.relabel_with_a_loop])
def test_right_relabellings_pass(answer: Callable[..., Any]) -> None:
    verdict = check("relabel_boxes", answer)
    assert verdict.message == "All 13 cases, worked and random, agree with the reference."
    assert verdict.passed
    assert verdict.function is answer


def test_the_untouched_stub_of_relabel_boxes_gets_a_pointer() -> None:
    verdict = check("relabel_boxes", answers.relabel_stub)
    assert verdict.message.startswith("Your function returns nothing yet. Begin with the candidates")
    assert (verdict.passed, verdict.begun) == (False, False)
    assert verdict.function is relabel_boxes


@pytest.mark.parametrize(
    ("what", "labels"),
    [
        ("one object at stage 1", [3, 3, 0, 3]),  # IoU 0.8, 0.55, 0, and the object itself
        ("the same at stage 3", [3, 0, 0, 3]),
        ("an IoU of exactly the threshold", [2, 0, 2]),
        ("two objects of different classes", [4, 1, 1, 4, 1]),
        ("a box that overlaps two objects enough", [3, 2, 2, 3]),
        ("an object that no box fits", [0, 0, 2]),
        ("an image without objects", [0, 0, 0]),
    ],
)
def test_the_worked_relabellings_by_hand(what: str, labels: list[int]) -> None:
    (case,) = [case for case in RELABEL_BOXES.worked if case.what == what]
    assert relabel_boxes(**case.arguments)[1].tolist() == labels


def test_it_is_what_the_package_s_sampler_labels() -> None:
    for case in RELABEL_BOXES.random(torch.Generator().manual_seed(1)):
        boxes, gt_boxes, gt_labels, u = case.arguments.values()
        candidates, labels, learnt = relabel_boxes(boxes, gt_boxes, gt_labels, u)
        drawn = sample_rois(labels, 8, 0.25, torch.Generator().manual_seed(0))
        target = {"boxes": gt_boxes, "labels": gt_labels}
        sampled = RoISampler(u, 8)([boxes], [target], torch.Generator().manual_seed(0))
        assert torch.equal(sampled.rois[:, 1:], candidates[drawn])
        assert torch.equal(sampled.labels, labels[drawn])
        assert torch.equal(sampled.gt_boxes, learnt[drawn])


BELOW = "labels[best_iou < iou_thresh] = 0"
EMPTY = (
    "    if len(gt_boxes) == 0:\n"
    "        return candidates, torch.zeros(len(candidates), dtype=torch.long), torch.zeros_like(candidates)\n"
)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([("< iou_thresh", "< 0.5")], "The threshold is 0.5 at every stage"),
        ([("< iou_thresh", "<= iou_thresh")], "An IoU of exactly the threshold is positive already"),
        ([("torch.cat([boxes, gt_boxes])", "boxes")], "The ground truths are missing among the candidates"),
        ([("[boxes, gt_boxes]", "[gt_boxes, boxes]")], "The ground truths come before the refined boxes"),
        ([("labels = gt_labels[matched]", "labels = torch.ones_like(matched)")], "Positive candidates are labelled 1"),
        ([("labels = gt_labels[matched]", "labels = matched.clone()")], "A positive's label is the number of its"),
        ([("labels = gt_labels[matched]", "labels = matched + 1")], "A positive's label is the number of its"),
        ([(f"    {BELOW}\n", "")], "No candidate is background"),
        (
            [(BELOW, f"{BELOW}\n    labels[(best_iou < iou_thresh) & (best_iou >= 0.3)] = -1")],
            "Some candidates are ignored",
        ),
        (
            [(BELOW, f"rest = box_iou(boxes, gt_boxes).argmax(0)\n    best_iou[rest] = 1\n    {BELOW}")],
            "A ground truth's best box is positive although",
        ),
        (
            [
                (
                    BELOW,
                    f"{BELOW}\n    best = box_iou(candidates, gt_boxes).argmax(0)\n"
                    "    labels[[i for i in range(len(labels)) if i not in best.tolist()]] = 0",
                )
            ],
            "Each ground truth has one positive candidate only",
        ),
        (
            [
                (
                    "    labels = gt",
                    "    matched = (box_iou(candidates, gt_boxes) >= iou_thresh).int().argmax(1)\n    labels = gt",
                )
            ],
            "Where a candidate overlaps two objects enough",
        ),
        (
            [("gt_boxes[matched]", "matched")],
            "The third result holds the numbers",
        ),
        (
            [
                (
                    "candidates, labels, gt_boxes[matched]",
                    "candidates[labels > 0], labels[labels > 0], gt_boxes[matched][labels > 0]",
                )
            ],
            "Candidates below the threshold are left out",
        ),
        ([(EMPTY, "")], "An image without objects is not provided for"),
        (
            [("return candidates, labels, gt_boxes[matched]", "return labels, gt_boxes[matched]")],
            "it returns 2 results",
        ),
        ([("return candidates, labels, gt_boxes[matched]", "return labels")], "it returns a value of type Tensor"),
        ([("labels = gt_labels[matched]", "labels = gt_labels[matched] + 1")], "but 3 of 4 labels are not, the first"),
        ([("labels, gt_boxes[matched]", "labels, gt_boxes[:1].expand(len(labels), 4)")], "but not the positive"),
        ([("labels = gt_labels[matched]", "labels = gt_labels")], "it raises IndexError"),
        ([("    labels = gt", "    gt_boxes *= 2\n    labels = gt")], "Your function changes its argument gt_boxes"),
    ],
)
def test_a_slip_in_relabel_boxes_is_diagnosed(changes: list[tuple[str, str]], hint: str) -> None:
    verdict = check("relabel_boxes", changed(answers.relabel_with_max, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


@pytest.mark.parametrize(
    ("got", "fault"),
    [
        ((torch.zeros(2, 4), torch.tensor([3, 0]), torch.tensor([[0.0, 0, 1, 1], [5, 5, 9, 9]])), None),  # background's
        ((torch.zeros(2, 4), torch.tensor([3.0, 0]), torch.tensor([[0.0, 0, 1, 1], [0, 0, 0, 0]])), None),
        ((torch.ones(2, 4), torch.tensor([3, 0]), torch.zeros(2, 4)), "wrong with the candidates: the result is off"),
        ((torch.zeros(2, 4), torch.tensor([3]), torch.zeros(2, 4)), "with the labels: the result has shape (1,)"),
        ((torch.zeros(2, 4), torch.tensor([3, 1]), torch.zeros(2, 4)), "1 of 2 labels are not, the first that of cand"),
        ((torch.zeros(2, 4), torch.tensor([3, 0]), torch.zeros(2, 4)), "ground truth boxes: the result is off by up"),
        ((torch.zeros(2, 4), "3, 0", torch.zeros(2, 4)), "with the labels: it returns a value of type str"),
        (torch.zeros(3), "three are expected"),
    ],
)
def test_candidates_are_compared_where_they_mean_something(got: Any, fault: str | None) -> None:
    expected = torch.zeros(2, 4), torch.tensor([3, 0]), torch.tensor([[0.0, 0, 1, 1], [0, 0, 0, 0]])
    found = compare_candidates(expected, got)
    assert (found is None) if fault is None else (found is not None and fault in found)


@pytest.mark.parametrize("answer", [answers.refine_with_ops, answers.relabel_with_max])
def test_the_solutions_are_short_enough_to_read(answer: Callable[..., Any]) -> None:
    assert len(inspect.getsource(answer).splitlines()) <= 14
