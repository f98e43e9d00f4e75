"""Exercise of lesson 00: the overlap of every pair of boxes.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake
from rcnn_edu.ops import box_iou

_Iou = Callable[[Tensor, Tensor], Tensor]


def _divide(part: Tensor, whole: Tensor) -> Tensor:
    return part / torch.where(whole > 0, whole, 1)


def _extent(start: Tensor, end: Tensor) -> Tensor:
    return end - start


def _extent_plus_one(start: Tensor, end: Tensor) -> Tensor:
    return end - start + 1


def _iou_with(
    *,
    read: Callable[[Tensor], Tensor] = lambda boxes: boxes,
    starts: Callable[[Tensor, Tensor], Tensor] = torch.maximum,
    ends: Callable[[Tensor, Tensor], Tensor] = torch.minimum,
    shared_extent: Callable[[Tensor, Tensor], Tensor] = _extent,
    own_extent: Callable[[Tensor, Tensor], Tensor] = _extent,
    cut: Callable[[Tensor], Tensor] = lambda size: size.clamp(min=0),
    area: Callable[[Tensor], Tensor] = lambda size: size[..., 0] * size[..., 1],
    after: Callable[[Tensor], Tensor] = lambda intersection: intersection,
    ratio: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda both, one, two: _divide(both, one + two - both),
) -> _Iou:
    """Return the IoU with some of its steps replaced; with none, it is right."""

    def iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
        first, second = read(boxes1)[:, None], read(boxes2)[None]
        shared = shared_extent(starts(first[..., :2], second[..., :2]), ends(first[..., 2:], second[..., 2:]))
        areas = (area(own_extent(boxes[..., :2], boxes[..., 2:])) for boxes in (first, second))
        return ratio(after(area(cut(shared))), *areas)

    return iou


def _around(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Divide by the area of the box around both."""
    first, second = boxes1[:, None], boxes2[None]
    sides = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    shared = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    return _divide(shared.clamp(min=0).prod(dim=-1), sides.prod(dim=-1))


def _row_by_row(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    shared = torch.minimum(boxes1[:, 2:], boxes2[:, 2:]) - torch.maximum(boxes1[:, :2], boxes2[:, :2])
    both = shared.clamp(min=0).prod(dim=1)
    return _divide(both, (boxes1[:, 2:] - boxes1[:, :2]).prod(1) + (boxes2[:, 2:] - boxes2[:, :2]).prod(1) - both)


MISTAKES = (
    Mistake(
        "A side is one pixel too long somewhere: a width is x2 − x1 here, for a box and for what two boxes share, so "
        "that boxes that only touch share nothing.",
        (
            _iou_with(shared_extent=_extent_plus_one, own_extent=_extent_plus_one),
            _iou_with(own_extent=_extent_plus_one),
            _iou_with(shared_extent=_extent_plus_one),
        ),
    ),
    Mistake(
        "Boxes that lie apart seem to overlap: both sides of what they share are negative, and their product is "
        "positive. Cut each side off at 0 before you multiply.",
        (
            _iou_with(cut=lambda size: size),
            _iou_with(cut=lambda size: size, after=lambda intersection: intersection.clamp(min=0)),
            _iou_with(cut=torch.abs),
        ),
    ),
    Mistake(
        "The last two columns are read as width and height: they are the corner at the lower right, x2 and y2.",
        (
            _iou_with(read=lambda boxes: torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)),
            _iou_with(own_extent=lambda start, end: end),
        ),
    ),
    Mistake(
        "The columns are read as x1, x2, y1, y2: they come as one corner and then the other, x1, y1, x2, y2.",
        (_iou_with(read=lambda boxes: boxes[:, [0, 2, 1, 3]]),),
    ),
    Mistake(
        "What the boxes share is counted twice in your union: it is part of the one area and part of the other.",
        (_iou_with(ratio=lambda both, one, two: _divide(both, one + two)),),
    ),
    Mistake(
        "Your value is twice the intersection over the sum of the areas, which is the Dice coefficient: for IoU, "
        "divide by the area that at least one of them covers.",
        (_iou_with(ratio=lambda both, one, two: _divide(2 * both, one + two)),),
    ),
    Mistake(
        "Your value is the share of one box that the other covers: a small box inside a large one would get 1. Divide "
        "by the area that at least one of them covers.",
        (
            _iou_with(ratio=lambda both, one, two: _divide(both, one.expand_as(both))),
            _iou_with(ratio=lambda both, one, two: _divide(both, two.expand_as(both))),
            _iou_with(ratio=lambda both, one, two: _divide(both, torch.minimum(one, two))),
            _iou_with(ratio=lambda both, one, two: _divide(both, torch.maximum(one, two))),
        ),
    ),
    Mistake(
        "You divide by the area of the box around both, which has corners that neither covers: the union is less.",
        (_around,),
    ),
    Mistake(
        "What you take for the intersection is the box around both: it begins where the later one begins, and ends "
        "where the earlier one ends.",
        (_iou_with(starts=torch.minimum, ends=torch.maximum),),
    ),
    Mistake(
        "Width and height are added: an area is their product.",
        (_iou_with(area=lambda size: size.sum(dim=-1)),),
    ),
    Mistake(
        "Only one of the two directions counts in your areas: an area is width times height.",
        (_iou_with(area=lambda size: size[..., 0]), _iou_with(area=lambda size: size[..., 1])),
    ),
    Mistake(
        "Coordinates or areas are rounded to whole numbers: boxes have fractions, and may be smaller than a pixel.",
        (
            _iou_with(read=torch.round),
            _iou_with(read=torch.floor),
            _iou_with(ratio=lambda both, one, two: _divide(both.floor(), one.floor() + two.floor() - both.floor())),
        ),
    ),
    Mistake(
        "Something is added to the union, or it is kept from being less than 1: boxes may be smaller than a pixel, so "
        "guard against 0 alone.",
        (
            _iou_with(ratio=lambda both, one, two: both / (one + two - both + 1)),
            _iou_with(ratio=lambda both, one, two: both / (one + two - both).clamp(min=1)),
        ),
    ),
    Mistake(
        "Row i of the first boxes meets only row i of the second: every box of the first meets every box of the "
        "second, n times m values. An axis of length 1 in the right place lets tensors pair up so.",
        (_row_by_row,),
    ),
)


def _case(what: str, boxes1: list[list[float]], boxes2: list[list[float]]) -> Case:
    first, second = (torch.tensor(boxes, dtype=torch.float32).view(-1, 4) for boxes in (boxes1, boxes2))
    return Case(what, {"boxes1": first, "boxes2": second})


_TWO: list[list[float]] = [[0, 0, 10, 10], [5, 3, 25, 13]]

WORKED = (
    _case("two boxes that overlap", [[0, 0, 4, 4]], [[2, 1, 6, 5]]),
    _case("a box inside another", [[0, 0, 8, 8]], [[2, 2, 4, 6]]),
    _case("boxes that lie apart", [[0, 0, 4, 6]], [[10, 12, 15, 15], [30, 2, 40, 5]]),
    _case("boxes that only touch", [[0, 0, 4, 4]], [[4, 0, 8, 4], [4, 4, 9, 9]]),
    _case("two boxes and three", _TWO, [[0, 0, 10, 10], [2, 4, 12, 24], [8, 1, 11, 20]]),
    _case("boxes smaller than a pixel", [[0.1, 0.2, 0.5, 0.6]], [[0.3, 0.2, 0.7, 0.8]]),
    _case("an image without objects", _TWO, []),
    _case("two boxes without area", [[3, 3, 3, 3]], [[3, 3, 3, 3]]),
)


def _random(generator: torch.Generator) -> list[Case]:
    def draw(count: int) -> list[list[float]]:
        corner = torch.rand(count, 2, generator=generator) * 40
        size = 2 + torch.rand(count, 2, generator=generator) * 40
        boxes: list[list[float]] = torch.cat([corner, corner + size], dim=1).tolist()
        return boxes

    return [_case("random boxes", draw(n), draw(m)) for n, m in ((2, 3), (4, 4), (5, 2))]


BOX_IOU = Exercise(
    name="box_iou",
    reference=box_iou,
    start="Begin with one pair of boxes on paper: where does what they share begin, and where does it end?",
    worked=WORKED,
    random=_random,
    mistakes=MISTAKES,
)
