"""Assignment: which ground truth, if any, each anchor or proposal is to learn.

Here *n* counts anchors (or proposals) and *m* ground truths. A label is 1 positive, 0 negative, -1 ignored.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rcnn_edu.ops.boxes import box_iou, check_boxes

TIE = 1e-6  # anchors whose IoUs differ by less touch a ground truth equally well: == on floats would depend on rounding


@torch.no_grad()
def match_boxes(
    iou: Float[Tensor, "n m"], pos_iou_thresh: float, neg_iou_thresh: float, *, keep_best: bool
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the ground truth that each box is matched to, and its label 1, 0 or -1, each of shape (n,).

    A box is matched to the ground truth it overlaps most. It is positive from ``pos_iou_thresh`` on, negative below
    ``neg_iou_thresh``, else ignored. With ``keep_best`` (for anchors, not for proposals), the boxes that overlap a
    ground truth best are positive however little that is, as long as they touch it, *and are matched to that ground
    truth*, so that none goes unlearnt; torchvision's ``allow_low_quality_matches`` leaves such a box matched to the one
    it overlaps most itself. A box that is the best of several learns the one of them it overlaps most.

    Without ground truths all boxes are negative, and matched to 0.

    Raises:
        ValueError: for a matrix of another shape, or thresholds that are not 0 <= neg <= pos <= 1.

    Lesson: 03 (Faster R-CNN, section 3.1.2).
    """
    if iou.ndim != 2:
        raise ValueError(f"iou must be of shape (n, m), boxes by ground truths, got {tuple(iou.shape)}; see box_iou")
    if not 0 <= neg_iou_thresh <= pos_iou_thresh <= 1:
        raise ValueError(
            f"thresholds must be 0 <= neg_iou_thresh <= pos_iou_thresh <= 1, got {neg_iou_thresh} and {pos_iou_thresh}"
        )
    if iou.numel() == 0:
        return iou.new_zeros(len(iou), dtype=torch.long), iou.new_zeros(len(iou), dtype=torch.long)
    best_iou, matched_index = iou.max(dim=1)
    labels = torch.where(best_iou >= pos_iou_thresh, 1, torch.where(best_iou < neg_iou_thresh, 0, -1))
    if keep_best:
        best_of_gt = (iou.amax(dim=0) - TIE).clamp(min=torch.finfo(iou.dtype).tiny)  # IoU 0 is nobody's best
        is_best = iou >= best_of_gt
        rescued = is_best.amax(dim=1).nonzero()[:, 0]
        matched_index[rescued] = iou[rescued].where(is_best[rescued], -1).argmax(dim=1)
        labels[rescued] = 1
    return matched_index, labels


@torch.no_grad()
def assign_anchors_to_gt(
    anchors: Float[Tensor, "n 4"],
    gt_boxes: Float[Tensor, "m 4"],
    pos_iou_thresh: float = 0.7,
    neg_iou_thresh: float = 0.3,
) -> tuple[Int[Tensor, " n"], Float[Tensor, "n 4"]]:
    """Return each anchor's label, 1 positive, 0 negative, -1 ignored, shape (n,), and its ground truth, shape (n, 4).

    The rule is that of :func:`match_boxes`, each ground truth's best anchors kept. Only the positive anchors' ground
    truths mean anything; where an image has none, they are zeros and all labels 0.

    Raises:
        TypeError, ValueError: for rows that are not boxes, or thresholds out of order.

    Lesson: 03 (Faster R-CNN, section 3.1.2).
    """
    check_boxes(anchors, "anchors")
    check_boxes(gt_boxes, "gt_boxes")
    # Anchors innermost, each coordinate by itself, and as many at a time as a CPU's cache holds pairs.
    step = 2**18 // max(1, len(gt_boxes)) + 1 if anchors.device.type == "cpu" else max(1, len(anchors))
    by_coordinate = anchors.T.contiguous().T
    iou = anchors.new_empty(len(gt_boxes), len(anchors))
    for start in range(0, len(anchors), step):
        iou[:, start : start + step] = box_iou(gt_boxes, by_coordinate[start : start + step])
    matched_index, labels = match_boxes(iou.T, pos_iou_thresh, neg_iou_thresh, keep_best=True)
    if len(gt_boxes) == 0:
        return labels, torch.zeros_like(anchors)
    return labels, gt_boxes[matched_index]
