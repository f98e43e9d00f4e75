"""Exercise of lesson 01: RoIAlign, from bilinear samples.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it. All of them are
written with matrices: a check runs each on every case, which takes a learner's plain loops too long.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake
from rcnn_edu.ops import roi_align


def _half_pixel(rois: Tensor, scale: float) -> Tensor:
    """Return each RoI's corners (R, 4) in cells, where the value of cell i sits at i: its centre was at i + 0.5."""
    return rois[:, 1:] * scale - 0.5


def _even_bins(low: Tensor, high: Tensor, num_bins: int) -> tuple[Tensor, Tensor]:
    """Return where each of the RoIs' bins starts and ends along one axis, both (R, bins)."""
    edges = low[:, None] + (high - low)[:, None] * torch.arange(num_bins + 1) / num_bins
    return edges[:, :-1], edges[:, 1:]


def _centres(ratio: int) -> Tensor:
    """Return where a bin's samples lie, as fractions of the bin."""
    return (torch.arange(ratio) + 0.5) / ratio


def _hat(positions: Tensor, size: int) -> Tensor:
    """Return the bilinear weights of all cells along one axis, (R, bins, samples, size)."""
    inside = (positions >= -1) & (positions <= size)
    distance = positions.clamp(0, size - 1)[..., None] - torch.arange(size)
    return (1 - distance.abs()).clamp(min=0) * inside[..., None]


def _roi_align_with(
    *,
    batch: Callable[[Tensor], Tensor] = lambda rois: rois[:, 0],
    corners: Callable[[Tensor, float], Tensor] = _half_pixel,
    bins: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] = _even_bins,
    fractions: Callable[[int], Tensor] = _centres,
    place: Callable[[Tensor], Tensor] = lambda positions: positions,
    maps: Callable[[Tensor], Tensor] = lambda features: features,
    reduce: Callable[[Tensor], Tensor] = lambda samples: samples.mean((3, 5)),
) -> Callable[..., Tensor]:
    """Return RoIAlign with some of its steps replaced; with none, it is right."""

    def align(features: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float, ratio: int) -> Tensor:
        x1, y1, x2, y2 = corners(rois, spatial_scale).T
        positions = []
        for low, high, num_bins in ((y1, y2, output_size[0]), (x1, x2, output_size[1])):
            start, end = bins(low, high, num_bins)
            positions.append(place(start[..., None] + (end - start)[..., None] * fractions(ratio)))
        chosen = maps(features)[batch(rois).long()]  # (R, C, H, W)
        rows, columns = _hat(positions[0], chosen.shape[2]), _hat(positions[1], chosen.shape[3])
        return reduce(torch.einsum("rhkY,rcYX,rwlX->rchkwl", rows, chosen, columns))

    return align


def _corners(change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Return RoIAlign of the RoIs whose corners, in cells and shifted by half a pixel, were changed."""
    return _roi_align_with(corners=lambda rois, scale: change(_half_pixel(rois, scale)))


def _columns(*order: int) -> Callable[..., Tensor]:
    """Return RoIAlign that takes batch_index, x1, y1, x2, y2 from these columns of the RoIs."""
    right = _roi_align_with()
    return lambda features, rois, *rest: right(features, rois[:, order], *rest)


def _scale(change: Callable[[float], float]) -> Callable[..., Tensor]:
    right = _roi_align_with()
    return lambda features, rois, size, scale, ratio: right(features, rois, size, change(scale), ratio)


def _cells_of(rounding: Callable[[Tensor], Tensor]) -> tuple[Callable[..., Tensor], ...]:
    """Return RoIAlign of RoIs rounded to whole cells, before and after the half-pixel shift."""
    before = _roi_align_with(corners=lambda rois, scale: rounding(rois[:, 1:] * scale) - 0.5)
    return before, _corners(rounding)


def _at_least(corners: Tensor) -> Tensor:
    """Return the corners of RoIs that are at least one cell wide and high."""
    start = corners[:, :2]
    return torch.cat([start, start + (corners[:, 2:] - start).clamp(min=1)], dim=1)


def _grown(corners: Tensor, by: float) -> Tensor:
    return corners + corners.new_tensor([0, 0, by, by])


def _last_columns_as_size(rois: Tensor) -> Tensor:
    return torch.cat([rois[:, :2], rois[:, :2] + rois[:, 2:]], dim=1)


def _bins_rounded(start: Callable[[Tensor], Tensor], end: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def bins(low: Tensor, high: Tensor, num_bins: int) -> tuple[Tensor, Tensor]:
        starts, ends = _even_bins(low, high, num_bins)
        return start(starts), end(ends)

    return _roi_align_with(bins=bins)


def _first_bin_only(low: Tensor, high: Tensor, num_bins: int) -> tuple[Tensor, Tensor]:
    starts, ends = _even_bins(low, high, num_bins)
    return starts[:, :1].expand_as(starts), ends[:, :1].expand_as(ends)


def _clipped(features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int) -> Tensor:
    height, width = features.shape[2:]
    limit = torch.tensor([width, height, width, height]) / scale
    inside = torch.cat([rois[:, :1], torch.minimum(rois[:, 1:].clamp(min=0), limit)], dim=1)
    return _roi_align_with()(features, inside, size, scale, ratio)


def _bins_swapped(features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int) -> Tensor:
    start, extent = rois[:, 1:3], rois[:, 3:] - rois[:, 1:3]
    factor = torch.tensor([size[1] / size[0], size[0] / size[1]])  # w bins of a width of 1 / h each
    return _roi_align_with()(features, torch.cat([rois[:, :3], start + extent * factor], dim=1), size, scale, ratio)


def _size_swapped(features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int) -> Tensor:
    return _roi_align_with()(features, rois, size[::-1], scale, ratio)


def _always(ratio: int) -> Callable[..., Tensor]:
    right = _roi_align_with()
    return lambda features, rois, size, scale, _: right(features, rois, size, scale, ratio)


_ALIGN_MISTAKES = (
    Mistake(
        "The RoI is rounded to whole cells, as RoI Pooling does it: RoIAlign keeps its corners as they are.",
        _cells_of(torch.round),
    ),
    Mistake(
        "The RoI's corners are cut to whole cells, as int() or floor() do: RoIAlign keeps them as they are.",
        (*_cells_of(torch.floor), *_cells_of(torch.trunc)),
    ),
    Mistake(
        "The borders of the bins are rounded to whole cells, the second rounding of RoI Pooling: "
        "all bins of a RoI are equally large.",
        (_bins_rounded(torch.round, torch.round), _bins_rounded(torch.floor, torch.ceil)),
    ),
    Mistake(
        "The samples are rounded to whole cells: read the map between its cells, as bilinear_sample does.",
        (_roi_align_with(place=torch.round), _roi_align_with(place=torch.floor)),
    ),
    Mistake(
        "Half a pixel off: pixel i has its centre at i + 0.5, but bilinear_sample has the value of cell i at i. "
        "One step between the two is missing.",
        (_corners(lambda corners: corners + 0.5),),
    ),
    Mistake(
        "The half-pixel shift goes the wrong way or is made twice.",
        (_corners(lambda corners: corners + 1), _corners(lambda corners: corners - 0.5)),
    ),
    Mistake(
        "The half-pixel shift is made in image pixels: it is half a cell of the feature map, and follows the scale.",
        (_roi_align_with(corners=lambda rois, scale: (rois[:, 1:] - 0.5) * scale),),
    ),
    Mistake(
        "This is the legacy RoIAlign: it lacks the half-pixel shift, and it stretches small RoIs to one cell.",
        (_corners(lambda corners: _at_least(corners + 0.5)),),
    ),
    Mistake(
        "RoIs smaller than a cell are stretched to one cell, which only the legacy RoIAlign does.",
        (_corners(_at_least),),
    ),
    Mistake(
        "The RoI's columns are read with x and y swapped: they are (batch_index, x1, y1, x2, y2).",
        (_columns(0, 2, 1, 4, 3),),
    ),
    Mistake(
        "The map is read with x and y swapped: bilinear_sample takes the row y first, then the column x.",
        (_roi_align_with(maps=lambda features: features.mT),),
    ),
    Mistake(
        "The batch index is not heeded: the first column of a RoI says which image it lies in.",
        (
            _roi_align_with(batch=lambda rois: torch.zeros(len(rois))),
            _roi_align_with(batch=lambda rois: torch.arange(len(rois))),
        ),
    ),
    Mistake(
        "The RoI's columns are read from the wrong end: the batch index comes first, as (batch_index, x1, y1, x2, y2).",
        (_columns(4, 0, 1, 2, 3), _columns(0, 0, 1, 2, 3)),
    ),
    Mistake(
        "The last two columns of a RoI are read as width and height: they are the other corner, (x2, y2).",
        (
            _roi_align_with(corners=lambda rois, scale: _last_columns_as_size(rois[:, 1:]) * scale - 0.5),
            _corners(_last_columns_as_size),
        ),
    ),
    Mistake(
        "The RoI is still in image pixels: spatial_scale turns them into cells of the feature map.",
        (_scale(lambda scale: 1),),
    ),
    Mistake(
        "spatial_scale is applied the wrong way round or twice: it is 1 / stride, and turns pixels into cells.",
        (_scale(lambda scale: 1 / scale), _scale(lambda scale: scale * scale)),
    ),
    Mistake(
        "The RoI is clipped to the feature map, which moves its bins: bilinear_sample takes care of the border.",
        (_clipped,),
    ),
    Mistake(
        "The RoI is one pixel too large: its width is x2 - x1, without the + 1 of older code.",
        (
            _corners(lambda corners: _grown(corners, 1)),
            _roi_align_with(corners=lambda rois, scale: _grown(rois[:, 1:], 1) * scale - 0.5),
        ),
    ),
    Mistake(
        "All bins of a RoI lie at its first bin: each of them starts where the one before ends.",
        (_roi_align_with(bins=_first_bin_only),),
    ),
    Mistake(
        "The bins' height and width are divided by the wrong one of h and w: a RoI has h bins below each other.",
        (_bins_swapped,),
    ),
    Mistake(
        "The bins are laid out from the map's first cell: the RoI's own corner is where they start.",
        (_corners(lambda corners: corners - corners[:, [0, 1, 0, 1]]),),
    ),
    Mistake(
        "The samples start at a bin's edge: each of them lies in the middle of its own part of the bin.",
        (
            _roi_align_with(fractions=lambda ratio: torch.arange(ratio) / ratio),
            _roi_align_with(fractions=lambda ratio: torch.linspace(0, 1, ratio)),
        ),
    ),
    Mistake(
        "The samples lie too close together: a bin has n equal parts, and a sample in the middle of each.",
        (_roi_align_with(fractions=lambda ratio: (torch.arange(ratio) + 1) / (ratio + 1)),),
    ),
    Mistake(
        "There is only one sample in each bin, at its centre: sampling_ratio says how many there are along each side.",
        (_always(1),),
    ),
    Mistake(
        "There are always two samples along each side of a bin: sampling_ratio says how many there are.",
        (_always(2),),
    ),
    Mistake(
        "The samples lie on a bin's diagonal: each of the rows of samples meets each of the columns.",
        (_roi_align_with(reduce=lambda samples: samples.diagonal(dim1=3, dim2=5).mean(-1)),),
    ),
    Mistake(
        "The samples of a bin are added up: their mean is asked for, and there are sampling_ratio of them each way.",
        (
            _roi_align_with(reduce=lambda samples: samples.sum((3, 5))),
            _roi_align_with(reduce=lambda samples: samples.sum((3, 5)) / samples.shape[3]),
        ),
    ),
    Mistake(
        "Each bin takes its largest sample: here the mean of the samples is asked for.",
        (_roi_align_with(reduce=lambda samples: samples.amax((3, 5))),),
    ),
    Mistake(
        "output_size is read as (w, h): it is (h, w), rows of bins first.",
        (_size_swapped,),
    ),
)


def _align_case(
    what: str, features: Tensor, rois: list[list[float]], size: tuple[int, int], scale: float, ratio: int
) -> Case:
    arguments: dict[str, Any] = {"features": features, "rois": torch.tensor(rois), "output_size": size}
    return Case(what, {**arguments, "spatial_scale": scale, "sampling_ratio": ratio})


# Two images; in the second each value is 100 more. A bin inside the map has 10 y + x of its centre, in cells.
_MAPS = (10.0 * torch.arange(4)[:, None] + torch.arange(5) + torch.tensor([0, 100])[:, None, None])[:, None]

_ALIGN_WORKED = (
    _align_case("one bin with one sample", _MAPS, [[0, 1.2, 0.8, 3.2, 2.8]], (1, 1), 1.0, 1),
    _align_case("one bin with 2 x 2 samples", _MAPS, [[0, 1.2, 0.8, 3.2, 2.8]], (1, 1), 1.0, 2),
    _align_case("2 x 3 bins", _MAPS, [[0, 0.8, 0.6, 4.7, 3.1]], (2, 3), 1.0, 2),
    _align_case("a feature map of stride 2", _MAPS, [[0, 2.2, 1.4, 8.4, 6.8]], (2, 2), 0.5, 2),
    _align_case("a RoI in the second image", _MAPS, [[1, 1.2, 0.8, 3.2, 2.8]], (1, 2), 1.0, 2),
    _align_case("a RoI smaller than a cell", _MAPS, [[1, 1.6, 0.3, 2.2, 0.8]], (1, 1), 1.0, 2),
)


# Where a random RoI begins and ends along both axes, as fractions of the map.
_INSIDE = ((0.05, 0.4), (0.6, 0.95))
_TOP_LEFT = ((-0.6, -0.1), (0.3, 0.9))
_BOTTOM_RIGHT = ((0.1, 0.6), (1.1, 1.6))


def _align_random(generator: torch.Generator) -> list[Case]:
    def draw_roi(starts: tuple[float, float], ends: tuple[float, float], stride: int) -> list[float]:
        batch, *shares = torch.rand(5, generator=generator).tolist()
        corners = []
        for share, (low, high), num_cells in zip(shares, (starts, starts, ends, ends), (5, 4, 5, 4), strict=True):
            corners.append(round((low + share * (high - low)) * num_cells * stride, 3))
        return [float(batch > 0.5), *corners]

    cases = []
    for what, where, stride, size, ratio in (
        ("a random RoI", [_INSIDE], 1, (2, 3), 2),
        ("several random RoIs", [_INSIDE, _INSIDE, _INSIDE], 2, (2, 1), 2),
        ("3 samples along each side of a bin", [_INSIDE], 2, (1, 2), 3),
        ("a random RoI across the border at the top left", [_TOP_LEFT], 1, (3, 2), 2),
        ("a random RoI across the border at the bottom right", [_BOTTOM_RIGHT], 4, (2, 2), 2),
        ("several random RoIs with one sample in each bin", [_INSIDE, _TOP_LEFT], 4, (1, 3), 1),
    ):
        features = torch.randint(100, (2, 2, 4, 5), generator=generator) / 10
        rois = [draw_roi(*ranges, stride) for ranges in where]
        cases.append(_align_case(what, features, rois, size, 1 / stride, ratio))
    return cases


ROI_ALIGN = Exercise(
    name="roi_align",
    reference=roi_align,
    start="Begin with one RoI and one bin: turn its corners into cells, and place the samples of the bin.",
    worked=_ALIGN_WORKED,
    random=_align_random,
    mistakes=_ALIGN_MISTAKES,
)
