"""Exercise of lesson 03: which ground truth each anchor is to learn, and whether it is to learn one at all.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake, compare_tensors
from rcnn_edu.classroom.verdict import name_of
from rcnn_edu.ops import assign_anchors_to_gt, box_iou

TIE = 1e-6
WORDS: dict[float, str] = {1: "positive", 0: "negative", -1: "ignored"}

_Answer = tuple[Tensor, Tensor]
_Assign = Callable[[Tensor, Tensor, float, float], _Answer]


def compare_assignments(expected: _Answer, got: Any) -> str | None:
    """Return what is wrong with ``got``, as :func:`compare_tensors` does; only positive anchors' boxes count.

    Labels are right in any type of number.
    """
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        return f"it returns {name_of(got)} where two tensors are expected, the labels and the matched boxes"
    right_labels, right_boxes = expected
    labels, boxes = got
    if isinstance(labels, Tensor):
        labels = labels.double()
    fault = compare_tensors(right_labels.double(), labels)
    if fault is not None and isinstance(labels, Tensor) and labels.shape == right_labels.shape:
        wrong = (labels != right_labels).nonzero()[:, 0].tolist()
        named = WORDS.get(labels[wrong[0]].item(), f"{labels[wrong[0]].item():g}")
        return f"{len(wrong)} of {len(labels)} labels are wrong, the first that of anchor {wrong[0]}, to you {named}"
    if fault is not None:
        return f"something is wrong with the labels: {fault}"
    if isinstance(boxes, Tensor) and boxes.shape == right_boxes.shape:
        positive = right_labels == 1
        right_boxes, boxes = right_boxes[positive], boxes[positive]
    fault = compare_tensors(right_boxes, boxes)
    return fault and f"the labels are right, but not the positive anchors' boxes: {fault}"


def _label(best_iou: Tensor, pos: float, neg: float) -> Tensor:
    return torch.where(best_iou >= pos, 1, torch.where(best_iou < neg, 0, -1))


def _best(iou: Tensor, neg: float) -> Tensor:
    """Return which anchors are a ground truth's best, (n, m)."""
    return (iou >= iou.amax(dim=0) - TIE) & (iou > 0)


def _learn(iou: Tensor, matched: Tensor, is_best: Tensor, labels: Tensor) -> Tensor:
    """Return the ground truth of each anchor: of a best one, the one whose best it is."""
    return torch.where(is_best.any(dim=1), iou.where(is_best, -1).argmax(dim=1), matched)


def _learn_last(iou: Tensor, matched: Tensor, is_best: Tensor, labels: Tensor) -> Tensor:
    """Return the same as a loop over the ground truths does: the last one whose best an anchor is overwrites others."""
    last = is_best.shape[1] - 1 - is_best.flip(1).int().argmax(dim=1)
    return torch.where(is_best.any(dim=1), last, matched)


def _assign_with(
    *,
    label: Callable[[Tensor, float, float], Tensor] = _label,
    best: Callable[[Tensor, float], Tensor] = _best,
    learn: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = _learn,
    rescue: Callable[[Tensor, Tensor], Tensor] = lambda labels, rescued: labels.where(~rescued, 1),
    heeds_empty: bool = True,
) -> _Assign:
    """Return the assignment with some of its steps replaced; with none, it is right."""

    def assign(anchors: Tensor, gt_boxes: Tensor, pos_iou_thresh: float, neg_iou_thresh: float) -> _Answer:
        if heeds_empty and len(gt_boxes) == 0:
            return torch.zeros(len(anchors), dtype=torch.long), torch.zeros_like(anchors)
        iou = box_iou(anchors, gt_boxes)
        best_iou, matched = iou.max(dim=1)
        labels = label(best_iou, pos_iou_thresh, neg_iou_thresh)
        is_best = best(iou, neg_iou_thresh)
        matched = learn(iou, matched, is_best, labels)
        return rescue(labels, is_best.any(dim=1)), gt_boxes[matched]

    return assign


def _one_each(iou: Tensor, neg: float) -> Tensor:
    return torch.zeros_like(iou).scatter(0, iou.argmax(dim=0, keepdim=True), 1).bool() & (iou > 0)


def _numbers(anchors: Tensor, gt_boxes: Tensor, pos_iou_thresh: float, neg_iou_thresh: float) -> _Answer:
    """Return the numbers of the ground truths in place of their boxes."""
    labels, boxes = assign_anchors_to_gt(anchors, gt_boxes, pos_iou_thresh, neg_iou_thresh)
    same = (boxes[:, None] == gt_boxes).all(dim=2)
    return labels, same.int().argmax(dim=1) if len(gt_boxes) else torch.zeros_like(labels)


MISTAKES = (
    Mistake(
        "A ground truth that no anchor touches turns every anchor positive: at an IoU of 0 all of them tie. An anchor "
        "that does not touch an object is not its best.",
        (
            _assign_with(best=lambda iou, neg: iou >= iou.amax(dim=0) - TIE),
            _assign_with(best=lambda iou, neg: iou >= iou.amax(dim=0) - TIE, learn=_learn_last),
            _assign_with(best=lambda iou, neg: iou == iou.amax(dim=0)),
            _assign_with(best=lambda iou, neg: iou == iou.amax(dim=0), learn=_learn_last),
        ),
    ),
    Mistake(
        "A rescued anchor is matched to the ground truth that it overlaps most itself: it has to learn the one that "
        "rescued it.",
        (_assign_with(learn=lambda iou, matched, is_best, labels: matched),),
    ),
    Mistake(
        "Some object's best anchor is not positive: either the best-anchor rule is missing, or a later line overwrites "
        "what it did.",
        (
            _assign_with(best=lambda iou, neg: torch.zeros_like(iou, dtype=torch.bool)),
            _assign_with(rescue=lambda labels, rescued: labels),
        ),
    ),
    Mistake(
        "Only one anchor is rescued for each ground truth: where several tie for the best, each of them is.",
        (_assign_with(best=_one_each),),
    ),
    Mistake(
        "Ties are found by comparing floats for equality: two anchors that overlap an object alike may differ in the "
        "last bit. Take all that come within 1e-6 of the best.",
        (_assign_with(best=lambda iou, neg: (iou == iou.amax(dim=0)) & (iou > 0)),),
    ),
    Mistake(
        "An IoU of exactly a threshold ends up on the wrong side: the upper one is positive already, and the lower one "
        "is not negative yet.",
        (
            _assign_with(label=lambda best, pos, neg: torch.where(best > pos, 1, torch.where(best < neg, 0, -1))),
            _assign_with(label=lambda best, pos, neg: torch.where(best >= pos, 1, torch.where(best <= neg, 0, -1))),
            _assign_with(label=lambda best, pos, neg: torch.where(best > pos, 1, torch.where(best <= neg, 0, -1))),
        ),
    ),
    Mistake(
        "The thresholds are 0.7 and 0.3 whatever is asked for: they are arguments.",
        (_assign_with(label=lambda best, pos, neg: _label(best, 0.7, 0.3)),),
    ),
    Mistake(
        "There is no ignored middle: an anchor between the thresholds is neither an object nor background, and its "
        "label is -1.",
        (
            _assign_with(label=lambda best, pos, neg: (best >= pos).long()),
            _assign_with(label=lambda best, pos, neg: (best >= neg).long()),
        ),
    ),
    Mistake(
        "Negative and ignored look swapped: 0 is negative, background, and -1 is ignored.",
        (_assign_with(label=lambda best, pos, neg: torch.where(best >= pos, 1, torch.where(best < neg, -1, 0))),),
    ),
    Mistake(
        "The second result holds the numbers of the ground truths: their boxes are asked for, four coordinates for "
        "each anchor.",
        (_numbers,),
    ),
    Mistake(
        "The best-anchor rule looks along the wrong axis, so that whatever touches an object is positive: it asks each "
        "ground truth for its best anchors, not each anchor for its best ground truth.",
        (_assign_with(best=lambda iou, neg: (iou >= iou.amax(dim=1, keepdim=True) - TIE) & (iou > 0)),),
    ),
    Mistake(
        "An image without objects is not provided for: there all anchors are negative, and their boxes zeros.",
        (_assign_with(heeds_empty=False),),
    ),
    Mistake(
        "An anchor that is positive anyway is left as it is: where it is some ground truth's best, it has to learn "
        "that one all the same.",
        (
            _assign_with(
                learn=lambda iou, matched, is_best, labels: matched.where(
                    labels == 1, _learn(iou, matched, is_best, labels)
                )
            ),
        ),
    ),
    Mistake(
        "An object whose best anchor overlaps it by less than the lower threshold is left alone: it needs its best "
        "anchor most of all, however little that overlaps it.",
        (_assign_with(best=lambda iou, neg: _best(iou, neg) & (iou.amax(dim=0) >= neg)),),
    ),
)


def _case(
    what: str, anchors: list[list[float]], gt_boxes: list[list[float]], pos: float = 0.7, neg: float = 0.3
) -> Case:
    boxes = torch.tensor(gt_boxes, dtype=torch.float32).view(-1, 4)
    arguments = {"anchors": torch.tensor(anchors), "gt_boxes": boxes, "pos_iou_thresh": pos, "neg_iou_thresh": neg}
    return Case(what, arguments)


_FIVE: list[list[float]] = [[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [5, 5, 15, 15], [50, 50, 60, 60]]

WORKED = (
    _case("one object", _FIVE, [[0, 0, 10, 10]]),
    _case("a second object, which only one anchor touches", _FIVE, [[0, 0, 10, 10], [52, 52, 70, 70]]),
    _case(
        "IoUs of exactly the thresholds",
        [[0.0, 0, 8, 8], [0, 0, 8, 4], [0, 0, 16, 8]],
        [[0, 0, 8, 4]],
        pos=0.5,
        neg=0.25,
    ),
    _case("two anchors that tie", [[0.0, 0, 10, 10], [10, 0, 20, 10], [0, 20, 10, 30]], [[6, 2, 14, 8]]),
    _case(  # 0.47967464 and 0.47967494: the decimals are not exact in binary
        "two anchors that tie but for the last bit",
        [[33.2, 36.4, 42.3, 45.5], [39.6, 36.4, 48.7, 45.5]],
        [[36.4, 36.4, 45.5, 45.5]],
    ),
    _case("an object that no anchor touches", _FIVE, [[0, 0, 10, 9], [100, 100, 120, 120]]),
    _case(
        "a small object beside a large one",
        [[0.0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 17]],
        [[0, 0, 10, 18], [8, 0, 14, 4]],
    ),
    _case(
        "a positive anchor that is another object's best",
        [[0.0, 0, 10, 8], [0, 0, 10, 10]],
        [[0, 0, 10, 10], [0, 0, 10, 4]],
    ),
    _case("an image without objects", _FIVE, []),
)


def _is_clear(iou: Tensor, pos: float, neg: float) -> bool:
    """Return whether no other rule could be meant: nothing close to a threshold or a tie, no anchor best of two."""
    best_iou = iou.amax(dim=1)
    apart = all(((best_iou - threshold).abs() > 0.01).all() for threshold in (pos, neg))
    one_best = (iou >= iou.amax(dim=0) - 0.01).sum(dim=0).eq(1).all()
    return apart and bool(one_best) and int(_best(iou, neg).sum(dim=1).max()) <= 1


def _random(generator: torch.Generator) -> list[Case]:
    def draw(count: int) -> Tensor:
        corner = (torch.rand(count, 2, generator=generator) * 40).round()
        return torch.cat([corner, corner + 6 + (torch.rand(count, 2, generator=generator) * 24).round()], dim=1)

    cases: list[Case] = []
    thresholds = [(0.7, 0.3), (0.5, 0.4), (0.6, 0.2), (0.45, 0.45)]
    while len(cases) < 2 * len(thresholds):
        pos, neg = thresholds[len(cases) % len(thresholds)]
        anchors, gt_boxes = draw(20), draw(3)
        if _is_clear(box_iou(anchors, gt_boxes), pos, neg):
            cases.append(_case("random anchors and objects", anchors.tolist(), gt_boxes.tolist(), pos, neg))
    return cases


ASSIGN_ANCHORS_TO_GT = Exercise(
    name="assign_anchors_to_gt",
    reference=assign_anchors_to_gt,
    start="Begin with the IoUs of all pairs, a row for each anchor: which ground truth does each anchor overlap most?",
    worked=WORKED,
    random=_random,
    mistakes=MISTAKES,
    compare=compare_assignments,
)
