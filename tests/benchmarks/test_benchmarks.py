import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from rcnn_edu.training.machine import describe_machine
from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import harness, readme, roi
from tests.benchmarks.harness import ROOT, Case, Contenders, measure, table


@pytest.mark.parametrize("subject", benchmarks.SUBJECTS)
def test_a_quick_run_prints_every_contender_and_writes_nothing(
    subject: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    benchmarks.main([subject, "--quick"])
    lines = capsys.readouterr().out.splitlines()
    for case in benchmarks.SUBJECTS[subject](True):
        assert f"  {case.shape}" in lines
        assert any(line.startswith(f"{case.group} ") for line in lines)
        for name in case.make():
            timed = re.compile(rf"    {re.escape(name)} +\d+\.\d  \(\d+\.\d \.\. \d+\.\d\)")
            assert any(timed.fullmatch(line) for line in lines), name
    assert list(tmp_path.iterdir()) == []


def small_cases(quick: bool) -> list[Case]:
    def make() -> Contenders:
        return {
            "ours": lambda: torch.ones(10),
            "slow": lambda: torch.ones(10**6).sort(),
            "fast": lambda: torch.ones(10),
        }

    return [Case("sort", shape, make) for shape in ("one", "two", "three")]


def test_a_run_writes_what_the_lessons_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(benchmarks, "ROOT", tmp_path)
    monkeypatch.setattr(benchmarks, "SUBJECTS", {"small": small_cases})
    monkeypatch.setattr(harness, "_peak_memory_in_fresh_process", lambda subject, index, name: 1.5 + index)
    benchmarks.main(["small", "--rounds", "3"])
    report = json.loads((tmp_path / "results" / "bench_small_cpu.json").read_text(encoding="utf-8"))
    assert list(report) == [
        *["command", "date", "commit", "python", "torch", "torchvision", "cpu", "threads"],
        *["subject", "rounds", "cases", "median_ratios"],
    ]
    assert report["command"] == "python -m tests.benchmarks small --rounds 3"
    assert report["torch"] == torch.__version__
    assert report["threads"] == torch.get_num_threads()
    assert (report["subject"], report["rounds"]) == ("small", 3)
    assert [case["shape"] for case in report["cases"]] == ["one", "two", "three"]
    for index, case in enumerate(report["cases"]):
        assert case["rival"] == "fast"
        assert case["ratio"] == case["contenders"]["fast"]["median_ms"] / case["contenders"]["ours"]["median_ms"]
        for figures in case["contenders"].values():
            assert 0 < figures["min_ms"] <= figures["median_ms"] <= figures["max_ms"]
            assert figures["peak_memory_mb"] == 1.5 + index
    assert report["median_ratios"] == {"sort": sorted(case["ratio"] for case in report["cases"])[1]}


def test_every_round_runs_each_contender_once_and_starts_with_another() -> None:
    calls: list[str] = []
    contenders: Contenders = {name: partial(calls.append, name) for name in "abc"}
    times = harness.time_contenders(contenders, rounds=3)
    assert {name: len(taken) for name, taken in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert "".join(calls[harness.WARM_UP * 3 :]) == "abcbcacab"


def test_peak_memory_is_what_the_call_allocates_beyond_its_inputs() -> None:
    program = (
        "import torch\n"
        "from tests.benchmarks.harness import Case, peak_memory\n"
        "def make():\n"
        "    inputs, others = torch.ones(50 * 2**18), torch.ones(50 * 2**18)\n"  # 50 MB each
        "    return {'ours': lambda: (inputs + 1).sum(), 'other': lambda: others.sum()}\n"
        "print(peak_memory(Case('', '', make), 'ours'))\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert 48 < float(answer.stdout) < 75


@pytest.mark.parametrize("case", roi.cases(quick=True), ids=lambda case: case.group)
def test_the_contenders_of_a_roi_case_compute_the_same(case: Case) -> None:
    ours, *others = (contender() for contender in case.make().values())
    for other in others:
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)


def test_the_roi_shapes_are_stated() -> None:
    assert [case.shape for case in roi.cases(quick=False)[:4]] == [
        "(2, 256, 200, 272), 1000 RoIs, 7 x 7, scale 1/4",
        "(1, 256, 100, 136), 512 RoIs, 7 x 7, scale 1/8",
        "(2, 256, 50, 68), 512 RoIs, 14 x 14, scale 1/16",
        "(1, 64, 48, 48), 256 RoIs, 7 x 7, scale 1/4",
    ]


def test_an_unknown_subject_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmarks.main(["rois"])
    assert "no subject rois; there are roi" in capsys.readouterr().err


def test_the_table_shows_memory_where_it_was_measured() -> None:
    report = {**describe_machine(), **measure("small", small_cases(True)[:1], rounds=2, with_memory=False)}
    report["cases"][0]["contenders"]["slow"]["peak_memory_mb"] = 1234.5
    row = next(line for line in table(report).splitlines() if line.startswith("    slow"))
    assert row.endswith(" 1234")


def test_the_readme_has_the_figures_that_were_measured() -> None:
    text = readme.README.read_text(encoding="utf-8")
    assert readme.updated(text, benchmarks.RESULTS) == text
    for name in readme.GROUPS.values():
        assert f"| {name} |" in text
