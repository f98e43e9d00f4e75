"""Exercises of lesson 00: the box codec, there and back.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake
from rcnn_edu.ops import decode_boxes, encode_boxes
from rcnn_edu.ops.boxes import DeltaWeights

_Codec = Callable[[Tensor, Tensor, DeltaWeights], Tensor]
_Weigh = Callable[[Tensor, DeltaWeights], Tensor]
USUAL: DeltaWeights = (10, 10, 5, 5)


def _times(deltas: Tensor, weights: DeltaWeights) -> Tensor:
    return deltas * deltas.new_tensor(weights)


def _over(deltas: Tensor, weights: DeltaWeights) -> Tensor:
    return deltas / deltas.new_tensor(weights)


def _size(boxes: Tensor) -> Tensor:
    return boxes[:, 2:] - boxes[:, :2]


# Encoding


def _encode_with(
    *,
    size: Callable[[Tensor], Tensor] = _size,
    centre: Callable[[Tensor, Tensor], Tensor] = lambda boxes, size: boxes[:, :2] + size / 2,
    shift: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda way, gt_size, size: way / size,
    growth: Callable[[Tensor, Tensor], Tensor] = lambda gt_size, size: torch.log(gt_size / size),
    order: tuple[int, ...] = (0, 1, 2, 3),
    weigh: _Weigh = _times,
) -> _Codec:
    """Return the encoder with some of its steps replaced; with none, it is right."""

    def encode(gt_boxes: Tensor, boxes: Tensor, weights: DeltaWeights) -> Tensor:
        gt_size, own_size = size(gt_boxes), size(boxes)
        way = centre(gt_boxes, gt_size) - centre(boxes, own_size)
        deltas = torch.cat([shift(way, gt_size, own_size), growth(gt_size, own_size)], dim=1)
        return weigh(deltas, weights)[:, order]

    return encode


ENCODE_MISTAKES = (
    Mistake(
        "The two boxes have changed places: the deltas lead from the box to the ground truth, and everything is "
        "measured in the sizes of the box, because that is what the network has.",
        (lambda gt_boxes, boxes, weights: encode_boxes(boxes, gt_boxes, weights),),
    ),
    Mistake(
        "The way leads from the ground truth to the box: turn the sign of dx and dy round. The sizes are right.",
        (_encode_with(shift=lambda way, gt_size, size: -way / size),),
    ),
    Mistake(
        "The sizes' ratio is upside down: dw is positive where the ground truth is wider than the box.",
        (_encode_with(growth=lambda gt_size, size: torch.log(size / gt_size)),),
    ),
    Mistake(
        "dx and dy are measured in pixels: measure the way in sizes of the box, so that it does not depend on how "
        "large the object is.",
        (_encode_with(shift=lambda way, gt_size, size: way),),
    ),
    Mistake(
        "dx and dy are measured in sizes of the ground truth, which a network does not know when it runs: measure the "
        "way in sizes of the box.",
        (_encode_with(shift=lambda way, gt_size, size: way / gt_size),),
    ),
    Mistake(
        "The way along x is measured in heights, and along y in widths: each belongs to its own direction.",
        (_encode_with(shift=lambda way, gt_size, size: way / size.flip(1)),),
    ),
    Mistake(
        "The way leads from corner to corner: a box that only grows round its middle should have a dx and dy of 0, so "
        "go from centre to centre.",
        (
            _encode_with(centre=lambda boxes, size: boxes[:, :2]),
            _encode_with(centre=lambda boxes, size: boxes[:, 2:]),
        ),
    ),
    Mistake(
        "The centres are not where they should be: half of the size has to be added to the corner x1, y1.",
        (
            _encode_with(centre=lambda boxes, size: size / 2),
            _encode_with(centre=lambda boxes, size: boxes[:, :2] + boxes[:, 2:]),
        ),
    ),
    Mistake(
        "The logarithm is missing in dw and dh: half the size and twice the size should be equally far from 0.",
        (
            _encode_with(growth=lambda gt_size, size: gt_size / size),
            _encode_with(growth=lambda gt_size, size: gt_size / size - 1),
            _encode_with(growth=lambda gt_size, size: gt_size - size),
        ),
    ),
    Mistake(
        "The logarithm has another base, or a 1 is added inside: it is the natural one of the plain ratio, which exp "
        "undoes.",
        (
            _encode_with(growth=lambda gt_size, size: torch.log2(gt_size / size)),
            _encode_with(growth=lambda gt_size, size: torch.log10(gt_size / size)),
            _encode_with(growth=lambda gt_size, size: torch.log1p(gt_size / size)),
        ),
    ),
    Mistake(
        "The weights are left out: each of the four deltas is multiplied by its own at the end.",
        (_encode_with(weigh=lambda deltas, weights: deltas),),
    ),
    Mistake(
        "The weights are always 10, 10, 5, 5: they are an argument.",
        (_encode_with(weigh=lambda deltas, weights: _times(deltas, USUAL)),),
    ),
    Mistake(
        "You divide by the weights: encoding multiplies by them, and decoding divides.",
        (_encode_with(weigh=_over),),
    ),
    Mistake(
        "All four deltas get the same weight: each has its own, in the order dx, dy, dw, dh.",
        (_encode_with(weigh=lambda deltas, weights: deltas * weights[0]),),
    ),
    Mistake(
        "The deltas come in another order: it is dx, dy, dw, dh.",
        (
            _encode_with(order=(0, 2, 1, 3)),
            _encode_with(order=(1, 0, 3, 2)),
            _encode_with(order=(2, 3, 0, 1)),
        ),
    ),
    Mistake(
        "The sizes are one pixel too large: a width is x2 − x1 here.",
        (_encode_with(size=lambda boxes: _size(boxes) + 1),),
    ),
)

_WIDE: list[list[float]] = [[10, 20, 50, 40], [0, 0, 16, 32]]


def _tensor(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).view(-1, 4)


def _encode_case(
    what: str, gt_boxes: list[list[float]], boxes: list[list[float]], weights: DeltaWeights = (1, 1, 1, 1)
) -> Case:
    return Case(what, {"gt_boxes": _tensor(gt_boxes), "boxes": _tensor(boxes), "weights": weights})


ENCODE_WORKED = (
    _encode_case("a box a tenth of its width too far to the left", [[4, 0, 44, 20]], [[0, 0, 40, 20]]),
    _encode_case("a box half as wide as the object", [[0, 10, 40, 30]], [[10, 10, 30, 30]]),
    _encode_case("a box that is right", [[5, 6, 25, 46]], [[5, 6, 25, 46]]),
    _encode_case("two boxes, moved and of other sizes", [[16, 18, 76, 28], [3, 1, 9, 41]], _WIDE),
    _encode_case("the usual weights", [[16, 18, 76, 28], [3, 1, 9, 41]], _WIDE, USUAL),
    _encode_case("four different weights", [[16, 18, 76, 28], [3, 1, 9, 41]], _WIDE, (2, 3, 7, 11)),
    _encode_case("an image without objects", [], []),
)


def _draw(count: int, generator: torch.Generator) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * 60
    return torch.cat([corner, corner + 4 + torch.rand(count, 2, generator=generator) * 60], dim=1)


def _encode_random(generator: torch.Generator) -> list[Case]:
    return [
        Case(
            "random boxes",
            {"gt_boxes": _draw(3, generator), "boxes": _draw(3, generator), "weights": weights},
        )
        for weights in (USUAL, (20.0, 20.0, 10.0, 10.0), (1.0, 2.0, 3.0, 4.0))
    ]


ENCODE_BOXES = Exercise(
    name="encode_boxes",
    reference=encode_boxes,
    start="Begin with the centre and the size of each box: how many widths to the right does the other centre lie?",
    worked=ENCODE_WORKED,
    random=_encode_random,
    mistakes=ENCODE_MISTAKES,
)

# Decoding


def _decode_with(
    *,
    size: Callable[[Tensor], Tensor] = _size,
    centre: Callable[[Tensor, Tensor], Tensor] = lambda boxes, size: boxes[:, :2] + size / 2,
    way: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda shift, size, new_size: shift * size,
    grow: Callable[[Tensor, Tensor], Tensor] = lambda size, growth: size * growth.exp(),
    build: Callable[[Tensor, Tensor], Tensor] = lambda centre, size: torch.cat(
        [centre - size / 2, centre + size / 2], 1
    ),
    weigh: _Weigh = _over,
) -> _Codec:
    """Return the decoder with some of its steps replaced; with none, it is right but for the limit on growth."""

    def decode(deltas: Tensor, boxes: Tensor, weights: DeltaWeights) -> Tensor:
        deltas = weigh(deltas, weights)
        own_size = size(boxes)
        new_size = grow(own_size, deltas[:, 2:])
        return build(centre(boxes, own_size) + way(deltas[:, :2], own_size, new_size), new_size)

    return decode


DECODE_MISTAKES = (
    Mistake(
        "The weights are left out: encoding multiplied by them, so divide before anything else.",
        (_decode_with(weigh=lambda deltas, weights: deltas),),
    ),
    Mistake(
        "You multiply by the weights: encoding did that, and decoding divides.",
        (_decode_with(weigh=_times),),
    ),
    Mistake(
        "The weights are always 10, 10, 5, 5: they are an argument.",
        (_decode_with(weigh=lambda deltas, weights: _over(deltas, USUAL)),),
    ),
    Mistake(
        "All four deltas are divided by the same weight: each has its own, in the order dx, dy, dw, dh.",
        (_decode_with(weigh=lambda deltas, weights: deltas / weights[0]),),
    ),
    Mistake(
        "dx and dy are taken for pixels: they count in sizes of the box.",
        (_decode_with(way=lambda shift, size, new_size: shift),),
    ),
    Mistake(
        "dx and dy are taken in sizes of the new box: they count in those of the box to begin with.",
        (_decode_with(way=lambda shift, size, new_size: shift * new_size),),
    ),
    Mistake(
        "dx is taken in heights, and dy in widths: each belongs to its own direction.",
        (_decode_with(way=lambda shift, size, new_size: shift * size.flip(1)),),
    ),
    Mistake(
        "The exponential is missing in the sizes: encoding took a logarithm, and a delta of 0 has to leave the size.",
        (
            _decode_with(grow=lambda size, growth: size * (1 + growth)),
            _decode_with(grow=lambda size, growth: size * growth),
            _decode_with(grow=lambda size, growth: size + growth),
        ),
    ),
    Mistake(
        "The new size does not start from the box's own: dw and dh say by which factor that grows.",
        (_decode_with(grow=lambda size, growth: growth.exp()),),
    ),
    Mistake(
        "The new box has the right size, but lies as if its corner had been moved in place of its centre.",
        (
            _decode_with(centre=lambda boxes, size: boxes[:, :2]),
            _decode_with(build=lambda centre, size: torch.cat([centre, centre + size], 1)),
            _decode_with(
                centre=lambda boxes, size: boxes[:, :2],
                build=lambda corner, size: torch.cat([corner, corner + size], 1),
            ),
        ),
    ),
    Mistake(
        "The new box is twice as large as it should be: from its centre it is half a size to each side.",
        (_decode_with(build=lambda centre, size: torch.cat([centre - size, centre + size], 1)),),
    ),
    Mistake(
        "The last two columns are a width and a height: two corners are asked for, x1, y1, x2, y2.",
        (
            _decode_with(build=lambda centre, size: torch.cat([centre, size], 1)),
            _decode_with(build=lambda centre, size: torch.cat([centre - size / 2, size], 1)),
        ),
    ),
    Mistake(
        "The sizes are one pixel too large: a width is x2 − x1 here.",
        (_decode_with(size=lambda boxes: _size(boxes) + 1),),
    ),
)


def _decode_case(
    what: str, deltas: list[list[float]], boxes: list[list[float]], weights: DeltaWeights = (1, 1, 1, 1)
) -> Case:
    return Case(what, {"deltas": _tensor(deltas), "boxes": _tensor(boxes), "weights": weights})


DECODE_WORKED = (
    _decode_case("a tenth of the width to the right", [[0.1, 0, 0, 0]], [[0, 0, 40, 20]]),
    _decode_case("twice the width", [[0, 0, 0.6931472, 0]], [[10, 10, 30, 30]]),
    _decode_case("no change", [[0, 0, 0, 0]], [[5, 6, 25, 46]]),
    _decode_case("two boxes, to move and to resize", [[0.3, -0.2, 0.4, -0.7], [-0.1, 0.25, -1, 0.2]], _WIDE),
    _decode_case("the usual weights", [[3, -2, 2, -3.5], [-1, 2.5, -5, 1]], _WIDE, USUAL),
    _decode_case("four different weights", [[0.6, -0.6, 2.8, -7.7], [-0.2, 0.75, -7, 2.2]], _WIDE, (2, 3, 7, 11)),
    _decode_case("an image without objects", [], []),
)


def _decode_random(generator: torch.Generator) -> list[Case]:
    return [
        Case(
            "random boxes and deltas",
            {
                "deltas": torch.randn(3, 4, generator=generator) * 0.3 * torch.tensor(weights),
                "boxes": _draw(3, generator),
                "weights": weights,
            },
        )
        for weights in (USUAL, (20.0, 20.0, 10.0, 10.0), (1.0, 2.0, 3.0, 4.0))
    ]


DECODE_BOXES = Exercise(
    name="decode_boxes",
    reference=decode_boxes,
    start="Begin at the end of encoding: undo the weights, then the way of the centre, then the logarithm of the size.",
    worked=DECODE_WORKED,
    random=_decode_random,
    mistakes=DECODE_MISTAKES,
)
