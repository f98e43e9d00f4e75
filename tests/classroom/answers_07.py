"""Right answers to the exercise of lesson 07, written in different ways, and its untouched stub."""

import math
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor

from rcnn_edu.ops import box_iou


def stub(boxes: Tensor, scores: Tensor, sigma: float = 0.5, score_thresh: float = 0.001) -> Any:
    """Return keep, the indices of the boxes left, and their decayed scores, best first: a pair."""
    # 1. Take the box with the best score left, unless it is below score_thresh: then it is over.


def with_a_loop(
    boxes: Tensor, scores: Tensor, sigma: float = 0.5, score_thresh: float = 0.001
) -> tuple[Tensor, Tensor]:
    iou = box_iou(boxes, boxes)
    left = scores.clone()
    keep, new_scores = [], []
    while len(left) and left.max() >= score_thresh:
        best = int(left.argmax())
        keep.append(best)
        new_scores.append(float(left[best]))
        left = left * torch.exp(-(iou[best] ** 2) / sigma)
        left[best] = 0  # taken
    return torch.tensor(keep, dtype=torch.long), torch.tensor(new_scores)


def with_plain_numbers(
    boxes: Tensor, scores: Tensor, sigma: float, score_thresh: float
) -> tuple[list[int], list[float]]:
    """Swap the best to the front of what is left, as the paper's own code does."""
    iou = torchvision.ops.box_iou(boxes, boxes).tolist()
    left = [[score, index] for index, score in enumerate(scores.tolist())]
    for place in range(len(left)):
        best = max(range(place, len(left)), key=lambda other: left[other][0])
        left[place], left[best] = left[best], left[place]
        for other in range(place + 1, len(left)):
            left[other][0] *= math.exp(-(iou[int(left[place][1])][int(left[other][1])] ** 2) / sigma)
    kept = [(index, score) for score, index in left if score >= score_thresh]
    return [int(index) for index, _ in kept], [score for _, score in kept]


def with_numpy(boxes: Tensor, scores: Tensor, sigma: float, score_thresh: float) -> Any:
    """Shorten the arrays after each step."""
    index, left, corners = np.arange(len(scores)), scores.numpy().copy(), boxes.numpy().astype(np.float64)
    keep: list[int] = []
    new_scores: list[float] = []
    while True:
        alive = left >= score_thresh
        index, left = index[alive], left[alive]
        if not len(index):
            return np.array(keep, dtype=np.int32), np.array(new_scores)
        best = left.argmax()
        chosen = corners[index[best]]
        keep.append(index[best])
        new_scores.append(left[best])
        index, left = np.delete(index, best), np.delete(left, best)
        others = corners[index]
        sides = np.minimum(chosen[2:], others[:, 2:]) - np.maximum(chosen[:2], others[:, :2])
        overlap = np.clip(sides, 0, None).prod(axis=1)
        areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (chosen[2:] - chosen[:2]).prod()
        left = left * np.exp(-((overlap / (areas - overlap)) ** 2) / sigma)
