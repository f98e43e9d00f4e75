"""Right answers to the exercises of lesson 06, written in different ways, and their untouched stubs."""

from typing import Any

import torch
import torchvision
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from rcnn_edu.ops import box_iou, clip_boxes, decode_boxes


def refine_stub(deltas: Tensor, boxes: Tensor, stage: int, size: tuple[int, int]) -> Any:
    """Return the boxes for the next stage, shape (R, 4)."""
    # 1. The weights of this stage.


def refine_with_ops(deltas: Tensor, boxes: Tensor, stage: int, size: tuple[int, int]) -> Tensor:
    weights = (10.0 * stage, 10.0 * stage, 5.0 * stage, 5.0 * stage)
    moved = decode_boxes(deltas, boxes, weights)
    return clip_boxes(moved, size).detach()


def refine_with_torchvision(deltas: Tensor, boxes: Tensor, stage: int, size: tuple[int, int]) -> Tensor:
    with torch.no_grad():
        decoded = BoxCoder(tuple(stage * weight for weight in (10.0, 10.0, 5.0, 5.0))).decode_single(deltas, boxes)
        clipped: Tensor = torchvision.ops.clip_boxes_to_image(decoded, size)
        return clipped


def refine_by_hand(deltas: Tensor, boxes: Tensor, stage: int, size: tuple[int, int]) -> Any:
    rows = []
    for (dx, dy, dw, dh), (x1, y1, x2, y2) in zip(deltas.detach(), boxes, strict=True):
        width, height = x2 - x1, y2 - y1
        x = (x1 + x2) / 2 + dx / (10 * stage) * width
        y = (y1 + y2) / 2 + dy / (10 * stage) * height
        half_width, half_height = width * (dw / 5 / stage).exp() / 2, height * (dh / 5 / stage).exp() / 2
        row = torch.stack([x - half_width, y - half_height, x + half_width, y + half_height])
        rows.append(torch.minimum(row.clamp(min=0), torch.tensor([size[1], size[0], size[1], size[0]])))
    return torch.stack(rows) if rows else boxes.clone()


def relabel_stub(boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, iou_thresh: float) -> Any:
    """Return the candidates, their labels, and their ground truth boxes."""
    # 1. The candidates.


def relabel_with_max(
    boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, iou_thresh: float
) -> tuple[Tensor, Tensor, Tensor]:
    candidates = torch.cat([boxes, gt_boxes])
    if len(gt_boxes) == 0:
        return candidates, torch.zeros(len(candidates), dtype=torch.long), torch.zeros_like(candidates)
    best_iou, matched = box_iou(candidates, gt_boxes).max(dim=1)
    labels = gt_labels[matched]
    labels[best_iou < iou_thresh] = 0
    return candidates, labels, gt_boxes[matched]


def relabel_with_a_loop(boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, iou_thresh: float) -> list[Tensor]:
    candidates = torch.vstack([boxes, gt_boxes])
    labels = torch.zeros(len(candidates))
    learnt = torch.zeros_like(candidates)
    highest = torch.full((len(candidates),), -1.0)
    for gt, label in zip(gt_boxes, gt_labels, strict=True):
        iou = torchvision.ops.box_iou(candidates, gt[None])[:, 0]
        closer = iou > highest
        highest[closer] = iou[closer]
        learnt[closer] = gt
        labels[closer] = float(label) * (iou[closer] >= iou_thresh)
    return [candidates, labels, learnt]
