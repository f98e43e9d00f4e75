"""Right answers to the exercise of lesson 03, written in different ways, and its untouched stub."""

from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor

from rcnn_edu.ops import box_iou


def stub(anchors: Tensor, gt_boxes: Tensor, pos_iou_thresh: float = 0.7, neg_iou_thresh: float = 0.3) -> Any:
    """Return labels (N,), 1 positive, 0 negative, -1 ignored, and each anchor's ground truth box (N, 4)."""
    # 1. Without ground truths: all labels 0, all boxes zeros.


def with_a_loop(
    anchors: Tensor, gt_boxes: Tensor, pos_iou_thresh: float = 0.7, neg_iou_thresh: float = 0.3
) -> tuple[Tensor, Tensor]:
    labels = torch.zeros(len(anchors), dtype=torch.long)
    matched_gt_boxes = torch.zeros_like(anchors)
    if len(gt_boxes) == 0:
        return labels, matched_gt_boxes
    iou = box_iou(anchors, gt_boxes)
    best_iou, matched = iou.max(dim=1)
    labels[best_iou >= neg_iou_thresh] = -1
    labels[best_iou >= pos_iou_thresh] = 1
    matched_gt_boxes = gt_boxes[matched]
    for j in range(len(gt_boxes)):
        best = (iou[:, j] >= iou[:, j].max() - 1e-6) & (iou[:, j] > 0)
        labels[best] = 1
        matched_gt_boxes[best] = gt_boxes[j]
    return labels, matched_gt_boxes


def with_matrices(anchors: Tensor, gt_boxes: Tensor, pos: float, neg: float) -> list[Tensor]:
    iou = torchvision.ops.box_iou(
        anchors, torch.cat([gt_boxes, torch.full((1, 4), -1.0)])
    )  # a column that none touches
    best = ((iou.amax(0) - iou).abs() <= 1e-6) * (iou > 0)
    labels = torch.full_like(iou[:, 0], -1).masked_fill(iou.amax(1) < neg, 0)
    labels = labels.masked_fill((iou.amax(1) >= pos) | best.any(1), 1)
    matched = (iou + 2 * best).argmax(1)
    return [labels.int(), torch.cat([gt_boxes, torch.zeros(1, 4)])[matched]]


def with_numpy(anchors: Tensor, gt_boxes: Tensor, pos: float, neg: float) -> Any:
    """Return each anchor's label and box by plain loops."""
    iou = box_iou(anchors, gt_boxes).numpy()
    labels, boxes = np.zeros(len(anchors)), np.zeros((len(anchors), 4))
    for i, row in enumerate(iou if len(gt_boxes) else ()):
        rescuers = [j for j, value in enumerate(row) if 0 < value >= iou[:, j].max() - 1e-6]
        labels[i] = 1 if rescuers or row.max() >= pos else 0 if row.max() < neg else -1
        boxes[i] = gt_boxes[max(rescuers or range(len(row)), key=row.__getitem__)]
    return labels, boxes
