"""A training's losses as curves: of a finished run, or live, while a notebook's cell trains."""

import time
from collections.abc import Sequence
from typing import Any

from IPython.display import DisplayHandle, display
from matplotlib.figure import Figure

from rcnn_edu.explore.figures import picture, plot_axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5b6470")
STYLES = ("solid", "dashed", "dotted")  # told apart where a cascade has more losses than there are colours


def draw_losses(records: Sequence[dict[str, Any]]) -> Figure:
    """Return a figure of a training's losses over its steps, the sum at the left and its parts at the right.

    Args:
        records: lines of the training's log, as ``read_log`` gives them.

    Lesson: 09.
    """
    figure, (whole, parts) = plot_axes("loss", "its parts")
    steps = [record["step"] for record in records]
    whole.plot(steps, [record["loss"] for record in records], color=COLOURS[0])
    names = [name for name in records[0] if name.startswith("loss_")] if records else []
    for place, name in enumerate(names):
        style = STYLES[place // len(COLOURS) % len(STYLES)]
        label = name.removeprefix("loss_").replace("_", " ")
        values = [record[name] for record in records]
        parts.plot(steps, values, label=label, color=COLOURS[place % len(COLOURS)], linestyle=style)
    for axes in (whole, parts):
        axes.set(xlabel="step", ylim=(0, None))
    if names:
        parts.legend(fontsize=9, frameon=False, ncols=1 + len(names) // 8)
    return figure


class LivePlot:
    """Redraws the losses in the cell's output whenever training reports: ``train(..., on_log=LivePlot())``.

    Args:
        seconds: at least so long from one drawing to the next; drawing takes a third of one.

    Lesson: 09.
    """

    def __init__(self, seconds: float = 3.0) -> None:
        self.seconds = seconds
        self.records: list[dict[str, Any]] = []
        self.drawn = -seconds
        self.handle: DisplayHandle | None = None

    def __call__(self, record: dict[str, Any]) -> None:
        """Take down a line of the log."""
        self.records.append(record)
        if time.monotonic() - self.drawn >= self.seconds:
            self.draw()

    def draw(self) -> None:
        """Draw all that there is, where the last drawing was."""
        alt = f"losses up to step {self.records[-1]['step']}: {self.records[-1]['loss']:.2f} in all"
        data, metadata = picture(draw_losses(self.records), alt)
        if self.handle is None:
            self.handle = display(data, metadata=metadata, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self.handle.update(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]
        self.drawn = time.monotonic()
