"""Exercise of lesson 05: the mask loss of the positive RoIs.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rcnn_edu.classroom.checks import Case, Exercise, Mistake, compare_tensors
from rcnn_edu.ops import mask_loss

_Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def compare_losses(expected: Tensor, got: Any) -> str | None:
    """Return what is wrong with ``got``, as :func:`compare_tensors` does; a loss needs its graph, too.

    Two that are not finite agree, so that a mistake that ends in NaN is known by it.
    """
    if isinstance(got, Tensor) and got.numel() == 1 and not got.isfinite().any() and not expected.isfinite().any():
        return None
    fault = compare_tensors(expected, got)
    if fault is None and (isinstance(got, Tensor) and got.requires_grad) != expected.requires_grad:
        return "the value is right, but no gradient leads from it back to the logits"
    return fault


def _of_label(logits: Tensor, labels: Tensor) -> Tensor:
    return logits[torch.arange(len(labels)), labels - 1]


def _gathered(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the channel of the label itself, as gather has it: another error for the last class."""
    return logits.gather(1, labels[:, None, None, None].expand(-1, 1, *logits.shape[2:]))[:, 0]


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def _by_logarithms(logits: Tensor, targets: Tensor) -> Tensor:
    probs = logits.sigmoid()
    return -(targets * probs.log() + (1 - targets) * (1 - probs).log())


def _by_safe_logarithms(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy(logits.sigmoid(), targets, reduction="none")


def _mean(pixels: Tensor) -> Tensor:
    return pixels.sum() / max(1, pixels.numel())


def _loss_with(
    *,
    choose: Callable[[Tensor, Tensor], Tensor] = _of_label,
    targets: Callable[[Tensor], Tensor] = lambda targets: targets,
    of_pixels: Callable[[Tensor, Tensor], Tensor] = _cross_entropy,
    reduce: Callable[[Tensor], Tensor] = _mean,
) -> _Loss:
    """Return the loss with some of its steps replaced; with none, it is right."""

    def loss(mask_logits: Tensor, labels: Tensor, mask_targets: Tensor) -> Tensor:
        return reduce(of_pixels(choose(mask_logits, labels), targets(mask_targets)))

    return loss


def _all_channels(mask_logits: Tensor, labels: Tensor, mask_targets: Tensor) -> Tensor:
    return _mean(_cross_entropy(mask_logits, mask_targets[:, None].expand_as(mask_logits)))


def _others_empty(of_channels: Callable[[Tensor], Tensor]) -> _Loss:
    """Return the loss by which the other classes' masks learn to be empty."""

    def loss(mask_logits: Tensor, labels: Tensor, mask_targets: Tensor) -> Tensor:
        is_label = F.one_hot(labels - 1, mask_logits.shape[1])[:, :, None, None]
        return _mean(of_channels(_cross_entropy(mask_logits, mask_targets[:, None] * is_label)))

    return loss


def _softmax(mask_logits: Tensor, labels: Tensor, mask_targets: Tensor) -> Tensor:
    return _mean(F.binary_cross_entropy(_of_label(mask_logits.softmax(1), labels), mask_targets, reduction="none"))


def _log_softmax(mask_logits: Tensor, labels: Tensor, mask_targets: Tensor) -> Tensor:
    return _mean(-_of_label(mask_logits.log_softmax(1), labels) * mask_targets)


def _without_graph(mask_logits: Tensor, labels: Tensor, mask_targets: Tensor) -> Tensor:
    return _loss_with()(mask_logits.detach(), labels, mask_targets)


def _plain_zero(mask_logits: Tensor, labels: Tensor, mask_targets: Tensor) -> Tensor:
    return _loss_with()(mask_logits, labels, mask_targets) if len(labels) else torch.tensor(0.0)


MISTAKES = (
    Mistake(
        "The channel is off by one: labels count from 1, as 0 is background, and channels from 0.",
        (
            _loss_with(choose=lambda logits, labels: logits[torch.arange(len(labels)), labels]),
            _loss_with(choose=_gathered),
        ),
    ),
    Mistake(
        "All channels learn the mask: only that of the RoI's own class does, the others are left alone.",
        (_all_channels,),
    ),
    Mistake(
        "The other classes' masks learn to be empty: that makes the classes compete, where they should be left alone.",
        (_others_empty(lambda pixels: pixels), _others_empty(lambda pixels: pixels.sum(1))),
    ),
    Mistake(
        "There is a softmax over the classes: each mask is decided by itself, with a sigmoid.",
        (_softmax, _log_softmax),
    ),
    Mistake(
        "One channel serves all classes: each RoI's label says which one is its own.",
        (_loss_with(choose=lambda logits, labels: logits[:, 0]),),
    ),
    Mistake(
        "The channel with the largest logit is taken in each pixel: the label says which one counts.",
        (_loss_with(choose=lambda logits, labels: logits.amax(1)),),
    ),
    Mistake(
        "The sigmoid is applied twice: binary_cross_entropy_with_logits has its own, and takes the logits as they are.",
        (_loss_with(of_pixels=lambda logits, targets: _cross_entropy(logits.sigmoid(), targets)),),
    ),
    Mistake(
        "The logarithm is taken of a probability that was rounded to 0 or 1: binary_cross_entropy_with_logits stays "
        "exact however sure a logit is.",
        (
            _loss_with(of_pixels=_by_logarithms),
            _loss_with(of_pixels=_by_safe_logarithms),
            _loss_with(of_pixels=lambda logits, targets: _by_logarithms(logits.clamp(-16, 16), targets)),
        ),
    ),
    Mistake(
        "Where no RoI is positive, the mean of no pixels is NaN: divide the sum by their number, and by at least 1.",
        (_loss_with(reduce=lambda pixels: pixels.mean()),),
    ),
    Mistake(
        "Where no RoI is positive, the 0 is a new one, without a graph: the sum of no pixels is 0 too, and the mask "
        "head's weights still get their gradient of zeros.",
        (_plain_zero,),
    ),
    Mistake(
        "The value is right, but it has lost its graph: no detach, item or numpy on the way, or nothing is learnt.",
        (_without_graph,),
    ),
    Mistake(
        "The loss is a sum over pixels: divide it by their number, that of all RoIs together.",
        (
            _loss_with(reduce=lambda pixels: pixels.sum()),
            _loss_with(reduce=lambda pixels: pixels.sum() / max(1, len(pixels))),
            _loss_with(reduce=lambda pixels: pixels.sum() / max(1, pixels[0].numel() if len(pixels) else 1)),
        ),
    ),
    Mistake(
        "The targets are rounded to 0 and 1: at an object's edge they say which share of the cell it fills.",
        (
            _loss_with(targets=lambda targets: (targets >= 0.5).float()),
            _loss_with(targets=lambda targets: (targets > 0).float()),
        ),
    ),
    Mistake(
        "The targets are turned round: 1 is the object, 0 what is not.",
        (_loss_with(targets=lambda targets: 1 - targets),),
    ),
    Mistake(
        "The difference of probability and target is squared or taken as it is: binary cross-entropy is asked for.",
        (
            _loss_with(of_pixels=lambda logits, targets: (logits.sigmoid() - targets) ** 2),
            _loss_with(of_pixels=lambda logits, targets: (logits.sigmoid() - targets).abs()),
        ),
    ),
)


def _case(what: str, logits: Tensor, labels: list[int], targets: Tensor) -> Case:
    arguments = {"mask_logits": logits.requires_grad_(), "labels": torch.tensor(labels, dtype=torch.long)}
    return Case(what, {**arguments, "mask_targets": targets})


_LOGITS = torch.tensor([[[-1.0, 0.5], [2, 0]], [[2, -1], [0, 1]], [[0.3, 0.3], [-2, 1]]])  # of three classes
_INSIDE = torch.tensor([[1.0, 0], [1, 0]])

WORKED = (
    _case("one RoI of class 2, with 2 x 2 pixels", _LOGITS[None].clone(), [2], _INSIDE[None]),
    _case("a RoI of the last class", _LOGITS[None].clone(), [3], _INSIDE[None]),
    _case("targets between 0 and 1", _LOGITS[None].clone(), [1], torch.tensor([[[1.0, 0.25], [0.7, 0]]])),
    _case("two RoIs of two classes", torch.stack([_LOGITS, -_LOGITS]), [1, 2], torch.stack([_INSIDE, _INSIDE.T])),
    _case("logits that are very sure, and one of them wrong", 60 * _LOGITS[None], [2], _INSIDE[None]),
    _case("no positive RoI", torch.zeros(0, 3, 2, 2), [], torch.zeros(0, 2, 2)),
)


def _random(generator: torch.Generator) -> list[Case]:
    cases = []
    for num_rois, num_classes, height, width, last in (
        (2, 3, 2, 3, 2),
        (3, 2, 3, 2, 1),
        (4, 4, 2, 2, 4),
        (1, 2, 3, 3, 1),
    ):
        logits = (2 * torch.randn(num_rois, num_classes, height, width, generator=generator)).round(decimals=1)
        labels = torch.randint(1, last + 1, (num_rois,), generator=generator).tolist()
        targets = torch.rand(num_rois, height, width, generator=generator).round(decimals=1)
        targets[targets == 0.5] = 0.6  # which way one rounds 0.5 is no mistake of its own
        cases.append(_case("random logits and targets", logits, labels, targets))
    return cases


MASK_LOSS = Exercise(
    name="mask_loss",
    reference=mask_loss,
    start="Begin with one RoI: which channel of its logits belongs to its label?",
    worked=WORKED,
    random=_random,
    mistakes=MISTAKES,
    compare=compare_losses,
)
