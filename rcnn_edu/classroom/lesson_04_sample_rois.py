"""Exercise of lesson 04: a balanced sample of the labelled boxes, drawn at random.

There is no one right sample. So a check draws many, and compares what all right functions have in common: how many of
each kind, in which order, each once, everybody equally often, and the same from the same seed.

A wrong version is the right one with one step replaced, so that it says itself what is wrong in it.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rcnn_edu.classroom.checks import Case, Exercise, Mistake
from rcnn_edu.classroom.verdict import name_of
from rcnn_edu.ops import sample_rois

DRAWS = 32  # of a case from one generator: as many as it takes to see who is drawn too often
FEW_DRAWS = 10  # of a small case, which is there for other questions
SMALL = 20  # labels at most
TWINS = 3  # draws from generators of the same seed
SIGMAS = 5  # how far a count may lie from its expectation: further, one right function in a million does

Generator = torch.Generator
_Sample = Callable[[Tensor, int, float, Generator | None], Any]


@dataclass(frozen=True)
class Habits:
    """What a function's samples of one case have in common; counts that differ from draw to draw are None."""

    fault: str = ""  # of what it returns, if that is no list of indices; then nothing else means anything
    positives: int | None = 0
    negatives: int | None = 0
    ignored: int | None = 0
    repeats: bool = False  # one index twice in a sample
    positives_first: bool = True
    takes_first: bool = False  # of each kind the first ones, always
    stands_still: bool = False  # the generator: every call draws the same
    even: bool = True  # everybody of a kind is drawn about equally often
    follows_generator: bool = True  # the same seed draws the same


@contextmanager
def _own_seed() -> Iterator[None]:
    """Give what draws without the generator a seed as well, so that each verdict is the same at every check."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        yield


def observe_samples(
    function: Callable[..., Any], labels: Tensor, num_samples: int, pos_fraction: float, generator: None
) -> Habits | None:
    """Return the habits of ``function`` on one case, or None for a stub; the generators are made here."""

    def draw(source: Generator | None) -> Any:
        return function(labels, num_samples, pos_fraction, source)

    with _own_seed():
        first = draw(generator)
        if first is None or first is ...:
            return None
        stream = torch.Generator().manual_seed(0)
        results = [first, *(draw(stream) for _ in range(FEW_DRAWS if len(labels) <= SMALL else DRAWS))]
        results += [draw(torch.Generator().manual_seed(7)) for _ in range(TWINS)]
    samples = [_as_indices(result) for result in results]
    for sample in samples:
        fault = sample if isinstance(sample, str) else _fault_of(sample, len(labels))
        if fault:
            return Habits(fault)
    table = pad_sequence([sample for sample in samples if isinstance(sample, Tensor)], True, len(labels))
    return _habits(table.long(), labels)


def _as_indices(result: Any) -> Tensor | str:
    """Return a result as a tensor, or what it is instead."""
    if isinstance(result, (list, np.ndarray)):
        return torch.as_tensor(result, dtype=None if len(result) else torch.long)
    return result if isinstance(result, Tensor) else f"it returns {name_of(result)} where a tensor of indices is needed"


def _fault_of(sample: Tensor, num_labels: int) -> str:
    """Return what keeps a tensor from being a list of indices, or nothing."""
    if sample.dtype == torch.bool:
        return f"it returns a mask of shape {tuple(sample.shape)} where the indices themselves are needed"
    if sample.ndim != 1:
        return f"it returns a tensor of shape {tuple(sample.shape)} where one row of indices is needed"
    if sample.is_floating_point() and len(sample):
        return f"it returns numbers of {sample.dtype} where indices are needed: whole numbers, to index with"
    if len(sample) and not (sample.min() >= 0 and sample.max() < num_labels):
        return f"it returns an index that none of the {num_labels} labels has"
    return ""


def _habits(table: Tensor, labels: Tensor) -> Habits:
    """Return what the samples, one a row, have in common; short rows end in the number of the labels."""
    drawn = F.pad(labels, (0, 1), value=-9)[table]  # the labels
    positives, negatives, ignored = (_constant(mask.sum(dim=1)) for mask in (drawn > 0, drawn == 0, drawn == -1))
    ordered = table.sort(dim=1).values
    stream, twins = ordered[1:-TWINS], ordered[-TWINS:]
    kinds = [(labels > 0).nonzero()[:, 0], (labels == 0).nonzero()[:, 0]]
    firsts = torch.cat([kinds[0][:positives], kinds[1][:negatives]]).sort().values
    return Habits(
        positives=positives,
        negatives=negatives,
        ignored=ignored,
        repeats=bool(((ordered.diff(dim=1) == 0) & (ordered[:, 1:] < len(labels))).any()),
        positives_first=bool((drawn.clamp(max=1).diff(dim=1) <= 0).all()),
        takes_first=ordered.shape[1] == len(firsts) and bool((ordered == firsts).all()),
        stands_still=bool((stream == stream[0]).all()),
        even=all(_is_even(stream, kind) for kind in kinds),
        follows_generator=bool((twins == twins[0]).all()),
    )


def _constant(counts: Tensor) -> int | None:
    return int(counts[0]) if bool((counts == counts[0]).all()) else None


def _is_even(table: Tensor, candidates: Tensor) -> bool:
    """Return whether no candidate was drawn much more or less often than the others; a sample a row."""
    if len(candidates) < 2:
        return True
    counts = torch.bincount(table.flatten(), minlength=int(candidates[-1]) + 1)[candidates].float()
    mean = float(counts.mean())
    share = min(1.0, mean / len(table))
    return float((counts - mean).abs().max()) <= SIGMAS * math.sqrt(len(table) * share * (1 - share)) + 1


def compare_habits(expected: Habits, got: Any) -> str | None:
    """Return what is wrong with a function's habits, where another's are expected, or None where they are the same."""
    if not isinstance(got, Habits):
        return f"it returns {name_of(got)} where a tensor of indices is needed"
    if got.fault or expected.fault:
        return None if got.fault == expected.fault else got.fault
    for name in ("positives", "negatives", "ignored"):
        right, count = getattr(expected, name), getattr(got, name)
        if right != count:
            drawn = "a number that changes from draw to draw" if count is None else str(count)
            return f"of {name} it draws {drawn}, where {right} are expected"
    for name, sentence in SENTENCES.items():
        if getattr(expected, name) != getattr(got, name):
            return sentence
    return None


SENTENCES = {
    "repeats": "it draws the same index more than once",
    "positives_first": "the positives do not come first",
    "takes_first": "it draws the same ones every time, the first of their kind",
    "stands_still": "every call draws the same",
    "even": "some are drawn far more often than others",
    "follows_generator": "two generators of the same seed do not draw the same",
}


def _shuffle(candidates: Tensor, count: int, generator: Generator | None) -> Tensor:
    return candidates[torch.randperm(len(candidates), generator=generator)[:count]]


def _with_replacement(candidates: Tensor, count: int, generator: Generator | None) -> Tensor:
    count = min(count, len(candidates))
    return candidates[torch.randint(max(1, len(candidates)), (count,), generator=generator)]


def _same_seed(candidates: Tensor, count: int, generator: Generator | None) -> Tensor:
    return _shuffle(candidates, count, torch.Generator().manual_seed(0))


def _floor(num: int, fraction: float, available: int) -> int:
    return int(num * fraction + 1e-6)


def _sample_with(
    *,
    positive: Callable[[Tensor], Tensor] = lambda labels: labels > 0,
    negative: Callable[[Tensor], Tensor] = lambda labels: labels == 0,
    most: Callable[[int, float, int], int] = _floor,
    rest: Callable[[int, float, int], int] = lambda num, fraction, drawn: num - drawn,
    draw: Callable[[Tensor, int, Generator | None], Tensor] = _shuffle,
    join: Callable[[Tensor, Tensor], Any] = lambda positives, negatives: torch.cat([positives, negatives]),
) -> _Sample:
    """Return the sampling with some of its steps replaced; with none, it is right."""

    def sample(labels: Tensor, num_samples: int, pos_fraction: float, generator: Generator | None) -> Any:
        candidates = positive(labels).nonzero()[:, 0]
        positives = draw(candidates, most(num_samples, pos_fraction, len(candidates)), generator)
        left = rest(num_samples, pos_fraction, len(positives))
        negatives = draw(negative(labels).nonzero()[:, 0], left, generator)
        return join(positives, negatives)

    return sample


def _positives_fill_up(labels: Tensor, num_samples: int, pos_fraction: float, generator: Generator | None) -> Tensor:
    """Let positives take the places of missing negatives, too."""
    positives, negatives = (labels > 0).nonzero()[:, 0], (labels == 0).nonzero()[:, 0]
    count = max(_floor(num_samples, pos_fraction, 0), num_samples - len(negatives))
    drawn = _shuffle(positives, count, generator)
    return torch.cat([drawn, _shuffle(negatives, num_samples - len(drawn), generator)])


def _mask(labels: Tensor, num_samples: int, pos_fraction: float, generator: Generator | None) -> Tensor:
    drawn = sample_rois(labels, num_samples, pos_fraction, generator)
    return torch.zeros(len(labels), dtype=torch.bool).index_fill(0, drawn, True)


def _drawn_labels(labels: Tensor, num_samples: int, pos_fraction: float, generator: Generator | None) -> Tensor:
    return labels[sample_rois(labels, num_samples, pos_fraction, generator)]


def _one_pool(labels: Tensor, num_samples: int, pos_fraction: float, generator: Generator | None) -> Tensor:
    """Draw from all that are labelled."""
    drawn = _shuffle((labels >= 0).nonzero()[:, 0], num_samples, generator)
    return torch.cat([drawn[labels[drawn] > 0], drawn[labels[drawn] == 0]])


def _global(candidates: Tensor, count: int, generator: Generator | None) -> Tensor:
    return _shuffle(candidates, count, None)


def _shuffled(positives: Tensor, negatives: Tensor) -> Tensor:
    drawn = torch.cat([positives, negatives])
    return drawn[torch.randperm(len(drawn), generator=torch.Generator().manual_seed(len(drawn)))]


MISTAKES = (
    Mistake(
        "Ignored boxes, those of label -1, are drawn as negatives: only label 0 is background.",
        (_sample_with(negative=lambda labels: labels <= 0),),
    ),
    Mistake(
        "Only label 1 counts as positive: in the second stage a positive's label is its class, any number above 0.",
        (
            _sample_with(positive=lambda labels: labels == 1),
            _sample_with(positive=lambda labels: labels == 1, negative=lambda labels: labels != 1),
        ),
    ),
    Mistake(
        "Where positives are missing, their places stay empty: negatives fill them up, so subtract the positives that "
        "were really drawn.",
        (_sample_with(rest=lambda num, fraction, drawn: num - _floor(num, fraction, 0)),),
    ),
    Mistake(
        "The number of negatives follows from that of the positives: the share is a limit for positives and no ratio "
        "to keep, so negatives fill up the rest.",
        (
            _sample_with(rest=lambda num, fraction, drawn: int(drawn * (1 - fraction) / fraction) if fraction else num),
            _sample_with(rest=lambda num, fraction, drawn: drawn),
        ),
    ),
    Mistake(
        "Positives take the places of missing negatives: their share is limited even so, and the sample then stays "
        "smaller than asked for.",
        (_positives_fill_up,),
    ),
    Mistake(
        "The share is taken of the positives that there are: it is a share of num_samples, and all positives come "
        "along as long as they stay below it.",
        (
            _sample_with(most=lambda num, fraction, available: int(available * fraction)),
            _sample_with(most=lambda num, fraction, available: min(num, int(available * fraction))),
        ),
    ),
    Mistake(
        "The share of positives is rounded up: at most that share may be positive, so round down.",
        (
            _sample_with(most=lambda num, fraction, available: math.ceil(num * fraction)),
            _sample_with(most=lambda num, fraction, available: round(num * fraction)),
            _sample_with(most=lambda num, fraction, available: int(num * fraction + 0.5)),
        ),
    ),
    Mistake(
        "The share of positives has no effect: draw from the positives first, up to the limit, and from the negatives "
        "after that.",
        (_one_pool, _sample_with(most=lambda num, fraction, available: num)),
    ),
    Mistake(
        "A box can be drawn more than once: shuffle the candidates and take the first of them, then each comes once "
        "at most.",
        (_sample_with(draw=_with_replacement),),
    ),
    Mistake(
        "The same boxes come every time, the first of their kind: draw at random, or most of the background is never "
        "seen.",
        (_sample_with(draw=lambda candidates, count, generator: candidates[:count]),),
    ),
    Mistake(
        "Every call draws the same, as if it began from a seed of its own: draw from the generator as it comes, and "
        "each call goes on where the last one stopped.",
        (_sample_with(draw=_same_seed),),
    ),
    Mistake(
        "The generator is not used: pass it on wherever something is drawn, so that the same seed gives the same "
        "sample.",
        (_sample_with(draw=_global),),
    ),
    Mistake(
        "The positives do not come first: the caller relies on that order, so join positives and negatives in it and "
        "do not shuffle or sort afterwards.",
        (
            _sample_with(join=lambda positives, negatives: torch.cat([negatives, positives])),
            _sample_with(join=_shuffled),
            _sample_with(join=lambda positives, negatives: torch.cat([positives, negatives]).sort().values),
        ),
    ),
    Mistake(
        "These are places within the list of positives or negatives: look up which box stands there, and pass on that "
        "box's index.",
        (
            _sample_with(
                draw=lambda candidates, count, generator: torch.randperm(len(candidates), generator=generator)[:count]
            ),
        ),
    ),
    Mistake(
        "The result is a mask, a yes or no for every box: the indices of the drawn boxes are asked for.",
        (_mask,),
    ),
    Mistake(
        "These are the labels of the drawn boxes: their indices are asked for, so that boxes and targets can be picked "
        "by them as well.",
        (_drawn_labels,),
    ),
)


def _case(what: str, labels: list[int], num_samples: int, pos_fraction: float) -> Case:
    arguments = {"labels": torch.tensor(labels, dtype=torch.long), "num_samples": num_samples}
    return Case(what, {**arguments, "pos_fraction": pos_fraction, "generator": None})


WORKED = (
    _case("enough of both", [0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 1, 0, 1, 1, 0], 8, 0.5),
    _case("ignored boxes among them", [-1, 0, 0, -1, 1, 1, 0, -1, 0, 1, -1, 0, 0, -1, 1, 0], 6, 0.5),
    _case("one positive only", [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], 8, 0.5),
    _case("too few negatives", [1, 1, 1, 0, 1, 1, 1, 1, -1, -1, 1, 0], 8, 0.25),
    _case("classes for labels", [0, 3, 0, 2, 0, 1, 4, 0, 2, 0, 0, 0, 3, 0, 0, 0], 8, 0.5),
    _case("a share that is no whole number", [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0], 7, 0.25),
    _case("fewer boxes than asked for", [0, 1, 0, -1, 2, 0], 64, 0.5),
    _case("only ignored boxes", [-1, -1, -1], 4, 0.5),
    _case("an image without objects", [0] * 12, 6, 0.25),
    _case("no boxes at all", [], 4, 0.5),
)


def _random(generator: torch.Generator) -> list[Case]:
    cases = []
    for num_samples, pos_fraction in ((16, 0.25), (9, 0.5)):
        labels = torch.randint(-1, 4, (60,), generator=generator)
        labels = labels.where(torch.rand(60, generator=generator) < 0.5, 0)  # more background than anything else
        cases.append(_case("random labels", labels.tolist(), num_samples, pos_fraction))
    return cases


SAMPLE_ROIS = Exercise(
    name="sample_rois",
    reference=sample_rois,
    start="Begin with the indices of the positives, those with a label above 0: how would you draw two of them?",
    worked=WORKED,
    random=_random,
    mistakes=MISTAKES,
    compare=compare_habits,
    observe=observe_samples,
)
