"""Masks: the target that a RoI's mask head learns, and the way of its output back into the image."""

import math
import mmap

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rcnn_edu.ops.boxes import check_boxes


def crop_masks(
    masks: Float[Tensor, "m H W"] | Bool[Tensor, "m H W"] | UInt8[Tensor, "m H W"],
    boxes: Float[Tensor, "n 4"],
    size: int,
    mask_index: Int[Tensor, " n"] | None = None,
    aligned: bool = True,
) -> Float[Tensor, "n size size"]:
    """Return the part of a mask inside each box, resampled to the mask head's resolution, shape (n, size, size).

    It is the RoIAlign of the mask, with about one sample a pixel. Its weights are separable: with a single channel, two
    products of small matrices are faster than a bag for every bin.

    Args:
        masks: shape (m, H, W), in image pixels, of 0 and 1 (or False and True).
        boxes: shape (n, 4).
        size: the mask head's resolution, 28 in the paper.
        mask_index: the mask that each box crops, shape (n,); without it, boxes and masks pair up row by row.
        aligned: as in :func:`roi_align`; torchvision's weights were trained without.

    Raises:
        TypeError, ValueError: for rows that are not boxes, masks of another shape, or a different number of them.

    Lesson: 05 (Mask R-CNN, section 3).
    """
    check_boxes(boxes)
    mask_of_box = list(range(len(masks))) if mask_index is None else mask_index.tolist()
    if masks.ndim != 3 or 0 in masks.shape[1:] or len(mask_of_box) != len(boxes):
        raise ValueError(
            f"masks must be of shape (n, H, W), one for each of {len(boxes)} boxes, got {tuple(masks.shape)}; "
            "mask_index, of shape (n,), lets boxes share masks"
        )
    if not all(0 <= index < len(masks) for index in mask_of_box):
        raise ValueError(f"mask_index must be from 0 to {len(masks) - 1}, the masks there are, got {mask_of_box}")
    if size < 1:
        raise ValueError(f"size must be at least one bin, got {size}; 28 is usual")
    corners = boxes.to(torch.promote_types(boxes.dtype, torch.float32)) - (0.5 if aligned else 0)
    sides = corners[:, 2:] - corners[:, :2]
    if not aligned:
        sides = sides.clamp(min=1)
    across = _bin_weights(corners[:, 0], sides[:, 0], size, masks.shape[2])
    down = _bin_weights(corners[:, 1], sides[:, 1], size, masks.shape[1])
    # The pixels that a box reads: up to the next one's centre, and the border's if it begins a pixel beyond.
    reach = torch.cat([corners[:, :2].floor(), (corners[:, :2] + sides).ceil() + 1], dim=1)
    reach = reach.clamp(min=0, max=max(masks.shape[1:])).int()
    crops = corners.new_empty(len(boxes), size, size)
    with torch.autocast(crops.device.type, enabled=False):  # which would round the products' factors to half precision
        for i, (index, (x1, y1, x2, y2)) in enumerate(zip(mask_of_box, reach.tolist(), strict=True)):
            crops[i] = down[i, :, y1:y2] @ masks[index, y1:y2, x1:x2].to(crops.dtype) @ across[i, :, x1:x2].T
    return crops


def _bin_weights(
    start: Float[Tensor, " n"], side: Float[Tensor, " n"], num_bins: int, num_pixels: int
) -> Float[Tensor, "n num_bins num_pixels"]:
    """Return each pixel's share in each bin along one axis: a bin averages evenly spread bilinear samples."""
    bin_size = (side / num_bins)[:, None, None]
    ratio = bin_size.ceil()  # of a box without area 0: no sample
    sample = torch.arange(int(ratio.amax()) if len(ratio) else 0, dtype=start.dtype, device=start.device)
    bins = torch.arange(num_bins, dtype=start.dtype, device=start.device)[:, None]
    position = start[:, None, None] + (bins + (sample + 0.5) / ratio.clamp(min=1)) * bin_size  # (n, bins, samples)
    counts = (sample < ratio) & (position >= -1) & (position <= num_pixels)  # further out, nothing is read
    position = position.clamp(0, num_pixels - 1)
    low, share = position.long(), position.frac()
    weights = start.new_zeros(len(start), num_bins, num_pixels)
    weights.scatter_add_(2, low, (1 - share) * counts / ratio.clamp(min=1))
    return weights.scatter_add_(2, (low + 1).clamp(max=num_pixels - 1), share * counts / ratio.clamp(min=1))


def paste_masks(
    mask_probs: Float[Tensor, "n h w"], boxes: Float[Tensor, "n 4"], image_size: tuple[int, int]
) -> Float[Tensor, "n H W"]:
    """Return each RoI's mask probabilities stretched over its box in an image of ``image_size``, shape (n, H, W).

    A pixel's value is that at its centre, interpolated between the centres of the mask's cells; beyond the outer cells'
    centres it falls to 0 within one cell. So a mask full of ones crosses 0.5 exactly on the sides of its box.

    Raises:
        TypeError, ValueError: for rows that are not boxes, masks of another shape, or a size that is not positive.

    Lesson: 05 (Mask R-CNN, section 3.1).
    """
    check_boxes(boxes)
    if mask_probs.ndim != 3 or len(mask_probs) != len(boxes) or 0 in mask_probs.shape[1:]:
        raise ValueError(
            f"mask_probs must be of shape (n, h, w), one for each of {len(boxes)} boxes, got "
            f"{tuple(mask_probs.shape)}; choose each RoI's class first: logits[range(n), labels - 1].sigmoid()"
        )
    height, width = image_size
    if height <= 0 or width <= 0:
        raise ValueError(f"image_size must be a positive (H, W), got {image_size}")
    # Interpolation is separable: rows of pixels from rows of cells, then columns from columns, within the box alone.
    probs = mask_probs.to(torch.promote_types(mask_probs.dtype, torch.float32))
    start, end = boxes[:, :2].to(probs.dtype), boxes[:, 2:].to(probs.dtype)
    across = _cell_weights(start[:, 0], end[:, 0], probs.shape[2], width)
    down = _cell_weights(start[:, 1], end[:, 1], probs.shape[1], height)
    reach = (end - start) / 2 / probs.new_tensor(probs.shape[:0:-1]) + 0.5  # half a cell, and half a pixel to spare
    corners = torch.cat([(start - reach).floor(), (end + reach).ceil()], dim=1).clamp(min=0, max=max(image_size))
    pasted = _zeros(len(probs), height, width, like=probs)
    with torch.autocast(probs.device.type, enabled=False):  # which would round the products' factors to half precision
        for i, (x1, y1, x2, y2) in enumerate(corners.int().tolist()):
            pasted[i, y1:y2, x1:x2] = down[i, y1:y2] @ probs[i] @ across[i, x1:x2].T
    return pasted.to(mask_probs.dtype)


def _cell_weights(
    start: Float[Tensor, " n"], end: Float[Tensor, " n"], num_cells: int, num_pixels: int
) -> Float[Tensor, "n num_pixels num_cells"]:
    """Return each mask cell's share in each pixel along one axis: 1 where the centres meet, 0 a cell further on."""
    pixel = torch.arange(num_pixels, dtype=start.dtype, device=start.device) + 0.5
    cell = torch.arange(num_cells, dtype=start.dtype, device=start.device) + 0.5
    position = (pixel - start[:, None]) * (num_cells / (end - start).clamp(min=1e-6))[:, None]  # in cells
    return (position[:, :, None] - cell).abs_().neg_().add_(1).clamp_(min=0)


def _zeros(*shape: int, like: Tensor) -> Tensor:
    """Return zeros that cost nothing where nothing is written: 100 masks fill 300 MB, and most pixels are in none.

    ``torch.zeros`` writes every one of them, and numpy asks for pages so large that most are touched.
    """
    if like.device.type != "cpu" or 0 in shape:
        return like.new_zeros(shape)
    size = math.prod(shape) * like.element_size()
    memory = mmap.mmap(-1, size, access=mmap.ACCESS_COPY)  # the system gives a page, of zeros, where one is touched
    return torch.frombuffer(memory, dtype=like.dtype).view(shape)
