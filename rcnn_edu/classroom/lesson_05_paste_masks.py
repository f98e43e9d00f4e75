"""Exercise of lesson 05: from a RoI's small picture of probabilities into the image.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake
from rcnn_edu.ops import paste_masks

Size = tuple[int, int]
_Paste = Callable[[Tensor, Tensor, Size], Tensor]


def _centres(num_pixels: int) -> Tensor:
    return torch.arange(num_pixels) + 0.5


def _stretch(distance: Tensor, side: Tensor, num_cells: int) -> Tensor:
    """Return a distance from the box's first side, in cells, where the value of cell i sits at i."""
    return distance * (num_cells / side) - 0.5


def _hat(position: Tensor, num_cells: int) -> Tensor:
    """Return the bilinear weights of all cells along one axis, (n, pixels, cells): 0 from one cell away on."""
    return (1 - (position[:, :, None] - torch.arange(num_cells)).abs()).clamp(min=0)


def _hat_in_box(position: Tensor, num_cells: int) -> Tensor:
    inside = (position >= -0.5) & (position <= num_cells - 0.5)
    return _hat(position, num_cells) * inside[:, :, None]


def _clamped(position: Tensor, num_cells: int) -> Tensor:
    return _hat(position.clamp(0, num_cells - 1), num_cells)


def _clamped_in_box(position: Tensor, num_cells: int) -> Tensor:
    inside = (position >= -0.5) & (position <= num_cells - 0.5)
    return _clamped(position, num_cells) * inside[:, :, None]


def _nearest(position: Tensor, num_cells: int) -> Tensor:
    return ((position[:, :, None] + 0.5).floor() == torch.arange(num_cells)).float()


def _rounded(position: Tensor, num_cells: int) -> Tensor:
    """Return the same as ``mode="nearest"`` has it: a centre half-way between two cells is the even one's."""
    return (position[:, :, None].round() == torch.arange(num_cells)).float()


def _paste_with(
    *,
    boxes: Callable[[Tensor, Size], Tensor] = lambda boxes, size: boxes,
    pixels: Callable[[int], Tensor] = _centres,
    stretch: Callable[[Tensor, Tensor, int], Tensor] = _stretch,
    weigh: Callable[[Tensor, int], Tensor] = _hat,
    probs: Callable[[Tensor], Tensor] = lambda probs: probs,
    finish: Callable[[Tensor], Tensor] = lambda pasted: pasted,
) -> _Paste:
    """Return the paste with some of its steps replaced; with none, it is right."""

    def paste(mask_probs: Tensor, all_boxes: Tensor, image_size: Size) -> Tensor:
        x1, y1, x2, y2 = boxes(all_boxes, image_size).T[:, :, None]
        small = probs(mask_probs)
        down = weigh(stretch(pixels(image_size[0]) - y1, y2 - y1, small.shape[1]), small.shape[1])
        across = weigh(stretch(pixels(image_size[1]) - x1, x2 - x1, small.shape[2]), small.shape[2])
        return finish(down @ small @ across.mT)

    return paste


def _grown(boxes: Tensor) -> Tensor:
    return boxes + boxes.new_tensor([0, 0, 1, 1])


def _clipped(boxes: Tensor, size: Size) -> Tensor:
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([size[1], size[0], size[1], size[0]]))


def _whole_image(boxes: Tensor, size: Size) -> Tensor:
    return boxes.new_tensor([0, 0, size[1], size[0]]).expand_as(boxes)


def _sizes_swapped(mask_probs: Tensor, boxes: Tensor, image_size: Size) -> Tensor:
    return _paste_with()(mask_probs, boxes, image_size[::-1])


def _with_sides(boxes: Tensor, size: Size) -> Tensor:
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


MISTAKES = (
    Mistake(
        "Half a pixel off: pixel x covers the image from x to x + 1, and its centre is at x + 0.5.",
        (_paste_with(pixels=torch.arange),),
    ),
    Mistake(
        "Half a cell off: the first cell's centre lies half a cell inside the box, not on its side.",
        (_paste_with(stretch=lambda distance, side, cells: distance * (cells / side)),),
    ),
    Mistake(
        "Pixels and cells are both counted from their corners: it is their centres that have the values.",
        (_paste_with(pixels=torch.arange, stretch=lambda distance, side, cells: distance * (cells / side)),),
    ),
    Mistake(
        "The outer cells' centres are put on the sides of the box, as align_corners=True does: they lie half a cell "
        "inside it.",
        (
            _paste_with(stretch=lambda distance, side, cells: distance * ((cells - 1) / side)),
            _paste_with(stretch=lambda distance, side, cells: distance * ((cells - 1) / side), weigh=_clamped),
        ),
    ),
    Mistake(
        "The box is one pixel too large: its width is x2 - x1, without the + 1 of older code.",
        (_paste_with(boxes=lambda boxes, size: _grown(boxes)),),
    ),
    Mistake(
        "The box is rounded to whole pixels: a pixel's place in it can be computed from the box as it is.",
        (
            _paste_with(boxes=lambda boxes, size: boxes.round()),
            _paste_with(boxes=lambda boxes, size: boxes.trunc()),
            _paste_with(boxes=lambda boxes, size: boxes.floor()),
            _paste_with(boxes=lambda boxes, size: torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], dim=1)),
        ),
    ),
    Mistake(
        "The box is cut to whole pixels and then made one larger, as older code did it: leave it as it is.",
        (_paste_with(boxes=lambda boxes, size: _grown(boxes.trunc())),),
    ),
    Mistake(
        "Each pixel takes the value of the cell that it lies in: interpolate between the centres of the cells.",
        (_paste_with(weigh=_nearest), _paste_with(weigh=_rounded)),
    ),
    Mistake(
        "Up to the sides of the box the outer cells keep their value: beyond their centres they should fade, over one "
        "cell, as if the mask were surrounded by zeros.",
        (_paste_with(weigh=_clamped_in_box),),
    ),
    Mistake(
        "The outer cells reach out over the whole image: beyond their centres they should fade, over one cell, as if "
        "the mask were surrounded by zeros.",
        (_paste_with(weigh=_clamped),),
    ),
    Mistake(
        "The values are cut off at the sides of the box: the outer cells fade over a whole cell, half of it outside.",
        (_paste_with(weigh=_hat_in_box),),
    ),
    Mistake(
        "A box that reaches over the border is clipped to the image first, which squeezes its mask: paste it as it "
        "is, and leave out what lies outside.",
        (_paste_with(boxes=_clipped),),
    ),
    Mistake(
        "The box is not heeded: the mask is stretched over the whole image.",
        (_paste_with(boxes=_whole_image),),
    ),
    Mistake(
        "The box is read with x and y swapped: it is (x1, y1, x2, y2).",
        (_paste_with(boxes=lambda boxes, size: boxes[:, [1, 0, 3, 2]]),),
    ),
    Mistake(
        "The last two numbers of a box are read as width and height: they are the other corner, (x2, y2).",
        (_paste_with(boxes=_with_sides),),
    ),
    Mistake(
        "The mask is read with rows and columns swapped: rows come first, as in the image.",
        (_paste_with(probs=lambda probs: probs.mT),),
    ),
    Mistake(
        "image_size is read as (W, H): it is (H, W), rows first.",
        (_sizes_swapped,),
    ),
    Mistake(
        "The masks are probabilities already: a second sigmoid makes half of nothing.",
        (_paste_with(probs=torch.sigmoid),),
    ),
    Mistake(
        "The result is cut to 0 and 1: probabilities are asked for, and whoever calls it chooses the threshold.",
        (
            _paste_with(finish=lambda pasted: (pasted >= 0.5).float()),
            _paste_with(finish=lambda pasted: (pasted > 0.5).float()),
        ),
    ),
)


def _case(what: str, probs: list[Any], boxes: list[list[float]], size: Size) -> Case:
    small = torch.tensor(probs, dtype=torch.float32) if probs else torch.zeros(0, 2, 2)
    return Case(what, {"mask_probs": small, "boxes": torch.tensor(boxes).view(-1, 4).float(), "image_size": size})


_FOUR = [[1.0, 0.4], [0.8, 0.1]]
_SIX = [[0.2, 0.9, 0.6], [0.7, 1, 0.3]]

WORKED = (
    _case("two cells over four pixels", [[[0, 1.0]]], [[1, 1, 5, 2]], (3, 7)),
    _case("2 x 2 cells over 4 x 4 pixels", [_FOUR], [[2, 1, 6, 5]], (6, 8)),
    _case("a box whose corners lie between the pixels", [_FOUR], [[1.3, 0.6, 5.8, 4.7]], (6, 7)),
    _case("a box that reaches over the border", [_SIX], [[-2.5, 1.2, 3.5, 7.4]], (5, 6)),
    _case("two masks in two boxes", [_SIX, _SIX[::-1]], [[0.5, 1, 4.2, 3.5], [2, 0.4, 7.6, 4]], (5, 8)),
    _case("cells smaller than a pixel", [[[0, 1.0, 1, 0], [1, 0.5, 0.5, 1]]], [[1.2, 1.4, 4, 3.1]], (4, 6)),
    _case("no masks", [], [], (3, 4)),
)


def _random(generator: torch.Generator) -> list[Case]:
    cases = []
    for number, height, width in ((1, 3, 2), (2, 2, 4), (3, 3, 3), (1, 4, 2)):
        corner = 4 * torch.rand(number, 2, generator=generator) - 1
        side = 1.5 + 4 * torch.rand(number, 2, generator=generator)
        probs = torch.rand(number, height, width, generator=generator).round(decimals=2)
        boxes = torch.cat([corner, corner + side], dim=1).round(decimals=1)
        cases.append(_case("random masks and boxes", probs.tolist(), boxes.tolist(), (7, 8)))
    return cases


PASTE_MASKS = Exercise(
    name="paste_masks",
    reference=paste_masks,
    start="Begin with one mask and one row of pixels: where in the box, in cells of the mask, does each centre lie?",
    worked=WORKED,
    random=_random,
    mistakes=MISTAKES,
)
