"""Boxes: area, overlap, the regression codec, clipping.

A box is ``(x1, y1, x2, y2)`` in pixels; its width is ``x2 - x1``, never ``+ 1``. Here *n* and *m* count boxes.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

DeltaWeights = tuple[float, float, float, float]  # of dx, dy, dw, dh

# A size grows at most as from 16 px to 1000 px in one regression step: without a limit, exp(dw) of an
# untrained head overflows to infinity.
MAX_LOG_SCALE = math.log(1000 / 16)


def check_boxes(boxes: Tensor, name: str = "boxes", *, positive_size: bool = False) -> None:
    """Raise a clear error unless ``boxes`` is a float tensor of n finite ``xyxy`` boxes.

    Args:
        boxes: what the caller passed, expected of shape (n, 4).
        name: the argument's name, for the message.
        positive_size: refuse boxes of zero width or height too.

    Raises:
        TypeError: if ``boxes`` is not a floating-point tensor.
        ValueError: if the shape is wrong, a coordinate is not finite, or a box ends before it starts.
    """
    if not isinstance(boxes, Tensor) or not boxes.is_floating_point():
        kind = boxes.dtype if isinstance(boxes, Tensor) else type(boxes).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {kind}; convert: torch.as_tensor({name}).float()")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"{name} must be of shape (n, 4), one (x1, y1, x2, y2) a row, got {tuple(boxes.shape)}; "
            "a single box needs a leading axis: box[None]"
        )
    sizes = boxes[:, 2:] - boxes[:, :2]  # NaN or infinite as soon as one coordinate is
    right = (sizes > 0 if positive_size else sizes >= 0) & (sizes < math.inf)
    if right.all():  # the one device synchronisation of a valid call
        return
    row = int((~right).any(1).nonzero()[0])
    box = [round(value, 4) for value in boxes[row].tolist()]
    if not boxes[row].isfinite().all():
        raise ValueError(f"{name}[{row}] is not finite: {box}; look for a division by zero or a diverged training run")
    least = "x2 > x1 and y2 > y1" if positive_size else "x2 >= x1 and y2 >= y1"
    raise ValueError(
        f"{name}[{row}] must have {least}, got {box}; if these are (x, y, width, height), "
        "convert them to (x, y, x + width, y + height)"
    )


def box_area(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Return each box's area in square pixels, shape (n,).

    Raises:
        ValueError: for boxes that are not n finite ``xyxy`` rows.

    Lesson: 00.
    """
    check_boxes(boxes)
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def box_iou(boxes1: Float[Tensor, "n 4"], boxes2: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Return the intersection over union of every pair, shape (n, m), in [0, 1].

    A pair whose union is empty (two boxes without area) has IoU 0, not NaN.

    Raises:
        ValueError: for boxes that are not finite ``xyxy`` rows.

    Lesson: 00.
    """
    check_boxes(boxes1, "boxes1")
    check_boxes(boxes2, "boxes2")
    dtype = torch.promote_types(boxes1.dtype, boxes2.dtype)
    wide = torch.promote_types(dtype, torch.float32)  # in float16, the area of a 256 px box is infinite already
    boxes1, boxes2 = boxes1.to(wide), boxes2.to(wide)
    x1 = torch.maximum(boxes1[:, None, 0], boxes2[:, 0])
    y1 = torch.maximum(boxes1[:, None, 1], boxes2[:, 1])
    x2 = torch.minimum(boxes1[:, None, 2], boxes2[:, 2])
    y2 = torch.minimum(boxes1[:, None, 3], boxes2[:, 3])
    intersection = (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)
    union = box_area(boxes1)[:, None] + box_area(boxes2) - intersection
    # Divide by 1 where there is nothing to divide: chosen after the division, 0 would still have a gradient of NaN.
    return (intersection / torch.where(union > 0, union, 1)).to(dtype)


def encode_boxes(
    gt_boxes: Float[Tensor, "n 4"],
    boxes: Float[Tensor, "n 4"],
    weights: DeltaWeights = (10, 10, 5, 5),
) -> Float[Tensor, "n 4"]:
    """Return the deltas (dx, dy, dw, dh) that turn each box into its ground truth, shape (n, 4).

    The centre's shift is measured in box sizes and the size's change as a logarithm, so that a target does not depend
    on how large or where the object is; ``weights`` bring the four to about unit variance (Faster R-CNN, eq. 2).

    Raises:
        ValueError: for rows that are not boxes of positive size, or another number of them.

    Lesson: 00.
    """
    check_boxes(gt_boxes, "gt_boxes", positive_size=True)
    check_boxes(boxes, positive_size=True)
    if len(gt_boxes) != len(boxes):
        raise ValueError(
            f"gt_boxes and boxes must pair up row by row, got {len(gt_boxes)} and {len(boxes)} rows; "
            "pick each box's ground truth first: gt_boxes[matched_index]"
        )
    gt_size = gt_boxes[:, 2:] - gt_boxes[:, :2]
    size = boxes[:, 2:] - boxes[:, :2]
    shift = (gt_boxes[:, :2] + gt_size / 2 - boxes[:, :2] - size / 2) / size
    return torch.cat([shift, torch.log(gt_size / size)], dim=1) * boxes.new_tensor(weights)


def decode_boxes(
    deltas: Float[Tensor, "n 4"],
    boxes: Float[Tensor, "n 4"],
    weights: DeltaWeights = (10, 10, 5, 5),
) -> Float[Tensor, "n 4"]:
    """Return the boxes that ``deltas`` move ``boxes`` to, shape (n, 4): the inverse of :func:`encode_boxes`.

    A size grows at most by a factor of 1000/16, so that no output of an untrained head is infinite.

    Raises:
        ValueError: for rows that are not boxes, or another number of deltas.

    Lesson: 00.
    """
    check_boxes(boxes)
    if deltas.shape != boxes.shape:
        raise ValueError(
            f"deltas must be of the boxes' shape {tuple(boxes.shape)}, got {tuple(deltas.shape)}; "
            "deltas of K classes are decoded after the class is chosen, or with each box repeated K times"
        )
    deltas = deltas / deltas.new_tensor(weights)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + size / 2 + deltas[:, :2] * size
    half = size * deltas[:, 2:].clamp(max=MAX_LOG_SCALE).exp() / 2
    return torch.cat([centre - half, centre + half], dim=1)


def clip_boxes(boxes: Float[Tensor, "n 4"], size: tuple[int, int]) -> Float[Tensor, "n 4"]:
    """Return the boxes cut at the border of an image of ``size`` (H, W), shape (n, 4).

    A box that lies outside altogether is left with zero area on the border.

    Raises:
        ValueError: for rows that are not boxes, or a size that is not positive.

    Lesson: 00.
    """
    check_boxes(boxes)
    height, width = size
    if height <= 0 or width <= 0:
        raise ValueError(f"size must be a positive (H, W), got {size}; for an image tensor it is image.shape[-2:]")
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
