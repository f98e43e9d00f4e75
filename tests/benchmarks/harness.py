"""Contenders side by side: interleaved timings in one process, peak memory of each in a process of its own.

A subject, such as ``roi.py``, lists its cases; ``__main__.py`` runs them. To add one, write a file with a function
``cases(quick) -> list[Case]``, and name it in ``SUBJECTS`` there.
"""

import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WARM_UP = 1

Contenders = dict[str, Callable[[], object]]  # ours first; the fastest of the others is what it is compared with


@dataclass(frozen=True)
class Case:
    """One table row: what is measured, on which shapes, and how to make the contenders with their inputs."""

    group: str  # rows of a group are summed up by the median of their ratios
    shape: str
    make: Callable[[], Contenders]


def time_contenders(contenders: Contenders, rounds: int) -> dict[str, list[float]]:
    """Return each contender's times in milliseconds, one a round; every round runs all of them, each time in turn."""
    for _ in range(WARM_UP):
        for contender in contenders.values():
            contender()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(rounds):
        for name in order:
            start = time.perf_counter()
            contenders[name]()
            times[name].append(1000 * (time.perf_counter() - start))
        order.append(order.pop(0))  # nobody always runs in the same neighbour's warm or emptied cache
    return times


def peak_memory(case: Case, contender: str) -> float:
    """Return by how many MB one call raises this process's peak: meant for a fresh process, inputs made already."""
    contenders = case.make()  # all kept: what the others' inputs leave behind would hide what this one takes
    before = _peak_of_process()
    contenders[contender]()
    return _peak_of_process() - before


def _peak_of_process() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss would not do: a child inherits its parent's
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS, in bytes


def _peak_memory_in_fresh_process(subject: str, index: int, contender: str) -> float:
    command = [sys.executable, "-m", "tests.benchmarks", subject, "--peak-memory", str(index), contender]
    answer = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(answer.stdout)


def measure(subject: str, cases: list[Case], rounds: int, with_memory: bool) -> dict[str, Any]:
    """Return what is printed and written: each case's figures, and the median ratio of each group."""
    all_times = []  # times first, all in a row: the machine need be quiet for no longer than that
    for case in cases:
        print(f"timing {case.group}, {case.shape}", file=sys.stderr, flush=True)
        all_times.append(time_contenders(case.make(), rounds))
    rows: list[dict[str, Any]] = []
    for index, (case, times) in enumerate(zip(cases, all_times, strict=True)):
        medians = {name: statistics.median(taken) for name, taken in times.items()}
        contenders = {
            name: {
                "median_ms": medians[name],
                "min_ms": min(taken),
                "max_ms": max(taken),
                "peak_memory_mb": _peak_memory_in_fresh_process(subject, index, name) if with_memory else None,
            }
            for name, taken in times.items()
        }
        ours, *others = times
        rival = min(others, key=medians.__getitem__)
        ratio = medians[rival] / medians[ours]
        rows.append(
            {"group": case.group, "shape": case.shape, "contenders": contenders, "rival": rival, "ratio": ratio}
        )
    groups = dict.fromkeys(case.group for case in cases)
    ratios = {group: statistics.median(row["ratio"] for row in rows if row["group"] == group) for group in groups}
    return {"subject": subject, "rounds": rounds, "cases": rows, "median_ratios": ratios}


def table(report: dict[str, Any]) -> str:
    """Return a report as text: milliseconds as median (min .. max), memory in MB, ratios to the fastest other."""
    lines = ["{cpu}, {threads} threads; torch {torch}, torchvision {torchvision}, Python {python}".format(**report)]
    for group, median_ratio in report["median_ratios"].items():
        lines += ["", f"{group:52}{'median ms':>10}  {'(min .. max)':18}{'peak MB':>8}"]
        for row in report["cases"]:
            if row["group"] != group:
                continue
            lines.append(f"  {row['shape']}")
            for name, figures in row["contenders"].items():
                spread = f"({figures['min_ms']:.1f} .. {figures['max_ms']:.1f})"
                memory = figures["peak_memory_mb"]
                peak = "" if memory is None else f"{memory:8.0f}"
                lines.append(f"    {name:48}{figures['median_ms']:10.1f}  {spread:18}{peak}")
            lines.append(f"    {'times as fast as ' + row['rival']:48}{row['ratio']:10.1f}")
        lines.append(f"  {'median of the ratios':50}{median_ratio:10.1f}")
    return "\n".join(line.rstrip() for line in lines)
