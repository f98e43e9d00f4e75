"""Right answers to the exercises of lesson 01, written in different ways, and its untouched stubs."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

# As a lesson shows them: a stub, then its folded solution. (test_notebook_exercises.py reads the lesson's own.)


def bilinear_sample_stub(feature: Tensor, y: float, x: float) -> Any:
    """Return the value of feature (H, W) at row y and column x, in cells: a scalar tensor.

    y and x are floats; the value of cell i sits at i. A position is clamped to the grid, [0, H - 1] x [0, W - 1];
    more than one cell outside (y < -1 or y > H, and x likewise) the value is 0.
    """
    # 1. Far outside the grid? Then 0.
    # 2. Clamp y and x to the grid.
    # 3. Find the rows above and below, the columns left and right (the last cell has no next one).
    # 4. Share between the four cells: the nearer, the more.


def bilinear_sample(feature: Tensor, y: float, x: float) -> Tensor:
    H, W = feature.shape
    if y < -1 or y > H or x < -1 or x > W:
        return feature.new_zeros(())
    y, x = min(max(y, 0), H - 1), min(max(x, 0), W - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, H - 1), min(left + 1, W - 1)
    down, along = y - top, x - left
    upper = feature[top, left] * (1 - along) + feature[top, right] * along
    lower = feature[bottom, left] * (1 - along) + feature[bottom, right] * along
    return upper * (1 - down) + lower * down


def roi_align_stub(
    features: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int = 2
) -> Any:
    """Return the mean of bilinear samples in each bin of each RoI, shape (R, C, h, w).

    features (B, C, H, W); rois (R, 5) are (batch_index, x1, y1, x2, y2) in image pixels; output_size is (h, w).
    A bin has sampling_ratio x sampling_ratio samples, each in the middle of its part. Pixel i is centred at i + 0.5.
    """
    # 1. Turn a RoI's corners into cells, as bilinear_sample counts them.
    # 2. Divide it into h x w bins of the same size. Round nothing.
    # 3. In each bin place the samples, and read them with bilinear_sample.
    # 4. The bin's value is their mean.


def roi_align(
    features: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int = 2
) -> Tensor:
    (h, w), n = output_size, sampling_ratio
    output = features.new_zeros(len(rois), features.shape[1], h, w)
    for r, (batch_index, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = [corner * spatial_scale - 0.5 for corner in corners]
        bin_height, bin_width = (y2 - y1) / h, (x2 - x1) / w
        for c, feature in enumerate(features[int(batch_index)]):
            for i in range(h):
                ys = [y1 + (i + (k + 0.5) / n) * bin_height for k in range(n)]
                for j in range(w):
                    xs = [x1 + (j + (k + 0.5) / n) * bin_width for k in range(n)]
                    samples = [bilinear_sample(feature, y, x) for y in ys for x in xs]
                    output[r, c, i, j] = sum(samples) / n**2
    return output


# Others.


def sample_with_hats(feature: Tensor, y: float, x: float) -> Tensor:
    """Weigh every cell of the map: 1 at the position, falling to 0 one cell away."""
    weights = []
    for position, size in zip((y, x), feature.shape, strict=True):
        clamped = torch.tensor(position).clamp(0, size - 1)
        weights.append((1 - (clamped - torch.arange(size)).abs()).relu() * (-1 <= position <= size))
    return weights[0] @ feature @ weights[1]


def sample_with_numpy(feature: Tensor, y: float, x: float) -> Any:
    cells = feature.numpy()
    if not (-1 <= y <= cells.shape[0] and -1 <= x <= cells.shape[1]):
        return 0
    padded = np.pad(cells, 2, mode="edge")  # the clamp at the border
    top, left = math.floor(y), math.floor(x)
    square = padded[top + 2 : top + 4, left + 2 : left + 4]
    return np.array([top + 1 - y, y - top]) @ square @ np.array([left + 1 - x, x - left])


def sample_with_grid_sample(feature: Tensor, y: float, x: float) -> Tensor:
    H, W = feature.shape
    if abs(y - (H - 1) / 2) > (H + 1) / 2 or abs(x - (W - 1) / 2) > (W + 1) / 2:
        return torch.tensor(0)
    place = torch.tensor([2 * x / (W - 1) - 1, 2 * y / (H - 1) - 1])
    return F.grid_sample(feature[None, None], place.view(1, 1, 1, 2), padding_mode="border", align_corners=True)


def align_with_gather(
    features: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int = 2
) -> Tensor:
    """Read all samples of all RoIs at once."""
    axes = []
    for low, high, bins, size in (
        (rois[:, 2], rois[:, 4], output_size[0], features.shape[2]),
        (rois[:, 1], rois[:, 3], output_size[1], features.shape[3]),
    ):
        share = (torch.arange(bins * sampling_ratio) + 0.5) / (bins * sampling_ratio)
        position = torch.lerp(low[:, None], high[:, None], share) * spatial_scale - 0.5
        inside = (position >= -1) & (position <= size)
        position = position.clamp(0, size - 1)
        low_cell = position.long()
        axes.append((low_cell, (low_cell + 1).clamp(max=size - 1), position - low_cell, inside))
    (top, bottom, down, inside_y), (left, right, along, inside_x) = axes
    chosen = features[rois[:, 0].long()].permute(1, 0, 2, 3)  # (C, R, H, W)
    r = torch.arange(len(rois))[:, None, None]
    upper = torch.lerp(
        chosen[:, r, top[:, :, None], left[:, None]], chosen[:, r, top[:, :, None], right[:, None]], along[:, None]
    )
    lower = torch.lerp(
        chosen[:, r, bottom[:, :, None], left[:, None]],
        chosen[:, r, bottom[:, :, None], right[:, None]],
        along[:, None],
    )
    samples = torch.lerp(upper, lower, down[:, :, None]) * (inside_y[:, :, None] & inside_x[:, None])
    return F.avg_pool2d(samples.transpose(0, 1), sampling_ratio)


def align_with_torchvision(
    features: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int
) -> Any:
    return torchvision.ops.roi_align(features, rois, output_size, spatial_scale, sampling_ratio, aligned=True).numpy()
