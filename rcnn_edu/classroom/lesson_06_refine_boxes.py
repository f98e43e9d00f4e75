"""Exercise of lesson 06: what a stage's deltas make of its boxes, ready for the next stage.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake, compare_tensors
from rcnn_edu.ops import clip_boxes, decode_boxes

_Size = tuple[int, int]  # (H, W)
_Weights = tuple[float, float, float, float]
_Refine = Callable[[Tensor, Tensor, int, _Size], Tensor]


def _weights(stage: float) -> _Weights:
    return 10.0 * stage, 10.0 * stage, 5.0 * stage, 5.0 * stage


def refine_boxes(deltas: Tensor, boxes: Tensor, stage: int, size: _Size) -> Tensor:
    """Return a stage's boxes for the next one, shape (R, 4): decoded with the stage's weights, clipped, detached.

    Args:
        deltas: of the stage, one for all classes, shape (R, 4).
        boxes: that the stage looked at, shape (R, 4).
        stage: its number, from 1 on; its deltas' weights are (10, 10, 5, 5) times as much.
        size: of the image, (H, W).
    """
    return clip_boxes(decode_boxes(deltas.detach(), boxes, _weights(stage)), size)


def compare_detached(expected: Tensor, got: Any) -> str | None:
    """Return what is wrong with ``got``, as :func:`compare_tensors` does; to have a graph or not matters too."""
    fault = compare_tensors(expected, got)
    if fault is not None or not isinstance(got, Tensor) or got.requires_grad == expected.requires_grad:
        return fault
    return "the boxes are right, but gradients still flow through them"


def _refine_with(
    *,
    weights: Callable[[int], _Weights] = _weights,
    clip: Callable[[Tensor, _Size], Tensor] = clip_boxes,
    detach: Callable[[Tensor], Tensor] = Tensor.detach,
    finish: Callable[[Tensor], Tensor] = lambda boxes: boxes,
) -> _Refine:
    """Return the refinement with some of its steps replaced; with none, it is right."""

    def refine(deltas: Tensor, boxes: Tensor, stage: int, size: _Size) -> Tensor:
        return finish(clip(decode_boxes(detach(deltas), boxes, weights(stage)), size))

    return refine


def _clip_to_the_last_pixel(boxes: Tensor, size: _Size) -> Tensor:
    return clip_boxes(boxes, (size[0] - 1, size[1] - 1))


def _multiplied(stage: int) -> _Weights:
    dx, dy, dw, dh = _weights(stage)
    return 1 / dx, 1 / dy, 1 / dw, 1 / dh


def _without_empty(boxes: Tensor) -> Tensor:
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)]


MISTAKES = (
    Mistake(
        "The deltas' weights are those of stage 1 at every stage: a later stage's deltas are encoded with weights that "
        "many times as large, so they have to be decoded with the same.",
        (_refine_with(weights=lambda stage: _weights(1)),),
    ),
    Mistake(
        "The weights shrink with the stage: they grow, because the deltas shrink.",
        (_refine_with(weights=lambda stage: _weights(1 / stage)),),
    ),
    Mistake(
        "The stages count from 1 here: the first one's weights are 10, 10, 5, 5.",
        (
            _refine_with(weights=lambda stage: _weights(stage + 1)),
            _refine_with(weights=lambda stage: _weights(max(stage - 1, 1))),
        ),
    ),
    Mistake(
        "The weights of the place grow with the stage, but not those of the size: all four do.",
        (_refine_with(weights=lambda stage: (10.0 * stage, 10.0 * stage, 5.0, 5.0)),),
    ),
    Mistake(
        "The deltas are multiplied by their weights: encoding multiplies, decoding divides.",
        (_refine_with(weights=_multiplied),),
    ),
    Mistake(
        "The deltas are decoded without weights: divide them by the stage's first.",
        (_refine_with(weights=lambda stage: (1.0, 1.0, 1.0, 1.0)),),
    ),
    Mistake(
        "Boxes reach over the image's border: clip what came out, before the next stage reads features there.",
        (_refine_with(clip=lambda boxes, size: boxes),),
    ),
    Mistake(
        "Boxes are cut at 0, but not at the right and the lower border of the image.",
        (_refine_with(clip=lambda boxes, size: boxes.clamp(min=0)),),
    ),
    Mistake(
        "Height and width are swapped where the boxes are clipped: a size is (H, W), and x is limited by W.",
        (_refine_with(clip=lambda boxes, size: clip_boxes(boxes, (size[1], size[0]))),),
    ),
    Mistake(
        "Boxes are clipped to the last pixel's index: here a box may end at W and H themselves, its width is x2 - x1.",
        (_refine_with(clip=_clip_to_the_last_pixel),),
    ),
    Mistake(
        "A box that clipping left empty is dropped, and all rows after it move up: row i has to stay RoI i, or its "
        "scores of several stages are averaged with another's.",
        (_refine_with(finish=_without_empty),),
    ),
    Mistake(
        "The boxes are right, but gradients still flow through them: to the next stage they are given, so detach them.",
        (_refine_with(detach=lambda deltas: deltas),),
    ),
)


def _case(what: str, deltas: list[list[float]], boxes: list[list[float]], stage: int, size: _Size) -> Case:
    leaf = torch.tensor(deltas).view(-1, 4).requires_grad_()  # as a head gives them: with a graph
    arguments = {"deltas": leaf, "boxes": torch.tensor(boxes).view(-1, 4), "stage": stage, "size": size}
    return Case(what, arguments)


WORKED = (
    _case("one box at stage 1", [[1.0, 0, 0, 0]], [[20.0, 10, 40, 20]], 1, (60, 80)),
    _case("one box that grows", [[0.0, 0, 5 * 0.6931472, 0]], [[20.0, 10, 40, 20]], 1, (60, 80)),
    _case("the same box at stage 3", [[3.0, -6, 1.5, 3]], [[20.0, 10, 40, 20]], 3, (60, 80)),
    _case(
        "boxes that reach over each border, at stage 2",
        [[-10.0, 0, 0, 0], [10, 0, 0, 0], [0, -10, 0, 0], [0, 10, 0, 0]],
        [[5.0, 20, 25, 40], [60, 20, 78, 40], [20, 5, 40, 20], [20, 40, 40, 58]],
        2,
        (60, 80),
    ),
    _case(
        "a box that leaves the image altogether, at stage 2",
        [[2.0, 0, 0, 0], [60, 0, 0, 0], [0, 2, 1, 0]],
        [[10.0, 10, 30, 30], [50, 10, 70, 30], [20, 20, 60, 50]],
        2,
        (60, 80),
    ),
    _case("no boxes", [], [], 3, (60, 80)),
)


def _random(generator: torch.Generator) -> list[Case]:
    cases: list[Case] = []
    for stage in (1, 2, 3, 1, 2, 3):
        height, width = (40, 90) if stage == 2 else (90, 50)
        corner = torch.rand(8, 2, generator=generator) * torch.tensor([width, height]) * 0.6
        size = 6 + torch.rand(8, 2, generator=generator) * torch.tensor([width, height]) * 0.3
        deltas = torch.randn(8, 4, generator=generator) * 3
        boxes = torch.cat([corner, corner + size], dim=1)
        cases.append(_case(f"random boxes at stage {stage}", deltas.tolist(), boxes.tolist(), stage, (height, width)))
    return cases


REFINE_BOXES = Exercise(
    name="refine_boxes",
    reference=refine_boxes,
    start="Begin with the stage's weights, and decode the boxes with them.",
    worked=WORKED,
    random=_random,
    mistakes=MISTAKES,
    compare=compare_detached,
)
