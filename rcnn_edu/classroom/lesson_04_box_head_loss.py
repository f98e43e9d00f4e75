"""Exercise of lesson 04: the two losses of the second stage, and what each is divided by.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake, compare_tensors
from rcnn_edu.classroom.verdict import name_of
from rcnn_edu.ops import box_head_loss

_Losses = tuple[Tensor, Tensor]
_Loss = Callable[[Tensor, Tensor, Tensor, Tensor, float], _Losses]


def compare_losses(expected: _Losses, got: Any) -> str | None:
    """Return what is wrong with ``got``, as :func:`compare_tensors` does; each loss is right in any form of a number.

    Two losses that are wrong in the same place are alike: both NaN, for instance.
    """
    is_pair = isinstance(got, (tuple, list)) or (isinstance(got, Tensor) and got.ndim == 1)
    if not is_pair or len(got) != 2:
        return f"it returns {name_of(got)} where two numbers are expected, the class loss and the box loss"
    for name, right, yours in zip(("class", "box"), expected, got, strict=True):
        if isinstance(yours, Tensor) and yours.isnan().any() and right.isnan():
            continue
        fault = compare_tensors(right, yours)
        if fault is not None:
            return f"something is wrong with the {name} loss: {fault}"
    return None


def _class_loss(class_logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(class_logits, labels, reduction="sum")


def _pick(box_deltas: Tensor, labels: Tensor) -> Tensor:
    positive = labels > 0
    return box_deltas[positive, labels[positive] - 1]


def _box_loss(deltas: Tensor, target_deltas: Tensor, beta: float) -> Tensor:
    return F.smooth_l1_loss(deltas, target_deltas, beta=beta, reduction="sum")


def _at_least_one(count: int) -> int:
    return max(1, count)


def _loss_with(
    *,
    classes: Callable[[Tensor, Tensor], Tensor] = _class_loss,
    pick: Callable[[Tensor, Tensor], Tensor] = _pick,
    boxes: Callable[[Tensor, Tensor, float], Tensor] = _box_loss,
    class_count: Callable[[Tensor], Any] = len,
    box_count: Callable[[Tensor], Any] = len,
    class_safe: Callable[[int], Any] = _at_least_one,
    box_safe: Callable[[int], Any] = _at_least_one,
) -> _Loss:
    """Return the losses with some steps replaced; with none, they are right."""

    def loss(
        class_logits: Tensor, box_deltas: Tensor, labels: Tensor, target_deltas: Tensor, beta: float = 1 / 9
    ) -> _Losses:
        class_loss = classes(class_logits, labels) / class_safe(class_count(labels))
        box_loss = boxes(pick(box_deltas, labels), target_deltas, beta) / box_safe(box_count(labels))
        return class_loss, box_loss

    return loss


def _num_positive(labels: Tensor) -> int:
    return int((labels > 0).sum())


def _of_positives(class_logits: Tensor, labels: Tensor) -> Tensor:
    return _class_loss(class_logits[labels > 0], labels[labels > 0])


def _unsafe(count: int) -> Tensor:
    return torch.tensor(float(count))  # 0 / 0 is NaN, where a Python number would raise


MISTAKES = (
    Mistake(
        "The box loss is divided by the positives: divide it by all the sampled boxes, the same as the class loss.",
        (
            _loss_with(box_count=_num_positive),
            _loss_with(box_count=_num_positive, box_safe=_unsafe),
            _loss_with(box_count=_num_positive, class_safe=_unsafe, box_safe=_unsafe),
        ),
    ),
    Mistake(
        "The box loss is a mean over the positives' coordinates, and without positives that mean is NaN: sum it up, "
        "then divide by all the sampled boxes.",
        (
            _loss_with(boxes=lambda d, t, beta: F.smooth_l1_loss(d, t, beta=beta), box_count=lambda labels: 1),
            _loss_with(
                classes=F.cross_entropy,
                class_count=lambda labels: 1,
                boxes=lambda d, t, beta: F.smooth_l1_loss(d, t, beta=beta),
                box_count=lambda labels: 1,
            ),
        ),
    ),
    Mistake(
        "Without any boxes the loss is NaN, zero divided by zero: divide by at least 1.",
        (
            _loss_with(class_safe=_unsafe, box_safe=_unsafe),
            _loss_with(box_safe=_unsafe),
            _loss_with(classes=F.cross_entropy, class_count=lambda labels: 1),
        ),
    ),
    Mistake(
        "The box loss is divided by the four coordinates as well: sum over them, and divide by the number of sampled "
        "boxes alone.",
        (_loss_with(box_count=lambda labels: 4 * len(labels)),),
    ),
    Mistake(
        "The box loss is not divided at all: divide it, as the class loss, by the number of sampled boxes.",
        (_loss_with(box_count=lambda labels: 1),),
    ),
    Mistake(
        "Neither loss is divided: both are sums over the sampled boxes, to be divided by their number.",
        (_loss_with(class_count=lambda labels: 1, box_count=lambda labels: 1),),
    ),
    Mistake(
        "The deltas of the wrong class are compared: background has none, so those of label 1 are in channel 0.",
        (
            _loss_with(pick=lambda deltas, labels: deltas[labels > 0, labels[labels > 0]]),
            _loss_with(pick=lambda deltas, labels: deltas[labels > 0, labels[labels > 0] % deltas.shape[1]]),
        ),
    ),
    Mistake(
        "The deltas of the first class are compared, whatever the label: each positive has those of its own class.",
        (_loss_with(pick=lambda deltas, labels: deltas[labels > 0, 0]),),
    ),
    Mistake(
        "Beta has no effect on the box loss: hand it on to smooth L1, whose own default is 1.",
        (
            _loss_with(boxes=lambda d, t, beta: _box_loss(d, t, 1.0)),
            _loss_with(boxes=lambda d, t, beta: _box_loss(d, t, 1 / 9)),
            _loss_with(boxes=lambda d, t, beta: _box_loss(d, t, 0.0)),
        ),
    ),
    Mistake(
        "The class loss leaves out the background: negatives have a class too, number 0, and most of the sample is "
        "theirs.",
        (
            _loss_with(classes=_of_positives),
            _loss_with(classes=_of_positives, class_count=_num_positive),
        ),
    ),
    Mistake(
        "Softmax is taken twice: cross-entropy expects the logits themselves, not probabilities.",
        (_loss_with(classes=lambda logits, labels: _class_loss(logits.softmax(dim=1), labels)),),
    ),
    Mistake(
        "The two losses come in the other order: the class loss first, then the box loss.",
        (lambda *arguments: _loss_with()(*arguments)[::-1],),
    ),
)


def _case(what: str, labels: list[int], beta: float, generator: torch.Generator, num_classes: int = 3) -> Case:
    n, positives = len(labels), sum(label > 0 for label in labels)
    arguments = {
        "class_logits": torch.randn(n, num_classes + 1, generator=generator).mul(4).round() / 4,
        "box_deltas": torch.randn(n, num_classes, 4, generator=generator).mul(4).round() / 4,
        "labels": torch.tensor(labels, dtype=torch.long),
        "target_deltas": torch.randn(positives, 4, generator=generator).mul(4).round() / 4,
    }
    return Case(what, {**arguments, "beta": beta})


def _worked() -> tuple[Case, ...]:
    generator = torch.Generator().manual_seed(4)
    cases: tuple[tuple[str, list[int], float], ...] = (
        ("one positive", [1], 1 / 9),
        ("one positive of the last class", [3], 1 / 9),
        ("one positive and two negatives", [2, 0, 0], 1 / 9),
        ("two positives and two negatives", [1, 3, 0, 0], 0.5),
        ("negatives alone", [0, 0, 0], 1 / 9),
        ("no boxes at all", [], 1 / 9),
    )
    return tuple(_case(what, labels, beta, generator) for what, labels, beta in cases)


def _random(generator: torch.Generator) -> list[Case]:
    cases = []
    for n, positives, beta in ((8, 2, 1 / 9), (16, 4, 1.0), (12, 3, 0.0), (9, 5, 0.25)):
        labels = [*torch.randint(1, 6, (positives,), generator=generator).tolist(), *[0] * (n - positives)]
        cases.append(_case("random logits and deltas", labels, beta, generator, num_classes=5))
    return cases


BOX_HEAD_LOSS = Exercise(
    name="box_head_loss",
    reference=box_head_loss,
    start="Begin with the class loss: a cross-entropy summed over all sampled boxes, divided by their number.",
    worked=_worked(),
    random=_random,
    mistakes=MISTAKES,
    compare=compare_losses,
)
