"""The log of a run: a progress bar to watch, and lines of json to draw."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

Record = dict[str, Any]  # a line of the log: step, learning_rate, images_per_second, loss and the losses it sums


class RunLog:
    """Averages the losses over a few steps and writes them down. To be used in a ``with``.

    Args:
        path: of the file; lines about steps that are taken anew are dropped. None: keep silent, another process writes.
        start: steps taken already,
        steps: of the whole run.
        batch_size: images a step.
        every: steps to a line.
        on_record: is called with each line too.
    """

    def __init__(
        self,
        path: Path | None,
        start: int,
        steps: int,
        batch_size: int,
        every: int = 10,
        on_record: Callable[[Record], None] | None = None,
    ) -> None:
        if path is not None:
            kept = [record for record in read_log(path) if record["step"] <= start] if path.exists() else []
            path.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        self.path, self.steps, self.batch_size, self.every, self.on_record = path, steps, batch_size, every, on_record
        self.bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True, disable=path is None)
        self.since, self.waiting = time.perf_counter(), list[dict[str, Tensor]]()

    def add(self, step: int, losses: dict[str, Tensor], learning_rate: float) -> None:
        """Take down the losses of a step, the first being 0."""
        if self.path is None:
            return
        self.bar.update()
        self.waiting.append(losses)
        if (step + 1) % self.every and step + 1 < self.steps:
            return
        means = {name: torch.stack([each[name] for each in self.waiting]).mean().item() for name in losses}
        now = time.perf_counter()
        record: Record = {
            "step": step + 1,
            "learning_rate": learning_rate,
            "images_per_second": round(self.batch_size * len(self.waiting) / (now - self.since), 2),
            "loss": sum(means.values()),
            **means,
        }
        self.since, self.waiting = now, []
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.bar.set_postfix({"loss": f"{record['loss']:.3f}", "images/s": record["images_per_second"]})
        if self.on_record is not None:
            self.on_record(record)

    def __enter__(self) -> "RunLog":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the progress bar."""
        self.bar.close()


def read_log(path: Path) -> list[Record]:
    """Return the log's lines; one that the end of a run cut short is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            records.append(json.loads(line))
    return records
