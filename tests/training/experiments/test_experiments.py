"""The experiments: each runs, and what is around them repeats seeds, goes on, and shows what it has."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from rcnn_edu.__main__ import main
from rcnn_edu.training import experiments
from rcnn_edu.training.experiments import find, names, read, repeat, summary, table


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put an experiment of simple figures in the place of them all, and return the seeds that it is called with."""
    called: list[int] = []

    def measure(seed: int, *, quick: bool, device: str) -> experiments.Rows:
        called.append(seed)
        return {"ours": {"AP": 0.1 * (seed + 1), "AP50": math.nan}, "baseline": {"AP": 0.2}}

    module = SimpleNamespace(
        measure=measure, PAPER={"ours": {"AP": 38.9}, "theirs": {"AP": 1.0}}, __doc__="Why?\n\nMore."
    )
    monkeypatch.setattr(experiments, "find", lambda _name: module)
    return called


def test_every_seed_is_measured_once(made_up: list[int], tmp_path: Path) -> None:
    repeat("x", 2, folder=tmp_path)
    report = repeat("x", 3, folder=tmp_path)
    assert made_up == [0, 1, 2]
    assert json.loads((tmp_path / "x.json").read_text()) == json.loads(json.dumps(report))
    assert report["command"] == "python -m rcnn_edu experiment x --seeds 3"
    assert report["mean"]["ours"]["AP"] == pytest.approx(0.2)
    assert report["spread"]["ours"]["AP"] == pytest.approx(0.1)
    assert report["spread"]["baseline"]["AP"] == 0
    for run in report["runs"].values():
        assert {"seconds", "device", "cpu", "torch", "commit"} <= run.keys()


def test_an_interrupted_experiment_keeps_what_it_has(
    made_up: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = experiments.find("x").measure

    def interrupted(seed: int, *, quick: bool, device: str) -> experiments.Rows:
        if seed == 1:
            raise KeyboardInterrupt
        rows: experiments.Rows = once(seed, quick=quick, device=device)
        return rows

    monkeypatch.setattr(experiments.find("x"), "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        repeat("x", 3, folder=tmp_path)
    assert list(json.loads((tmp_path / "x.json").read_text())["runs"]) == ["0"]


def test_a_quick_run_writes_nothing(made_up: list[int], tmp_path: Path) -> None:
    repeat("x", 1, quick=True, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_table_has_ours_beside_the_paper_s(made_up: list[int], tmp_path: Path) -> None:
    shown = table(repeat("x", 3, folder=tmp_path)).splitlines()
    assert shown[0] == "Why?"
    assert shown[2].split() == ["AP"]
    assert shown[3].split() == ["ours", "20.0", "±", "10.0", "[38.9]"]
    assert shown[4].split() == ["baseline", "20.0", "±", "0.0"]
    assert shown[5].split() == ["theirs", "[1.0]"]
    assert "3 seeds" in shown[-2]


def test_a_notebook_has_the_same_figures(made_up: list[int], tmp_path: Path) -> None:
    repeat("x", 3, folder=tmp_path)
    lines = experiments.markdown("x", ["AP"], folder=tmp_path).splitlines()
    assert lines[:3] == ["|  | AP |", "| --- | ---: |", "| ours | 20.0 ± 10.0 [38.9] |"]
    assert "3 seeds" in lines[-2]


def test_differences_are_of_the_same_seed(made_up: list[int], tmp_path: Path) -> None:
    repeat("x", 3, folder=tmp_path)
    lines = experiments.markdown("x", against="baseline", folder=tmp_path).splitlines()
    assert lines[:4] == ["|  | AP |", "| --- | ---: |", "| ours | +0.0 ± 10.0 |", ""]
    assert "from “baseline”" in lines[-1]
    with pytest.raises(ValueError, match="there is no row 'nothing'; there are ours, baseline"):
        experiments.markdown("x", against="nothing", folder=tmp_path)


def test_what_both_rows_share_does_not_spread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def measure(seed: int, **_options: object) -> experiments.Rows:
        return {
            "ours": {"AP": 0.5 + seed / 10},
            "baseline": {"AP": 0.4 + seed / 10, "time": 1.0},
            "other": {"time": 2.0},
        }

    monkeypatch.setattr(experiments, "find", lambda _name: SimpleNamespace(measure=measure, PAPER={}, __doc__="Why?"))
    repeat("x", 3, folder=tmp_path)
    lines = experiments.markdown("x", ["AP"], against="baseline", folder=tmp_path).splitlines()
    assert lines[2:4] == ["| ours | +10.0 ± 0.0 |", ""]


def test_rows_without_a_common_column_are_of_different_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures = {"a": {"AP": 0.5}, "b": {"AP": 0.4, "anchors": 9180.0}, "deltas": {"sigma x": 0.1234}}
    module = SimpleNamespace(measure=lambda *_args, **_options: figures, PAPER={"a": {"AP90": 1.0}}, __doc__="Why?")
    monkeypatch.setattr(experiments, "find", lambda _name: module)
    shown = [line.split() for line in table(repeat("x", 1, folder=tmp_path)).splitlines()[2:8]]
    assert shown == [
        ["AP", "anchors", "AP90"],
        ["a", "50.0", "±", "0.0", "[1.0]"],
        ["b", "40.0", "±", "0.0", "9180", "±", "0"],
        [],
        ["sigma", "x"],
        ["deltas", "0.123", "±", "0.000"],
    ]
    assert experiments.markdown("x", folder=tmp_path).splitlines()[4:7] == ["", "|  | sigma x |", "| --- | ---: |"]


def test_a_notebook_says_how_to_get_what_is_not_there(tmp_path: Path) -> None:
    assert "`python -m rcnn_edu experiment soft_nms` measures them" in experiments.markdown("soft_nms", folder=tmp_path)


def test_what_has_no_figure_in_any_run_is_left_out() -> None:
    runs = {"0": {"figures": {"a": {"b": math.nan, "c": 1.0}}}, "1": {"figures": {"a": {"b": None, "c": 3.0}}}}
    assert summary(runs) == {"mean": {"a": {"c": 2.0}}, "spread": {"a": {"c": pytest.approx(math.sqrt(2))}}}


def test_an_unknown_experiment_is_named_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"there is no experiment 'alchemy'; there are .*soft_nms"):
        find("alchemy")
    assert main(["experiment", "alchemy", "--show"]) == 1
    assert "there is no experiment 'alchemy'" in capsys.readouterr().err


def test_without_seeds_nothing_is_measured() -> None:
    with pytest.raises(ValueError, match="seeds must be at least 1, got 0"):
        repeat("soft_nms", 0)


def test_what_was_not_run_cannot_be_shown(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="no results of soft_nms yet; run: python -m rcnn_edu experiment soft_nms"
    ):
        read("soft_nms", tmp_path)


@pytest.mark.parametrize("name", names())
def test_an_experiment_says_what_it_asks(name: str) -> None:
    module = find(name)
    assert module.__doc__.splitlines()[0].endswith("?")
    for part in (f"Command: ``python -m rcnn_edu experiment {name}``", "minute", "Paper:"):
        assert part in module.__doc__


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_an_experiment_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", name, "--seeds", "1", "--quick", "--device", "cpu"]) == 0
    assert find(name).__doc__.splitlines()[0] in capsys.readouterr().out
