"""Exercise of lesson 07: Gaussian Soft-NMS.

A wrong version is the plain loop with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rcnn_edu import ops
from rcnn_edu.classroom.checks import Case, Exercise, Mistake, compare_tensors
from rcnn_edu.classroom.verdict import name_of
from rcnn_edu.ops import box_iou

_Pair = tuple[Tensor, Tensor]  # keep, new_scores
_Soft = Callable[[Tensor, Tensor, float, float], _Pair]


def soft_nms(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], sigma: float, score_thresh: float
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Return the indices and decayed scores of the boxes left by Gaussian Soft-NMS, by falling score, each (k,).

    Lesson: 07 (Soft-NMS, section 3).
    """
    return ops.soft_nms(boxes, scores, sigma=sigma, score_thresh=score_thresh)


def _gaussian(iou: Tensor, sigma: float) -> Tensor:
    return torch.exp(-(iou**2) / sigma)


def _by_score(keep: list[int], left: Tensor, scores: Tensor) -> _Pair:
    """Return the pair as it should be: best decayed score first."""
    return torch.tensor(keep, dtype=torch.long), left[keep]


def _soft_nms_with(
    *,
    factor: Callable[[Tensor, float], Tensor] = _gaussian,
    rank: Callable[[Tensor, Tensor], Tensor] = lambda left, scores: left,  # the box to take has the most of this
    base: Callable[[Tensor, Tensor], Tensor] = lambda left, scores: left,  # what the factor is applied to
    decays: Callable[[Tensor, int], Tensor] = lambda waiting, best: waiting,  # which boxes lose score
    cut: Callable[[float], float] = lambda score_thresh: score_thresh,
    answer: Callable[[list[int], Tensor, Tensor], _Pair] = _by_score,
) -> _Soft:
    """Return Soft-NMS with some of its steps replaced; with none, it is right."""

    def soft(boxes: Tensor, scores: Tensor, sigma: float, score_thresh: float) -> _Pair:
        iou = box_iou(boxes, boxes)
        left, waiting = scores.clone(), torch.ones(len(boxes), dtype=torch.bool)
        keep: list[int] = []
        while waiting.any():
            best = int(torch.where(waiting, rank(left, scores), -torch.inf).argmax())
            waiting[best] = False
            if left[best] < cut(score_thresh):
                continue
            keep.append(best)
            decayed = base(left, scores) * factor(iou[best], sigma)
            left = torch.where(decays(waiting, best), decayed, left)
        return answer(keep, left, scores)

    return soft


def _all_but(waiting: Tensor, best: int) -> Tensor:
    return torch.arange(len(waiting)) != best


def _and_itself(waiting: Tensor, best: int) -> Tensor:
    return waiting | (torch.arange(len(waiting)) == best)


def _everything(waiting: Tensor, best: int) -> Tensor:
    return torch.ones_like(waiting)


def _sorted_again(keep: list[int], left: Tensor, scores: Tensor) -> _Pair:
    kept = torch.tensor(keep, dtype=torch.long)
    kept = kept[left[kept].argsort(descending=True)]
    return kept, left[kept]


def _in_input_order(keep: list[int], left: Tensor, scores: Tensor) -> _Pair:
    return _by_score(sorted(keep), left, scores)


def _scores_in_input_order(keep: list[int], left: Tensor, scores: Tensor) -> _Pair:
    return torch.tensor(keep, dtype=torch.long), left[sorted(keep)]


def _all_scores(keep: list[int], left: Tensor, scores: Tensor) -> _Pair:
    return torch.tensor(keep, dtype=torch.long), left


def _places_in_the_list(keep: list[int], left: Tensor, scores: Tensor) -> _Pair:
    """Return where each box stood in the list of those left when it was taken."""
    remaining = list(range(len(scores)))
    places = []
    for index in keep:
        places.append(remaining.index(index))
        remaining.pop(places[-1])
    return torch.tensor(places, dtype=torch.long), left[keep]


def _places_by_score(boxes: Tensor, scores: Tensor, sigma: float, score_thresh: float) -> _Pair:
    order = scores.argsort(descending=True)
    return soft_nms(boxes[order], scores[order], sigma, score_thresh)


def _cut_at_the_start(boxes: Tensor, scores: Tensor, sigma: float, score_thresh: float) -> _Pair:
    """Drop by the scores that the boxes came with, and nothing after that."""
    index = (scores >= score_thresh).nonzero()[:, 0]
    keep, left = _soft_nms_with(cut=lambda _: 0)(boxes[index], scores[index], sigma, score_thresh)
    return index[keep], left


def _factors(*factors: Callable[[Tensor, float], Tensor]) -> tuple[_Soft, ...]:
    return tuple(_soft_nms_with(factor=factor) for factor in factors)


_MISTAKES = (
    Mistake(
        "The overlap enters as it is: the Gaussian takes its square, so that a small overlap costs almost nothing.",
        _factors(lambda iou, sigma: torch.exp(-iou / sigma)),
    ),
    Mistake(
        "This is the bell curve of the textbooks, with sigma squared or a 2: the paper's divides by sigma alone.",
        _factors(
            lambda iou, sigma: torch.exp(-((iou / sigma) ** 2)),
            lambda iou, sigma: torch.exp(-((iou / sigma) ** 2) / 2),
            lambda iou, sigma: torch.exp(-(iou**2) / (2 * sigma)),
        ),
    ),
    Mistake(
        "Sigma is on the wrong side of the fraction: the larger it is, the milder the decay.",
        _factors(lambda iou, sigma: torch.exp(-(iou**2) * sigma)),
    ),
    Mistake(
        "Scores rise with the overlap: the exponent lacks its minus sign.",
        _factors(lambda iou, sigma: torch.exp(iou**2 / sigma)),
    ),
    Mistake(
        "The Gaussian is subtracted from 1, so that the boxes far away lose the most.",
        _factors(lambda iou, sigma: 1 - _gaussian(iou, sigma)),
    ),
    Mistake(
        "This is the linear method: here the Gaussian one is asked for, which knows no threshold.",
        _factors(
            lambda iou, sigma: 1 - iou,
            lambda iou, sigma: torch.where(iou > 0.5, 1 - iou, 1),
            lambda iou, sigma: torch.where(iou > 0.3, 1 - iou, 1),
        ),
    ),
    Mistake(
        "The decay begins only above a threshold: the Gaussian one applies to every overlap, however small.",
        _factors(
            lambda iou, sigma: torch.where(iou > 0.5, _gaussian(iou, sigma), 1),
            lambda iou, sigma: torch.where(iou > 0.3, _gaussian(iou, sigma), 1),
        ),
    ),
    Mistake(
        "This is plain NMS: an overlapping box is dropped, where it should only lose score.",
        _factors(
            lambda iou, sigma: (iou <= 0.5).float(),
            lambda iou, sigma: (iou <= 0.3).float(),
            lambda iou, sigma: (iou <= sigma).float(),
        ),
    ),
    Mistake(
        "Sigma is always 0.5: the argument says how fast scores fall.",
        _factors(lambda iou, sigma: _gaussian(iou, 0.5)),
    ),
    Mistake(
        "The order is settled by the first scores: after each decay another box may be the best one left.",
        (
            _soft_nms_with(rank=lambda left, scores: scores),
            _soft_nms_with(rank=lambda left, scores: scores, answer=_sorted_again),
        ),
    ),
    Mistake(
        "Each decay begins at the first score again, so that only the last one counts: decays multiply.",
        (_soft_nms_with(base=lambda left, scores: scores),),
    ),
    Mistake(
        "Boxes that were taken go on losing score to the later ones: a taken box is settled.",
        (_soft_nms_with(decays=_all_but), _soft_nms_with(decays=_all_but, answer=_sorted_again)),
    ),
    Mistake(
        "The taken box decays as well, by its overlap of 1 with itself: only the others lose score.",
        (
            _soft_nms_with(decays=_and_itself),
            _soft_nms_with(decays=_and_itself, answer=_sorted_again),
            _soft_nms_with(decays=_everything),
            _soft_nms_with(decays=_everything, answer=_sorted_again),
        ),
    ),
    Mistake(
        "No box is ever dropped: what has fallen below score_thresh is left out.",
        (_soft_nms_with(cut=lambda score_thresh: 0),),
    ),
    Mistake(
        "The cut is always at 0.001: the argument score_thresh says where.",
        (_soft_nms_with(cut=lambda score_thresh: 0.001),),
    ),
    Mistake(
        "The cut looks at the scores that the boxes came with: it is the decayed ones that have to reach score_thresh.",
        (_cut_at_the_start,),
    ),
    Mistake(
        "The first scores are returned: the decayed ones are asked for, and they decide the order.",
        (_soft_nms_with(answer=lambda keep, left, scores: (torch.tensor(keep, dtype=torch.long), scores[keep])),),
    ),
    Mistake(
        "The boxes come in the order of the input: the best decayed score goes first, as they were taken.",
        (_soft_nms_with(answer=_in_input_order),),
    ),
    Mistake(
        "keep is right, but new_scores stand in the order of the input: each belongs to the index at its own place.",
        (_soft_nms_with(answer=_scores_in_input_order),),
    ),
    Mistake(
        "new_scores has an entry for each box of the input: there should be one for each kept box, in keep's order.",
        (_soft_nms_with(answer=_all_scores),),
    ),
    Mistake(
        "keep counts within a list that was sorted or has shrunk: it should hold the boxes' places in the input.",
        (_soft_nms_with(answer=_places_in_the_list), _places_by_score),
    ),
)


def compare_pairs(expected: _Pair, got: Any) -> str | None:
    """Return what is wrong with ``got``, as :func:`compare_tensors` does; indices and scores may be plain lists."""
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        return f"it returns {name_of(got)} where a pair (keep, new_scores) is expected"
    try:
        keep, scores = (torch.as_tensor(part).detach() for part in got)
    except (TypeError, ValueError, RuntimeError):  # torch's word for a list of tensors of several elements, of None ...
        return "keep and new_scores are not two lists of numbers, or two tensors"
    if keep.is_floating_point() and not torch.equal(keep, keep.round()):
        return "keep holds numbers that are no indices; it is the first of the two, new_scores the second"
    if len(expected[0]) == len(expected[1]) and keep.shape != scores.shape:
        return f"keep has shape {tuple(keep.shape)} and new_scores {tuple(scores.shape)}: each kept box has one score"
    if len(keep.flatten()) != len(expected[0]):
        return f"it keeps {len(keep.flatten())} boxes, and another number is expected"
    if keep.flatten().tolist() != expected[0].tolist():
        same = sorted(keep.flatten().tolist()) == sorted(expected[0].tolist())
        return "it keeps the right boxes in another order" if same else f"it keeps the boxes {keep.flatten().tolist()}"
    fault = compare_tensors(expected[1], scores if isinstance(got[1], Tensor) else scores.to(expected[1].dtype))
    return None if fault is None else f"keep is right, but of new_scores {fault}"


def _case(what: str, boxes: list[list[float]], scores: list[float], sigma: float, score_thresh: float) -> Case:
    tensors = {"boxes": torch.tensor(boxes).view(-1, 4), "scores": torch.tensor(scores)}
    return Case(what, {**tensors, "sigma": sigma, "score_thresh": score_thresh})


# The first two overlap by 2/3, the first and the third by 1/3, the last two by 1/4.
_THREE = [[0.0, 0, 10, 10], [2.0, 0, 12, 10], [0.0, 5, 10, 15]]

_WORKED = (
    _case("two boxes", _THREE[:2], [0.9, 0.8], 0.5, 0.001),
    _case("three boxes, of which the second falls behind the third", _THREE, [0.9, 0.8, 0.7], 0.5, 0.001),
    _case("three boxes, the best one last", [_THREE[1], _THREE[2], _THREE[0]], [0.8, 0.7, 0.9], 0.5, 0.001),
    _case("a box that falls below score_thresh", _THREE, [0.9, 0.8, 0.7], 0.5, 0.3),
    _case("another sigma", _THREE, [0.9, 0.8, 0.7], 0.25, 0.001),
    _case("boxes that do not touch", [_THREE[0], [20.0, 0, 30, 10]], [0.6, 0.8], 0.5, 0.001),
    _case("no boxes at all", [], [], 0.5, 0.001),
)


def _random(generator: torch.Generator) -> list[Case]:
    cases = []
    for count, sigma, score_thresh in ((4, 0.5, 0.001), (6, 0.3, 0.01), (6, 0.8, 0.05), (9, 0.4, 0.001), (9, 0.6, 0.2)):
        corners = (torch.rand(count, 2, generator=generator) * 12).round(decimals=1)
        sides = (20 + torch.rand(count, 2, generator=generator) * 10).round(decimals=1)
        scores = (0.1 + 0.85 * torch.rand(count, generator=generator)).round(decimals=3)
        boxes = torch.cat([corners, corners + sides], dim=1)
        cases.append(_case(f"a random crowd of {count} boxes", boxes.tolist(), scores.tolist(), sigma, score_thresh))
    return cases


SOFT_NMS = Exercise(
    name="soft_nms",
    reference=soft_nms,
    start="Begin with two boxes: which one is taken, and by what is the other one's score multiplied?",
    worked=_WORKED,
    random=_random,
    mistakes=_MISTAKES,
    compare=compare_pairs,
)
