"""Each check of the doctor, on a machine where all is well and on one where it isn't."""

import importlib
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rcnn_edu import doctor
from rcnn_edu.doctor import Finding


def pretend(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    """Let importing each module ("." written "__") give the object instead, or raise it if it is an error."""
    real = importlib.import_module

    def import_module(name: str) -> Any:
        module = modules.get(name.replace(".", "__"))
        if isinstance(module, Exception):
            raise module
        return module or real(name)

    monkeypatch.setattr(importlib, "import_module", import_module)


def well(*findings: Finding) -> bool:
    return all(finding.found and not finding.advice for finding in findings)


def problem(findings: Iterator[Finding]) -> Finding:
    """Return the one finding that is a problem, and see that its advice is one line."""
    (found,) = [finding for finding in findings if finding.advice]
    assert "\n" not in found.found + found.advice
    return found


def test_all_is_well_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.doctor() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "All is well."
    assert all(line.startswith("ok ") for line in lines[:-2])
    for name in (
        "Python",
        "torch",
        "torchvision",
        "jupyterlab",
        "anywidget",
        "device",
        "photograph",
        "notebooks",
        "data",
    ):
        assert any(line.split(":")[0].endswith(f" {name}") for line in lines), name


def test_a_problem_gets_an_arrow_and_sets_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding("torch", "2.6.0"), Finding("numpy", "not installed", "install it")]
    monkeypatch.setattr(doctor, "CHECKS", (lambda: iter(findings),))
    assert doctor.doctor() == 1
    assert capsys.readouterr().out.splitlines() == [
        "ok       torch: 2.6.0",
        "problem  numpy: not installed",
        "         -> install it",
        "",
        "1 to mend: do what the arrows say, then run this again.",
    ]


def test_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert well(*doctor.check_python())
    with monkeypatch.context() as patch:  # for no longer than the check: pytest asks for the version, too
        patch.setattr(sys, "version_info", (3, 10, 4))
        found = problem(doctor.check_python())
    assert "install Python 3.11 or newer" in found.advice


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = list(doctor.check_packages())
    assert well(*findings)
    assert {"rcnn_edu", "torch", "torchvision", "numpy", "matplotlib", "jupyterlab", "ipywidgets", "anywidget"} <= {
        finding.name for finding in findings
    }
    assert "pytest" not in {finding.name for finding in findings}  # a learner needs none of the tests' packages


def test_the_course_itself_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert "make lab" in problem(doctor.check_packages()).advice


def test_a_package_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _name: ["no-such-package>=1.0"])
    assert problem(doctor.check_packages()) == Finding("no-such-package", "not installed", doctor.INSTALL)


def test_a_package_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _name: ['torch>=999.1; extra == "lab"', "numpy"])
    found = problem(doctor.check_packages())
    assert found.found == f"{metadata.version('torch')} is too old"
    assert "'torch>=999.1'" in found.advice


@pytest.mark.parametrize(("name", "advice"), [("torchvision", "pair"), ("numpy", "--force-reinstall --no-deps numpy")])
def test_a_package_that_does_not_import(monkeypatch: pytest.MonkeyPatch, name: str, advice: str) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _name: [f"{name}>=0.1"])
    pretend(monkeypatch, **{name: RuntimeError("operator does not exist\nlong story")})
    found = problem(doctor.check_packages())
    assert found.found.endswith("fails: RuntimeError: operator does not exist")
    assert advice in found.advice


@pytest.mark.parametrize(
    ("lower", "higher"), [("2.9", "2.10"), ("0.9.13", "0.11.0"), ("2.6", "2.6.1"), ("2.6", "2.14.1+cu130")]
)
def test_versions_compare_as_numbers(lower: str, higher: str) -> None:
    assert doctor._numbers(lower) < doctor._numbers(higher)


def test_compiled_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    assert well(*doctor.check_compiled_ops())

    def nms(*_arguments: Any) -> None:
        raise RuntimeError("Couldn't load custom C++ ops.\nMore.")

    pretend(monkeypatch, torchvision__ops=SimpleNamespace(nms=nms))
    found = problem(doctor.check_compiled_ops())
    assert found == Finding("torchvision's ops", "fail: RuntimeError: Couldn't load custom C++ ops.", doctor.TORCH_PAIR)


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert [finding.found for finding in doctor.check_device()] == [f"CPU with {torch.get_num_threads()} threads"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: f"GPU number {gpu}")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    (finding,) = doctor.check_device()
    assert finding.found.endswith("threads, Apple GPU, GPU number 0, GPU number 1")
    assert well(finding)


def test_device_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, torch=ImportError("no torch"))
    assert problem(doctor.check_device()).found == "unknown: ImportError: no torch"


def lab(extensions: dict[str, str], disabled: tuple[str, ...] = ()) -> SimpleNamespace:
    """Return a stand-in for JupyterLab's configuration, with these versions of extensions."""
    return SimpleNamespace(
        get_federated_extensions=lambda _folders: {
            name: {"version": version, "ext_path": "labextensions"} for name, version in extensions.items()
        },
        get_page_config=lambda _folders: {"disabledExtensions": list(disabled)},
    )


MANAGER = {"@jupyter-widgets/jupyterlab-manager": "5.0.16"}
ANYWIDGET = {"anywidget": metadata.version("anywidget")}


def test_widgets_here() -> None:
    assert well(*doctor.check_widgets())


@pytest.mark.parametrize(
    ("config", "name", "found", "advice"),
    [
        (lab(ANYWIDGET), "manager", "not installed", "jupyterlab_widgets"),
        (lab(MANAGER), "anywidget", "not installed", "anywidget"),
        (
            lab(ANYWIDGET | {"@jupyter-widgets/jupyterlab-manager": "3.1.1"}),
            "manager",
            "does not fit",
            "jupyterlab_widgets",
        ),
        (lab(MANAGER | {"anywidget": "0.1.2"}), "anywidget", "0.1.2 (labextensions) does not fit", "anywidget"),
        (lab(MANAGER | ANYWIDGET, ("anywidget",)), "anywidget", "is disabled", "jupyter labextension enable anywidget"),
        (lab(MANAGER | ANYWIDGET, ("anywidget:plugin",)), "anywidget", "is disabled", "enable anywidget"),
        (ImportError("no jupyterlab_server"), "widget front end", "no jupyterlab_server", "make lab"),
    ],
)
def test_widgets(monkeypatch: pytest.MonkeyPatch, config: Any, name: str, found: str, advice: str) -> None:
    pretend(monkeypatch, jupyterlab_server__config=config)
    finding = problem(doctor.check_widgets())
    assert finding.name.endswith(name)
    assert found in finding.found
    assert advice in finding.advice


def test_an_extension_of_another_name_may_be_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, jupyterlab_server__config=lab(MANAGER | ANYWIDGET, ("anywidget-devtools", "other")))
    assert well(*doctor.check_widgets())


def test_files_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def get_sample_data(name: str, asfileobj: bool) -> str:
        raise FileNotFoundError(name)

    pretend(monkeypatch, matplotlib__cbook=SimpleNamespace(get_sample_data=get_sample_data))
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path / "rcnn_edu")
    monkeypatch.setattr(doctor, "COURSE", tmp_path)
    findings = {finding.name: finding for finding in doctor.check_files()}
    assert "canvas.js is missing" in findings["explorer"].found
    assert findings["photograph"].found == "missing: FileNotFoundError: grace_hopper.jpg"
    assert findings["notebooks"].found.startswith("0 in ")
    assert findings["data"].found.endswith("is missing")
    assert all(finding.advice and "\n" not in finding.advice for finding in findings.values())


def test_files_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("rcnn_edu/explore/canvas.js", "notebooks/00_a.ipynb", "notebooks/01_b.ipynb", "data/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("something")
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path / "rcnn_edu")
    monkeypatch.setattr(doctor, "COURSE", tmp_path)
    findings = list(doctor.check_files())
    assert well(*findings)
    assert [finding.name for finding in findings] == ["explorer", "photograph", "notebooks", "data"]
    assert findings[1].found.startswith("512 x 600")
    assert findings[2].found.startswith("2 in ")
