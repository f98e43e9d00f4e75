"""The curves of a training: what they show, and that a live plot draws no oftener than it was told."""

import time
from typing import Any

import numpy as np
import pytest

from rcnn_edu.explore import losses
from rcnn_edu.explore.losses import LivePlot, draw_losses

RECORDS = [
    {
        "step": step,
        "learning_rate": 0.1,
        "images_per_second": 8.0,
        "loss": 3 / step,
        "loss_mask": 1 / step,
        "loss_a_b": 2 / step,
    }
    for step in (10, 20, 30)
]


def test_the_sum_and_its_parts_are_drawn() -> None:
    whole, parts = draw_losses(RECORDS).axes
    assert [np.asarray(line.get_ydata()).tolist() for line in whole.lines] == [[0.3, 0.15, 0.1]]
    assert [line.get_label() for line in parts.lines] == ["mask", "a b"]
    assert parts.get_xlabel() == "step"


def test_more_losses_than_colours_differ_in_their_strokes() -> None:
    record = {"step": 1, "loss": 9.0} | {f"loss_{number}": 1.0 for number in range(9)}
    _, parts = draw_losses([record]).axes
    assert len({(line.get_color(), line.get_linestyle()) for line in parts.lines}) == 9


def test_without_records_there_are_empty_axes() -> None:
    assert all(np.size(line.get_xdata()) == 0 for axes in draw_losses([]).axes for line in axes.lines)


class Handle:
    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, data: dict[str, str], **_: Any) -> None:
        self.shown.append(data["text/plain"])


def test_a_live_plot_redraws_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    handle, clock = Handle(), iter([100.0, 100.5, 101.0, 104.0, 104.5])

    def display(data: dict[str, str], **_: Any) -> Handle:
        handle.update(data)
        return handle

    monkeypatch.setattr(losses, "display", display)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    plot = LivePlot(seconds=3)
    for record in RECORDS:  # at 100 s, with the clock read again after drawing; at 101 s; at 104 s
        plot(record)
    assert handle.shown == ["losses up to step 10: 0.30 in all", "losses up to step 30: 0.10 in all"]
    assert plot.records == RECORDS
