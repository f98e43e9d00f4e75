"""Soft-NMS: ours, and the paper's loop, one box at a time, written with torch operations. torchvision has none."""

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from rcnn_edu.ops import soft_nms
from tests.benchmarks.harness import Case, Contenders
from tests.benchmarks.nms import random_detections

SHAPES = [(100, 5), (300, 20), (1000, 20), (1000, 100), (3000, 100)]


def cases(quick: bool) -> list[Case]:
    methods: list[Literal["gaussian", "linear"]] = ["gaussian", "linear"]
    return [
        Case(f"soft_nms, {method}", f"{n} boxes about {objects} objects", partial(_contenders, n, objects, method))
        for method in methods
        for n, objects in ([(30, 3)] if quick else SHAPES)
    ]


def _contenders(n: int, objects: int, method: Literal["gaussian", "linear"]) -> Contenders:
    boxes, scores = random_detections(n, objects)
    return {
        "ours": lambda: soft_nms(boxes, scores, method=method),
        "the paper's loop": lambda: paper_soft_nms(boxes, scores, method),
    }


@torch.no_grad()
def paper_soft_nms(boxes: Tensor, scores: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Take the best, let the others pay for their overlap with it, drop what falls below 0.001, and so on."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    index = torch.arange(len(boxes))
    kept, decayed = [], []
    while len(index) > 0:
        best = scores.argmax()
        kept.append(index[best])
        decayed.append(scores[best])
        start = torch.maximum(boxes[:, :2], boxes[best, :2])
        end = torch.minimum(boxes[:, 2:], boxes[best, 2:])
        intersection = (end - start).clamp(min=0).prod(dim=1)
        iou = intersection / (areas + areas[best] - intersection)
        scores = scores * (torch.exp(-(iou**2) / 0.5) if method == "gaussian" else torch.where(iou > 0.5, 1 - iou, 1))
        left = scores >= 0.001
        left[best] = False
        boxes, areas, scores, index = boxes[left], areas[left], scores[left], index[left]
    return torch.stack(kept), torch.stack(decayed)
