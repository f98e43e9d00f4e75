"""Choosing among overlapping detections: NMS, Soft-NMS, and the whole way from raw detections to an answer.

Here *n* counts detections. ``groups`` holds a whole number for each: its pyramid level or its class. Detections of
different groups never suppress each other.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rcnn_edu.ops.boxes import box_iou, check_boxes

Decay = Literal["gaussian", "linear"]


@torch.no_grad()
def nms(boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], iou_thresh: float) -> Int[Tensor, " k"]:
    """Return the indices of the boxes kept by greedy non-maximum suppression, by falling score, shape (k,).

    The best box is kept, every box that overlaps it by more than ``iou_thresh`` dropped, and so on with what is left.
    Of equal scores the first comes first. The result is torchvision's, in the same order.

    Raises:
        TypeError, ValueError: for rows that are not boxes, scores that do not fit, or a threshold outside [0, 1].

    Lesson: 07.
    """
    _check_detections(boxes, scores, None, iou_thresh)
    index = scores.argsort(descending=True, stable=True)
    boxes = boxes[index]
    block_size = 512 if boxes.device.type == "cpu" else 4096
    kept = []
    while len(index):
        block, rest = boxes[:block_size], boxes[block_size:]
        winners = _resolve((box_iou(block, block) > iou_thresh).triu(1))
        kept.append(index[:block_size][winners])
        alive = ~(box_iou(block[winners], rest) > iou_thresh).any(dim=0)
        boxes, index = rest[alive], index[block_size:][alive]
    return torch.cat(kept) if kept else index


def _resolve(suppresses: Bool[Tensor, "n n"]) -> Bool[Tensor, " n"]:
    """Return who survives when i, if it survives itself, drops every j > i with ``suppresses[i, j]``."""
    alive = suppresses.new_ones(len(suppresses))
    while True:
        still_alive = ~(suppresses & alive[:, None]).any(dim=0)
        if torch.equal(still_alive, alive):
            return alive
        alive = still_alive


@torch.no_grad()
def batched_nms(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], groups: Int[Tensor, " n"], iou_thresh: float
) -> Int[Tensor, " k"]:
    """Return the indices of the boxes that :func:`nms` keeps in each group by itself, by falling score, shape (k,).

    Raises:
        TypeError, ValueError: as :func:`nms`, or for groups that do not fit.

    Lesson: 07.
    """
    _check_detections(boxes, scores, groups, iou_thresh)
    kept = [(groups == group).nonzero()[:, 0] for group in torch.unique(groups)]
    kept = [members[nms(boxes[members], scores[members], iou_thresh)] for members in kept]
    keep = torch.cat(kept).sort().values if kept else groups.long()
    return keep[scores[keep].argsort(descending=True, stable=True)]


def soft_nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    iou_thresh: float = 0.5,
    sigma: float = 0.5,
    score_thresh: float = 0.001,
    method: Decay = "gaussian",
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Return the indices and decayed scores of the detections left by Soft-NMS, by falling score, each of shape (k,).

    The best box is taken; every other one left loses score for overlapping it, and so on until no score reaches
    ``score_thresh``. Gaussian: times exp(-IoU² / sigma). Linear: times 1 - IoU where the IoU is above ``iou_thresh``.
    Cut at 0.001 as the paper does, not at 0.05: a higher cut throws the gain away. A step for tests only, and for
    detections, not for an RPN's proposals.

    Raises:
        TypeError, ValueError: as :func:`nms`, or for a sigma that is not positive or another method.

    Lesson: 07 (Soft-NMS, section 3).
    """
    groups = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    return batched_soft_nms(boxes, scores, groups, iou_thresh, sigma, score_thresh, method)


@torch.no_grad()
def batched_soft_nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    groups: Int[Tensor, " n"],
    iou_thresh: float = 0.5,
    sigma: float = 0.5,
    score_thresh: float = 0.001,
    method: Decay = "gaussian",
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Return what :func:`soft_nms` leaves of each group by itself, all of it by falling score.

    All the decay factors are computed at once; the greedy walk over them, a few operations a step, runs on the host.

    Raises:
        TypeError, ValueError: as :func:`soft_nms`, or for groups that do not fit.

    Lesson: 07 (Soft-NMS, section 3).
    """
    _check_detections(boxes, scores, groups, iou_thresh)
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}; 0.5 is the paper's")
    if method not in ("gaussian", "linear"):
        raise ValueError(f"method must be 'gaussian' or 'linear', got {method!r}")
    iou = box_iou(boxes, boxes)
    decay = torch.exp(-(iou**2) / sigma) if method == "gaussian" else torch.where(iou > iou_thresh, 1 - iou, 1)
    factors = torch.where(groups[:, None] == groups, decay, 1).cpu().numpy()
    left = scores.cpu().numpy().copy()
    order, decayed = [], []
    for _ in range(len(left)):
        best = int(left.argmax())  # of equal scores the first
        if not left[best] >= score_thresh:
            break
        order.append(best)
        decayed.append(left[best])
        left *= factors[best]
        left[best] = -math.inf
    keep = torch.tensor(order, dtype=torch.long, device=scores.device)
    return keep, torch.tensor(decayed, dtype=scores.dtype, device=scores.device)


def select_detections(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    groups: Int[Tensor, " n"],
    iou_thresh: float,
    *,
    score_thresh: float = -math.inf,
    min_size: float = 0.0,
    top_k_per_group: int | None = None,
    max_detections: int | None = None,
    suppression: Literal["hard", "gaussian", "linear"] = "hard",
    sigma: float = 0.5,
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Return the indices and scores of the detections that answer for an image, by falling score, each of shape (k,).

    In this order: the ``top_k_per_group`` best of each group; of those, what scores above ``score_thresh`` and is at
    least ``min_size`` wide and high; NMS or Soft-NMS within each group; the ``max_detections`` best. It serves the RPN
    (a group is a level) as well as the heads, the cascade and multi-scale testing (a group is a class). Clip the boxes
    first. With ``suppression="hard"`` the scores are ``scores[indices]``, with "gaussian" or "linear" the decayed ones.

    Raises:
        TypeError, ValueError: as :func:`batched_nms` or :func:`batched_soft_nms`.

    Lesson: 05.
    """
    _check_detections(boxes, scores, groups, iou_thresh)
    index = torch.arange(len(scores), device=scores.device)
    if top_k_per_group is not None:
        members = [(groups == group).nonzero()[:, 0] for group in torch.unique(groups)]
        best = [m[scores[m].topk(min(top_k_per_group, len(m))).indices] for m in members]
        index = torch.cat(best) if best else index
    sizes = boxes[index, 2:] - boxes[index, :2]
    index = index[(scores[index] > score_thresh) & (sizes >= min_size).all(dim=1)]
    chosen = boxes[index], scores[index], groups[index]
    if suppression == "hard":
        keep = batched_nms(*chosen, iou_thresh)
        new_scores = chosen[1][keep]
    else:
        keep, new_scores = batched_soft_nms(*chosen, iou_thresh, sigma, method=suppression)
    return index[keep[:max_detections]], new_scores[:max_detections]


def _check_detections(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_thresh: float) -> None:
    check_boxes(boxes)
    if scores.shape != boxes.shape[:1] or not scores.is_floating_point():
        raise ValueError(
            f"scores must be {len(boxes)} floats, one for each box, got {tuple(scores.shape)} of {scores.dtype}"
        )
    if scores.isnan().any():
        raise ValueError(f"scores[{int(scores.isnan().nonzero()[0])}] is NaN; look for a diverged training run")
    if groups is not None and (groups.shape != scores.shape or groups.is_floating_point()):
        raise ValueError(
            f"groups must be {len(boxes)} whole numbers, one for each box, got {tuple(groups.shape)} of {groups.dtype}"
        )
    if not 0 <= iou_thresh <= 1:
        raise ValueError(f"iou_thresh must be from 0 to 1, got {iou_thresh}; 0.5 and 0.7 are usual")
