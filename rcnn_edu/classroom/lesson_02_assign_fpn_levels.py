"""Exercise of lesson 02: on which level of the pyramid each box's features are read.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake, compare_tensors
from rcnn_edu.ops import assign_fpn_levels

_Assign = Callable[[Tensor, int, int, float, int], Tensor]


def compare_levels(expected: Tensor, got: Any) -> str | None:
    """Return what is wrong with ``got``, as :func:`compare_tensors` does; levels are right in any type of number."""
    if isinstance(got, Tensor):
        got = got.double()
    fault = compare_tensors(expected.double(), got)
    if fault is None or not isinstance(got, Tensor) or got.shape != expected.shape or got.isnan().any():
        return fault
    wrong = (got != expected).nonzero()[:, 0].tolist()
    return f"{len(wrong)} of {len(got)} levels are wrong, the first that of box {wrong[0]}, to you {got[wrong[0]]:g}"


def _size(boxes: Tensor) -> Tensor:
    """Return the square root of each box's area."""
    return ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()


def _assign_with(
    *,
    size: Callable[[Tensor], Tensor] = _size,
    log: Callable[[Tensor], Tensor] = torch.log2,
    whole: Callable[[Tensor], Tensor] = lambda level: torch.floor(level + 1e-6),
    clamp: Callable[[Tensor, int, int], Tensor] = torch.clamp,
    direction: int = 1,
    constants: tuple[float, int] | None = None,
) -> _Assign:
    """Return the rule with some of its steps replaced; with none, it is right."""

    def assign(boxes: Tensor, min_level: int, max_level: int, canonical_size: float, canonical_level: int) -> Tensor:
        known_size, known_level = constants or (canonical_size, canonical_level)
        level = known_level + direction * log(size(boxes) / known_size)
        return clamp(whole(level), min_level, max_level).long()

    return assign


MISTAKES = (
    Mistake(
        "The level is rounded to the nearest whole number, so that a box of 336 px goes to P5. The rule takes the "
        "floor: P4 has everything from 224 px up to 448 px.",
        (_assign_with(whole=torch.round), _assign_with(whole=lambda level: torch.floor(level + 0.5))),
    ),
    Mistake(
        "The level is rounded up. The rule takes the floor: a box a little larger than the canonical size stays on the "
        "canonical level.",
        (_assign_with(whole=torch.ceil),),
    ),
    Mistake(
        "The levels change twice as fast as they should: it is the square root of the area that is compared with the "
        "canonical size.",
        (
            _assign_with(log=lambda scale: torch.log2(scale**2)),
            _assign_with(size=lambda boxes: _size(boxes) ** 2),
        ),
    ),
    Mistake(
        "The logarithm has another base than 2: one level up is twice the size.",
        (_assign_with(log=torch.log), _assign_with(log=torch.log10)),
    ),
    Mistake(
        "The fraction is upside down, so that large boxes go to the fine levels: it is the box's size divided by the "
        "canonical one.",
        (_assign_with(direction=-1),),
    ),
    Mistake(
        "A single side decides: two boxes of the same area are to be on the same level, whatever their shape.",
        (
            _assign_with(size=lambda boxes: (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)),
            _assign_with(size=lambda boxes: (boxes[:, 2:] - boxes[:, :2]).amin(dim=1)),
            _assign_with(size=lambda boxes: boxes[:, 2] - boxes[:, 0]),
            _assign_with(size=lambda boxes: boxes[:, 3] - boxes[:, 1]),
            _assign_with(size=lambda boxes: (boxes[:, 2:] - boxes[:, :2]).mean(dim=1)),
        ),
    ),
    Mistake(
        "The box's corner is taken for its size: width is x2 - x1, and height y2 - y1.",
        (_assign_with(size=lambda boxes: (boxes[:, 2] * boxes[:, 3]).sqrt()),),
    ),
    Mistake(
        "A pixel is added to each side: in this course a box from 10 to 20 is 10 px wide.",
        (_assign_with(size=lambda boxes: _size(boxes + boxes.new_tensor([0, 0, 1, 1]))),),
    ),
    Mistake(
        "Boxes end up on levels that there are none of: the smallest go to min_level, the largest to max_level.",
        (
            _assign_with(clamp=lambda level, low, high: level),
            _assign_with(clamp=lambda level, low, high: level.clamp(min=low)),
            _assign_with(clamp=lambda level, low, high: level.clamp(max=high)),
        ),
    ),
    Mistake(
        "The levels are counted from 0. They are asked for by name: the finest is min_level.",
        (_assign_with(clamp=lambda level, low, high: level.clamp(low, high) - low),),
    ),
    Mistake(
        "The canonical size is 224 on level 4 whatever is asked for: both are arguments.",
        (_assign_with(constants=(224, 4)),),
    ),
)


def _case(
    what: str,
    boxes: list[list[float]],
    levels: tuple[int, int] = (2, 5),
    canonical: tuple[float, int] = (224, 4),
) -> Case:
    arguments = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "min_level": levels[0],
        "max_level": levels[1],
        "canonical_size": canonical[0],
        "canonical_level": canonical[1],
    }
    return Case(what, arguments)


def _square(side: float, corner: float = 10) -> list[float]:
    return [corner, corner, corner + side, corner + side]


WORKED = (
    _case("a box of the canonical size", [_square(224)]),
    _case("boxes of 336 and 447 px", [_square(336), _square(447)]),
    _case("each border between two levels", [_square(side) for side in (111, 112, 223, 224, 447, 448)]),
    _case("three shapes of the same area", [_square(200), [0, 0, 800, 50], [0, 0, 50, 800]]),
    _case("very small and very large boxes", [_square(1), _square(20), _square(1200)]),
    _case("other levels", [_square(side) for side in (1, 20, 300, 1200)], levels=(3, 7)),
    _case("another canonical size", [_square(side) for side in (63, 64, 130, 190)], canonical=(128, 4)),
    _case("another canonical level", [_square(side) for side in (100, 230, 500)], canonical=(224, 3)),
    _case("no boxes", []),
)


def _is_clear(boxes: Tensor, canonical_size: float) -> bool:
    """Return whether every box is far enough from a border between two levels, whatever is added to it by mistake."""
    level = torch.log2(_size(boxes) / canonical_size)
    return bool(((level - level.round()).abs() > 1e-3).all())


def _random(generator: torch.Generator) -> list[Case]:
    cases: list[Case] = []
    settings = [((2, 5), (224.0, 4)), ((2, 5), (128.0, 4)), ((1, 6), (100.0, 3))]
    while len(cases) < 2 * len(settings):
        levels, canonical = settings[len(cases) % len(settings)]
        corner = (torch.rand(12, 2, generator=generator) * 100).round()
        sides = (2 ** (3 + 7 * torch.rand(12, 2, generator=generator))).round()
        boxes = torch.cat([corner, corner + sides], dim=1)
        if _is_clear(boxes, canonical[0]):
            cases.append(_case("random boxes", boxes.tolist(), levels, canonical))
    return cases


ASSIGN_FPN_LEVELS = Exercise(
    name="assign_fpn_levels",
    reference=assign_fpn_levels,
    start="Begin with the square root of each box's area, and how often it is twice the canonical size: a logarithm.",
    worked=WORKED,
    random=_random,
    mistakes=MISTAKES,
    compare=compare_levels,
)
