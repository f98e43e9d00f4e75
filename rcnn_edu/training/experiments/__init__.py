"""The papers' tables in miniature: each module is an experiment, whose header says what it asks and how long it takes.

A module has ``PAPER``, the paper's figures by row and column, and ``measure(seed, quick, device)``, which returns ours
in the same form, as fractions. What is around them, the seeds, the file and the table, is here.

``python -m rcnn_edu experiment NAME`` repeats one.
"""

import importlib
import json
import math
import pkgutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rcnn_edu.training.machine import describe_machine
from rcnn_edu.training.whole_file import write_json

Rows = dict[str, dict[str, float]]  # a figure for each row and column of a table
RESULTS = Path(__file__).resolve().parents[3] / "data" / "results"  # in a clone of the course
# A column is a share, shown in percent, unless its first word is one of these: what it is shown times, and the digits.
UNITS = {"seconds/image": (1, 3), "sigma": (1, 3), "anchors": (1, 0), "positives/image": (1, 1)}


def names() -> list[str]:
    """Return the names of all experiments."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: str) -> Any:
    """Return an experiment's module.

    Raises:
        ValueError: if there is none of this name.
    """
    if name not in names():
        raise ValueError(f"there is no experiment {name!r}; there are {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")


def repeat(
    name: str, seeds: int = 3, *, device: str = "cpu", quick: bool = False, folder: Path = RESULTS
) -> dict[str, Any]:
    """Return an experiment's figures for each seed, with their mean and spread, and write them to ``NAME.json``.

    Seeds that the file has already are not measured again, so an interrupted experiment goes on. Delete the file to
    begin anew.

    Args:
        name: of the experiment.
        seeds: how many, from 0 on; each decides over all that is random.
        device: to run on.
        quick: only show that it runs: a few seconds, nothing written.
        folder: for the file.

    Raises:
        ValueError: if there is no experiment of this name, or fewer seeds than one.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}; 3 show a spread")
    experiment = find(name)
    path = folder / f"{name}.json"
    runs = {} if quick or not path.exists() else json.loads(path.read_text(encoding="utf-8"))["runs"]

    def report() -> dict[str, Any]:
        command = f"python -m rcnn_edu experiment {name} --seeds {seeds}"
        return {"experiment": name, "command": command, "runs": runs, **summary(runs)}

    for seed in range(seeds):
        if str(seed) in runs:
            continue
        start = time.perf_counter()
        figures = experiment.measure(seed, quick=quick, device=device)
        seconds = round(time.perf_counter() - start, 1)
        runs[str(seed)] = {"figures": figures, "seconds": seconds, "device": device, **describe_machine()}
        if not quick:
            write_json(path, report(), indent=2)
    return report()


def summary(runs: dict[str, Any]) -> dict[str, Rows]:
    """Return the mean over the seeds and the spread: the standard deviation, NaN's place taken by what there is."""
    collected: dict[str, dict[str, list[float]]] = {}
    for run in runs.values():
        for row, figures in run["figures"].items():
            for column, figure in figures.items():
                if figure is not None and not math.isnan(figure):
                    collected.setdefault(row, {}).setdefault(column, []).append(figure)
    return {
        "mean": {row: {c: statistics.fmean(v) for c, v in columns.items()} for row, columns in collected.items()},
        "spread": {
            row: {c: statistics.stdev(v) if len(v) > 1 else 0.0 for c, v in columns.items()}
            for row, columns in collected.items()
        },
    }


def read(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Return the stored figures of an experiment.

    Raises:
        FileNotFoundError: if it has not been run.
    """
    find(name)
    path = folder / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"there are no results of {name} yet; run: python -m rcnn_edu experiment {name}")
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def table(report: dict[str, Any]) -> str:
    """Return an experiment's figures as text, in percent: mean ± spread over the seeds, the paper's in brackets."""
    lines = []
    for columns in _blocks(report):
        cells = _cells(report, columns)
        widths = [max(len(line[place]) for line in cells) for place in range(len(cells[0]))]
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
        lines.append("")
    question = (find(report["experiment"]).__doc__ or "").splitlines()[0]
    return "\n".join([question, "", *lines, *_notes(report)])


def markdown(
    name: str, columns: Sequence[str] | None = None, *, against: str | None = None, folder: Path = RESULTS
) -> str:
    """Return the stored figures of an experiment as a table for a notebook, or all that there is to say without any.

    Args:
        name: of the experiment.
        columns: which figures to show; all unless given.
        against: a row. Then the others' differences from it are shown, which spread less than the figures where all
            rows of a seed see the same scenes.
        folder: of the results.

    Raises:
        ValueError: if there is no row ``against``.
    """
    if not (folder / f"{name}.json").exists():
        return f"*No results of `{name}` are stored; `python -m rcnn_edu experiment {name}` measures them.*"
    report = read(name, folder)
    if against is not None:
        report = _differences(report, against)
    lines = []
    for block in _blocks(report) if columns is None else [columns]:
        head, *rows = _cells(report, block)
        cells = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        lines += [*("| " + " | ".join(line) + " |" for line in cells), ""]
    return "\n".join([*lines, *(f"*{note}*  " for note in _notes(report))])


def _differences(report: dict[str, Any], against: str) -> dict[str, Any]:
    """Return a report of the differences from a row, seed by seed."""
    if against not in report["mean"]:
        raise ValueError(f"there is no row {against!r}; there are {', '.join(report['mean'])}")
    runs = {}
    for seed, run in report["runs"].items():
        base = run["figures"][against]
        rows = {
            row: {c: f - base[c] for c, f in figures.items() if c in base} for row, figures in run["figures"].items()
        }
        runs[seed] = {**run, "figures": {row: figures for row, figures in rows.items() if figures and row != against}}
    return {**report, "runs": runs, **summary(runs), "against": against}


def _paper(report: dict[str, Any]) -> Rows:
    rows: Rows = {} if "against" in report else find(report["experiment"]).PAPER
    return rows


def _blocks(report: dict[str, Any]) -> list[list[str]]:
    """Return the columns of each of an experiment's tables: rows that have none in common are not of the same."""
    mean, paper = report["mean"], _paper(report)
    blocks: list[dict[str, None]] = []
    for name in dict.fromkeys([*mean, *paper]):
        row = dict.fromkeys([*mean.get(name, {}), *paper.get(name, {})])
        block = next((block for block in blocks if block.keys() & row.keys()), None)
        if block is None:
            blocks.append(row)
        else:
            block.update(row)
    ours_first = dict.fromkeys(column for row in [*mean.values(), *paper.values()] for column in row)
    return [[column for column in ours_first if column in block] for block in blocks]


def _cells(report: dict[str, Any], columns: Sequence[str]) -> list[list[str]]:
    """Return a table's cells, its head first."""
    mean, spread, paper = report["mean"], report["spread"], _paper(report)
    sign = "+" if "against" in report else ""
    cells = [["", *columns]]
    for row in dict.fromkeys([*mean, *paper]):
        line = [row]
        for column in columns:
            ours = mean.get(row, {}).get(column)
            times, digits = UNITS.get(column.split()[0], (100, 1))
            text = ""
            if ours is not None:
                text = f"{times * ours:{sign}z.{digits}f} ± {times * spread[row][column]:.{digits}f}"
            theirs = paper.get(row, {}).get(column)
            line.append(f"{text} [{theirs}]".strip() if theirs is not None else text)
        if any(line[1:]):
            cells.append(line)
    return cells


def _notes(report: dict[str, Any]) -> tuple[str, str]:
    runs = report["runs"].values()
    minutes = statistics.fmean(run["seconds"] for run in runs) / 60
    machine = next(iter(runs))
    if "against" in report:
        what = f"difference from “{report['against']}” of the same seed"
        figures = f"{what}: mean ± standard deviation over the seeds, in percentage points"
    else:
        figures = "mean ± standard deviation, shares in percent; in brackets: the paper's, on other data"
    return f"{len(runs)} seeds, {minutes:.1f} minutes each on {machine['cpu']}; {report['command']}", figures
