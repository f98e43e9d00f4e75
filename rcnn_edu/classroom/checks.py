"""Checks that diagnose a learner's own version of a function, in one or two sentences and never with the answer.

A *mistake* is a known wrong version of the function and its hint. Where the learner's results differ from the
reference's, every known wrong version runs on the same cases: the one that agrees with the learner is the diagnosis.
So hints are testable: each wrong version must be refused, and diagnosed as itself. What no mistake explains falls back
to what can be seen from outside: an exception, a shape, a constant factor, or at last one small input that differs.
"""

import copy
import inspect
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rcnn_edu.classroom.verdict import Verdict, describe_error, name_of, show

_SEED = 0  # of every check's random cases: the same function gets the same verdict in each run
_TOLERANCE = 1e-4  # relative and absolute: float32 sums may come in another order


@dataclass(frozen=True)
class Case:
    """One input: what is particular about it, in words that follow "for", and the arguments by name, in order."""

    what: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Mistake:
    """A mistake that learners make: its hint, and one or more wrong versions of the function that make it."""

    hint: str
    versions: tuple[Callable[..., Any], ...]


def compare_tensors(expected: Tensor, got: Any) -> str | None:
    """Return what is wrong with ``got``, as a sentence that follows the input it came for, or None where it is right.

    A result of another type, such as a Python number or an array, is right if its values are; and a single number is
    right in whatever shape and dtype it comes.
    """
    tensor = _as_tensor(got)
    if tensor is None:
        advice = "; does each way through it end in a return?" if got is None else ""
        return f"it returns {name_of(got)} where a tensor of shape {tuple(expected.shape)} is expected{advice}"
    is_scalar = expected.ndim == 0 and tensor.numel() == 1
    if tensor.device != expected.device:
        return f"the result is on device {tensor.device}, the input on {expected.device}: results stay with their input"
    if tensor.shape != expected.shape and not is_scalar:
        return f"the result has shape {tuple(tensor.shape)} where {tuple(expected.shape)} is expected"
    if isinstance(got, Tensor) and got.dtype != expected.dtype and not is_scalar:
        return f"the result is of {got.dtype}, the input of {expected.dtype}: make new tensors of the input's dtype"
    if tensor.isnan().any():
        return "the result holds NaN: look for a division by zero"
    right, yours = expected.double(), tensor.double().reshape(expected.shape)
    gap = (yours - right).abs()
    if (gap <= _TOLERANCE * (1 + right.abs())).all():
        return None
    if is_scalar:
        return f"the result is {yours:.4g}, off by {gap:.3g}"
    place = np.unravel_index(int(gap.argmax()), gap.shape)
    where = ", ".join(str(index) for index in place)
    return f"the result is off by up to {gap[place]:.3g}, most at [{where}], where yours is {yours[place]:.4g}"


def result(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the function's result: what a check looks at, unless the exercise says otherwise."""
    return function(*arguments)


@dataclass(frozen=True)
class Exercise:
    """An exercise: what it is called, what is right, on which inputs it shows, and what is known to go wrong.

    A function that draws at random is right in many ways; its exercise's ``observe`` calls it as often as it takes and
    returns what all right ones have in common.
    """

    name: str
    reference: Callable[..., Any]
    start: str  # a sentence for the untouched stub: where to begin
    worked: tuple[Case, ...]  # the simplest first: the first that fails is the one a message shows
    random: Callable[[torch.Generator], list[Case]]
    mistakes: tuple[Mistake, ...]
    compare: Callable[[Any, Any], str | None] = compare_tensors  # expected, got: None where right, else what is wrong
    observe: Callable[..., Any] = result  # (function, *arguments): what is compared, None for a stub


@dataclass(frozen=True)
class _Outcome:
    """What the learner's function did on one case: what was observed or its error, and the argument that it changed."""

    value: Any = None
    error: Exception | None = None
    changed: str | None = None


def judge(exercise: Exercise, function: Any) -> Verdict:
    """Return the verdict on a learner's ``function``, on the worked cases first and then on random ones.

    What ``function`` raises is a finding as well; only an interrupt or an exit passes through.
    """

    def not_yet(message: str, *, begun: bool = True) -> Verdict:
        return Verdict(exercise.name, False, message, exercise.reference, begun)

    if function is exercise.reference:
        return not_yet("This is the reference, standing in for yours: run the cell that defines yours.", begun=False)
    if not callable(function):
        return not_yet(f"The check needs the function itself, not {name_of(function)}: its name, without parentheses.")
    cases = [*exercise.worked, *exercise.random(torch.Generator().manual_seed(_SEED))]
    parameters = _unfit_parameters(function, cases[0])
    if parameters is not None:
        wanted = ", ".join(cases[0].arguments)
        return not_yet(f"The function is called with ({wanted}), in this order; yours takes {parameters}.")
    outcomes = [_run(exercise, function, case) for case in cases]
    if all(_is_stub(outcome) for outcome in outcomes):
        return not_yet(f"Your function returns nothing yet. {exercise.start}", begun=False)
    expected = [_run(exercise, exercise.reference, case) for case in cases]
    faults = [_fault(exercise, *pair) for pair in zip(expected, outcomes, strict=True)]
    if not any(faults):
        return Verdict(
            exercise.name, True, f"All {len(cases)} cases, worked and random, agree with the reference.", function
        )
    return not_yet(
        _changed_argument(outcomes)
        or _known_mistake(exercise, cases, outcomes, faults)
        or _constant_factor(expected, outcomes)
        or _axes_in_another_order(exercise, expected, outcomes)
        or _first_fault(exercise, cases, faults)
    )


def _unfit_parameters(function: Callable[..., Any], case: Case) -> str | None:
    """Return the function's parameters if it cannot be called with the case's arguments, else None."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions do not tell theirs
        return None
    try:
        signature.bind(*case.arguments.values())
    except TypeError:
        return f"({', '.join(signature.parameters)})"
    return None


def _run(exercise: Exercise, function: Callable[..., Any], case: Case) -> _Outcome:
    """Return what ``function`` does with a copy of the case's arguments, so that no case can spoil another."""
    arguments = copy.deepcopy(case.arguments)
    try:
        value = exercise.observe(function, *arguments.values())
    except Exception as error:  # a learner's function may raise anything, and all of it is a finding
        return _Outcome(error=error)
    for name, before in case.arguments.items():
        if not _is_same(before, arguments[name]):
            return _Outcome(value, changed=name)
    return _Outcome(value)


def _is_stub(outcome: _Outcome) -> bool:
    if outcome.error is not None:
        return isinstance(outcome.error, NotImplementedError)
    return outcome.value is None or outcome.value is ...


def _fault(exercise: Exercise, expected: _Outcome, outcome: _Outcome) -> str | None:
    """Return what is wrong with an outcome, where another (the reference's, or a mistake's) is expected."""
    if outcome.error is None and expected.error is None:
        return outcome.changed or exercise.compare(expected.value, outcome.value)
    if type(outcome.error) is type(expected.error):
        return None
    return "it returns a value" if outcome.error is None else describe_error(outcome.error)


def _changed_argument(outcomes: list[_Outcome]) -> str | None:
    changed = [outcome.changed for outcome in outcomes if outcome.changed is not None]
    if not changed:
        return None
    return f"Your function changes its argument {changed[0]}, which the caller may still need: work on a copy of it."


def _known_mistake(
    exercise: Exercise, cases: list[Case], outcomes: list[_Outcome], faults: list[str | None]
) -> str | None:
    """Return the hint of the mistake whose wrong version does what the learner's function does.

    With two mistakes made at once none agrees on every case; then the one that explains the most of the wrong values
    speaks, if that is at least half of them: once it is mended, the next check shows the other.
    """

    def agrees(version: Callable[..., Any], index: int) -> bool:
        return _fault(exercise, _run(exercise, version, cases[index]), outcomes[index]) is None

    versions = [(mistake.hint, version) for mistake in exercise.mistakes for version in mistake.versions]
    for hint, version in versions:
        if all(agrees(version, index) for index in range(len(cases))):
            return hint
    wrong = [index for index, fault in enumerate(faults) if fault is not None]
    wrong_values = [index for index in wrong if outcomes[index].error is None]
    scores = [(sum(agrees(version, index) for index in wrong_values), hint) for hint, version in versions]
    explained, hint = max(scores, key=lambda score: score[0], default=(0, ""))
    if explained < max(2, len(wrong) / 2):
        return None
    if explained == len(wrong):
        return hint
    return f"{hint} That explains {explained} of the {len(wrong)} cases that differ; something else is left."


def _constant_factor(expected: list[_Outcome], outcomes: list[_Outcome]) -> str | None:
    """Return a message if every value is the same multiple of what it should be."""
    values = [_as_tensor(outcome.value) for outcome in outcomes]
    right = [_as_tensor(outcome.value) for outcome in expected]
    pairs = [(r, v) for r, v in zip(right, values, strict=True) if r is not None and v is not None]
    if len(pairs) < len(outcomes) or any(r.numel() != v.numel() or r.device != v.device for r, v in pairs):
        return None
    wanted = torch.cat([r.flatten().double() for r, _ in pairs])
    got = torch.cat([v.flatten().double() for _, v in pairs])
    factor = float(got @ wanted / (wanted @ wanted))
    is_multiple = torch.allclose(got, factor * wanted, _TOLERANCE, _TOLERANCE)
    if not is_multiple or not 0.001 < abs(factor) < math.inf or abs(factor - 1) < 0.01:
        return None
    return (
        f"Every value is {factor:.3g} times what it should be: look for a sum that should be a mean, "
        "a factor applied twice, or a sign."
    )


def _axes_in_another_order(exercise: Exercise, expected: list[_Outcome], outcomes: list[_Outcome]) -> str | None:
    """Return a message if the values are right, but the axes are permuted."""
    pairs = [(right.value, outcome.value) for right, outcome in zip(expected, outcomes, strict=True)]
    if not all(isinstance(r, Tensor) and isinstance(v, Tensor) and r.ndim == v.ndim for r, v in pairs):
        return None
    for order in itertools.permutations(range(pairs[0][0].ndim)):
        if all(r.ndim == len(order) and exercise.compare(r, v.permute(order)) is None for r, v in pairs):
            right, value = next(((r, v) for r, v in pairs if r.shape != v.shape), pairs[0])
            return (
                f"Your values are right, but the axes come in another order: a result of shape {tuple(value.shape)} "
                f"should be of shape {tuple(right.shape)}."
            )
    return None


def _first_fault(exercise: Exercise, cases: list[Case], faults: list[str | None]) -> str:
    """Return what is wrong with the first case that fails: its input, and what the learner's function made of it."""
    first = next(index for index, fault in enumerate(faults) if fault is not None)
    given = "; ".join(f"{name} = {show(value)}" for name, value in cases[first].arguments.items())
    lead = "The worked cases are right, but for" if first >= len(exercise.worked) else "For"
    return f"{lead} {cases[first].what}, {faults[first]}. The input was {given}."


def _is_same(before: Any, after: Any) -> bool:
    """Return whether an argument's tensors, also those in a list or a dict, are what they were."""
    if isinstance(before, Tensor):
        return isinstance(after, Tensor) and torch.equal(before, after)
    if isinstance(before, dict):
        return isinstance(after, dict) and _is_same(list(before.items()), list(after.items()))
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(_is_same, before, after))
    return True


def _as_tensor(value: Any) -> Tensor | None:
    """Return a result as a tensor without a graph, or None if it is nothing like one."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (int, float, np.number)) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf"):
        return torch.from_numpy(np.array(value, dtype=np.float64, order="C"))
    return None
