"""Every exercise of every lesson: its untouched stub gets a pointer, and its folded solution passes."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rcnn_edu import ops
from rcnn_edu.classroom import check

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
CALL = re.compile(r"""check\(["'](\w+)["'], (\w+)\)""")  # of an exercise's name and the learner's function
FOLDED = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stubs_and_solutions(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    solutions = [
        text for cell in cells if cell["cell_type"] == "markdown" for text in FOLDED.findall("".join(cell["source"]))
    ]
    stub_names: dict[str, Any] = {}
    # A solution may use those before it, and what the lessons import at their top.
    operations = {name: getattr(ops, name) for name in ops.__all__}
    solution_names: dict[str, Any] = {"torch": torch, "F": F, "math": math, **operations}
    for exercise, function in (call for text in code for call in CALL.findall(text)):
        (stub,) = [text for text in code if f"def {function}(" in text]
        (solution,) = [text for text in solutions if f"def {function}(" in text]
        exec(stub, stub_names)
        exec(solution, solution_names)
        untouched = check(exercise, stub_names[function])
        assert (untouched.passed, untouched.begun) == (False, False), untouched
        assert check(exercise, solution_names[function]).passed, check(exercise, solution_names[function])
