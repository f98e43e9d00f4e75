"""Right answers to the exercises of lesson 09, written in different ways, and their untouched stubs."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def match_stub(scores: Tensor, iou: Tensor, iou_thresh: float) -> Any:
    """Return for each detection whether it has found an object, (k,)."""
    # 1. All objects are free.


def match_with_a_loop(scores: Tensor, iou: Tensor, iou_thresh: float) -> Tensor:
    right = torch.zeros(len(scores), dtype=torch.bool)
    free = torch.ones(iou.shape[1], dtype=torch.bool)
    for index in scores.argsort(descending=True).tolist():
        overlap = torch.where(free, iou[index], 0)
        if free.any() and overlap.max() >= iou_thresh:
            right[index] = True
            free[overlap.argmax()] = False
    return right


def match_in_plain_python(scores: Tensor, iou: Tensor, iou_thresh: float) -> list[bool]:
    table = iou.tolist()
    free = set(range(iou.shape[1]))
    right = [False] * len(table)
    for index in sorted(range(len(table)), key=lambda i: -float(scores[i])):
        candidates = [(table[index][place], place) for place in free if table[index][place] >= iou_thresh]
        if candidates:
            free.remove(max(candidates)[1])
            right[index] = True
    return right


def match_with_numpy(scores: Tensor, iou: Tensor, iou_thresh: float) -> Any:
    """Return ones and zeros, and cross out an object's column when it is taken."""
    left = iou.numpy().copy()
    right = np.zeros(len(left), dtype=np.int64)
    for index in np.argsort(-scores.numpy()):
        if left.shape[1] and left[index].max() >= iou_thresh:
            right[index] = 1
            left[:, left[index].argmax()] = -1
    return right


def precision_stub(scores: Tensor, right: Tensor, num_objects: int) -> Any:
    """Return the precision at 101 recalls, (101,)."""
    # 1. Sort by score.


def precision_with_tensors(scores: Tensor, right: Tensor, num_objects: int) -> Tensor:
    hits = right[scores.argsort(descending=True)].double().cumsum(0)
    precision = hits / torch.arange(1, len(hits) + 1)
    recall = hits / num_objects
    best = precision.flip(0).cummax(0).values.flip(0)
    place = torch.searchsorted(recall, torch.linspace(0, 1, 101, dtype=torch.float64))
    return torch.cat([best, torch.zeros(1)])[place]


def precision_with_loops(scores: Tensor, right: Tensor, num_objects: int) -> list[float]:
    order = sorted(range(len(scores)), key=lambda i: -float(scores[i]))
    points = []
    hits = 0
    for count, index in enumerate(order, start=1):
        hits += bool(right[index])
        points.append((hits / num_objects, hits / count))
    return [max((p for r, p in points if r >= step / 100), default=0.0) for step in range(101)]


def precision_with_numpy(scores: Tensor, right: Tensor, num_objects: int) -> Any:
    """Return the curve in float32, by running maxima from the end."""
    flags = right.numpy()[np.argsort(-scores.numpy())].astype(np.float32)
    hits = np.cumsum(flags)
    precision = hits / np.arange(1, len(flags) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    curve = np.zeros(101, dtype=np.float32)
    for place, recall in enumerate(np.linspace(0, 1, 101)):
        reached = np.flatnonzero(hits / num_objects >= recall)
        curve[place] = best[reached[0]] if len(reached) else 0
    return curve


def precision_as_a_matrix(scores: Tensor, right: Tensor, num_objects: int) -> Tensor:
    hits = right.float()[scores.sort(descending=True).indices].cumsum(0)
    precision = hits / torch.arange(1, len(hits) + 1)
    reaches = (hits / num_objects)[None] >= torch.linspace(0, 1, 101)[:, None]
    return torch.cat([precision * reaches, torch.zeros(101, 1)], dim=1).amax(dim=1)
