import pytest
import torch
from torch import Tensor

from rcnn_edu.datasets import SyntheticScenes
from rcnn_edu.models import RPN
from rcnn_edu.models.presets import TINY
from rcnn_edu.ops import AnchorGenerator, assign_anchors_to_gt, box_iou
from rcnn_edu.training.experiments.assignment import (
    RULES,
    Assign,
    positives,
    rescued_for_another,
    without_rescue,
)
from rcnn_edu.training.frozen_trunk import SeenScenes

# The second anchor is the second object's best, by IoU 0.625, but overlaps the first object by 0.8.
OBJECTS = torch.tensor([[0.0, 0, 100, 100], [0, 0, 100, 50]])
ANCHORS = torch.tensor([[0.0, 0, 100, 100], [0, 0, 100, 80], [0, 200, 100, 300]])


def test_the_rescued_anchor_learns_the_wrong_object() -> None:
    labels, right = assign_anchors_to_gt(ANCHORS, OBJECTS)
    wrong_labels, wrong = rescued_for_another(ANCHORS, OBJECTS)
    assert labels.tolist() == wrong_labels.tolist() == [1, 1, 0]
    assert torch.equal(right[:2], OBJECTS)
    assert torch.equal(wrong[:2], OBJECTS[[0, 0]])


def test_without_the_rule_the_thresholds_alone_decide() -> None:
    labels, learnt = without_rescue(ANCHORS, OBJECTS, 0.9, 0.3)
    assert labels.tolist() == [1, -1, 0]
    assert torch.equal(learnt[0], OBJECTS[0])


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_every_rule_copes_with_an_empty_image(rule: Assign) -> None:
    labels, learnt = rule(ANCHORS, torch.empty(0, 4))
    assert labels.tolist() == [0, 0, 0]
    assert learnt.shape == (3, 4)


@pytest.mark.parametrize(("assign", "count", "missed"), [(assign_anchors_to_gt, 2, 0), (without_rescue, 1, 0.5)])
def test_the_positives_are_counted(assign: Assign, count: float, missed: float) -> None:
    rpn = RPN(1, AnchorGenerator(sizes=((16,),), aspect_ratios=(1.0,), strides=(16,)), assign=assign)
    exact, tiny = [8.0, 8, 24, 24], [0.0, 0, 4, 4]  # the first is an anchor; the second fills a 16th of one
    assert positives(rpn, _scenes(torch.tensor([exact, tiny]))) == {
        "positives/image": count,
        "objects without one": missed,
    }


def _scenes(gt_boxes: Tensor) -> SeenScenes:
    """Return a scene of 32 px with a single map of stride 16 and nothing on it."""
    target = {"boxes": gt_boxes, "labels": torch.ones(len(gt_boxes), dtype=torch.int64)}
    return SeenScenes([torch.zeros(1, 2, 2, 1)], [torch.empty(0, 4)], [target], (32, 32), SyntheticScenes(1))


def test_some_anchor_touches_any_object() -> None:
    """So the mistake about overlaps of 0 cannot show; objects are at least 4 px across, at a border least covered."""
    anchors = torch.cat(TINY.rpn["anchors"]([(192 // stride, 192 // stride) for stride in (4, 8, 16, 32)]))
    corner = torch.arange(0.0, 189)
    edges = torch.stack([torch.full_like(corner, 188), corner, torch.full_like(corner, 192), corner + 4], dim=1)
    for border in (edges, edges[:, [1, 0, 3, 2]]):
        assert box_iou(border, anchors).amax(dim=1).min() > 0
