"""Choosing among overlapping detections: NMS, Soft-NMS, and the whole way from raw detections to an answer.

Here *n* counts detections. ``groups`` holds a whole number for each, its pyramid level or its class: detections of
different groups never suppress each other.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rcnn_edu.ops.boxes import check_boxes


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
    order = scores.argsort(descending=True, stable=True)
    return order[_survivors(boxes[order], iou_thresh)]


def _survivors(boxes: Float[Tensor, "n 4"], iou_thresh: float) -> Int[Tensor, " k"]:
    """Return the ranks of the boxes, given by falling score, that no better survivor suppresses.

    A block of boxes is settled at a time: first among themselves, then against all that come after them, whose losers
    leave. Only kept boxes are compared with others, as in the plain loop, but a block's worth in one operation.
    """
    block_size = 128 if boxes.device.type == "cpu" else 2048  # what fits a CPU's cache, what fills a GPU
    columns = _columns(boxes)
    threshold = _round_down(iou_thresh, columns.dtype)
    ranks = torch.arange(len(boxes), device=boxes.device)
    earlier = ranks[:block_size, None] < ranks[:block_size]
    kept = []
    while True:
        block, rest = columns[:, :block_size], columns[:, block_size:]
        n = block.shape[1]
        drops = ((_pair_iou(block, block) > threshold) & earlier[:n, :n]).to(columns.dtype)  # 1: the row the column
        alive, settled = columns.new_ones(n), False
        while not settled:  # who lives depends on who lives before it: each round settles at least one box more
            before, alive = alive, (alive @ drops == 0).to(columns.dtype)
            settled = torch.equal(alive, before)
        winners = alive.nonzero()[:, 0]
        kept.append(ranks[:block_size][winners])
        if rest.shape[1] == 0:
            return torch.cat(kept)
        left = (_pair_iou(block[:, winners], rest).amax(dim=0) <= threshold).nonzero()[:, 0]
        columns, ranks = rest[:, left], ranks[block_size:][left]


def _columns(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "5 n"]:
    """Return x1, y1, x2, y2 and the area (kept off 0: no IoU is 0 / 0), each contiguous, float32 at least."""
    columns = boxes.to(torch.promote_types(boxes.dtype, torch.float32)).T
    areas = (columns[2] - columns[0]) * (columns[3] - columns[1])
    return torch.cat([columns, areas[None].clamp_(min=torch.finfo(areas.dtype).tiny)])


def _pair_iou(columns1: Float[Tensor, "5 n"], columns2: Float[Tensor, "5 m"]) -> Float[Tensor, "n m"]:
    """Return the IoU of every pair as ``box_iou`` does, x and y at once and in place for speed."""
    columns1, columns2 = columns1[:, :, None], columns2[:, None]
    sides = torch.minimum(columns1[2:4], columns2[2:4]).sub_(torch.maximum(columns1[:2], columns2[:2])).clamp_(min=0)
    intersection = sides[0].mul_(sides[1])
    union = torch.add(columns1[4], columns2[4], out=sides[1]).sub_(intersection)
    return intersection.div_(union)


def _round_down(threshold: float, dtype: torch.dtype) -> Tensor:
    """Return the largest number of ``dtype`` up to ``threshold``: 0.3 as float32 is above 0.3, and no IoU of 3/10."""
    rounded = torch.tensor(threshold, dtype=dtype)
    return rounded if rounded.item() <= threshold else torch.nextafter(rounded, torch.zeros_like(rounded))


@torch.no_grad()
def batched_nms(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], groups: Int[Tensor, " n"], iou_thresh: float
) -> Int[Tensor, " k"]:
    """Return the indices of the boxes that :func:`nms` keeps in each group by itself, by falling score, shape (k,).

    The result is torchvision's, in the same order; but of equal scores the first comes first, where torchvision, above
    1,000 boxes, has them in any order.

    Raises:
        TypeError, ValueError: as :func:`nms`, or for groups that do not fit.

    Lesson: 07.
    """
    _check_detections(boxes, scores, groups, iou_thresh)
    few = 1000 if boxes.device.type == "cpu" else 25_000
    if 0 < len(boxes) <= few and groups.abs().max() < 1000:
        # Moved apart, the groups cannot touch each other, and one NMS serves all of them at once. The shift rounds the
        # boxes a little, and torchvision's results, with as many boxes, depend on that rounding.
        boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
        return nms(boxes + groups[:, None] * (boxes.max() - boxes.min().clamp(max=0) + 1), scores, iou_thresh)
    order = scores.argsort(descending=True, stable=True)
    boxes, groups = boxes[order], groups[order]
    ranks = [order[:0]]
    for group in torch.unique(groups):
        members = (groups == group).nonzero()[:, 0]
        ranks.append(members[_survivors(boxes[members], iou_thresh)])
    return order[torch.cat(ranks).sort().values]


def soft_nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    iou_thresh: float = 0.5,
    sigma: float = 0.5,
    score_thresh: float = 0.001,
    method: Literal["gaussian", "linear"] = "gaussian",
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Return the indices and decayed scores of the detections left by Soft-NMS, by falling score, each of shape (k,).

    The best box is taken; every other one left loses score for overlapping it, and so on until no score reaches
    ``score_thresh``. Gaussian: times exp(-IoU² / sigma). Linear: times 1 - IoU where the IoU is above ``iou_thresh``.
    Cut at 0.001 as the paper does: at 0.05 much of the gain is lost. A step for tests; proposals are usually left to
    plain NMS.

    Raises:
        TypeError, ValueError: as :func:`nms`, or for a sigma or score_thresh that is not positive, or another method.

    Lesson: 07 (Soft-NMS, section 3).
    """
    return batched_soft_nms(boxes, scores, None, iou_thresh, sigma, score_thresh, method)


@torch.no_grad()
def batched_soft_nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    groups: Int[Tensor, " n"] | None,
    iou_thresh: float = 0.5,
    sigma: float = 0.5,
    score_thresh: float = 0.001,
    method: Literal["gaussian", "linear"] = "gaussian",
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Return what :func:`soft_nms` leaves of each group by itself, all of it by falling score.

    Without ``groups``, all are in one.

    Raises:
        TypeError, ValueError: as :func:`soft_nms`, or for groups that do not fit.

    Lesson: 07 (Soft-NMS, section 3).
    """
    _check_detections(boxes, scores, groups, iou_thresh)
    if not (sigma > 0 and score_thresh > 0):
        raise ValueError(f"sigma and score_thresh must be positive, got {sigma} and {score_thresh}; see the defaults")
    if method not in ("gaussian", "linear"):
        raise ValueError(f"method must be 'gaussian' or 'linear', got {method!r}")
    columns = _columns(boxes)
    left = scores.to(columns.dtype, copy=True)  # 0 once a detection is taken
    score_thresh = torch.tensor(score_thresh, dtype=left.dtype).item()  # the same number on the host and in tensors
    taken, decayed = [], []
    while len(alive := (left >= score_thresh).nonzero()[:, 0]):
        # The best detections' rows of factors, a block at once: a full matrix would hold many that no step asks for.
        block = alive[left[alive].argsort(descending=True, stable=True)[:128]]
        iou = _pair_iou(columns[:, block], columns[:, alive])
        if groups is not None:
            iou.masked_fill_(groups[block][:, None] != groups[alive], 0)
        decay = torch.exp(-(iou**2) / sigma) if method == "gaussian" else torch.where(iou > iou_thresh, 1 - iou, 1)
        # The greedy walk, two operations a step on the host, for as long as the best one's row is there.
        factors, walked, index = decay.cpu().numpy(), left[alive].cpu().numpy(), alive.tolist()
        row_of = {detection: row for row, detection in enumerate(block.tolist())}
        best = int(walked.argmax())  # of equal scores the first
        while walked[best] >= score_thresh and index[best] in row_of:
            taken.append(index[best])
            decayed.append(float(walked[best]))
            walked *= factors[row_of[index[best]]]
            walked[best] = 0
            best = int(walked.argmax())
        left[alive] = torch.from_numpy(walked).to(left.device)
    keep = torch.tensor(taken, dtype=torch.long, device=scores.device)
    return keep, torch.tensor(decayed, dtype=scores.dtype, device=scores.device)


@torch.no_grad()
def select_detections(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    groups: Int[Tensor, " n"],
    iou_thresh: float,
    *,
    score_thresh: float = -math.inf,
    min_size: float = 0.0,
    max_detections: int | None = None,
    suppression: Literal["hard", "gaussian", "linear"] = "hard",
    sigma: float = 0.5,
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Return the indices and scores of the detections that answer for an image, by falling score, each of shape (k,).

    In this order: what scores above ``score_thresh`` and is at least ``min_size`` wide and high; NMS or Soft-NMS within
    each group; the ``max_detections`` best. It serves the RPN (a group is a level), the heads, the cascade and
    multi-scale testing (a group is a class). Clip the boxes first. The scores are the detections' own, or Soft-NMS's
    decayed ones: those are cut at its own 0.001, and not at ``score_thresh`` again.

    Raises:
        TypeError, ValueError: as :func:`batched_nms` or :func:`batched_soft_nms`.

    Lesson: 05.
    """
    _check_detections(boxes, scores, groups, iou_thresh)
    large = (boxes[:, 2:] - boxes[:, :2] >= min_size).all(dim=1)
    index = (large & (scores > score_thresh)).nonzero()[:, 0]
    chosen = boxes[index], scores[index], groups[index]
    if suppression == "hard":
        keep = batched_nms(*chosen, iou_thresh)
        new_scores = chosen[1][keep]
    else:
        keep, new_scores = batched_soft_nms(*chosen, iou_thresh, sigma, method=suppression)
    return index[keep[:max_detections]], new_scores[:max_detections]


def _check_detections(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_thresh: float) -> None:
    check_boxes(boxes)
    _check_column(scores, "scores", len(boxes), floating=True)
    if groups is not None:
        _check_column(groups, "groups", len(boxes), floating=False)
    if scores.isnan().any():
        raise ValueError(f"scores[{int(scores.isnan().nonzero()[0])}] is NaN; look for a diverged training run")
    if not 0 <= iou_thresh <= 1:
        raise ValueError(f"iou_thresh must be from 0 to 1, got {iou_thresh}; 0.5 and 0.7 are usual")


def _check_column(column: Tensor, name: str, count: int, *, floating: bool) -> None:
    kind = "a floating-point" if floating else "an integer"
    if not isinstance(column, Tensor) or column.is_floating_point() != floating:
        came = column.dtype if isinstance(column, Tensor) else type(column).__name__
        raise TypeError(f"{name} must be {kind} tensor, got {came}; convert it with torch.as_tensor and .to(dtype)")
    if column.shape != (count,):
        raise ValueError(f"{name} must be of shape ({count},), one for each box, got {tuple(column.shape)}")
