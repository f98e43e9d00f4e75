"""Exercise of lesson 01: read a feature map between its cells.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake


def bilinear_sample(feature: Float[Tensor, "H W"], y: float, x: float) -> Float[Tensor, ""]:
    """Return the value of a feature map at row ``y`` and column ``x``, in cells, between its cells too; a scalar.

    The value of cell i sits at i. A position is clamped to the grid, [0, H - 1] x [0, W - 1]; more than one cell
    outside of it (below -1, or above H or W) the value is 0 (RoIAlign's rules; Mask R-CNN, section 3).

    Lesson: 01.
    """
    if _is_far(feature, y, x):
        return feature.new_zeros(())
    return _blend(feature, _neighbours(y, feature.shape[0]), _neighbours(x, feature.shape[1]))


# Along one axis: the two cells to read, and the share of the second.
_Neighbours = tuple[int, int, float]
_Axis = Callable[[float, int], _Neighbours]  # of a position and the number of cells


def _neighbours(position: float, size: int) -> _Neighbours:
    position = _clamp(position, size)
    low = math.floor(position)
    return low, min(low + 1, size - 1), position - low


def _clamp(position: float, size: int) -> float:
    return min(max(position, 0), size - 1)


def _is_far(feature: Tensor, y: float, x: float) -> bool:
    height, width = feature.shape
    return y < -1 or y > height or x < -1 or x > width


def _blend(feature: Tensor, rows: _Neighbours, columns: _Neighbours) -> Tensor:
    (top, bottom, down), (left, right, along) = rows, columns
    upper = feature[top, left] * (1 - along) + feature[top, right] * along
    lower = feature[bottom, left] * (1 - along) + feature[bottom, right] * along
    return upper * (1 - down) + lower * down


def _sampler(rows: _Axis, columns: _Axis | None = None) -> Callable[..., Tensor]:
    """Return a bilinear sample with another choice of neighbours along y and, unless told, the same along x."""

    def sample(feature: Tensor, y: float, x: float) -> Tensor:
        if _is_far(feature, y, x):
            return feature.new_zeros(())
        return _blend(feature, rows(y, feature.shape[0]), (columns or rows)(x, feature.shape[1]))

    return sample


def _one_cell(rounding: Callable[[float], int]) -> _Axis:
    def neighbours(position: float, size: int) -> _Neighbours:
        cell = rounding(position)
        return cell, cell, 0

    return neighbours


def _first(axis: _Axis) -> _Axis:
    """Return ``axis`` for clamped positions."""
    return lambda position, size: axis(_clamp(position, size), size)


def _shares_swapped(position: float, size: int) -> _Neighbours:
    low, high, share = _neighbours(position, size)
    return low, high, 1 - share


def _cell_before(rounding: Callable[[float], int]) -> _Axis:
    return lambda position, size: (rounding(position), rounding(position) + 1, position - rounding(position))


def _last_cell_guarded(rounding: Callable[[float], int]) -> _Axis:
    def neighbours(position: float, size: int) -> _Neighbours:
        low = rounding(position)
        return low, min(low + 1, size - 1), position - low

    return neighbours


def _cells_clamped(position: float, size: int) -> _Neighbours:
    low = math.floor(position)
    first = max(low, 0)
    return first, min(first + 1, size - 1), position - low


def _outside_is_zero(feature: Tensor, y: float, x: float) -> Tensor:
    if _is_far(feature, y, x):
        return feature.new_zeros(())
    padded = F.pad(feature, (1, 2, 1, 2))
    return bilinear_sample(padded, y + 1, x + 1)


def _sizes_swapped(feature: Tensor, y: float, x: float) -> Tensor:
    if _is_far(feature.mT, y, x):
        return feature.new_zeros(())
    return _blend(feature, _neighbours(y, feature.shape[1]), _neighbours(x, feature.shape[0]))


def _indices_swapped(feature: Tensor, y: float, x: float) -> Tensor:
    if _is_far(feature, y, x):
        return feature.new_zeros(())
    return _blend(feature.mT, _neighbours(y, feature.shape[0]), _neighbours(x, feature.shape[1]))


def _zero_where(is_outside: Callable[[bool, bool], bool], margin: float = 1) -> Callable[..., Tensor]:
    """Return a bilinear sample with another rule for where it is 0, told whether y and x are outside."""

    def sample(feature: Tensor, y: float, x: float) -> Tensor:
        height, width = feature.shape
        outside_y = not -margin <= y <= height - 1 + margin
        outside_x = not -margin <= x <= width - 1 + margin
        if is_outside(outside_y, outside_x):
            return feature.new_zeros(())
        return _blend(feature, _neighbours(y, height), _neighbours(x, width))

    return sample


def _weights_vanish(feature: Tensor, y: float, x: float) -> Tensor:
    """Share by the distance from floor and from ceil: at a whole position both are 0."""
    if _is_far(feature, y, x):
        return feature.new_zeros(())
    y, x = _clamp(y, feature.shape[0]), _clamp(x, feature.shape[1])
    rows = (math.floor(y), math.ceil(y) - y), (math.ceil(y), y - math.floor(y))
    columns = (math.floor(x), math.ceil(x) - x), (math.ceil(x), x - math.floor(x))
    cells = [feature[row, column] * down * along for row, down in rows for column, along in columns]
    return torch.stack(cells).sum()


def _plain_formula(feature: Tensor, y: float, x: float) -> Tensor:
    unguarded = _cell_before(math.floor)
    return _blend(feature, unguarded(y, 0), unguarded(x, 0))


_SAMPLE_MISTAKES = (
    Mistake(
        "x and y look swapped: the first index of a feature map is its row, which is y, and the second its column, x.",
        (lambda feature, y, x: bilinear_sample(feature, x, y), _indices_swapped),
    ),
    Mistake(
        "Height and width look swapped: feature.shape is (H, W), so y ends at the first of them and x at the second.",
        (_sizes_swapped,),
    ),
    Mistake(
        "A rounding is left in: your value is that of the nearest cell alone, so it jumps where it should glide.",
        (_sampler(_first(_one_cell(round))), _sampler(_one_cell(round))),
    ),
    Mistake(
        "Your value is that of one cell, the one before the position: what is behind the decimal point is lost, "
        "and that is what says how two neighbours share.",
        (_sampler(_first(_one_cell(math.floor))), _sampler(_one_cell(math.floor))),
    ),
    Mistake(
        "The neighbours are found by rounding, so both may lie on one side of the position: it belongs between them.",
        (_sampler(_first(_last_cell_guarded(round))),),
    ),
    Mistake(
        "Your value changes along y only: along x, too, two neighbours share by distance.",
        (_sampler(_neighbours, _first(_one_cell(math.floor))), _sampler(_neighbours, _first(_one_cell(round)))),
    ),
    Mistake(
        "Your value changes along x only: along y, too, two neighbours share by distance.",
        (_sampler(_first(_one_cell(math.floor)), _neighbours), _sampler(_first(_one_cell(round)), _neighbours)),
    ),
    Mistake(
        "The shares go to the wrong neighbours: the nearer a cell is to the position, the larger its share.",
        (_sampler(_shares_swapped),),
    ),
    Mistake(
        "Along y the shares go to the wrong neighbours: the nearer row has the larger one. Along x they are right.",
        (_sampler(_shares_swapped, _neighbours),),
    ),
    Mistake(
        "Along x the shares go to the wrong neighbours: the nearer column has the larger one. Along y they are right.",
        (_sampler(_neighbours, _shares_swapped),),
    ),
    Mistake(
        "The clamp at the border is missing: index -1 wraps round to the last cell without an error, and there is no "
        "cell after the last.",
        (_sampler(_cell_before(math.floor)), _sampler(_last_cell_guarded(math.floor)), _plain_formula),
    ),
    Mistake(
        "The clamp at the border is missing, and int() hides it: it cuts towards zero, so that just before the first "
        "cell the share turns negative. Clamp the position before you split it.",
        (_sampler(_cell_before(int)), _sampler(_last_cell_guarded(int))),
    ),
    Mistake(
        "The cells are clamped at the border, but the share is not: clamp the position first, and take both from it.",
        (_sampler(_cells_clamped),),
    ),
    Mistake(
        "Cells outside the grid count as 0 in your blend, so the value fades at the border: up to one cell outside, "
        "the position is clamped and the border's value goes on.",
        (_outside_is_zero,),
    ),
    Mistake(
        "The rule for positions far outside is missing: more than one cell outside the grid, the value is 0.",
        (_zero_where(lambda y, x: False),),
    ),
    Mistake(
        "Your value is 0 as soon as the position leaves the grid: that begins only more than one cell outside.",
        (_zero_where(lambda y, x: y or x, margin=0),),
    ),
    Mistake(
        "At a whole position your weights vanish: floor and ceil are the same cell there, and both its shares are 0.",
        (_weights_vanish,),
    ),
    Mistake(
        "Your value is 0 only where y and x are both far outside: one of them is enough.",
        (_zero_where(lambda y, x: y and x),),
    ),
    Mistake(
        "Half a cell off: here the value of cell i sits at i itself, and the half pixel is the caller's business.",
        (
            lambda feature, y, x: bilinear_sample(feature, y - 0.5, x - 0.5),
            lambda feature, y, x: bilinear_sample(feature, y + 0.5, x + 0.5),
            _sampler(lambda position, size: _neighbours(position - 0.5, size)),
        ),
    ),
)

# Every cell says where it is: tens are rows, ones are columns, and the value between is 10 y + x.
_GRID = 10.0 * torch.arange(3)[:, None] + torch.arange(4)


def _sample_case(what: str, feature: Tensor, y: float, x: float) -> Case:
    return Case(what, {"feature": feature, "y": y, "x": x})


_SAMPLE_WORKED = (
    _sample_case("a position between four cells", _GRID, 1.25, 0.6),
    _sample_case("a position on a cell", _GRID, 1.0, 2.0),
    _sample_case("a position in the last row", _GRID, 2.0, 1.75),
    _sample_case("a position just above the grid", _GRID, -0.4, 1.3),
    _sample_case("a position just right of the grid", _GRID, 0.7, 3.8),
    _sample_case("a position far above the grid", _GRID, -1.4, 1.0),
    _sample_case("a position far right of the grid", _GRID, 1.2, 4.3),
)


def _sample_random(generator: torch.Generator) -> list[Case]:
    def draw(low: float, high: float) -> float:
        return round(low + (high - low) * float(torch.rand((), generator=generator)), 2)

    cases = []
    for height, width in ((4, 6), (5, 3)):
        feature = torch.randint(100, (height, width), generator=generator) / 10
        inside_y, inside_x = (0.0, height - 1.0), (0.0, width - 1.0)
        for what, y_range, x_range in (
            ("inside the grid", inside_y, inside_x),
            ("inside the grid", inside_y, inside_x),
            ("just above the grid", (-0.9, -0.1), inside_x),
            ("just below the grid", (height - 0.9, height - 0.1), inside_x),
            ("just left of the grid", inside_y, (-0.9, -0.1)),
            ("just right of the grid", inside_y, (width - 0.9, width - 0.1)),
            ("just outside a corner of the grid", (-0.9, -0.1), (width - 0.9, width - 0.1)),
            ("far below the grid", (height + 0.1, height + 2.0), inside_x),
            ("far left of the grid", inside_y, (-3.0, -1.1)),
            ("far outside a corner of the grid", (height + 0.1, height + 2.0), (-3.0, -1.1)),
        ):
            cases.append(_sample_case(f"a random position {what}", feature, draw(*y_range), draw(*x_range)))
    return cases


BILINEAR_SAMPLE = Exercise(
    name="bilinear_sample",
    reference=bilinear_sample,
    start="Begin with a position inside the grid: which two rows are its neighbours, and how near is it to each?",
    worked=_SAMPLE_WORKED,
    random=_sample_random,
    mistakes=_SAMPLE_MISTAKES,
)
