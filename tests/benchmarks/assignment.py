"""Assigning anchors: ours, and torchvision's box_iou with its Matcher, as its RPN calls them."""

from functools import partial

import torch
import torchvision
from torch import Tensor
from torchvision.models.detection._utils import Matcher

from rcnn_edu.ops import AnchorGenerator, assign_anchors_to_gt
from tests.benchmarks.harness import Case, Contenders

STRIDES = (4, 8, 16, 32, 64)
SHAPES = [((800, 1312), 50), ((800, 1312), 5), ((256, 256), 10)]  # image, objects


def cases(quick: bool) -> list[Case]:
    return [
        Case(
            "assign_anchors_to_gt",
            f"{3 * sum(h * w for h, w in _feature_sizes(image))} anchors, {objects} objects",
            partial(_contenders, image, objects),
        )
        for image, objects in ([((64, 96), 3)] if quick else SHAPES)
    ]


def _feature_sizes(image: tuple[int, int]) -> list[tuple[int, int]]:
    return [(-(-image[0] // stride), -(-image[1] // stride)) for stride in STRIDES]


def _contenders(image: tuple[int, int], objects: int) -> Contenders:
    anchors = torch.cat(AnchorGenerator(strides=STRIDES)(_feature_sizes(image)))
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(objects, 2, generator=generator) * torch.tensor([image[1], image[0]]) * 0.8
    size = 0.2 * min(image) * 10 ** -torch.rand(objects, 2, generator=generator)
    gt_boxes = torch.cat([corner, corner + size], dim=1)
    matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)

    def theirs() -> tuple[Tensor, Tensor]:
        found = matcher(torchvision.ops.box_iou(gt_boxes, anchors))
        labels = (found >= 0).to(torch.float32)
        labels[found == Matcher.BETWEEN_THRESHOLDS] = -1
        return labels, gt_boxes[found.clamp(min=0)]

    return {"ours": lambda: assign_anchors_to_gt(anchors, gt_boxes), "torchvision": theirs}
