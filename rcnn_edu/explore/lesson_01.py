"""Lesson 01, RoI quantization versus RoIAlign: its explorer and its plots."""

import itertools
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import ipywidgets as widgets
import matplotlib.cbook
import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image as Pixels
from torch import Tensor

from rcnn_edu.explore.canvas import BoxField, Explorer
from rcnn_edu.explore.figures import plot_axes
from rcnn_edu.explore.scene import PALETTE, XY, XYXY, Box, Cells, Image, Item, Lines, Panel, Points, Scene, Text
from rcnn_edu.ops import pool_bins, roi_align, roi_pool

SIZE = (384, 512)  # of each picture: whole cells at every stride up to 32
STRIDES = (1, 4, 8, 16, 32)
MOST_POINTS = 800  # beyond that the samples are a blur, and slow to send
TENTHS = (12.4, 8.7, 45.2, 32.1)  # the box of the lesson's first question


@dataclass(frozen=True)
class RoIState:
    """What the learner changes: the RoI in image pixels, the feature map it is pooled from, and how."""

    roi: XYXY = (152.6, 21.3, 375.8, 331.4)
    picture: str = "photograph"
    stride: int = 32
    output_size: int = 7
    sampling_ratio: int = 2
    aligned: bool = True
    bin: int = 16


@cache
def load_picture(name: str) -> NDArray[np.uint8]:
    """Return the picture, (384, 512, 3) of uint8: a "photograph", or a "ramp" that brightens from left to right."""
    if name == "ramp":
        row = np.linspace(0, 255, SIZE[1]).round().astype(np.uint8)
        return np.broadcast_to(row[None, :, None], (*SIZE, 3)).copy()
    path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    with Pixels.open(str(path)) as photograph:
        return np.asarray(photograph.convert("RGB"))[: SIZE[0], : SIZE[1]].copy()


@cache
def feature_map(name: str, stride: int) -> Float[Tensor, "1 1 H W"]:
    """Return the picture's brightness in [0, 1], averaged over each cell: a feature that one can see."""
    brightness = torch.from_numpy(load_picture(name)).float().mean(dim=2) / 255
    return F.avg_pool2d(brightness[None, None], stride)


@dataclass(frozen=True)
class Pooled:
    """One RoI, pooled three ways, each (n, n), and what the two operators read."""

    by_pool: Float[Tensor, "n n"]
    pool_mean: Float[Tensor, "n n"]  # RoI Pooling's bins, averaged: what rounding alone does
    by_align: Float[Tensor, "n n"]
    exact: Float[Tensor, "n n"]
    rounded: tuple[int, ...]  # RoI Pooling's corners x1, y1, x2, y2, in cells
    weights: Float[Tensor, "H W"]  # of the cells that RoIAlign reads for the chosen bin

    def error(self, values: Float[Tensor, "n n"]) -> float:
        """Return the root of the mean squared difference from the exact average, in brightness."""
        return float((values - self.exact).square().mean().sqrt())


def pool_all(state: RoIState) -> Pooled:
    """Return what the package's operators make of the state's RoI."""
    features = feature_map(state.picture, state.stride).clone().requires_grad_()
    rois = torch.tensor([[0.0, *state.roi]])
    size, scale = state.output_size, 1 / state.stride
    by_align = roi_align(features, rois, size, scale, state.sampling_ratio, state.aligned)[0, 0]
    # The output is linear in the features, so its gradient holds the weights of the bin's cells.
    (weights,) = torch.autograd.grad(by_align.flatten()[chosen_bin(state)], features)
    cells_in_bin = max(state.roi[2] - state.roi[0], state.roi[3] - state.roi[1]) * scale / size
    dense = min(64, 8 + 2 * math.ceil(cells_in_bin))  # so many samples that more change nothing one can see
    with torch.no_grad():
        by_pool = roi_pool(features, rois, size, scale)[0, 0]
        pool_mean = mean_of_bins(features, rois, size, scale)[0, 0]
        exact = roi_align(features, rois, size, scale, dense)[0, 0]
    rounded = tuple(math.floor(pixel * scale + 0.5) for pixel in state.roi)
    return Pooled(by_pool, pool_mean, by_align.detach(), exact, rounded, weights[0, 0])


def mean_of_bins(
    features: Float[Tensor, "B C H W"], rois: Float[Tensor, "R 5"], output_size: int, spatial_scale: float
) -> Float[Tensor, "R C n n"]:
    """Return the mean, not the maximum, of each of RoI Pooling's bins: with it, rounding is all that differs."""
    height, width = features.shape[2:]
    bins = pool_bins(rois, (output_size, output_size), spatial_scale, (height, width))
    pooled = features.new_zeros(len(rois), features.shape[1], output_size, output_size)
    for r, (x_from, x_to, y_from, y_to) in enumerate(zip(*(ends.tolist() for ends in bins), strict=True)):
        feature = features[int(rois[r, 0])]
        for i, j in itertools.product(range(output_size), repeat=2):
            cells = feature[:, y_from[i] : y_to[i], x_from[j] : x_to[j]]
            if cells.numel():
                pooled[r, :, i, j] = cells.mean(dim=(1, 2))
    return pooled


def chosen_bin(state: RoIState) -> int:
    """Return the number of the chosen bin, counted row by row: the last one if there are not so many."""
    return min(state.bin, state.output_size**2 - 1)


def sample_points(state: RoIState) -> Float[Tensor, "n n s 2"]:
    """Return RoIAlign's samples (x, y) in cells, bin by bin, drawn where the values lie that they read."""
    x1, y1, x2, y2 = (value / state.stride for value in state.roi)
    n = state.output_size

    def along(start: float, size: float) -> Float[Tensor, "n k"]:
        if not state.aligned:  # values at whole numbers, drawn at the cells' centres: half a cell further
            start, size = start + 0.5, max(size, 1)
        ratio = state.sampling_ratio or math.ceil(size / n)
        return start + (torch.arange(n * ratio).view(n, ratio) + 0.5) * size / (n * ratio)

    x, y = along(x1, x2 - x1), along(y1, y2 - y1)
    shape = (n, n, y.shape[1], x.shape[1])
    return torch.stack([x[None, :, None, :].expand(shape), y[:, None, :, None].expand(shape)], dim=-1).flatten(2, 3)


def roi_scene(state: RoIState) -> Scene:
    """Return the explorer's picture of a state: image, feature map, and the three outputs."""
    pooled = pool_all(state)
    errors = [cell * state.stride - pixel for cell, pixel in zip(pooled.rounded, state.roi, strict=True)]
    pool_error, align_error = pooled.error(pooled.by_pool), pooled.error(pooled.by_align)
    alt = (
        f"RoI {_numbers(state.roi)} px at stride {state.stride}: RoI Pooling rounds it to cells "
        f"{_numbers(pooled.rounded, 0)}, off by {_numbers(errors, signed=True)} px. Its bins differ from the exact "
        f"average by {pool_error:.3f} ({pooled.error(pooled.pool_mean):.3f} if they were averaged), RoIAlign's by "
        f"{align_error:.3f} (root mean square of brightness)."
    )
    panels = [
        _image_panel(state, pooled),
        _readout_panel(state, pooled, errors),
        _feature_panel(state, pooled),
        _legend_panel(),
        *_output_panels(state, pooled),
    ]
    return Scene(width=960, height=462, panels=panels, alt=alt)


def _numbers(values: XYXY | tuple[int, ...] | list[float], digits: int = 1, signed: bool = False) -> str:
    return "[" + ", ".join(f"{value:{'+' if signed else ''}.{digits}f}" for value in values) + "]"


def _read_cells(state: RoIState, pooled: Pooled) -> tuple[int, int, int, int]:
    """Return what RoI Pooling reads, in cells: its last cell whole, so the right border lies one further."""
    x1, y1, x2, y2 = pooled.rounded
    return x1, y1, x2 + 1, y2 + 1


def _image_panel(state: RoIState, pooled: Pooled) -> Panel:
    x1, y1, x2, y2 = (cell * state.stride for cell in _read_cells(state, pooled))
    items: list[Item] = [
        Image(state.picture, load_picture(state.picture), (0, 0, SIZE[1], SIZE[0]), smooth=True),
        Box((x1, y1, x2, y2), "orange", dashed=True),
        Box(state.roi, "blue", width=2.5, handle="roi"),
    ]
    return Panel((10, 28, 392, 294), (0, 0, SIZE[1], SIZE[0]), items, "The image: drag the blue RoI")


def _readout_panel(state: RoIState, pooled: Pooled, errors: list[float]) -> Panel:
    cells = [pixel / state.stride for pixel in state.roi]
    rows = [
        ("RoI, px", [f"{value:.1f}" for value in state.roi], "blue"),
        (f"÷ {state.stride}, cells", [f"{value:.2f}" for value in cells], "ink"),
        ("rounded, cells", [str(value) for value in pooled.rounded], "orange"),
        ("error, px", [f"{value:+.1f}".replace("-", "−") for value in errors], "orange"),
        ("reads, px", [str(cell * state.stride) for cell in _read_cells(state, pooled)], "orange"),
    ]
    names = ("x1", "y1", "x2", "y2")
    items: list[Item] = [Text(180 + 64 * i, 14, name, "muted", align="right") for i, name in enumerate(names)]
    for line, (name, values, color) in enumerate(rows):
        y = 36 + 22 * line
        items.append(Text(4, y, name, color))
        items += [Text(180 + 64 * i, y, value, color, align="right", bold=line == 3) for i, value in enumerate(values)]
    return Panel((10, 328, 392, 134), (0, 0, 392, 134), items, framed=False)


def _feature_panel(state: RoIState, pooled: Pooled) -> Panel:
    x1, y1, x2, y2 = (pixel / state.stride for pixel in state.roi)
    n = state.output_size
    half = max(x2 - x1, y2 - y1) / 2 + 1.6  # room for what rounding adds on either side
    middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
    view = (middle_x - half, middle_y - half, middle_x + half, middle_y + half)
    pixels_per_cell = 300 / (2 * half)
    height, width = SIZE[0] // state.stride, SIZE[1] // state.stride
    items: list[Item] = [_feature_image(state)]
    if pixels_per_cell >= 6:
        columns = range(max(0, math.ceil(view[0])), min(width, math.floor(view[2])) + 1)
        rows = range(max(0, math.ceil(view[1])), min(height, math.floor(view[3])) + 1)
        items.append(Lines([(x, 0, x, height) for x in columns] + [(0, y, width, y) for y in rows], "muted", 0.5))

    bins = pool_bins(torch.tensor([[0.0, *state.roi]]), (n, n), 1 / state.stride, (height, width))
    x_from, x_to, y_from, y_to = (borders[0].tolist() for borders in bins)
    row, column = divmod(chosen_bin(state), n)
    left, top, right, bottom = _read_cells(state, pooled)
    chosen = (x_from[column], y_from[row], x_to[column], y_to[row])
    starts = [(x, top, x, bottom) for x in x_from[1:]] + [(left, y, right, y) for y in y_from[1:]]
    items += [Lines(starts, "orange", 1, dashed=True), Box((left, top, right, bottom), "orange", dashed=True)]
    items.append(Box(chosen, "orange", 1, fill=0.35))

    bin_x, bin_y = (x2 - x1) / n, (y2 - y1) / n
    borders = [(x1 + i * bin_x, y1, x1 + i * bin_x, y2) for i in range(1, n)]
    borders += [(x1, y1 + i * bin_y, x2, y1 + i * bin_y) for i in range(1, n)]
    items += [Lines(borders, "blue", 1), Box((x1, y1, x2, y2), "blue", 2.5)]

    samples = sample_points(state)
    if samples[..., 0].numel() <= MOST_POINTS:
        items.append(Points(_rounded(samples.reshape(-1, 2)), "blue", 1.5, opacity=0.6))
    if samples.shape[2] <= MOST_POINTS:
        items += _bag_items(pooled.weights, pixels_per_cell)
        items.append(Points(_rounded(samples[row, column]), "blue", 3.2))
    return Panel((420, 28, 300, 300), view, items, f"The feature map, stride {state.stride}")


def _feature_image(state: RoIState) -> Image:
    height, width = SIZE[0] // state.stride, SIZE[1] // state.stride
    return Image(f"{state.picture}/{state.stride}", _feature_pixels(state.picture, state.stride), (0, 0, width, height))


@cache
def _feature_pixels(picture: str, stride: int) -> NDArray[np.uint8]:
    grey = (feature_map(picture, stride)[0, 0] * 255).round().to(torch.uint8).numpy()
    return np.repeat(grey[:, :, None], 3, axis=2)


def _bag_items(weights: Float[Tensor, "H W"], pixels_per_cell: float) -> list[Item]:
    """Return a disc on each cell that the chosen bin reads, its area the cell's weight, and the number if it fits."""
    cells = weights.nonzero()
    shares = weights[cells[:, 0], cells[:, 1]].tolist()
    centres = [(x + 0.5, y + 0.5) for y, x in cells.tolist()]
    radius = [max(1.5, 0.48 * pixels_per_cell * math.sqrt(share)) for share in shares]
    items: list[Item] = [Points(centres, "green", radius, opacity=0.75)]
    if pixels_per_cell >= 24:
        items += [
            Text(x, y + 0.36, f"{share:.2f}", "green", 11, "center", bold=True)
            for (x, y), share in zip(centres, shares, strict=True)
        ]
    return items


def _rounded(points: Float[Tensor, "k 2"]) -> list[XY]:
    return [(round(x, 2), round(y, 2)) for x, y in points.tolist()]


def _legend_panel() -> Panel:
    lines = [
        ("blue", "RoIAlign: exact bins, dots are samples"),
        ("orange", "RoI Pooling: whole cells; filled: its chosen bin"),
        ("green", "weights of the cells that RoIAlign's bin reads"),
        ("faint", "blank: outside the image"),
    ]
    items: list[Item] = []
    for line, (color, text) in enumerate(lines):
        y = 12 + 22 * line
        items += [Points([(8, y)], color, 5), Text(20, y, text, "ink", 12)]
    return Panel((420, 338, 300, 94), (0, 0, 300, 94), items, framed=False)


def _output_panels(state: RoIState, pooled: Pooled) -> list[Panel]:
    grids = [("RoI Pooling (max)", pooled.by_pool), ("RoIAlign", pooled.by_align), ("Exact average", pooled.exact)]
    low = min(float(values.min()) for _, values in grids)
    high = max(float(values.max()) for _, values in grids)
    row, column = divmod(chosen_bin(state), state.output_size)
    panels = []
    for place, (title, values) in enumerate(grids):
        shades = ((values - low) / max(high - low, 1e-6)).tolist()
        texts = [[f"{value:.2f}" for value in line] for line in values.tolist()] if state.output_size <= 3 else []
        n = state.output_size
        view = (0, 0, n, n)
        frame = Box((column, row, column + 1, row + 1), "green", 1.5)
        top = 28 + 148 * place
        panels.append(Panel((740, top, 116, 116), view, [Cells(view, shades, texts), frame], title))
        lines = [("chosen bin", f"{values[row, column]:.3f}", "green")]
        if values is not pooled.exact:
            lines.append(("RMS error", f"{pooled.error(values):.3f}", "ink"))
        if values is pooled.by_pool:
            lines.append(("if averaged", f"{pooled.error(pooled.pool_mean):.3f}", "ink"))
        note: list[Item] = []
        for line, (name, value, color) in enumerate(lines):
            note.append(Text(0, 10 + 38 * line, name, "muted", 12))
            note.append(Text(0, 27 + 38 * line, value, color, 14, bold=True))
        panels.append(Panel((868, top, 90, 116), (0, 0, 90, 116), note, framed=False))
    return panels


def roi_explorer(state: RoIState | None = None) -> Explorer[RoIState]:
    """Return the explorer of lesson 01: drag a RoI over a picture, and see what both operators make of it."""
    state = state or RoIState()
    slim = {"width": "270px"}
    output_size = widgets.SelectionSlider(
        options=[2, 3, 4, 7, 14], value=state.output_size, description="output size", layout=slim
    )
    chosen = widgets.IntSlider(state.bin, 0, state.output_size**2 - 1, description="chosen bin", layout=slim)
    traitlets.dlink((output_size, "value"), (chosen, "max"), lambda n: n * n - 1)
    controls = {
        "picture": widgets.Dropdown(
            options=["photograph", "ramp"], value=state.picture, description="picture", layout=slim
        ),
        "stride": widgets.SelectionSlider(options=STRIDES, value=state.stride, description="stride", layout=slim),
        "output_size": output_size,
        "bin": chosen,
        "sampling_ratio": widgets.SelectionSlider(
            options=[("1", 1), ("2", 2), ("3", 3), ("4", 4), ("adaptive", 0)],
            value=state.sampling_ratio,
            description="samples",
            layout=slim,
        ),
        "aligned": widgets.Checkbox(state.aligned, description="aligned", layout=slim),
        "roi": BoxField(state.roi, SIZE, "RoI"),
    }
    presets: dict[str, dict[str, Any]] = {
        "the face, stride 32": {"roi": RoIState.roi, "stride": 32, "output_size": 7},
        "on the grid": {"roi": (160.0, 32.0, 352.0, 320.0), "stride": 32, "output_size": 7},
        _numbers(TENTHS): {"roi": TENTHS, "stride": 1, "output_size": 7},
    }
    return Explorer(roi_scene, state, controls, presets)


def strides_scene(roi: XYXY, strides: tuple[int, ...] = (8, 16, 32)) -> Scene:
    """Return the photograph once for each stride, with the RoI and what RoI Pooling reads in its place."""
    panels = []
    for place, stride in enumerate(strides):
        state = RoIState(roi=roi, stride=stride)
        picture, *boxes = _image_panel(state, pool_all(state)).items
        fixed = [replace(item, handle="") for item in boxes if isinstance(item, Box)]
        rows = [(0, y, SIZE[1], y) for y in range(0, SIZE[0], stride)]
        columns = [(x, 0, x, SIZE[0]) for x in range(0, SIZE[1], stride)]
        grid = Lines(rows + columns, "faint", 0.15 * math.log2(stride) - 0.3)  # a dense grid would hide the picture
        view = (0, 0, SIZE[1], SIZE[0])
        panels.append(Panel((8 + 318 * place, 26, 308, 231), view, [picture, grid, *fixed], f"stride {stride}"))
    legend: list[Item] = [
        Points([(8, 10)], "blue", 5),
        Text(20, 10, "what the detector asked for", size=12),
        Points([(218, 10)], "orange", 5),
        Text(230, 10, "what RoI Pooling reads", size=12),
    ]
    panels.append(Panel((8, 264, 944, 20), (0, 0, 944, 20), legend, framed=False))
    alt = f"The RoI {_numbers(roi)} on a photograph, and the larger box that RoI Pooling reads at strides {strides}."
    return Scene(960, 288, panels, alt)


def gradients_scene(roi: XYXY, num_bins: int, by_pool: Float[Tensor, "H W"], by_align: Float[Tensor, "H W"]) -> Scene:
    """Return how much gradient each cell gets from either operator, for a RoI in cells: white is none."""
    height, width = by_pool.shape
    x1, y1, x2, y2 = roi
    inner = [i / num_bins for i in range(1, num_bins)]
    bins = [(x1 + t * (x2 - x1), y1, x1 + t * (x2 - x1), y2) for t in inner]
    bins += [(x1, y1 + t * (y2 - y1), x2, y1 + t * (y2 - y1)) for t in inner]
    grid = [(x, 0, x, height) for x in range(width)] + [(0, y, width, y) for y in range(height)]
    panels = []
    for place, (name, gradient) in enumerate((("RoI Pooling", by_pool), ("RoIAlign", by_align))):
        shades = (1 - 0.7 * gradient / gradient.max()).tolist()
        texts = [[_share_text(value) for value in line] for line in gradient.tolist()]
        items: list[Item] = [Lines(bins, "blue", 1, dashed=True), Box(roi, "blue")]
        cells = Cells((0, 0, width, height), shades, texts)
        place_of_panel = (30 + 460 * place, 26, 440, 440)
        items = [cells, Lines(grid, "faint", 0.7), *items]
        panels.append(Panel(place_of_panel, (0, 0, width, height), items, f"{name}: gradient of each cell"))
    touched = [int((gradient > 0).sum()) for gradient in (by_pool, by_align)]
    alt = f"Gradient of the pooled sum: RoI Pooling gives it to {touched[0]} cells, RoIAlign to {touched[1]}."
    return Scene(960, 480, panels, alt)


def _share_text(value: float) -> str:
    if value == 0:
        return ""
    return f"{value:.2f}" if value >= 0.005 else "<.01"


OPERATOR_STYLES: dict[str, dict[str, Any]] = {
    "RoI Pooling": {"color": PALETTE["orange"][0], "linestyle": "--"},
    "RoI Pooling, averaged": {"color": PALETTE["green"][0], "linestyle": "-."},
    "RoIAlign": {"color": PALETTE["blue"][0], "linestyle": "-"},
}


def equivariance_figure(
    shifts: Float[Tensor, " n"], ramp: dict[str, Tensor], pixels: Float[Tensor, " m"], photograph: dict[str, Tensor]
) -> Figure:
    """Return two plots of a shift: how far each operator follows on a ramp, how much it drifts on a photograph."""
    figure, (left, right) = plot_axes("The RoI moves over a ramp", "The image and its RoI move together")
    left.plot(shifts, shifts, color=PALETTE["faint"][0], linewidth=7, label="what it should do")
    for name, values in ramp.items():
        left.plot(shifts, values, label=name, **OPERATOR_STYLES[name])
    left.set(xlabel="shift of the RoI, cells", ylabel="shift of the first bin, cells")
    for name, values in photograph.items():
        right.plot(pixels, values, label=name, **OPERATOR_STYLES[name])
    right.set(xlabel="shift, px (one cell is 32 px)", ylabel="RMS change of the output")
    right.set_ylim(0, 1.5 * right.get_ylim()[1])  # room for the legend
    for axes in (left, right):
        axes.legend(frameon=False)
    return figure


def survivors_figure(sizes: list[int], strides: list[int], share: Float[Tensor, "s t"]) -> Figure:
    """Return a plot of the share of boxes that rounding leaves above IoU 0.75: by size, a line for each stride."""
    figure, (axes,) = plot_axes("Boxes that overlap their rounded version by an IoU of at least 0.75", height=320)
    looks = zip(strides, ("green", "blue", "pink", "orange"), "osD^", strict=True)
    for column, (stride, color, marker) in enumerate(looks):
        percent = 100 * share[:, column]
        axes.plot(range(len(sizes)), percent, color=PALETTE[color][0], marker=marker, label=f"stride {stride}")
    axes.set(xlabel="size of the object, px", ylabel="boxes, %", xticks=range(len(sizes)), ylim=(-3, 103))
    axes.set_xticklabels([str(size) for size in sizes])
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
