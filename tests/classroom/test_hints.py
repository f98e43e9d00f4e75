"""Every exercise's hints: each mistake gets its own and no other, in one or two plain sentences."""

import dataclasses
import re

import pytest

from rcnn_edu.classroom import EXERCISES
from rcnn_edu.classroom.checks import Exercise, Mistake, judge

MISTAKES = [
    pytest.param(exercise, mistake, id=f"{exercise.name}-{mistake.hint[:40]}")
    for exercise in EXERCISES.values()
    for mistake in exercise.mistakes
]


@pytest.mark.parametrize(("exercise", "mistake"), MISTAKES)
def test_each_mistake_is_refused_with_its_own_hint_and_no_other(exercise: Exercise, mistake: Mistake) -> None:
    backwards = dataclasses.replace(exercise, mistakes=exercise.mistakes[::-1])
    for version in mistake.versions:
        assert judge(exercise, version).message == mistake.hint  # the first that fits, from either end:
        assert judge(backwards, version).message == mistake.hint  # so no other fits


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=lambda exercise: exercise.name)
def test_hints_differ_and_are_one_or_two_plain_sentences(exercise: Exercise) -> None:
    hints = [mistake.hint for mistake in exercise.mistakes]
    assert len(set(hints)) == len(hints)
    for text in (*hints, exercise.start):
        assert len(re.findall(r"[.?](?= |$)", text)) in (1, 2)
        assert text[-1] in ".?"
        assert len(text) <= 240
        assert not re.search(r"!|\n|`|return |def |\*|\[", text)
