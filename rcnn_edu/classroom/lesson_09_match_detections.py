"""Exercise of lesson 09: which of an image's detections have found an object.

A wrong version is the plain loop with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake, compare_tensors

_Match = Callable[[Tensor, Tensor, float], Tensor]


def match_detections(scores: Float[Tensor, " k"], iou: Float[Tensor, "k n"], iou_thresh: float) -> Bool[Tensor, " k"]:
    """Return whether each detection has found an object: the best score first, and each object once.

    Args:
        scores: of an image's detections of one class.
        iou: of each detection with each of the image's objects of this class.
        iou_thresh: what a match needs.

    Lesson: 09.
    """
    return _match_with()(scores, iou, iou_thresh)


def _match_with(
    *,
    order: Callable[[Tensor, Tensor], Tensor] = lambda scores, iou: scores.argsort(descending=True),
    choose: Callable[[Tensor, Tensor, float], int] = lambda overlap, free, least: int(overlap.where(free, -1).argmax()),
    reaches: Callable[[float, float], bool] = lambda overlap, least: overlap >= least,
    takes: bool = True,
    heeds_empty: bool = True,
    answer: Callable[[Tensor, Tensor], Tensor] = lambda found, order: found >= 0,
) -> _Match:
    """Return the matching with some of its steps replaced; with none, it is right."""

    def match(scores: Tensor, iou: Tensor, iou_thresh: float) -> Tensor:
        found = torch.full((len(scores),), -1)
        free = torch.ones(iou.shape[1], dtype=torch.bool)
        ranks = order(scores, iou)
        for index in ranks.tolist() if iou.shape[1] or not heeds_empty else ():
            best = choose(iou[index], free, iou_thresh)
            if free[best] and reaches(float(iou[index, best]), iou_thresh):
                found[index] = best
                free[best] = not takes
        return answer(found, ranks)

    return match


def _first_that_reaches(overlap: Tensor, free: Tensor, least: float) -> int:
    return int(((overlap >= least) & free).int().argmax())


def _by_maximum(overlap: Tensor, free: Tensor, least: float) -> int:
    left = overlap.where(free, -1)
    return int((left == left.max()).int().argmax())


def _in_plain_numbers(overlap: Tensor, free: Tensor, least: float) -> int:
    return max(range(len(overlap)), key=overlap.where(free, -1).tolist().__getitem__)


def _objects_choose(scores: Tensor, iou: Tensor, iou_thresh: float) -> Tensor:
    """Return the matching in which each object takes the detection that overlaps it most."""
    found = torch.zeros(len(scores), dtype=torch.bool)
    for overlap in iou.T if len(scores) else ():
        if overlap.max() >= iou_thresh:
            found[overlap.argmax()] = True
    return found


MISTAKES = (
    Mistake(
        "Several detections find the same object: the first one takes it, and every later one on it is wrong.",
        (_match_with(takes=False),),
    ),
    Mistake(
        "The detections choose in the order of the list: the one with the best score chooses first.",
        (_match_with(order=lambda scores, iou: torch.arange(len(scores))),),
    ),
    Mistake(
        "The worst score chooses first: argsort goes upwards unless it is told otherwise.",
        (_match_with(order=lambda scores, iou: scores.argsort()),),
    ),
    Mistake(
        "The detection that overlaps an object most gets it: scores decide who chooses, not overlaps.",
        (
            _objects_choose,
            _match_with(order=lambda scores, iou: iou.amax(dim=1).argsort(descending=True) if iou.shape[1] else scores),
        ),
    ),
    Mistake(
        "A detection whose favourite object is taken gives up, which was PASCAL VOC's rule: COCO's lets it have the "
        "best object that is still free.",
        (_match_with(choose=lambda overlap, free, least: int(overlap.argmax())),),
    ),
    Mistake(
        "A detection takes the first free object that it overlaps enough: it should take the one it overlaps most.",
        (_match_with(choose=_first_that_reaches),),
    ),
    Mistake(
        "An IoU of exactly iou_thresh does not count: it is enough.",
        (_match_with(reaches=lambda overlap, least: overlap > least),),
    ),
    Mistake(
        "The IoU that a match needs is always 0.5: the argument iou_thresh says how much.",
        (_match_with(reaches=lambda overlap, least: overlap >= 0.5),),
    ),
    Mistake(
        "The answers come in the order of the scores: each belongs at its detection's own place in the list.",
        (_match_with(answer=lambda found, order: (found >= 0)[order]),),
    ),
    Mistake(
        "The result holds the numbers of the objects: whether each detection is right is asked for, true or false.",
        (
            _match_with(answer=lambda found, order: found),
            _match_with(answer=lambda found, order: found + 1),
        ),
    ),
    Mistake(
        "An image without objects is not provided for: there every detection is wrong.",
        (
            _match_with(heeds_empty=False),
            _match_with(heeds_empty=False, choose=_by_maximum),
            _match_with(heeds_empty=False, choose=_in_plain_numbers),
        ),
    ),
)


def compare_flags(expected: Tensor, got: Any) -> str | None:
    """Return what is wrong with ``got``, as :func:`compare_tensors` does; a list, or 0 and 1, will do as well."""
    if isinstance(got, (list, tuple)):
        try:
            got = torch.tensor(got)
        except (TypeError, ValueError, RuntimeError):  # torch's words for a list of None, of lists, of texts
            return "the result is a list of something else than true and false"
    if isinstance(got, Tensor):
        got = got.double()
    fault = compare_tensors(expected.double(), got)
    if fault is None or not isinstance(got, Tensor) or got.shape != expected.shape:
        return fault
    wrong = (got != expected.double()).nonzero()[:, 0].tolist()
    word = {0.0: "wrong", 1.0: "right"}.get(got[wrong[0]].item(), f"{got[wrong[0]].item():g}")
    return f"{len(wrong)} of {len(got)} answers are wrong, the first that on detection {wrong[0]}, to you {word}"


def _case(what: str, scores: list[float], iou: list[list[float]], iou_thresh: float = 0.5) -> Case:
    table = torch.tensor(iou, dtype=torch.float32).view(len(scores), -1 if scores and iou and iou[0] else 0)
    return Case(what, {"scores": torch.tensor(scores), "iou": table, "iou_thresh": iou_thresh})


WORKED = (
    _case("one detection on one object", [0.9], [[0.8]]),
    _case("two detections on one object", [0.9, 0.6], [[0.7], [0.8]]),
    _case("two detections on one object, the better one last", [0.6, 0.9], [[0.7], [0.8]]),
    _case("two objects side by side", [0.9, 0.8, 0.7], [[0.8, 0.55], [0.75, 0.6], [0.6, 0.7]]),
    _case("a detection that overlaps two objects enough", [0.9, 0.8], [[0.55, 0.7], [0.6, 0.2]]),
    _case("an IoU of exactly the threshold", [0.9, 0.8], [[0.5, 0.1], [0.2, 0.25]]),
    _case("a stricter threshold", [0.7, 0.9], [[0.8, 0.1], [0.1, 0.7]], 0.75),
    _case("an image without objects", [0.9, 0.8], [[], []]),
    _case("an image without detections", [], []),
)


def _random(generator: torch.Generator) -> list[Case]:
    cases = []
    for count, objects, iou_thresh in ((5, 3, 0.5), (8, 3, 0.5), (8, 4, 0.6), (10, 5, 0.3), (12, 4, 0.75)):
        scores = (0.05 + 0.9 * torch.randperm(40, generator=generator)[:count] / 40).round(decimals=3)  # none equal
        table = (torch.randperm(200, generator=generator)[: count * objects] / 200 + 0.002).view(count, objects)
        what = f"{count} random detections and {objects} objects"
        cases.append(_case(what, scores.tolist(), table.tolist(), iou_thresh))
    return cases


MATCH_DETECTIONS = Exercise(
    name="match_detections",
    reference=match_detections,
    start="Begin with one object and two detections on it: which of the two has found it, and what is the other?",
    worked=WORKED,
    random=_random,
    mistakes=MISTAKES,
    compare=compare_flags,
)
