"""Exercise of lesson 09: the precision-recall curve as COCO reads it, whose mean is the average precision.

A wrong version is the plain computation with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake, compare_tensors

RECALLS = 0.01 * torch.arange(101, dtype=torch.float64)

_Curve = Callable[[Tensor, Tensor, int], Tensor]


def precision_at_recalls(
    scores: Float[Tensor, " k"], right: Bool[Tensor, " k"], num_objects: int
) -> Float[Tensor, "101"]:
    """Return, for recalls of 0, 0.01, … 1, the best precision at this recall or a higher one.

    It is 0 where so many objects are never found. The mean is the average precision of the class.

    Args:
        scores: of the detections of one class, of all images, in any order.
        right: whether each has found an object.
        num_objects: of this class in all images, at least 1.

    Lesson: 09.
    """
    return _curve_with()(scores, right, num_objects)


def _monotone(precision: Tensor) -> Tensor:
    return precision.flip(0).cummax(0).values.flip(0)


def _read(precision: Tensor, recall: Tensor, recalls: Tensor) -> Tensor:
    place = torch.searchsorted(recall, recalls)
    return torch.cat([precision, torch.zeros(1, dtype=precision.dtype)])[place]


def _curve_with(
    *,
    order: Callable[[Tensor], Tensor] = lambda scores: scores.argsort(descending=True),
    divide: Callable[[Tensor, int], tuple[Tensor, Tensor]] = lambda hits, objects: (
        hits / torch.arange(1, len(hits) + 1),
        hits / objects,
    ),
    raise_up: Callable[[Tensor], Tensor] = _monotone,
    read: Callable[[Tensor, Tensor, Tensor], Tensor] = _read,
    answer: Callable[[Tensor], Tensor] = lambda curve: curve,
    recalls: Tensor = RECALLS,
    heeds_empty: bool = True,
) -> _Curve:
    """Return the curve's computation with some of its steps replaced; with none, it is right."""

    def compute(scores: Tensor, right: Tensor, num_objects: int) -> Tensor:
        if heeds_empty and len(scores) == 0:
            return answer(torch.zeros(len(recalls), dtype=torch.float64))
        precision, recall = divide(right[order(scores)].double().cumsum(0), num_objects)
        return answer(read(raise_up(precision), recall, recalls))

    return compute


def _last_stays(precision: Tensor, recall: Tensor, recalls: Tensor) -> Tensor:
    return precision[torch.searchsorted(recall, recalls).clamp(max=len(precision) - 1)]


def _beyond(precision: Tensor, recall: Tensor, recalls: Tensor) -> Tensor:
    place = torch.searchsorted(recall, recalls, right=True)
    return torch.cat([precision, torch.zeros(1, dtype=precision.dtype)])[place]


def _only_reached(precision: Tensor, recall: Tensor, recalls: Tensor) -> Tensor:
    return _read(precision, recall, recalls)[recalls <= recall[-1]]


def _straight_lines(precision: Tensor, recall: Tensor, recalls: Tensor) -> Tensor:
    return torch.from_numpy(np.interp(recalls.numpy(), recall.numpy(), precision.numpy(), right=0.0))


def _fails_on_nothing(precision: Tensor, recall: Tensor, recalls: Tensor) -> Tensor:
    if len(precision) == 0:
        raise IndexError("no detection")
    return _read(precision, recall, recalls)


MISTAKES = (
    Mistake(
        "The detections are taken as they come: the curve follows them from the best score to the worst.",
        (_curve_with(order=lambda scores: torch.arange(len(scores))),),
    ),
    Mistake(
        "The worst score comes first: argsort goes upwards unless it is told otherwise.",
        (_curve_with(order=lambda scores: scores.argsort()),),
    ),
    Mistake(
        "The precision at a recall is the one of the moment: COCO takes the best precision at this recall or any "
        "higher one, so that the curve never rises.",
        (_curve_with(raise_up=lambda precision: precision),),
    ),
    Mistake(
        "The curve is made monotone from the wrong side: each value is the best of those that come after it, at "
        "higher recalls.",
        (
            _curve_with(raise_up=lambda precision: precision.cummax(0).values),
            _curve_with(raise_up=lambda precision: precision.cummin(0).values),
        ),
    ),
    Mistake(
        "Recall is counted against the objects that were found: it is a share of all objects, missed ones too.",
        (
            _curve_with(
                divide=lambda hits, objects: (
                    hits / torch.arange(1, len(hits) + 1),
                    hits / hits[-1].clamp(min=1),
                )
            ),
        ),
    ),
    Mistake(
        "Recall is counted against the detections: it is the share of the objects that are found.",
        (_curve_with(divide=lambda hits, objects: (hits / torch.arange(1, len(hits) + 1), hits / len(hits))),),
    ),
    Mistake(
        "Precision and recall look swapped: precision is the share of the detections so far that are right, recall the "
        "share of the objects that are found.",
        (
            _curve_with(
                divide=lambda hits, objects: (hits / objects, hits / torch.arange(1, len(hits) + 1)),
                read=lambda precision, recall, recalls: _read(precision, _monotone(recall), recalls),
            ),
            _curve_with(divide=lambda hits, objects: (hits / objects, hits / torch.arange(1, len(hits) + 1))),
        ),
    ),
    Mistake(
        "Where a recall is never reached, the last precision goes on: the objects that nobody found count as 0.",
        (_curve_with(read=_last_stays),),
    ),
    Mistake(
        "The recalls that are never reached are left out: there are always 101 values, and those are 0.",
        (_curve_with(read=_only_reached),),
    ),
    Mistake(
        "A recall that is reached exactly is passed over: the first detection at this recall or beyond it counts.",
        (_curve_with(read=_beyond),),
    ),
    Mistake(
        "Between two points the curve is drawn as a straight line: take the value of the first detection that reaches "
        "the recall, there is nothing between two detections.",
        (_curve_with(read=_straight_lines),),
    ),
    Mistake(
        "These are the 11 recalls of PASCAL VOC 2007: COCO takes 101, from 0 to 1 in steps of a hundredth.",
        (_curve_with(recalls=torch.linspace(0, 1, 11, dtype=torch.float64)),),
    ),
    Mistake(
        "A single number is returned, the average: the 101 precisions are asked for, and their mean comes later.",
        (_curve_with(answer=lambda curve: curve.mean()),),
    ),
    Mistake(
        "A class without a single detection is not provided for: its curve is 0 everywhere.",
        (_curve_with(heeds_empty=False, read=_fails_on_nothing),),
    ),
)


def compare_curves(expected: Tensor, got: Any) -> str | None:
    """Return what is wrong with ``got``, as :func:`compare_tensors` does; a list, or floats of any size, will do."""
    if isinstance(got, (list, tuple)):
        try:
            got = torch.tensor(got)
        except (TypeError, ValueError, RuntimeError):  # torch's words for a list of None, of lists, of texts
            return "the result is a list of something else than numbers"
    return compare_tensors(expected, got.double() if isinstance(got, Tensor) else got)


def _case(what: str, scores: list[float], right: list[int], num_objects: int) -> Case:
    flags = torch.tensor(right, dtype=torch.bool)
    return Case(what, {"scores": torch.tensor(scores), "right": flags, "num_objects": num_objects})


# No case has a recall that is a hundredth and not exact in binary: which side it falls on, a rounding would decide.
WORKED = (
    _case("one detection, right, on the only object", [0.9], [1], 1),
    _case("three detections, of which the second is wrong", [0.9, 0.8, 0.7], [1, 0, 1], 3),
    _case("the same three in another order", [0.7, 0.9, 0.8], [1, 1, 0], 3),
    _case("a wrong one that scores the most", [0.9, 0.8, 0.7], [0, 1, 1], 3),
    _case("objects that nobody finds", [0.9, 0.8], [1, 1], 7),
    _case("nothing right", [0.9, 0.8], [0, 0], 3),
    _case("no detections at all", [], [], 3),
)


def _random(generator: torch.Generator) -> list[Case]:
    cases = []
    for count, num_objects in ((6, 3), (12, 7), (20, 9), (30, 11), (40, 33)):
        scores = (0.05 + 0.9 * torch.randperm(100, generator=generator)[:count] / 100).round(decimals=3)  # none equal
        chance = torch.rand(count, generator=generator) < 0.3 + 0.5 * scores  # the sure ones are right more often
        right = (chance & (chance.cumsum(0) <= num_objects)).int().tolist()
        what = f"{count} random detections of {num_objects} objects"
        cases.append(_case(what, scores.tolist(), right, num_objects))
    return cases


PRECISION_AT_RECALLS = Exercise(
    name="precision_at_recalls",
    reference=precision_at_recalls,
    start="Begin with the order: which detection comes first, and how many of the first one, two, three are right?",
    worked=WORKED,
    random=_random,
    mistakes=MISTAKES,
    compare=compare_curves,
)
