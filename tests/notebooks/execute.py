"""Run notebooks from the top and clean them for a commit: ``python -m tests.notebooks.execute [--check] NOTEBOOK...``.

A committed notebook has its figures, in the order in which it runs, and nothing that differs between two runs of the
same code: no widget state, no times, no version of whoever ran it last. Its outputs stay true because nbval compares
them with a new run.
"""

import argparse
import base64
import io
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_METADATA = (
    "tags",
    "nbgrader",
    "jupyter",
    "alt",
)  # an author's; the rest is the trace of an editor or a run
LARGE_PICTURE = 150_000  # bytes; below a photograph, above a plot
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}
# What a machine may say on its first run, whatever the notebook does. Any other line on stderr is the author's to mend.
NOISE = re.compile(r"^Matplotlib is building the font cache; this may take a moment\.\n", re.MULTILINE)
PROGRESS = re.compile(
    r"\d+%\|.*\| \d+/\d+ \["
)  # tqdm's bar, whose text is all that a reader without a kernel would see


def read(path: Path) -> NotebookNode:
    """Return the notebook, brought to format 4.5; a cell that has no id gets its place for one."""
    notebook: NotebookNode = nbformat.v4.reads(path.read_text(encoding="utf-8"))
    notebook.nbformat, notebook.nbformat_minor = 4, max(5, notebook.nbformat_minor)
    for place, cell in enumerate(notebook.cells):
        cell.setdefault("id", f"cell-{place:02}")
    return notebook


def execute(notebook: NotebookNode, folder: Path, timeout: int = 300) -> None:
    """Run the notebook's cells in order in ``folder``, filling in their outputs; ``timeout`` is a cell's, in seconds.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
        RuntimeError: if an error was caught by an Output widget, where neither a reader nor nbclient would see it.
    """
    notebook.metadata.pop("widgets", None)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    if errors := list(hidden_errors(notebook)):
        raise RuntimeError("an Output widget hides an error:\n" + "\n".join(errors))


def hidden_errors(notebook: NotebookNode) -> Iterator[str]:
    """Yield each error that ended up in the state of an Output widget (``interactive_output`` puts them there)."""
    models = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for model in models.values():
        for output in model["state"].get("outputs", ()):
            if output["output_type"] == "error":
                yield f"{output['ename']}: {output['evalue']}"


def normalise(notebook: NotebookNode) -> None:
    """Strip what a commit shouldn't have: widget state, live views that have a picture, traces of editors and runs."""
    notebook.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    for cell in notebook.cells:
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in CELL_METADATA if key in cell.metadata})
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_normalise_output, cell.outputs) if output]


def _normalise_output(output: NotebookNode) -> NotebookNode | None:
    """Return the output cleaned, or None where nothing but known noise was in it."""
    if output.output_type == "stream" and output.name == "stderr":
        output.text = NOISE.sub("", output.text)
        return output if output.text else None
    if WIDGET_VIEW in output.get("data", {}) and PROGRESS.search(output.data.get("text/plain", "")):
        return None
    if "image/png" in output.get("data", {}):
        output.data.pop(WIDGET_VIEW, None)
        output.data["image/png"] = _shrink(output.data["image/png"])
    return output


def _shrink(png: str) -> str:
    """Return the picture, where it is large in the 256 colours that suit it best: to the eye the same, in a third."""
    content = base64.b64decode(png)
    with Image.open(io.BytesIO(content)) as image:
        opaque = image.convert("RGBA").getchannel("A").getextrema() == (255, 255)
        if len(content) > LARGE_PICTURE and opaque and image.mode != "P":
            buffer = io.BytesIO()
            image.convert("RGB").quantize(256, kmeans=1).save(buffer, format="png", optimize=True)
            content = buffer.getvalue()
    return base64.b64encode(content).decode()


def problems(notebook: NotebookNode) -> Iterator[str]:
    """Yield what keeps the notebook from being committed: it was not run from the top, failed, or was not cleaned."""
    if "widgets" in notebook.metadata:
        yield "has widget state in its metadata"
    count = 0
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        count += 1
        if cell.execution_count != count:
            yield f"cell {place} was run as number {cell.execution_count}, not {count}"
        if "execution" in cell.metadata:
            yield f"cell {place} tells when it was run"
        for output in cell.outputs:
            data: dict[str, Any] = output.get("data", {})
            if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", ()):
                yield f"cell {place} failed: {output.ename}: {output.evalue}"
            if output.output_type == "stream" and output.name == "stderr":
                yield f"cell {place} writes to stderr: {output.text.strip()}"
            if WIDGET_VIEW in data:
                fault = "was not cleaned" if "image/png" in data else "leaves no picture without a kernel"
                yield f"cell {place} has a widget that {fault}"


def write(notebook: NotebookNode, path: Path) -> None:
    """Save the notebook, in the form that JupyterLab gives it."""
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n", encoding="utf-8")


def main() -> int:
    """Run the notebooks and save them clean, or only check that they are so; return the exit status."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail where one is not as it should be")
    parser.add_argument("notebooks", nargs="+", type=Path)
    arguments = parser.parse_args()
    status = 0
    for path in arguments.notebooks:
        notebook = read(path)
        if not arguments.check:
            start = time.perf_counter()
            execute(notebook, path.parent)
            normalise(notebook)
            write(notebook, path)
            print(f"{path}: {time.perf_counter() - start:.0f} s, {path.stat().st_size / 1e6:.2f} MB", flush=True)
        for problem in problems(notebook):
            print(f"{path}: {problem}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
