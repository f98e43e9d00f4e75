"""The contenders of each subject do the same work: a race between different answers would say nothing."""

from typing import cast

import pytest
import torch

from rcnn_edu.ops import box_iou, soft_nms
from tests.benchmarks import assignment, masks, nms
from tests.benchmarks import soft_nms as soft_nms_subject
from tests.benchmarks.harness import Case


@pytest.mark.parametrize("case", nms.cases(quick=True), ids=lambda case: case.group)
def test_nms_keeps_the_same_in_the_same_order(case: Case) -> None:
    ours, theirs = (contender() for contender in case.make().values())
    assert isinstance(ours, torch.Tensor)
    assert isinstance(theirs, torch.Tensor)
    assert torch.equal(ours, theirs)
    assert 0 < len(ours) < 30


@pytest.mark.parametrize("method", ["gaussian", "linear"])
def test_soft_nms_decays_as_the_paper_s_loop_does(method: str) -> None:
    boxes, scores = nms.random_detections(200, 10)
    expected = soft_nms_subject.paper_soft_nms(boxes, scores, method)
    keep, decayed = soft_nms(boxes, scores, method="gaussian" if method == "gaussian" else "linear")
    assert torch.equal(keep, expected[0])
    torch.testing.assert_close(decayed, expected[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", assignment.cases(quick=True), ids=lambda case: case.group)
def test_assignment_labels_the_same(case: Case) -> None:
    ours, theirs = (cast(tuple[torch.Tensor, torch.Tensor], contender()) for contender in case.make().values())
    assert torch.equal(ours[0], theirs[0].long())
    assert 0 < (ours[0] == 1).sum() < (ours[0] == 0).sum()
    assert ours[1].shape == theirs[1].shape == (len(ours[0]), 4)


def test_masks_land_in_the_same_place() -> None:
    """torchvision rounds its boxes to whole pixels, so the masks are alike, and not the same."""
    paste = masks.cases(quick=True)[1]
    ours, theirs = (contender() for contender in paste.make().values())
    assert isinstance(ours, torch.Tensor)
    assert isinstance(theirs, torch.Tensor)
    assert ours.shape == theirs.shape
    both, either = ((ours > 0.25) & (theirs > 0.25)).sum(), ((ours > 0.25) | (theirs > 0.25)).sum()
    assert both / either > 0.7


def test_mask_targets_are_the_same() -> None:
    for case in masks.cases(quick=True)[2:]:
        ours, theirs = (contender() for contender in case.make().values())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_shapes_are_those_that_were_promised() -> None:
    assert assignment.cases(quick=False)[0].shape == "262194 anchors, 50 objects"
    assert masks.cases(quick=False)[0].shape == "100 masks in small boxes, at 800 x 1066"
    boxes, _ = nms.random_detections(1000, 20)
    iou = box_iou(boxes, boxes)
    assert ((iou > 0.5).sum(dim=1) > 10).float().mean() > 0.5  # crowded: most boxes overlap ten others by half
