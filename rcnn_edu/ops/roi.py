"""RoI Pooling, RoIAlign, and the rule that sends a RoI to a pyramid level.

Shape shorthand: B images, C channels, a feature map of H x W cells, R RoIs, an output of h x w bins. A RoI is
``(batch_index, x1, y1, x2, y2)`` in image pixels; ``spatial_scale`` (1 / stride) turns pixels into feature cells.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rcnn_edu.ops.boxes import box_area, check_boxes


def check_rois(features: Tensor, rois: Tensor) -> None:
    """Raise a clear error unless ``rois`` are valid RoIs, shape (R, 5), of float ``features``, shape (B, C, H, W).

    Raises:
        TypeError: if one of them is not a floating-point tensor.
        ValueError: if a shape is wrong, a value is not finite, a box ends before it starts, or a batch index is not a
            whole number from 0 to B - 1.
    """
    for name, tensor in (("features", features), ("rois", rois)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a floating-point tensor, got {kind}; convert it with {name}.float()")
    if features.ndim != 4 or 0 in features.shape[2:]:
        raise ValueError(
            f"features must be of shape (B, C, H, W) with at least one cell, got {tuple(features.shape)}; "
            "a single map needs a leading axis: features[None]"
        )
    if rois.ndim != 2 or rois.shape[1] != 5:
        raise ValueError(
            f"rois must be of shape (R, 5), one (batch_index, x1, y1, x2, y2) a row, got {tuple(rois.shape)}; "
            "put the batch index before boxes of one image: torch.nn.functional.pad(boxes, (1, 0))"
        )
    check_boxes(rois[:, 1:], "rois[:, 1:]")
    batch_index = rois[:, 0]
    right = (batch_index >= 0) & (batch_index < len(features)) & (batch_index == batch_index.floor())
    if not right.all():
        row = int((~right).nonzero()[0])
        raise ValueError(
            f"rois[{row}, 0] must be a batch index from 0 to {len(features) - 1}, the images in features, "
            f"got {batch_index[row].item():g}; the columns are (batch_index, x1, y1, x2, y2)"
        )


def _output_shape(output_size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
    if height < 1 or width < 1:
        raise ValueError(f"output_size must be at least one bin each way, got {output_size}; 7 and 14 are usual")
    return height, width


def _check_scale(spatial_scale: float) -> None:
    if not 0 < spatial_scale < math.inf:
        raise ValueError(f"spatial_scale must be positive, got {spatial_scale}; it is 1 / stride: 1 / 16 at stride 16")


def pool_bins(
    rois: Float[Tensor, "R 5"],
    output_size: tuple[int, int],
    spatial_scale: float,
    map_size: tuple[int, int],
) -> tuple[Int[Tensor, "R w"], Int[Tensor, "R w"], Int[Tensor, "R h"], Int[Tensor, "R h"]]:
    """Return the whole cells that each bin of RoI Pooling reads: x_from, x_to (R, w) and y_from, y_to (R, h).

    Ends are exclusive. Here are the two quantizations: corners to the nearest cell, then bin borders outwards. Two bins
    may share a row of cells; a bin outside the map of ``map_size`` (H, W) is empty.

    Lesson: 01 (Fast R-CNN, section 2.1).
    """
    corners = rois[:, 1:] * spatial_scale
    corners = torch.sign(corners) * torch.floor(corners.abs() + 0.5)  # as C rounds: halves away from 0

    def along(axis: int, num_bins: int, num_cells: int) -> tuple[Tensor, Tensor]:
        first, last = corners[:, axis, None], corners[:, axis + 2, None]
        bin_size = (last - first + 1).clamp(min=1) / num_bins  # the last cell is counted in
        step = torch.arange(num_bins, dtype=corners.dtype, device=corners.device)
        start = (torch.floor(step * bin_size) + first).clamp(0, num_cells).int()
        end = (torch.ceil((step + 1) * bin_size) + first).clamp(0, num_cells).int()
        return start, end

    return *along(0, output_size[1], map_size[1]), *along(1, output_size[0], map_size[0])


def roi_pool(
    features: Float[Tensor, "B C H W"],
    rois: Float[Tensor, "R 5"],
    output_size: int | tuple[int, int],
    spatial_scale: float,
) -> Float[Tensor, "R C h w"]:
    """Return the largest feature in each bin of each RoI, after rounding the RoI twice, shape (R, C, h, w).

    The bins are those of :func:`pool_bins`; an empty one is 0. The gradient of a bin goes to the one cell that won it;
    RoIs get none (Fast R-CNN, section 2.1). Each bin is a bag of cells, and all of them one ``embedding_bag``.

    Raises:
        TypeError, ValueError: for anything that :func:`check_rois` refuses, or a size or scale that is not positive.

    Lesson: 01.
    """
    check_rois(features, rois)
    _check_scale(spatial_scale)
    bins_y, bins_x = _output_shape(output_size)
    height, width = features.shape[2:]
    table = _cell_table(features)

    # In half precision, a corner times the scale would round to another cell.
    exact_rois = rois.detach().to(table.dtype)
    x_from, x_to, y_from, y_to = pool_bins(exact_rois, (bins_y, bins_x), spatial_scale, (height, width))

    # List the cells of every bin, one bag a bin: bags differ in size, so they lie end to end.
    first_cell = (rois[:, 0, None].int() * height + y_from)[:, :, None] * width + x_from[:, None, :]  # (R, h, w)
    columns = (x_to - x_from)[:, None, :].expand_as(first_cell).flatten()
    bag_size = ((y_to - y_from)[:, :, None] * (x_to - x_from)[:, None, :]).flatten()
    bag_start = bag_size.cumsum(0, dtype=torch.int) - bag_size
    bags = torch.arange(len(bag_size), dtype=torch.int, device=rois.device)
    bag = bags.repeat_interleave(bag_size)  # of each listed cell
    place = torch.arange(len(bag), dtype=torch.int, device=rois.device) - bag_start[bag]  # in its bag, row by row
    cells = first_cell.flatten()[bag] + place // columns[bag] * width + place % columns[bag]
    pooled = F.embedding_bag(cells, table, bag_start, mode="max")
    return pooled.view(len(rois), bins_y, bins_x, features.shape[1]).permute(0, 3, 1, 2).to(features.dtype)


def _cell_table(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "cells C"]:
    """Return the features as a table with one row a cell: a view, thus free, where they are ``channels_last``."""
    table = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    return table.to(torch.promote_types(table.dtype, torch.float32))


def roi_align(
    features: Float[Tensor, "B C H W"],
    rois: Float[Tensor, "R 5"],
    output_size: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> Float[Tensor, "R C h w"]:
    """Return the average of bilinear samples in each bin of each RoI, nothing rounded, shape (R, C, h, w).

    A bin holds ``sampling_ratio`` x ``sampling_ratio`` samples, evenly spread; 0 adapts their number to the RoI, about
    one sample a cell. ``aligned`` puts the value of cell i at i + 0.5, its centre, as images have it; without it, the
    value sits at i, half a cell off, and a RoI covers at least one cell: what torchvision's weights were trained with.
    RoIs get no gradient (Mask R-CNN, section 3).

    Every bin is a weighted sum of rows of the feature table, hence one ``embedding_bag``. It is fastest where the
    table costs nothing: with ``features`` in ``torch.channels_last``. Half precision is summed in float32.

    Raises:
        TypeError, ValueError: for anything that :func:`check_rois` refuses, or a size, scale or ratio out of range.

    Lesson: 01.
    """
    check_rois(features, rois)
    _check_scale(spatial_scale)
    if sampling_ratio < 0:
        raise ValueError(f"sampling_ratio must be 0 (adaptive) or more, got {sampling_ratio}; try 2")
    bins_y, bins_x = _output_shape(output_size)
    channels, height, width = features.shape[1:]
    table = _cell_table(features)

    corners = rois[:, 1:].detach().to(table.dtype) * spatial_scale - (0.5 if aligned else 0)
    start, size = corners[:, :2], corners[:, 2:] - corners[:, :2]  # each (R, 2): x and y
    if not aligned:
        size = size.clamp(min=1)
    first_cell = rois[:, 0].int() * (height * width)

    def list_bags(chosen: slice | Tensor, ratio_x: int, ratio_y: int) -> tuple[Tensor, Tensor]:
        x_cells, x_weights = axis_samples(start[chosen, 0], size[chosen, 0], bins_x, ratio_x, width)
        y_cells, y_weights = axis_samples(start[chosen, 1], size[chosen, 1], bins_y, ratio_y, height)
        rows = first_cell[chosen, None, None] + y_cells * width
        # (r, h, w, 2 ratio_y, 2 ratio_x)
        cells = rows[:, :, None, :, None] + x_cells[:, None, :, None, :]
        weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
        return cells.flatten(3).flatten(0, 2), weights.flatten(3).flatten(0, 2)  # one row a bin

    if sampling_ratio > 0 or len(rois) == 0:
        cells, weights = list_bags(slice(None), sampling_ratio or 1, sampling_ratio or 1)
        pooled = F.embedding_bag(cells, table, per_sample_weights=weights, mode="sum")
    else:  # as many samples as a bin spans cells, none in a RoI without area
        spans = torch.ceil(size / size.new_tensor([bins_x, bins_y])).int()
        pooled = _pool_adaptive(table, spans, list_bags)
    return pooled.view(len(rois), bins_y, bins_x, channels).permute(0, 3, 1, 2).to(features.dtype)


def _pool_adaptive(
    table: Float[Tensor, "cells C"], spans: Int[Tensor, "R 2"], list_bags: Callable[..., tuple[Tensor, Tensor]]
) -> Float[Tensor, "R bins_and_channels"]:
    """Return the pooled bins of RoIs whose bins hold ``spans`` samples: RoIs that agree on it are listed together.

    All of them make one embedding bag, as each backward pass of one fills a gradient as large as the table.
    """
    order, cells, weights, sizes = [], [], [], []
    distinct, group_of_roi = torch.unique(spans, dim=0, return_inverse=True)
    for group, (ratio_x, ratio_y) in enumerate(distinct.tolist()):
        chosen = (group_of_roi == group).nonzero()[:, 0]
        group_cells, group_weights = list_bags(chosen, ratio_x, ratio_y)
        order.append(chosen)
        cells.append(group_cells.flatten())
        weights.append(group_weights.flatten())
        sizes.append(spans.new_full((len(group_cells),), group_cells.shape[1]))
    bag_size = torch.cat(sizes)
    bag_start = bag_size.cumsum(0, dtype=torch.int) - bag_size
    pooled = F.embedding_bag(torch.cat(cells), table, bag_start, per_sample_weights=torch.cat(weights), mode="sum")
    return pooled.view(len(spans), -1)[torch.cat(order).argsort()]


def axis_samples(
    start: Float[Tensor, " r"], size: Float[Tensor, " r"], num_bins: int, ratio: int, num_cells: int
) -> tuple[Int[Tensor, "r n k"], Float[Tensor, "r n k"]]:
    """Return the cells that each bin reads along one axis and their weights: two for each of its ``ratio`` samples."""
    steps = torch.arange(num_bins * ratio, dtype=start.dtype, device=start.device)
    position = start[:, None] + (steps + 0.5) * (size / (num_bins * ratio))[:, None]  # (r, n ratio)
    inside = (position >= -1) & (position <= num_cells)  # a sample further out counts as 0
    position = position.clamp(0, num_cells - 1)
    low = position.floor()
    high = (low + 1).clamp(max=num_cells - 1)
    share = position - low
    cells = torch.stack([low, high], dim=-1).int()
    weights = torch.stack([1 - share, share], dim=-1) * inside[..., None] / ratio
    shape = len(start), num_bins, 2 * ratio
    return cells.view(shape), weights.view(shape)


def assign_fpn_levels(
    boxes: Float[Tensor, "n 4"],
    min_level: int = 2,
    max_level: int = 5,
    canonical_size: float = 224,
    canonical_level: int = 4,
) -> Int[Tensor, " n"]:
    """Return the pyramid level of each box, floor(4 + log2(sqrt(area) / 224)) within the levels there are, shape (n,).

    The floor sends everything from 224 px up to 448 px to P4, a box of 336 px too (FPN, eq. 1).

    Raises:
        ValueError: for rows that are not boxes, or levels in the wrong order.

    Lesson: 02.
    """
    if min_level > max_level:
        raise ValueError(f"min_level must not be above max_level, got {min_level} and {max_level}; swap them")
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))  # float16 has no number for 256 px squared
    scale = box_area(boxes).sqrt() / canonical_size
    # The tiny term keeps a box of exactly 224 px on its level where log2 falls just short of a whole number.
    level = torch.floor(canonical_level + torch.log2(scale) + 1e-6)
    return level.clamp(min_level, max_level).long()


def pyramid_roi_align(
    features: Sequence[Float[Tensor, "B C _ _"]],
    rois: Float[Tensor, "R 5"],
    strides: Sequence[int],
    output_size: int | tuple[int, int] = 7,
    sampling_ratio: int = 2,
    aligned: bool = True,
    canonical_size: float = 224,
    canonical_level: int = 4,
) -> Float[Tensor, "R C h w"]:
    """Return the RoIAlign of each RoI on the pyramid level of its size, shape (R, C, h, w).

    Args:
        features: the levels from fine to coarse, each of shape (B, C, H / stride, W / stride).
        rois: shape (R, 5), in image pixels.
        strides: each level's stride, consecutive powers of two, such as (4, 8, 16, 32) for P2 to P5.
        output_size: bins of the output, one number or (h, w).
        sampling_ratio: samples along each side of a bin, 0 to adapt, as in :func:`roi_align`.
        aligned: the half-pixel-correct coordinates, as in :func:`roi_align`.
        canonical_size: the size in pixels that :func:`assign_fpn_levels` sends to ``canonical_level``.
        canonical_level: the level of that size.

    Raises:
        TypeError, ValueError: for anything that :func:`roi_align` refuses, or strides that do not fit ``features``.

    Lesson: 02 (FPN, section 4.2).
    """
    lowest = round(math.log2(strides[0])) if len(strides) > 0 and strides[0] > 0 else -1
    levels = range(lowest, lowest + len(features))
    if len(levels) == 0 or list(strides) != [2**level for level in levels]:
        raise ValueError(
            f"strides must be consecutive powers of two, fine to coarse, one for each level, got {list(strides)} "
            f"for {len(features)} levels; P2 to P5 have (4, 8, 16, 32)"
        )
    check_rois(features[0], rois)
    level_of_roi = assign_fpn_levels(rois[:, 1:], levels[0], levels[-1], canonical_size, canonical_level)
    pooled = features[0].new_zeros(len(rois), *_output_shape(output_size), features[0].shape[1]).permute(0, 3, 1, 2)
    for level, stride, level_features in zip(levels, strides, features, strict=True):
        chosen = (level_of_roi == level).nonzero()[:, 0]
        pooled[chosen] = roi_align(level_features, rois[chosen], output_size, 1 / stride, sampling_ratio, aligned)
    return pooled
