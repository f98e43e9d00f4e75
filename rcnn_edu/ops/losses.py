"""Losses of the RPN, the box head and the mask head: sums divided by counts, so that no boxes make 0 and not NaN.

Box deltas are indexed, never multiplied by a mask: infinity times zero is not zero. A loss over nothing is 0 *with its
graph*, so that every parameter gets a gradient in every step, as distributed training needs.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def rpn_loss(
    objectness: Float[Tensor, " n"],
    deltas: Float[Tensor, "n 4"],
    labels: Int[Tensor, " n"],
    target_deltas: Float[Tensor, "p 4"],
    beta: float = 1 / 9,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the objectness loss (binary cross-entropy) and the box loss (smooth L1) of the sampled anchors.

    Both are divided by n, the sampled anchors, negatives included.

    Args:
        objectness: logits, shape (n,).
        deltas: predicted, shape (n, 4).
        labels: 1 or 0, shape (n,).
        target_deltas: shape (p, 4), one row for each positive, in their order.
        beta: below it, smooth L1 is quadratic; 0 is L1. torchvision's weights were trained with 1/9.

    Raises:
        ValueError: for shapes that do not fit together, or another label.

    Lesson: 03 (Faster R-CNN, eq. 1).
    """
    labels = _check_labels(labels, len(objectness), 0, 1)
    if deltas.shape != (len(labels), 4):
        raise ValueError(f"deltas must be of shape ({len(labels)}, 4), got {tuple(deltas.shape)}; those of the sampled")
    objectness, deltas = _at_least_float32(objectness), _at_least_float32(deltas)
    objectness_loss = F.binary_cross_entropy_with_logits(objectness, labels.to(objectness.dtype), reduction="sum")
    box_loss = _smooth_l1_sum(deltas[labels > 0], target_deltas, beta)
    count = max(1, len(labels))
    return objectness_loss / count, box_loss / count


def box_head_loss(
    class_logits: Float[Tensor, "n K_plus_1"],
    box_deltas: Float[Tensor, "n c 4"],
    labels: Int[Tensor, " n"],
    target_deltas: Float[Tensor, "p 4"],
    beta: float = 1 / 9,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the class loss (cross-entropy) and the box loss (smooth L1) of the sampled RoIs.

    Both are divided by n, all the sampled RoIs: an image with few positives has a small box loss.

    Args:
        class_logits: shape (n, K + 1), background first.
        box_deltas: shape (n, K, 4), a class's in channel label - 1, or (n, 1, 4) if class-agnostic.
        labels: 0 to K, shape (n,).
        target_deltas: shape (p, 4), one row for each positive, in their order.
        beta: as in :func:`rpn_loss`.

    Raises:
        ValueError: for shapes that do not fit together, or labels out of range.

    Lesson: 04 (Fast R-CNN, section 2.3).
    """
    num_classes = class_logits.shape[1] - 1
    labels = _check_labels(labels, len(class_logits), 0, num_classes)
    n = len(labels)
    if box_deltas.shape not in ((n, num_classes, 4), (n, 1, 4)):
        raise ValueError(
            f"box_deltas must be of shape ({n}, {num_classes}, 4), or ({n}, 1, 4) if class-agnostic, got "
            f"{tuple(box_deltas.shape)}; background has class logits but no deltas"
        )
    class_loss = F.cross_entropy(_at_least_float32(class_logits), labels, reduction="sum")
    positive = (labels > 0).nonzero()[:, 0]
    channel = labels[positive] - 1 if box_deltas.shape[1] > 1 else torch.zeros_like(positive)
    box_loss = _smooth_l1_sum(_at_least_float32(box_deltas[positive, channel]), target_deltas, beta)
    return class_loss / max(1, n), box_loss / max(1, n)


def mask_loss(
    mask_logits: Float[Tensor, "p K h w"], labels: Int[Tensor, " p"], mask_targets: Float[Tensor, "p h w"]
) -> Float[Tensor, ""]:
    """Return the mean binary cross-entropy of the true class's mask, over the pixels of the positive RoIs.

    The other classes' masks are left alone: classes do not compete for a pixel.

    Args:
        mask_logits: shape (p, K, h, w); a class's mask is channel label - 1.
        labels: 1 to K, shape (p,).
        mask_targets: from 0 to 1, shape (p, h, w).

    Raises:
        ValueError: for shapes that do not fit together, or labels out of range.

    Lesson: 05 (Mask R-CNN, section 3).
    """
    labels = _check_labels(labels, len(mask_logits), 1, mask_logits.shape[1])
    chosen = _at_least_float32(mask_logits[torch.arange(len(labels), device=labels.device), labels - 1])
    if chosen.shape != mask_targets.shape:
        raise ValueError(
            f"mask_targets must be of shape {tuple(chosen.shape)}, got {tuple(mask_targets.shape)}; see crop_masks"
        )
    total = F.binary_cross_entropy_with_logits(chosen, mask_targets.to(chosen.dtype), reduction="sum")
    return total / max(1, chosen.numel())


def _smooth_l1_sum(deltas: Float[Tensor, "p 4"], target_deltas: Float[Tensor, "p 4"], beta: float) -> Float[Tensor, ""]:
    if deltas.shape != target_deltas.shape:
        raise ValueError(
            f"target_deltas must have one row for each of {len(deltas)} positives, got {tuple(target_deltas.shape)}; "
            "encode_boxes(gt_boxes[labels > 0], boxes[labels > 0]) makes them"
        )
    return F.smooth_l1_loss(deltas, target_deltas.to(deltas.dtype), beta=beta, reduction="sum")


def _check_labels(labels: Int[Tensor, " n"], count: int, low: int, high: int) -> Int[Tensor, " n"]:
    if labels.shape != (count,):
        raise ValueError(f"labels must be of shape ({count},), one for each box, got {tuple(labels.shape)}")
    wrong = (labels < low) | (labels > high)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"labels[{row}] must be from {low} to {high}, got {int(labels[row])}; "
            "0 is background, classes count from 1, and ignored boxes (-1) are not sampled"
        )
    return labels.long()


def _at_least_float32(logits: Tensor) -> Tensor:
    """Return half-precision logits as float32: a sum over hundreds of boxes needs the digits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
