"""Exercise of lesson 06: what a stage learns from the boxes that the one before it has refined.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake, compare_tensors
from rcnn_edu.classroom.verdict import name_of
from rcnn_edu.ops import box_iou

_Answer = tuple[Tensor, Tensor, Tensor]
_Relabel = Callable[[Tensor, Tensor, Tensor, float], _Answer]


def relabel_boxes(boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, iou_thresh: float) -> _Answer:
    """Return what a stage may learn from: the candidates, their labels, and the ground truth box of each.

    The candidates are the refined boxes and, after them, the ground truths. A candidate is matched to the ground truth
    that it overlaps most, and has its class from ``iou_thresh`` on, else 0, background. Only positive candidates'
    ground truths mean anything; where an image has none, they are zeros.

    Args:
        boxes: as the stage before has refined them, shape (R, 4).
        gt_boxes: shape (M, 4).
        gt_labels: their classes, 1 to K, shape (M,).
        iou_thresh: the stage's own.
    """
    candidates = torch.cat([boxes, gt_boxes])
    if len(gt_boxes) == 0:
        return candidates, gt_labels.new_zeros(len(boxes)), torch.zeros_like(boxes)
    best_iou, matched = box_iou(candidates, gt_boxes).max(dim=1)
    return candidates, torch.where(best_iou >= iou_thresh, gt_labels[matched], 0), gt_boxes[matched]


def compare_candidates(expected: _Answer, got: Any) -> str | None:
    """Return what is wrong with ``got``, as :func:`compare_tensors` does; only positive candidates' boxes count.

    Labels are right in any type of number.
    """
    if not isinstance(got, (tuple, list)) or len(got) != 3:
        count = f"{len(got)} results" if isinstance(got, (tuple, list)) else name_of(got)
        return f"it returns {count} where three are expected: the candidates, their labels, their ground truth boxes"
    right_candidates, right_labels, right_boxes = expected
    candidates, labels, boxes = got
    if fault := compare_tensors(right_candidates, candidates):
        return f"something is wrong with the candidates: {fault}"
    if isinstance(labels, Tensor):
        labels = labels.double()
    fault = compare_tensors(right_labels.double(), labels)
    if fault is not None and isinstance(labels, Tensor) and labels.shape == right_labels.shape:
        wrong = (labels != right_labels).nonzero()[:, 0].tolist()
        first = f"that of candidate {wrong[0]}, to you {labels[wrong[0]].item():g}"
        return f"the candidates are right, but {len(wrong)} of {len(labels)} labels are not, the first {first}"
    if fault is not None:
        return f"the candidates are right, but something is wrong with the labels: {fault}"
    if isinstance(boxes, Tensor) and boxes.shape == right_boxes.shape:
        positive = right_labels > 0
        right_boxes, boxes = right_boxes[positive], boxes[positive]
    fault = compare_tensors(right_boxes, boxes)
    return fault and f"the labels are right, but not the positive candidates' ground truth boxes: {fault}"


def _gather(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    return torch.cat([boxes, gt_boxes])


def _label(iou: Tensor, classes: Tensor, u: float) -> Tensor:
    """Return the labels of candidates with these IoUs (n, m), ``classes`` (n,) those of their ground truths."""
    return torch.where(iou.amax(dim=1) >= u, classes, 0)


def _relabel_with(
    *,
    gather: Callable[[Tensor, Tensor], Tensor] = _gather,
    match: Callable[[Tensor, float], Tensor] = lambda iou, u: iou.argmax(dim=1),
    label: Callable[[Tensor, Tensor, float], Tensor] = _label,
    classes: Callable[[Tensor, Tensor], Tensor] = lambda gt_labels, matched: gt_labels[matched],
    take: Callable[[Tensor, Tensor], Tensor] = lambda gt_boxes, matched: gt_boxes[matched],
    finish: Callable[[_Answer], _Answer] = lambda answer: answer,
    heeds_empty: bool = True,
) -> _Relabel:
    """Return the relabelling with some of its steps replaced; with none, it is right."""

    def relabel(boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, iou_thresh: float) -> _Answer:
        if heeds_empty and len(gt_boxes) == 0:
            return boxes, torch.zeros(len(boxes), dtype=torch.long), torch.zeros_like(boxes)
        candidates = gather(boxes, gt_boxes)
        iou = box_iou(candidates, gt_boxes)
        matched = match(iou, iou_thresh)
        labels = label(iou, classes(gt_labels, matched), iou_thresh)
        return finish((candidates, labels, take(gt_boxes, matched)))

    return relabel


def _rescue(iou: Tensor, classes: Tensor, u: float) -> Tensor:
    """Return the labels where a ground truth's best refined box is positive, however little it overlaps it."""
    refined = iou[: len(iou) - iou.shape[1]]
    best = (refined >= refined.amax(dim=0)) & (refined > 0) if len(refined) else refined > 0
    rescued = torch.cat([best.any(dim=1), torch.zeros(iou.shape[1], dtype=torch.bool)])
    return torch.where((iou.amax(dim=1) >= u) | rescued, classes, 0)


def _one_each(iou: Tensor, classes: Tensor, u: float) -> Tensor:
    """Return the labels where only the best candidate of each ground truth is positive."""
    best = torch.zeros_like(iou).scatter(0, iou.argmax(dim=0, keepdim=True), 1).any(dim=1)
    return torch.where(best & (iou.amax(dim=1) >= u), classes, 0)


def _with_middle(low: float) -> Callable[[Tensor, Tensor, float], Tensor]:
    def label(iou: Tensor, classes: Tensor, u: float) -> Tensor:
        best = iou.amax(dim=1)
        return torch.where(best >= u, classes, torch.where(best < low, 0, -1))

    return label


def _positives_alone(answer: _Answer) -> _Answer:
    candidates, labels, boxes = answer
    return candidates[labels > 0], labels[labels > 0], boxes[labels > 0]


MISTAKES = (
    Mistake(
        "The threshold is 0.5 at every stage: it is an argument, and rises with the stage.",
        (_relabel_with(label=lambda iou, classes, u: _label(iou, classes, 0.5)),),
    ),
    Mistake(
        "An IoU of exactly the threshold is positive already.",
        (_relabel_with(label=lambda iou, classes, u: torch.where(iou.amax(dim=1) > u, classes, 0)),),
    ),
    Mistake(
        "The ground truths are missing among the candidates: they come after the refined boxes, so that there are "
        "positives even where the refinement fails.",
        (_relabel_with(gather=lambda boxes, gt_boxes: boxes),),
    ),
    Mistake(
        "The ground truths come before the refined boxes: they come after them.",
        (_relabel_with(gather=lambda boxes, gt_boxes: torch.cat([gt_boxes, boxes])),),
    ),
    Mistake(
        "Positive candidates are labelled 1, as anchors are: a stage learns classes, so the label is the ground "
        "truth's class.",
        (_relabel_with(classes=lambda gt_labels, matched: torch.ones_like(matched)),),
    ),
    Mistake(
        "A positive's label is the number of its ground truth: look that one's class up.",
        (
            _relabel_with(classes=lambda gt_labels, matched: matched),
            _relabel_with(classes=lambda gt_labels, matched: matched + 1),
        ),
    ),
    Mistake(
        "No candidate is background: below the threshold the label is 0, whatever is near.",
        (_relabel_with(label=lambda iou, classes, u: classes),),
    ),
    Mistake(
        "Some candidates are ignored, with a label of -1: a box head has no middle, what is below the threshold is "
        "background.",
        (_relabel_with(label=_with_middle(0.3)), _relabel_with(label=_with_middle(0.5))),
    ),
    Mistake(
        "A ground truth's best box is positive although it is below the threshold: the best-anchor rule is for anchors "
        "only, here the ground truths themselves see to it that none goes unlearnt.",
        (_relabel_with(label=_rescue),),
    ),
    Mistake(
        "Each ground truth has one positive candidate only: every candidate from the threshold on is positive.",
        (_relabel_with(label=_one_each),),
    ),
    Mistake(
        "Where a candidate overlaps two objects enough, it learns the first of them: it has to learn the one that it "
        "overlaps most.",
        (_relabel_with(match=lambda iou, u: (iou >= u).int().argmax(dim=1)),),
    ),
    Mistake(
        "The third result holds the numbers of the ground truths: their boxes are asked for, four coordinates for each "
        "candidate.",
        (_relabel_with(take=lambda gt_boxes, matched: matched),),
    ),
    Mistake(
        "Candidates below the threshold are left out: they stay, with label 0, as the background to learn from.",
        (_relabel_with(finish=_positives_alone),),
    ),
    Mistake(
        "An image without objects is not provided for: there all candidates are background.",
        (_relabel_with(heeds_empty=False),),
    ),
)


def _case(
    what: str, boxes: list[list[float]], gt_boxes: list[list[float]], gt_labels: list[int], iou_thresh: float
) -> Case:
    arguments = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "gt_boxes": torch.tensor(gt_boxes, dtype=torch.float32).view(-1, 4),
        "gt_labels": torch.tensor(gt_labels, dtype=torch.long),
        "iou_thresh": iou_thresh,
    }
    return Case(what, arguments)


_THREE: list[list[float]] = [[0.0, 0, 10, 8], [0, 0, 10, 5.5], [30, 30, 40, 40]]  # IoU 0.8, 0.55 and 0 with a square

WORKED = (
    _case("one object at stage 1", _THREE, [[0, 0, 10, 10]], [3], 0.5),
    _case("the same at stage 3", _THREE, [[0, 0, 10, 10]], [3], 0.7),
    _case("an IoU of exactly the threshold", [[0.0, 0, 10, 7.5], [0, 0, 10, 5]], [[0, 0, 10, 10]], [2], 0.75),
    _case(
        "two objects of different classes",
        [[0.0, 0, 10, 9], [20, 0, 30, 9], [20, 0, 30, 8]],
        [[0, 0, 10, 10], [20, 0, 30, 10]],
        [4, 1],
        0.6,
    ),
    _case(
        "a box that overlaps two objects enough",
        [[0.0, 0, 10, 9], [0, 0, 10, 12]],
        [[0, 0, 10, 12], [0, 0, 10, 9]],
        [2, 3],
        0.6,
    ),
    _case("an object that no box fits", [[0.0, 0, 10, 4], [30, 30, 40, 40]], [[0, 0, 10, 10]], [2], 0.6),
    _case("an image without objects", _THREE, [], [], 0.5),
)


def _is_clear(iou: Tensor, u: float) -> bool:
    """Return whether no other rule could be meant: nothing close to the threshold, no two objects overlapped alike."""
    best = iou.topk(2, dim=1).values
    return bool(((best[:, 0] - u).abs() > 0.01).all() and (best[:, 0] - best[:, 1] > 0.01).all())


def _random(generator: torch.Generator) -> list[Case]:
    cases: list[Case] = []
    thresholds = (0.5, 0.6, 0.7, 0.55, 0.65, 0.75)
    while len(cases) < len(thresholds):
        corner = (torch.rand(3, 2, generator=generator) * 30).round()
        gt_boxes = torch.cat([corner, corner + 12 + (torch.rand(3, 2, generator=generator) * 12).round()], dim=1)
        shift = (torch.randn(12, 4, generator=generator) * 2.5).round()
        boxes = gt_boxes.repeat(4, 1) + shift
        gt_labels = (torch.randperm(5, generator=generator)[:3] + 1).tolist()
        if _is_clear(box_iou(boxes, gt_boxes), thresholds[len(cases)]):
            what = f"random boxes at a threshold of {thresholds[len(cases)]}"
            cases.append(_case(what, boxes.tolist(), gt_boxes.tolist(), gt_labels, thresholds[len(cases)]))
    return cases


RELABEL_BOXES = Exercise(
    name="relabel_boxes",
    reference=relabel_boxes,
    start="Begin with the candidates: the refined boxes, and after them the ground truths.",
    worked=WORKED,
    random=_random,
    mistakes=MISTAKES,
    compare=compare_candidates,
)
