"""What a check answers, as a line of text or a box in the notebook, and the words for what it saw."""

import linecache
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check found, as one readable line of text or a box in the notebook.

    Attributes:
        exercise: the exercise's name.
        passed: whether the learner's function is right on every case.
        message: the finding, in plain sentences.
        function: the learner's function where it passed, else the reference, so that later cells can go on.
        begun: whether there was something to judge, and not just the untouched stub.
    """

    exercise: str
    passed: bool
    message: str
    function: Callable[..., Any]
    begun: bool = True

    def __repr__(self) -> str:
        mark, word, _ = self._look()
        return f"{mark} {self.exercise}: {word}. {self.message}"

    def _repr_html_(self) -> str:
        """Return the box that JupyterLab shows, in the colours of its theme; the words say what the colour says."""
        mark, word, colour = self._look()
        return (
            f'<div role="status" style="border: 1px solid {colour}; border-left-width: 6px; border-radius: 4px; '
            "padding: 8px 12px; max-width: 52em; line-height: 1.5; color: var(--jp-content-font-color1, inherit); "
            'background: var(--jp-layout-color2, transparent)">'
            f"<strong>{mark} {escape(self.exercise)}: {word}.</strong> {escape(self.message)}</div>"
        )

    def _look(self) -> tuple[str, str, str]:
        if self.passed:
            return "✓", "passed", "var(--jp-success-color1, #009e73)"
        if self.begun:
            return "✗", "not yet", "var(--jp-warn-color1, #d55e00)"
        return "○", "to do", "var(--jp-info-color1, #0072b2)"


def describe_error(error: Exception) -> str:
    """Return what was raised, where in the learner's function, and the error's own words, cut short."""
    if isinstance(error, RecursionError):
        return "it calls itself without an end"
    words = " ".join(str(error).split())[:160]
    frame = step = error.__traceback__
    while step:
        if Path(step.tb_frame.f_code.co_filename).parent == Path(__file__).parent:
            frame = step.tb_next  # below the check's own calls: the learner's function
        step = step.tb_next
    line = linecache.getline(frame.tb_frame.f_code.co_filename, frame.tb_lineno).strip() if frame else ""
    return f"it raises {type(error).__name__} ({words})" + (f" at `{line}`" if line else "")


def name_of(value: Any) -> str:
    """Return what kind of thing ``value`` is, for a sentence."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def show(value: Any) -> str:
    """Return an argument as short text: small tensors by their values, large ones by their shape."""
    if isinstance(value, Tensor):
        return show(value.tolist()) if value.numel() <= 20 else f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, list):
        return f"[{', '.join(show(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {show(item)}' for key, item in value.items())}}}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if isinstance(value, (int, str, tuple)) else name_of(value)  # no address, the same in each run
