"""The checks' machinery, on an exercise of one line: 3 times each element."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rcnn_edu.classroom import Verdict, check
from rcnn_edu.classroom.checks import Case, Exercise, Mistake, judge


def triple(values: Tensor, shift: float) -> Tensor:
    return 3 * values + shift


def random_cases(generator: torch.Generator) -> list[Case]:
    values = [torch.rand(rows, 2, generator=generator) + 1 for rows in (1, 3)]
    return [Case("a random table", {"values": value, "shift": 1.0}) for value in values]


ADDED = Mistake("The factor is added.", (lambda values, shift: 3 + values + shift,))
UNSHIFTED = Mistake("The shift is missing.", (lambda values, shift: 3 * values, lambda values, shift: values * 3 - 0))
BROKEN_LATE = Mistake("One row too many is read.", (lambda values, shift: 3 * values[[0, 1, 2]] + shift,))
EXERCISE = Exercise(
    name="triple",
    reference=triple,
    start="Begin with one number.",
    worked=(
        Case("two rows", {"values": torch.tensor([[1.0, 2.0, 4.0], [7.0, 0.5, 9.0]]), "shift": 0.25}),
        Case("one row", {"values": torch.tensor([[5.0, 6.0]]), "shift": 2.0}),
    ),
    random=random_cases,
    mistakes=(ADDED, UNSHIFTED, BROKEN_LATE),
)


def message_of(function: Any, exercise: Exercise = EXERCISE) -> str:
    verdict = judge(exercise, function)
    assert not verdict.passed
    assert verdict.function is exercise.reference
    assert verdict.begun
    return verdict.message


@pytest.mark.parametrize(
    "right",
    [
        lambda values, shift: values + values + values + shift,
        lambda *arguments: 3 * arguments[0] + arguments[1],
        lambda values, shift, unused=None: torch.stack([3 * row + shift for row in values]),
        lambda values, shift: (3 * values + shift).requires_grad_(),
        lambda values, shift: (3 * values + shift).numpy(),
        lambda values, shift: np.flip(3 * values.double().numpy()[::-1] + shift, axis=0),
    ],
)
def test_right_answers_pass_and_stay_in_use(right: Callable[..., Any]) -> None:
    verdict = judge(EXERCISE, right)
    assert verdict.passed
    assert verdict.function is right
    assert verdict.message == "All 4 cases, worked and random, agree with the reference."


@pytest.mark.parametrize(
    "number", [float, int, np.float32, np.float64, np.array, torch.tensor, lambda x: torch.ones(1)]
)
def test_a_single_number_is_right_in_any_form(number: Callable[[int], Any]) -> None:
    case = Case("one number", {"values": torch.tensor(1.0)})
    exercise = dataclasses.replace(EXERCISE, reference=lambda values: values, worked=(case,), random=lambda _: [])
    assert judge(exercise, lambda values: number(1)).passed
    message = message_of(lambda values: number(1) + 1, exercise)
    assert message in (
        "For one number, the result is 2, off by 1. The input was values = 1.",
        "Every value is 2 times what it should be: look for a sum that should be a mean, a factor applied twice, "
        "or a sign.",
    )


def stub_of_dots(values: Tensor, shift: float) -> Any: ...


def stub_that_returns_dots(values: Tensor, shift: float) -> Any:
    return ...


def stub_that_raises(values: Tensor, shift: float) -> Any:
    raise NotImplementedError


def forgotten_return(values: Tensor, shift: float) -> None:
    3 * values + shift


@pytest.mark.parametrize("stub", [stub_of_dots, stub_that_returns_dots, stub_that_raises, forgotten_return])
def test_an_untouched_stub_is_told_where_to_begin(stub: Callable[..., Any]) -> None:
    verdict = judge(EXERCISE, stub)
    assert verdict.message == "Your function returns nothing yet. Begin with one number."
    assert (verdict.passed, verdict.begun, verdict.function) == (False, False, triple)


def test_the_reference_in_the_learners_place_is_not_a_pass() -> None:
    verdict = judge(EXERCISE, triple)
    assert not verdict.passed
    assert not verdict.begun
    assert "standing in for yours" in verdict.message


@pytest.mark.parametrize("mistake", EXERCISE.mistakes)
def test_each_mistake_gets_its_own_hint(mistake: Mistake) -> None:
    for version in mistake.versions:
        assert message_of(version) == mistake.hint


def test_a_second_mistake_is_announced() -> None:
    def added_and_stuck(values: Tensor, shift: float) -> Tensor:
        return 3 + values + shift if len(values) < 3 else values

    assert message_of(added_and_stuck) == (
        "The factor is added. That explains 3 of the 4 cases that differ; something else is left."
    )


def test_a_mistake_made_only_sometimes_gets_its_hint() -> None:
    def unshifted_where_small(values: Tensor, shift: float) -> Tensor:
        return 3 * values + (shift if values.max() > 2 else 0)

    assert message_of(unshifted_where_small) == "The shift is missing."


def undefined_name(values: Tensor, shift: float) -> Tensor:
    return 3 * value + shift  # type: ignore[name-defined,no-any-return] # noqa: F821


def test_an_exception_is_told_with_its_line_and_input() -> None:
    assert message_of(undefined_name) == (
        "For two rows, it raises NameError (name 'value' is not defined) at "
        "`return 3 * value + shift  # type: ignore[name-defined,no-any-return] # noqa: F821`. "
        "The input was values = [[1, 2, 4], [7, 0.5, 9]]; shift = 0.25."
    )


def test_a_long_exception_is_cut_and_kept_on_one_line() -> None:
    def raise_much(values: Tensor, shift: float) -> Tensor:
        raise RuntimeError("a\nb " + "word " * 100)

    message = message_of(raise_much)
    assert "RuntimeError (a b word word" in message
    assert "\n" not in message
    assert len(message) < 400


def test_an_exception_in_a_function_without_source_has_no_line() -> None:
    function = eval("lambda values, shift: values[9]")
    message = message_of(function)
    assert "it raises IndexError (" in message
    assert "`" not in message


def test_endless_recursion_ends() -> None:
    def endless(values: Tensor, shift: float) -> Any:
        return endless(values, shift)

    assert "it calls itself without an end" in message_of(endless)


def test_an_interrupt_passes_through() -> None:
    def interrupted(values: Tensor, shift: float) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(EXERCISE, interrupted)


@pytest.mark.parametrize(
    ("thing", "kind"), [(None, "None"), (torch.ones(2), "a value of type Tensor"), ("triple", "a value of type str")]
)
def test_what_is_no_function_is_named(thing: Any, kind: str) -> None:
    assert message_of(thing) == f"The check needs the function itself, not {kind}: its name, without parentheses."


@pytest.mark.parametrize(
    ("function", "parameters"),
    [(lambda values: values, "values"), (lambda a, b, c: a, "a, b, c"), (lambda values, *, shift: values, "")],
)
def test_other_parameters_are_told_first(function: Callable[..., Any], parameters: str) -> None:
    message = message_of(function)
    assert message.startswith(f"The function is called with (values, shift), in this order; yours takes ({parameters}")


def test_a_built_in_without_a_signature_is_simply_called() -> None:
    assert judge(dataclasses.replace(EXERCISE, reference=lambda a, b: a + b), torch.add).passed


def keep_first_row(values: Tensor, shift: float) -> Tensor:
    return triple(values, shift)[:1]


def lose_a_branch(values: Tensor, shift: float) -> Tensor | None:
    return triple(values, shift) if len(values) == 1 else None


@pytest.mark.parametrize(
    ("wrong", "finding"),
    [
        (
            lambda values, shift: triple(values, shift).tolist(),
            "it returns a value of type list where a tensor of shape",
        ),
        (lambda values, shift: np.array(["a"]), "it returns a value of type ndarray where"),
        (lose_a_branch, "it returns None where a tensor of shape (2, 3) is expected; does each way through it end in"),
        (keep_first_row, "the result has shape (1, 3) where (2, 3) is expected"),
        (
            lambda values, shift: triple(values, shift).double(),
            "the result is of torch.float64, the input of torch.floa",
        ),
        (lambda values, shift: triple(values, shift).to("meta"), "the result is on device meta, the input on cpu"),
        (lambda values, shift: triple(values, shift) / 0 * 0, "the result holds NaN: look for a division by zero"),
        (
            lambda values, shift: triple(values, shift) / 0,
            "the result is off by up to inf, most at [0, 0], where yours",
        ),
        (
            lambda values, shift: triple(values, shift).mT,
            "Your values are right, but the axes come in another order: a ",
        ),
        (lambda values, shift: -triple(values, shift), "Every value is -1 times what it should be"),
        (lambda values, shift: triple(values, shift) / 4, "Every value is 0.25 times what it should be"),
        (lambda values, shift: 0 * values, "the result is off by up to 27.2, most at [1, 2], where yours is 0."),
    ],
)
def test_what_no_mistake_explains_is_described(wrong: Callable[..., Any], finding: str) -> None:
    assert finding in message_of(wrong)


def test_a_changed_argument_is_named_even_if_the_result_is_right() -> None:
    def in_place(values: Tensor, shift: float) -> Tensor:
        return values.mul_(3).add_(shift)

    message = message_of(in_place)
    assert message.startswith("Your function changes its argument values")
    assert message_of(in_place) == message  # the cases themselves are unharmed


def test_a_change_within_a_list_or_a_dict_is_seen() -> None:
    rows = Case("rows", {"rows": [{"row": torch.tensor([1.0, 2.0])}, {"row": torch.tensor([3.0])}], "shift": 0.5})
    exercise = dataclasses.replace(
        EXERCISE,
        reference=lambda rows, shift: torch.cat([row["row"] for row in rows]) + shift,
        worked=(rows,),
        random=lambda generator: [],
        mistakes=(),
    )

    def in_place(rows: list[dict[str, Tensor]], shift: float) -> Tensor:
        return torch.cat([row["row"].add_(shift) for row in rows])

    assert message_of(in_place, exercise).startswith("Your function changes its argument rows")
    message = message_of(lambda rows, shift: torch.cat([row["row"] for row in rows]), exercise)
    assert "The input was rows = [{row: [1, 2]}, {row: [3]}]; shift = 0.5." in message


def test_the_axes_message_shows_a_case_that_tells_them_apart() -> None:
    message = message_of(lambda values, shift: triple(values, shift).mT)
    assert message.endswith("a result of shape (3, 2) should be of shape (2, 3).")


def test_right_on_the_worked_cases_only() -> None:
    def wrong_for_many_rows(values: Tensor, shift: float) -> Tensor:
        return triple(values, shift) + (10 if len(values) > 2 else 0)

    message = message_of(wrong_for_many_rows)
    assert message.startswith("The worked cases are right, but for a random table, the result is off by up to 10, ")


def test_the_fall_back_shows_the_input_and_the_learners_value_but_not_the_solution() -> None:
    message = message_of(lambda values, shift: values**2)
    assert message == (
        "For two rows, the result is off by up to 53.8, most at [1, 2], where yours is 81. "
        "The input was values = [[1, 2, 4], [7, 0.5, 9]]; shift = 0.25."
    )
    right = [f"{value:g}" for value in triple(*EXERCISE.worked[0].arguments.values()).flatten().tolist()]
    assert not set(right) & set(re.findall(r"[\d.]*\d", message))


def test_large_inputs_are_shown_by_shape() -> None:
    case = Case("a large table", {"values": torch.ones(5, 5), "shift": 1.0})
    message = message_of(lambda values, shift: values, dataclasses.replace(EXERCISE, worked=(case,)))
    assert "values = a tensor of shape (5, 5); shift = 1" in message


@pytest.mark.parametrize("function", [stub_of_dots, lambda values, shift: values**2, lambda v, s: 3 * v + s, None])
def test_a_check_says_the_same_each_time(function: Any) -> None:
    first, second = judge(EXERCISE, function), judge(EXERCISE, function)
    assert repr(first) == repr(second)
    assert first._repr_html_() == second._repr_html_()
    assert "\n" not in repr(first)


@pytest.mark.parametrize(
    ("passed", "begun", "look"),
    [(True, True, "✓ box: passed."), (False, True, "✗ box: not yet."), (False, False, "○ box: to do.")],
)
def test_text_and_box_say_in_words_what_the_colour_says(passed: bool, begun: bool, look: str) -> None:
    verdict = Verdict("box", passed, "Some words.", triple, begun)
    assert repr(verdict) == f"{look} Some words."
    assert f"<strong>{look}</strong> Some words." in verdict._repr_html_()


def test_the_box_escapes_what_a_learner_wrote() -> None:
    def hostile(values: Tensor, shift: float) -> Tensor:
        raise ValueError("<script>alert('&')</script>")

    html = judge(EXERCISE, hostile)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)" in html


def test_an_unknown_exercise_is_refused_with_the_names() -> None:
    with pytest.raises(ValueError, match=r"no exercise 'bilinear'; choose one of: .*bilinear_sample, roi_align"):
        check("bilinear", triple)


def draw_two(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    chosen = torch.randperm(len(labels), generator=generator)[:2]
    return chosen, labels[chosen]


def same_draws(expected: tuple[Tensor, Tensor], got: tuple[Tensor, Tensor]) -> str | None:
    """Compare a pair whose rows may come in any order."""
    return None if sorted(expected[0].tolist()) == sorted(got[0].tolist()) else "other rows are drawn"


def test_an_exercise_may_take_a_generator_and_return_a_tuple_in_any_order() -> None:
    cases = tuple(
        Case("ten labels", {"labels": torch.arange(10), "generator": torch.Generator().manual_seed(seed)})
        for seed in range(3)
    )
    first_two = Mistake("The first two are taken.", (lambda labels, generator: (torch.arange(2), labels[:2]),))
    exercise = Exercise("draw_two", draw_two, "Draw.", cases, lambda _: [], (first_two,), same_draws)

    def reversed_draw(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen, drawn = draw_two(labels, generator)
        return chosen.flip(0), drawn.flip(0)

    assert judge(exercise, reversed_draw).passed
    assert judge(exercise, first_two.versions[0]).message == first_two.hint
    assert judge(exercise, lambda labels, generator: (labels[5:7], labels[5:7])).message == (
        "For ten labels, other rows are drawn. The input was labels = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]; "
        "generator = a value of type Generator."
    )
