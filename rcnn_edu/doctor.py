"""The doctor: tells whether everything that the course needs is in place, and what to do where it is not."""

import importlib
import platform
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import rcnn_edu

PACKAGE = Path(rcnn_edu.__file__).parent
COURSE = PACKAGE.parent  # the checkout that is installed: notebooks/ and data/ lie beside the package

INSTALL = "in the course's folder run `make lab`, or: python -m pip install --editable '.[lab]'"
TORCH_PAIR = "torch and torchvision come as a pair: python -m pip install --upgrade --force-reinstall torch torchvision"
BROKEN = (ImportError, OSError, RuntimeError, AttributeError)  # what a damaged or mismatched package raises
MODULES = {"pillow": "PIL"}  # where the module is not called as the package is

Version = tuple[int, ...]


@dataclass(frozen=True)
class Finding:
    """What a check looked at and found, and what to do about it: empty where all is well."""

    name: str
    found: str
    advice: str = ""


def check_python() -> Iterator[Finding]:
    """Yield whether Python is new enough."""
    advice = "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer, delete .venv, then run `make lab`"
    yield Finding("Python", f"{platform.python_version()} ({sys.executable})", advice)


def check_packages() -> Iterator[Finding]:
    """Yield, for each package that the course needs, whether it is new enough and imports."""
    try:
        bounds = _lower_bounds()
    except metadata.PackageNotFoundError:
        yield Finding("rcnn_edu", f"not installed, only found in {PACKAGE}", INSTALL)
        return
    yield Finding("rcnn_edu", f"{rcnn_edu.__version__} ({PACKAGE})")
    for name, bound in bounds.items():
        yield _check_package(name, bound)


def _lower_bounds() -> dict[str, str]:
    """Return the lowest version of each package that the lessons run on, as pyproject.toml has it."""
    bounds = {}
    for requirement in metadata.requires("rcnn_edu") or []:
        specifier, _, extra = requirement.partition(";")
        name, _, bound = specifier.strip().partition(">=")
        if bound and (not extra or "lab" in extra):
            bounds[name] = bound
    return bounds


def _check_package(name: str, bound: str) -> Finding:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", INSTALL)
    if _numbers(version) < _numbers(bound):
        return Finding(name, f"{version} is too old", f"python -m pip install --upgrade '{name}>={bound}'")
    try:
        importlib.import_module(MODULES.get(name.lower(), name))
    except BROKEN as error:
        advice = f"python -m pip install --force-reinstall --no-deps {name}"
        return Finding(name, f"{version} fails: {_line(error)}", TORCH_PAIR if name.startswith("torch") else advice)
    return Finding(name, version)


def _numbers(version: str) -> Version:
    """Return a version in a form to compare: (2, 14, 1) for "2.14.1+cu130"."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0]))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def check_compiled_ops() -> Iterator[Finding]:
    """Yield whether torchvision's compiled operations work: those built for another torch don't."""
    name = "torchvision's ops"
    try:
        torch, ops = importlib.import_module("torch"), importlib.import_module("torchvision.ops")
        ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except BROKEN as error:
        yield Finding(name, f"fail: {_line(error)}", TORCH_PAIR)
    else:
        yield Finding(name, "work")


def check_device() -> Iterator[Finding]:
    """Yield what the lessons can compute on."""
    try:
        torch = importlib.import_module("torch")
    except BROKEN as error:
        yield Finding("device", f"unknown: {_line(error)}", TORCH_PAIR)
        return
    devices = [f"CPU with {torch.get_num_threads()} threads"]
    devices += ["Apple GPU"] if torch.backends.mps.is_available() else []
    devices += [torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())]
    yield Finding("device", ", ".join(devices))


def check_widgets() -> Iterator[Finding]:
    """Yield whether JupyterLab has the JavaScript halves of ipywidgets and anywidget, enabled and fitting."""
    try:
        folders = importlib.import_module("jupyter_core.paths").jupyter_path("labextensions")
        config = importlib.import_module("jupyterlab_server.config")
        extensions = config.get_federated_extensions(folders)
        versions = {name: _numbers(extension["version"]) for name, extension in extensions.items()}
        disabled = set(config.get_page_config(folders).get("disabledExtensions", ()))
        anywidget = _numbers(metadata.version("anywidget"))
    except BROKEN as error:
        yield Finding("widget front end", f"unknown: {_line(error)}", INSTALL)
        return

    def check(extension: str, package: str, fits: Callable[[Version], bool]) -> Finding:
        name, mend = f"labextension {extension}", f"python -m pip install --force-reinstall --no-deps {package}"
        if extension not in versions:
            return Finding(name, "not installed", mend)
        found = f"{extensions[extension]['version']} ({extensions[extension]['ext_path']})"
        if not fits(versions[extension]):
            return Finding(name, f"{found} does not fit the Python package", mend)
        if any(entry.partition(":")[0] == extension for entry in disabled):  # the whole of it, or a plugin in it
            return Finding(name, f"{found} is disabled", f"jupyter labextension enable {extension}")
        return Finding(name, found)

    yield check("@jupyter-widgets/jupyterlab-manager", "jupyterlab_widgets", lambda version: version >= (5,))
    yield check("anywidget", "anywidget", lambda version: version[:2] == anywidget[:2])


def check_files() -> Iterator[Finding]:
    """Yield whether the explorers' JavaScript, the sample photograph, the notebooks and the data are there."""
    script = PACKAGE / "explore" / "canvas.js"
    if script.is_file() and script.stat().st_size:
        yield Finding("explorer", str(script))
    else:
        yield Finding("explorer", f"{script} is missing or empty", f"git checkout -- {script}; or: {INSTALL}")

    try:
        photograph = importlib.import_module("matplotlib.cbook").get_sample_data("grace_hopper.jpg", asfileobj=False)
        height, width = importlib.import_module("matplotlib.image").imread(photograph).shape[:2]
    except BROKEN as error:
        advice = "get matplotlib with its sample data: python -m pip install --force-reinstall --no-deps matplotlib"
        yield Finding("photograph", f"missing: {_line(error)}", advice)
    else:
        yield Finding("photograph", f"{width} x {height} ({photograph})")

    advice = "install the package from a checkout of the whole course: " + INSTALL
    notebooks = len(list((COURSE / "notebooks").glob("*.ipynb")))
    yield Finding("notebooks", f"{notebooks} in {COURSE / 'notebooks'}", "" if notebooks else advice)
    data = COURSE / "data"
    yield Finding("data", f"{data}{'' if data.is_dir() else ' is missing'}", "" if data.is_dir() else advice)


CHECKS = (check_python, check_packages, check_compiled_ops, check_device, check_widgets, check_files)


def doctor() -> int:
    """Print what each check found and what to do about problems, and return the exit status: 0 if there are none."""
    problems = 0
    for check in CHECKS:
        for finding in check():
            print(f"{'problem' if finding.advice else 'ok':8} {finding.name}: {finding.found}", flush=True)
            if finding.advice:
                print(f"{'':8} -> {finding.advice}", flush=True)
                problems += 1
    print(f"\n{problems} to mend: do what the arrows say, then run this again." if problems else "\nAll is well.")
    return 1 if problems else 0
