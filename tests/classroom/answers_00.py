"""Right answers to the exercises of lesson 00, written in different ways, and its untouched stubs."""

import math
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor

# As a lesson shows them: a stub, then its folded solution. (test_notebook_exercises.py reads the lesson's own.)


def box_iou_stub(boxes1: Tensor, boxes2: Tensor) -> Any:
    """Return the IoU of every box of boxes1 (n, 4) with every box of boxes2 (m, 4), shape (n, m)."""
    # 1. What two boxes share begins at the larger of the starts, and ends at the smaller of the ends.


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    first, second = boxes1[:, None], boxes2[None]
    start = torch.maximum(first[..., :2], second[..., :2])
    end = torch.minimum(first[..., 2:], second[..., 2:])
    shared = (end - start).clamp(min=0)
    intersection = shared[..., 0] * shared[..., 1]
    size1, size2 = boxes1[:, 2:] - boxes1[:, :2], boxes2[:, 2:] - boxes2[:, :2]
    area1, area2 = size1[:, 0] * size1[:, 1], size2[:, 0] * size2[:, 1]
    union = area1[:, None] + area2 - intersection
    return intersection / torch.where(union > 0, union, 1)


def encode_boxes_stub(gt_boxes: Tensor, boxes: Tensor, weights: Any = (10, 10, 5, 5)) -> Any:
    """Return the deltas (dx, dy, dw, dh) that lead from each box to its ground truth, shape (n, 4)."""
    # 1. Find the centre and the size of each box.


def encode_boxes(gt_boxes: Tensor, boxes: Tensor, weights: Any = (10, 10, 5, 5)) -> Tensor:
    gt_size, size = gt_boxes[:, 2:] - gt_boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    gt_centre, centre = gt_boxes[:, :2] + gt_size / 2, boxes[:, :2] + size / 2
    deltas = torch.cat([(gt_centre - centre) / size, torch.log(gt_size / size)], dim=1)
    return deltas * torch.tensor(weights)


def decode_boxes_stub(deltas: Tensor, boxes: Tensor, weights: Any = (10, 10, 5, 5)) -> Any:
    """Return the boxes that the deltas lead to, shape (n, 4)."""
    # 1. Divide the deltas by the weights.


def decode_boxes(deltas: Tensor, boxes: Tensor, weights: Any = (10, 10, 5, 5)) -> Tensor:
    deltas = deltas / torch.tensor(weights)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + size / 2 + deltas[:, :2] * size
    size = size * torch.exp(deltas[:, 2:])
    return torch.cat([centre - size / 2, centre + size / 2], dim=1)


# Others.


def iou_with_loops(boxes1: Tensor, boxes2: Tensor) -> Any:
    iou = np.zeros((len(boxes1), len(boxes2)))
    for i, (x1, y1, x2, y2) in enumerate(boxes1.tolist()):
        for j, (u1, v1, u2, v2) in enumerate(boxes2.tolist()):
            both = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
            union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - both
            iou[i, j] = both / union if union else 0
    return iou


def iou_with_torchvision(boxes1: Tensor, boxes2: Tensor) -> Any:
    return torchvision.ops.box_iou(boxes1, boxes2).nan_to_num()


def iou_with_a_small_number(boxes1: Tensor, boxes2: Tensor) -> Any:
    x1, y1, x2, y2 = boxes1.T[:, :, None]
    u1, v1, u2, v2 = boxes2.T[:, None]
    both = (torch.min(x2, u2) - torch.max(x1, u1)).relu() * (torch.min(y2, v2) - torch.max(y1, v1)).relu()
    return both / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - both + 1e-7)


def encode_by_columns(gt_boxes: Tensor, boxes: Tensor, weights: Any) -> Tensor:
    (gx1, gy1, gx2, gy2), (x1, y1, x2, y2) = gt_boxes.T, boxes.T
    rows = [
        ((gx1 + gx2) - (x1 + x2)) / 2 / (x2 - x1),
        ((gy1 + gy2) - (y1 + y2)) / 2 / (y2 - y1),
        (gx2 - gx1).log() - (x2 - x1).log(),
        (gy2 - gy1).log() - (y2 - y1).log(),
    ]
    return torch.stack([row * weight for row, weight in zip(rows, weights, strict=True)], dim=-1)


def encode_with_numpy(gt_boxes: Tensor, boxes: Tensor, weights: Any) -> Any:
    deltas = np.zeros((len(boxes), 4))
    for row, (gt, box) in enumerate(zip(gt_boxes.tolist(), boxes.tolist(), strict=True)):
        for axis in (0, 1):
            gt_size, size = gt[axis + 2] - gt[axis], box[axis + 2] - box[axis]
            deltas[row, axis] = weights[axis] * (gt[axis] + gt_size / 2 - box[axis] - size / 2) / size
            deltas[row, axis + 2] = weights[axis + 2] * math.log(gt_size / size)
    return deltas


def decode_by_columns(deltas: Tensor, boxes: Tensor, weights: Any) -> Tensor:
    (dx, dy, dw, dh), (x1, y1, x2, y2) = deltas.T, boxes.T
    width, height = x2 - x1, y2 - y1
    x, y = (x1 + x2) / 2 + dx / weights[0] * width, (y1 + y2) / 2 + dy / weights[1] * height
    width, height = width * (dw / weights[2]).exp(), height * (dh / weights[3]).exp()
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2]).T


def decode_with_torchvision(deltas: Tensor, boxes: Tensor, weights: Any) -> Tensor:
    coder = torchvision.models.detection._utils.BoxCoder(weights)
    decoded: Tensor = coder.decode_single(deltas, boxes)
    return decoded
