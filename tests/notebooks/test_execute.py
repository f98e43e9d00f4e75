"""The tool that runs and cleans notebooks, tried on notebooks built here."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from numpy.typing import NDArray
from PIL import Image

from tests.notebooks.execute import (
    WIDGET_STATE,
    WIDGET_VIEW,
    execute,
    hidden_errors,
    main,
    normalise,
    problems,
    read,
    write,
)

BOX = np.kron(np.array([[1, 2], [3, 4]])[:, :, None], np.ones((8, 8, 3))).astype(np.uint8)
FAILING_CONTROL = """\
import ipywidgets
def reciprocal(number):
    print(1 / number)
ipywidgets.interactive_output(reciprocal, {"number": ipywidgets.IntSlider(0)})
display("done")
"""


def picture(pixels: NDArray[np.uint8], **data: Any) -> NotebookNode:
    """Return the display of a picture, broken into lines as a kernel may send it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    png = base64.encodebytes(buffer.getvalue()).decode()
    output: NotebookNode = new_output("display_data", {"image/png": png, "text/plain": "A box.", **data})
    return output


def decoded(output: NotebookNode) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(output.data["image/png"], validate=True))) as image:
        return np.asarray(image.convert("RGB"))


def messy() -> NotebookNode:
    """Return a notebook as JupyterLab leaves it: run from the top, with a widget, times and a version."""
    view = {"model_id": "8f3a", "version_major": 2, "version_minor": 0}
    code = new_code_cell("explorer()", execution_count=1, outputs=[picture(BOX, **{WIDGET_VIEW: view})])
    code.metadata = NotebookNode({"execution": {"iopub.status.busy": "2026-01-01"}, "scrolled": True, "tags": ["keep"]})
    noise = "Matplotlib is building the font cache; this may take a moment.\n"
    last = new_code_cell(
        "import matplotlib", execution_count=2, outputs=[new_output("stream", name="stderr", text=noise)]
    )
    notebook: NotebookNode = new_notebook(cells=[new_markdown_cell("# Title"), code, new_code_cell(""), last])
    notebook.metadata = nbformat.from_dict(
        {
            "widgets": {WIDGET_STATE: {"state": {}}},
            "language_info": {"name": "python", "version": "3.11.7"},
            "kernelspec": {"display_name": "my env", "language": "python", "name": "my-env"},
        }
    )
    return notebook


def test_a_clean_notebook_has_no_trace_of_its_run() -> None:
    notebook = messy()
    normalise(notebook)
    text = nbformat.writes(notebook)
    for trace in ("widget", "model_id", "2026", "scrolled", "3.11.7", "my-env", "font cache"):
        assert trace not in text
    assert notebook.cells[1].metadata == {"tags": ["keep"]}
    output = notebook.cells[1].outputs[0]
    assert output.data.keys() == {"image/png", "text/plain"}
    assert "\n" not in output.data["image/png"]
    np.testing.assert_array_equal(decoded(output), BOX)
    assert notebook.cells[3].outputs == []
    assert not list(problems(notebook))


def test_a_photograph_is_kept_small_and_looks_the_same() -> None:
    size = 500
    y, x = np.mgrid[:size, :size] * 255 / size
    grain = np.random.default_rng(0).integers(-4, 5, (size, size, 3))
    pixels = (np.stack([x, y, np.full_like(x, 90)], axis=2) + grain).clip(0, 255).astype(np.uint8)
    cell = new_code_cell("photograph()", execution_count=1, outputs=[picture(pixels)])
    before = len(cell.outputs[0].data["image/png"])
    notebook = new_notebook(cells=[cell])
    normalise(notebook)
    assert len(cell.outputs[0].data["image/png"]) < before / 2
    difference = np.abs(decoded(cell.outputs[0]).astype(int) - pixels)
    assert difference.mean() < 5
    assert difference.max() < 40

    once = nbformat.writes(notebook)
    normalise(notebook)
    assert nbformat.writes(notebook) == once


def test_a_picture_with_transparency_is_kept_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (220, 220, 4)).astype(np.uint8)
    cell = new_code_cell("plot()", execution_count=1, outputs=[picture(pixels)])
    before = cell.outputs[0].data["image/png"]
    normalise(new_notebook(cells=[cell]))
    assert cell.outputs[0].data["image/png"] == before.replace("\n", "")


def test_a_progress_bar_goes_and_what_was_printed_stays() -> None:
    bar = {WIDGET_VIEW: {"model_id": "8f3a"}, "text/plain": "detecting:   0%|          | 0/40 [00:00<?, ?image/s]"}
    outputs = [new_output("display_data", bar), new_output("stream", name="stdout", text="50%| done\n")]
    notebook = new_notebook(cells=[new_code_cell("evaluate()", execution_count=1, outputs=outputs)])
    normalise(notebook)
    assert [output.output_type for output in notebook.cells[0].outputs] == ["stream"]
    assert not list(problems(notebook))


def test_cleaning_twice_changes_nothing() -> None:
    notebook = messy()
    normalise(notebook)
    once = nbformat.writes(notebook)
    normalise(notebook)
    assert nbformat.writes(notebook) == once


def test_a_warning_stays_for_the_author_to_see() -> None:
    warning = new_output("stream", name="stderr", text="DeprecationWarning: old\n")
    notebook = new_notebook(cells=[new_code_cell("old()", execution_count=1, outputs=[warning])])
    normalise(notebook)
    assert list(problems(notebook)) == ["cell 0 writes to stderr: DeprecationWarning: old"]


def test_a_messy_notebook_is_not_committed() -> None:
    assert list(problems(messy())) == [
        "has widget state in its metadata",
        "cell 1 tells when it was run",
        "cell 1 has a widget that was not cleaned",
        "cell 3 writes to stderr: Matplotlib is building the font cache; this may take a moment.",
    ]


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (new_code_cell("1"), "cell 0 was run as number None, not 1"),
        (new_code_cell("1", execution_count=7), "cell 0 was run as number 7, not 1"),
        (
            new_code_cell("1", execution_count=1, outputs=[new_output("error", ename="E", evalue="no", traceback=[])]),
            "cell 0 failed: E: no",
        ),
        (
            new_code_cell("1", execution_count=1, outputs=[new_output("display_data", {WIDGET_VIEW: {}})]),
            "cell 0 has a widget that leaves no picture without a kernel",
        ),
    ],
)
def test_a_problem_is_named_with_its_cell(cell: NotebookNode, problem: str) -> None:
    assert list(problems(new_notebook(cells=[cell]))) == [problem]


def test_an_error_that_a_lesson_shows_on_purpose_is_none() -> None:
    error = new_output("error", ename="ValueError", evalue="refused", traceback=[])
    cell = new_code_cell("1", execution_count=1, outputs=[error], metadata={"tags": ["raises-exception"]})
    assert not list(problems(new_notebook(cells=[cell])))


def test_reading_gives_the_same_ids_each_time(tmp_path: Path) -> None:
    path = tmp_path / "old.ipynb"
    cell = {"cell_type": "markdown", "metadata": {}, "source": ["# Title\n", "text"]}
    path.write_text(json.dumps({"cells": [cell, cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}))
    write(read(path), path)
    notebook = read(path)
    assert [cell.id for cell in notebook.cells] == ["cell-00", "cell-01"]
    assert notebook.cells[0].source == "# Title\ntext"
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)


def test_errors_in_the_state_of_an_output_widget_are_found() -> None:
    outputs = [{"output_type": "stream"}, {"output_type": "error", "ename": "ValueError", "evalue": "unseen"}]
    notebook = new_notebook()
    models = {"8f3a": {"state": {"outputs": outputs}}, "9b": {"state": {}}}
    notebook.metadata.widgets = {WIDGET_STATE: {"state": models}}
    assert list(hidden_errors(notebook)) == ["ValueError: unseen"]
    assert not list(hidden_errors(new_notebook()))


def test_check_tells_what_is_wrong_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lesson.ipynb"
    write(messy(), path)
    before = path.read_text()
    monkeypatch.setattr("sys.argv", ["execute", "--check", str(path)])
    assert main() == 1
    assert f"{path}: has widget state in its metadata\n" in capsys.readouterr().err
    assert path.read_text() == before


def test_a_notebook_is_run_in_its_own_folder_and_saved_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "beside.txt").write_text("here")
    sources = ["number = 6\nprint(number)\nprint(7)", "", "print(open('beside.txt').read())\nnumber * 7"]
    path = tmp_path / "lesson.ipynb"
    write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    monkeypatch.setattr("sys.argv", ["execute", str(path)])
    assert main() == 0

    cells = read(path).cells
    assert [cell.execution_count for cell in cells] == [1, None, 2]
    assert cells[0].outputs == [{"name": "stdout", "output_type": "stream", "text": "6\n7\n"}]
    assert cells[2].outputs[1].data == {"text/plain": "42"}
    assert capsys.readouterr().out.startswith(f"{path}: ")

    before = path.read_text()
    assert main() == 0
    assert path.read_text() == before


def test_a_failing_cell_is_reported_and_the_file_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lesson.ipynb"
    write(new_notebook(cells=[new_code_cell("1 / 0")]), path)
    before = path.read_text()
    monkeypatch.setattr("sys.argv", ["execute", str(path)])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        main()
    assert path.read_text() == before


def test_an_error_behind_a_control_is_reported(tmp_path: Path) -> None:
    notebook = new_notebook(cells=[new_code_cell(FAILING_CONTROL)])
    with pytest.raises(RuntimeError, match="hides an error:\nZeroDivisionError: division by zero"):
        execute(notebook, tmp_path)
