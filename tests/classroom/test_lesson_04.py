"""The exercises of lesson 04: right answers pass, whatever they draw, and each mistake is told as what it is."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rcnn_edu import ops
from rcnn_edu.classroom import check
from rcnn_edu.classroom.lesson_04_box_head_loss import BOX_HEAD_LOSS, compare_losses
from rcnn_edu.classroom.lesson_04_sample_rois import MISTAKES, SAMPLE_ROIS, Habits, compare_habits, observe_samples
from tests.classroom import answers_04 as answers
from tests.classroom.changes import changed

Changes = list[tuple[str, str]]


# Sampling


@pytest.mark.parametrize(
    "answer", [answers.with_shuffles, answers.with_random_numbers, answers.with_multinomial, answers.with_numpy]
)
def test_right_samplers_pass_though_they_draw_differently(answer: Callable[..., Any]) -> None:
    verdict = check("sample_rois", answer)
    assert verdict.message == "All 12 cases, worked and random, agree with the reference."
    assert verdict.passed
    assert verdict.function is answer


def test_the_right_samplers_do_draw_differently() -> None:
    labels = torch.tensor([0, 0, 0, 1] * 20)
    samples = [
        tuple(torch.as_tensor(answer(labels, 16, 0.5, torch.Generator().manual_seed(0))).tolist())
        for answer in (answers.with_shuffles, answers.with_random_numbers, answers.with_multinomial, answers.with_numpy)
    ]
    assert len(set(samples)) == 4


def test_untouched_stubs_get_a_pointer() -> None:
    verdict = check("sample_rois", answers.stub)
    assert verdict.message.startswith("Your function returns nothing yet. Begin with the indices of the positives")
    assert (verdict.passed, verdict.begun) == (False, False)
    assert verdict.function is ops.sample_rois
    verdict = check("box_head_loss", answers.loss_stub)
    assert verdict.message.startswith("Your function returns nothing yet. Begin with the class loss")
    assert (verdict.passed, verdict.begun) == (False, False)


def test_the_solutions_are_short_enough_to_read() -> None:
    for answer in (answers.with_shuffles, answers.loss_with_sums):
        assert len(inspect.getsource(answer).splitlines()) <= 15


@pytest.mark.parametrize(
    ("what", "positives", "negatives"),
    [
        ("enough of both", 4, 4),
        ("ignored boxes among them", 3, 3),
        ("one positive only", 1, 7),
        ("too few negatives", 2, 2),
        ("classes for labels", 4, 4),
        ("a share that is no whole number", 1, 6),
        ("fewer boxes than asked for", 2, 3),
        ("only ignored boxes", 0, 0),
        ("an image without objects", 0, 6),
        ("no boxes at all", 0, 0),
    ],
)
def test_the_worked_cases_by_hand(what: str, positives: int, negatives: int) -> None:
    (case,) = [case for case in SAMPLE_ROIS.worked if case.what == what]
    habits = observe_samples(ops.sample_rois, **case.arguments)
    assert isinstance(habits, Habits)
    assert (habits.positives, habits.negatives, habits.ignored) == (positives, negatives, 0)
    assert habits.even
    assert habits.follows_generator
    assert not habits.repeats


def test_a_check_gives_the_same_verdict_each_time_and_leaves_the_world_s_randomness_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    messages = {check("sample_rois", mistake.versions[0]).message for mistake in MISTAKES[-3:] for _ in range(2)}
    assert len(messages) == 3
    assert torch.rand(1) == expected


# Mistakes, made as a learner makes them: in the solution's own text

SHUFFLE_POSITIVES = "positives[torch.randperm(len(positives), generator=generator)][:most]"
SHUFFLE_NEGATIVES = "negatives[torch.randperm(len(negatives), generator=generator)][:missing]"


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([("labels == 0", "labels <= 0")], "Ignored boxes, those of label -1, are drawn as negatives"),
        ([("labels == 0", "labels < 1")], "Ignored boxes, those of label -1, are drawn as negatives"),
        ([("labels > 0", "labels == 1")], "Only label 1 counts as positive"),
        ([("num_samples - len(positives)", "num_samples - most")], "Where positives are missing, their places stay"),
        ([("num_samples - len(positives)", "len(positives)")], "The number of negatives follows from that of the pos"),
        (
            [("    most = ", "    most = max(num_samples - len(negatives), 0) or ")],
            "Positives take the places of missing negatives",
        ),
        ([("num_samples * pos", "len(positives) * pos")], "The share is taken of the positives that there are"),
        ([("int(num_samples * pos_fraction)", "-int(-num_samples * pos_fraction // 1)")], "is rounded up"),
        ([("[:most]", "[:num_samples]")], "The share of positives has no effect"),
        (
            [
                (SHUFFLE_POSITIVES, "positives[torch.randint(max(1, p), (min(most, p),), generator=generator)]"),
                (SHUFFLE_NEGATIVES, "negatives[torch.randint(max(1, n), (min(missing, n),), generator=generator)]"),
                ("    most =", "    p, n = len(positives), len(negatives)\n    most ="),
            ],
            "A box can be drawn more than once",
        ),
        ([(SHUFFLE_POSITIVES, "positives[:most]"), (SHUFFLE_NEGATIVES, "negatives[:missing]")], "The same boxes come"),
        ([("    most", "    torch.manual_seed(0)\n    generator = None\n    most")], "Every call draws the same"),
        ([("generator=generator", "generator=None")], "The generator is not used"),
        ([("generator=generator", "")], "The generator is not used"),
        ([("[positives, negatives]", "[negatives, positives]")], "The positives do not come first"),
        ([("torch.cat([positives, negatives])", "torch.cat([positives, negatives]).msort()")], "do not come first"),
        (
            [
                (SHUFFLE_POSITIVES, "torch.randperm(len(positives), generator=generator)[:most]"),
                (SHUFFLE_NEGATIVES, "torch.randperm(len(negatives), generator=generator)[:missing]"),
            ],
            "These are places within the list of positives or negatives",
        ),
        (
            [("return torch.cat([positives, negatives])", "return labels[torch.cat([positives, negatives])]")],
            "These are the labels of the drawn boxes",
        ),
        (
            [("torch.cat([positives, negatives])", "torch.zeros_like(labels).bool().index_fill(0, negatives, True)")],
            "The result is a mask",
        ),
        ([("return torch.cat([positives, negatives])", "return len(positives)")], "returns a value of type int where"),
        ([("torch.cat([positives, negatives])", "torch.cat([positives, negatives]) / 1")], "numbers of torch.float32"),
        ([("torch.cat([positives, negatives])", "torch.cat([positives, negatives]) - 1")], "an index that none of the"),
        ([("torch.cat([positives, negatives])", "torch.cat([positives, negatives])[None]")], "one row of indices"),
        ([("    most =", "    generator.seed()\n    most =")], "it raises AttributeError"),
        ([("    most =", "    labels[:1] = 0\n    most =")], "Your function changes its argument labels"),
        (
            [("    return", "    negatives = negatives[len(labels) // 30 :]\n    return")],
            "The worked cases are right",
        ),
    ],
)
def test_a_slip_in_the_sampler_is_diagnosed(changes: Changes, hint: str) -> None:
    verdict = check("sample_rois", changed(answers.with_shuffles, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


def test_an_error_is_shown_at_the_learner_s_own_line() -> None:
    verdict = check("sample_rois", broken)
    assert "`return labels[generator]`" in verdict.message


def broken(labels: Any, num_samples: int, pos_fraction: float, generator: Any) -> Any:
    if generator is None:
        return labels.nonzero()[:0, 0]
    return labels[generator]


def test_habits_are_compared_one_by_one() -> None:
    assert compare_habits(Habits(), Habits()) is None
    assert compare_habits(Habits(positives=3), Habits(positives=None)) == (
        "of positives it draws a number that changes from draw to draw, where 3 are expected"
    )
    assert compare_habits(Habits(), Habits(even=False)) == "some are drawn far more often than others"
    assert compare_habits(Habits(), Habits("it is odd")) == "it is odd"
    assert compare_habits(Habits(), [1, 2]) == "it returns a value of type list where a tensor of indices is needed"


def test_a_favourite_is_noticed() -> None:
    """The first 12 of 48 negatives, shuffled: each draw is another, but never of the rest."""
    habits = observe_samples(
        lambda labels, n, fraction, generator: torch.randperm(12, generator=generator)[:n],
        torch.zeros(48, dtype=torch.long),
        6,
        0.25,
        None,
    )
    assert isinstance(habits, Habits)
    assert (habits.even, habits.takes_first, habits.stands_still) == (False, False, False)


# The losses


@pytest.mark.parametrize("answer", [answers.loss_with_sums, answers.loss_with_loops, answers.loss_with_torchvision])
def test_right_losses_pass(answer: Callable[..., Any]) -> None:
    verdict = check("box_head_loss", answer)
    assert verdict.message == "All 10 cases, worked and random, agree with the reference."
    assert verdict.passed
    assert verdict.function is answer


N = "n = max(1, len(labels))"
CLASS = 'F.cross_entropy(class_logits, labels, reduction="sum") / n'
BOX = 'F.smooth_l1_loss(deltas, target_deltas, beta=beta, reduction="sum") / n'


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ([(BOX, BOX + " * n / max(1, int(positive.sum()))")], "The box loss is divided by the positives"),
        ([(BOX, BOX + " * n / positive.sum()")], "The box loss is divided by the positives"),
        ([(BOX, "F.smooth_l1_loss(deltas, target_deltas, beta=beta)")], "The box loss is a mean over the positives'"),
        ([(CLASS, "F.cross_entropy(class_logits, labels)")], "Without any boxes the loss is NaN"),
        ([(N, "n = torch.tensor(len(labels))")], "Without any boxes the loss is NaN"),
        ([(N, "n = len(labels)")], "Without any boxes the loss is NaN"),
        ([(BOX, BOX + " / 4")], "The box loss is divided by the four coordinates as well"),
        ([(BOX, BOX[:-4])], "The box loss is not divided at all"),
        ([(N, "n = 1")], "Neither loss is divided"),
        ([("labels[positive] - 1", "labels[positive]")], "The deltas of the wrong class are compared"),
        ([("labels[positive] - 1", "0 * labels[positive]")], "The deltas of the first class are compared"),
        ([("beta=beta, ", "")], "Beta has no effect on the box loss"),
        ([("F.smooth_l1_loss(deltas, target_deltas, beta=beta", "F.l1_loss(deltas, target_deltas")], "Beta has no eff"),
        (
            [
                ("class_loss = F", "keep = labels > 0\n    class_loss = F"),
                ("(class_logits, labels", "(class_logits[keep], labels[keep]"),
            ],
            "The class loss leaves out the background",
        ),
        ([("(class_logits, labels", "(class_logits.softmax(1), labels")], "Softmax is taken twice"),
        ([("return class_loss, box_loss", "return box_loss, class_loss")], "The two losses come in the other order"),
        ([("return class_loss, box_loss", "return class_loss + box_loss")], "two numbers are expected, the class loss"),
        ([("return class_loss, box_loss", "return class_loss, 2 * box_loss")], "something is wrong with the box loss"),
        ([("    positive =", "    labels *= 2\n    positive =")], "Your function changes its argument labels"),
    ],
)
def test_a_slip_in_the_loss_is_diagnosed(changes: Changes, hint: str) -> None:
    verdict = check("box_head_loss", changed(answers.loss_with_sums, *changes))
    assert hint in verdict.message
    assert "something else" not in verdict.message


def test_the_cases_reach_the_last_class_and_the_empty_sample() -> None:
    cases = [*BOX_HEAD_LOSS.worked, *BOX_HEAD_LOSS.random(torch.Generator().manual_seed(0))]
    assert any((case.arguments["labels"] == case.arguments["box_deltas"].shape[1]).any() for case in cases)
    assert any(len(case.arguments["labels"]) == 0 for case in cases)


@pytest.mark.parametrize(
    ("got", "fault"),
    [
        ((1.0, torch.tensor([2.0])), None),
        (torch.tensor([1.0, 2.0]), None),
        ((1.5, 2.0), "something is wrong with the class loss: the result is 1.5, off by 0.5"),
        ((1.0, float("nan")), "something is wrong with the box loss: the result holds NaN"),
        (1.0, "it returns a value of type float where two numbers are expected"),
        ((1.0, 2.0, 3.0), "it returns a value of type tuple where two numbers"),
    ],
)
def test_losses_are_compared_as_numbers(got: Any, fault: str | None) -> None:
    found = compare_losses((torch.tensor(1.0), torch.tensor(2.0)), got)
    assert (found is None) if fault is None else (found is not None and fault in found)
