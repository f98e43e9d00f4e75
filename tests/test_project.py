"""The house's rules: floors, docstrings, budgets, dependencies, and files that are at home on any machine."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rcnn_edu"
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))

FLOORS = {"ops": 1, "models": 2, "datasets": 2, "training": 3, "explore": 3, "classroom": 3}
FLOORS |= {"commands": 4, "doctor": 4, "__main__": 5}
TOOLS_OF_OPS = {"torch", "jaxtyping"}  # beside Python's own

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch", "playwright": "playwright-python"}

# What names one machine or one registry. Spelt so that none of the patterns finds itself.
HOME_FOLDER = rb"(?<![\w./:~-])/(?:home|Users|root|work|mnt|private)/\w"
REGISTRY = rb"\b(?:pypi|pythonhosted|anaconda|npmjs|jsdelivr|unpkg|prefix)\.(?:org|com|net|dev|io)\b"
INDEX_OPTION = rb"--(?:extra-)?index-url|--find-[l]inks"
NOT_OURS = b"|".join((HOME_FOLDER, REGISTRY, INDEX_OPTION))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.Module, module: str) -> Iterator[str]:
    """Yield the full name of every module that the tree, known as ``module``, imports, wherever it does so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # From the package itself, what is named may be a folder: from rcnn_edu import ops.
            yield from (f"{source}.{alias.name}" if source == "rcnn_edu" else source for alias in node.names)


def part_of(module: str) -> str:
    """Return the part of the package that a module belongs to: its folder, or the file on top; "" for the package."""
    return module.split(".")[1] if "." in module else ""


def wrong_imports(tree: ast.Module, module: str) -> Iterator[str]:
    """Yield the imports of ``module`` that are neither from its own folder nor from a floor below."""
    own = part_of(module)
    for name in imports(tree, module):
        if name.split(".")[0] != "rcnn_edu":
            continue
        part = part_of(name)
        if not own:
            yield f"{module} imports {name}; the package's own page imports nothing of it"
        elif part in FLOORS and part != own and FLOORS[part] >= FLOORS[own]:
            yield f"{module} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[part]})"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    # An __init__ keeps its name while relative imports are resolved: "." is then its own folder, as in Python.
    return ".".join(parts) if parts != ("rcnn_edu", "__init__") else "rcnn_edu"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_from_its_own_folder_or_a_floor_below(path: Path) -> None:
    assert not list(wrong_imports(parse(path), module_name(path)))


def test_every_part_of_the_package_has_a_floor() -> None:
    parts = {part_of(module_name(path)) for path in FILES} - {""}
    assert parts <= FLOORS.keys()


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("rcnn_edu.ops.roi", "from rcnn_edu.ops.boxes import box_area", True),
        ("rcnn_edu.ops.roi", "from .boxes import box_area", True),
        ("rcnn_edu.ops.roi", "import rcnn_edu.models.fpn", False),
        ("rcnn_edu.ops.roi", "from ..models import fpn", False),
        ("rcnn_edu.ops.roi", "from rcnn_edu import explore", False),
        ("rcnn_edu.ops.roi", "def late():\n    from rcnn_edu.explore import figures", False),
        ("rcnn_edu.ops.__init__", "from .boxes import box_area", True),
        ("rcnn_edu.models.rpn", "from rcnn_edu.datasets import scenes", False),
        ("rcnn_edu.explore.scene", "from rcnn_edu.classroom import checks", False),
        ("rcnn_edu.explore.scene", "from rcnn_edu.ops import nms\nimport rcnn_edu", True),
        ("rcnn_edu.__main__", "from rcnn_edu.explore import figures", True),
        ("rcnn_edu", "from rcnn_edu import ops", False),
        ("rcnn_edu", "import torch", True),
    ],
)
def test_the_check_of_floors_sees_a_wrong_import(module: str, source: str, allowed: bool) -> None:
    assert (not list(wrong_imports(ast.parse(source), module))) == allowed


def test_importing_the_package_imports_nothing() -> None:
    assert not list(imports(parse(PACKAGE / "__init__.py"), "rcnn_edu"))


def private_imports(tree: ast.Module) -> Iterator[str]:
    """Yield the names with one underscore before them that the tree imports: another file's own affairs."""
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [
        alias.name for node in froms for alias in node.names if node.level or (node.module or "")[:8] == "rcnn_edu"
    ]
    yield from (name for name in names if re.match(r"_[^_]", name))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_needs_another_s_private_names(path: Path) -> None:
    assert not list(private_imports(parse(path)))


def test_the_check_of_private_names_sees_one() -> None:
    tree = ast.parse("from rcnn_edu import __version__\nfrom rcnn_edu.ops.roi import _a, b\nfrom .boxes import _c")
    assert list(private_imports(tree)) == ["_a", "_c"]


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("ops/*.py")), ids=lambda path: path.name)
def test_an_operation_needs_torch_alone(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(parse(path), module_name(path))}
    assert used - TOOLS_OF_OPS - sys.stdlib_module_names <= {"rcnn_edu"}


def lacking_docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield the names of public functions, classes and methods that have no docstring."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            public = [member for member in node.body if isinstance(member, ast.FunctionDef)]
            checked: list[ast.ClassDef | ast.FunctionDef] = [node, *public]
        else:
            checked = [node] if isinstance(node, ast.FunctionDef) else []
        for item in checked:
            if not item.name.startswith("_") and not ast.get_docstring(item):
                yield item.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = parse(path)
    assert ast.get_docstring(tree)
    assert not list(lacking_docstrings(tree))


def test_the_check_of_docstrings_sees_what_lacks_one() -> None:
    tree = ast.parse("def a(): ...\ndef _b(): ...\nclass C:\n  'Say.'\n  def d(self): ...\n  def __init__(self): ...")
    assert list(lacking_docstrings(tree)) == ["a", "d"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_public_name_exists(folder: str) -> None:
    module = importlib.import_module(f"rcnn_edu.{folder}")
    assert module.__all__
    assert all(hasattr(module, name) for name in module.__all__)


def test_an_operation_names_its_lesson() -> None:
    operations = importlib.import_module("rcnn_edu.ops")
    for name in operations.__all__:
        text = getattr(operations, name).__doc__
        if text.startswith("Return"):
            assert re.search(r"Lesson: \d\d", text), f"ops.{name} doesn't say which lesson teaches it"


def code_lines(source: str) -> int:
    """Return how many lines hold code: blank lines, comments and docstrings help the reader, and are free."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    blocks = [node for node in ast.walk(ast.parse(source)) if isinstance(node, documented) and ast.get_docstring(node)]
    spans = [(block.body[0].lineno, block.body[0].end_lineno or 0) for block in blocks]
    docstrings = {line for first, last in spans for line in range(first, last + 1)}
    lines = enumerate(source.splitlines(), start=1)
    return sum(bool(re.match(r"\s*[^\s#]", line)) for number, line in lines if number not in docstrings)


def test_ops_and_models_can_be_read_in_one_sitting() -> None:
    # The lists of names in __init__.py are to look things up in, not to read.
    read = [path for path in FILES if path.parent.name in ("ops", "models") and path.name != "__init__.py"]
    counts = {path.name: code_lines(path.read_text(encoding="utf-8")) for path in read}
    assert sum(counts.values()) < 1900
    assert max(counts.values()) < 250


def test_lines_of_code_are_counted_without_what_explains_them() -> None:
    assert (
        code_lines('"""A module.\n\nWords.\n"""\n\n# why\nx = """text\n"""\ndef f():\n    "Say."\n    return x  # 1\n')
        == 4
    )


def bounds(requirements: list[str]) -> dict[str, str]:
    """Return each package's bound, such as ">=2.6"; the package's own extras are not packages."""
    split = (re.match(r"([\w.-]+)(.*)", requirement) for requirement in requirements)
    found = {match[1].lower(): match[2].strip() for match in split if match}
    return {name: bound for name, bound in found.items() if name != "rcnn_edu"}


def test_environment_yml_asks_for_what_pyproject_toml_does() -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = bounds([*PROJECT["dependencies"], *extras["lab"], *extras["test"]])
    wanted = {CONDA_NAMES.get(name, name): bound for name, bound in wanted.items()}
    wanted["python"] = PROJECT["requires-python"]

    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    asked = bounds([entry for entry in dependencies if isinstance(entry, str)])
    assert asked.pop("pip") == ""
    assert asked == wanted
    assert dependencies[-1] == {"pip": ["--editable ."]}


def test_dependencies_have_lower_bounds_only() -> None:
    for requirements in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        for name, bound in bounds(requirements).items():
            assert re.fullmatch(r">=[\d.]+", bound), f"{name}{bound}"
    assert re.fullmatch(r">=[\d.]+", PROJECT["requires-python"])


def test_no_file_names_a_machine_s_folder_or_a_registry() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: which files are the project's is git's to say")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    paths = [ROOT / name for name in listed.decode().split("\0") if name and not name.endswith(".ipynb")]
    for path in paths:  # notebooks have a test of their own, which leaves out their pictures
        found = re.search(NOT_OURS, path.read_bytes())
        assert not found, f"{path}: {found}"


@pytest.mark.parametrize("text", [b"see /ho" + b"me/ann/x", b"pyp" + b"i.org/simple", b"--index" + b"-url x"])
def test_a_machine_s_folder_or_a_registry_would_be_noticed(text: bytes) -> None:
    assert re.search(NOT_OURS, text)
