"""Every committed notebook: run in order, readable without a kernel, at home on any machine, in a lesson's pattern."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from nbformat import NotebookNode

from tests.notebooks.execute import problems, read

FOLDER = Path(__file__).parents[2] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
HEADINGS = ("What breaks if", ".*[Pp]aper", "Summary", "Exit questions", "Further reading")

# A link is followed by a reader who wants to; these are fetched by whoever opens or runs the notebook.
FETCHED = re.compile(r"""!\[[^\]]*\]\(\s*https?:|src\s*=\s*["']?https?:|url\(\s*["']?https?:|@import""")
ADDRESS = re.compile(r"https?://|\b(?:wget|curl)\b")
HOME_FOLDER = re.compile(r"(?<![\w./:~-])/(?:home|Users|root|work|tmp|mnt|private|usr|opt|var)/|\b[A-Z]:\\\\?\w")


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    chosen: Path = request.param
    return chosen


@pytest.fixture
def notebook(path: Path) -> NotebookNode:
    return read(path)


def sources(notebook: NotebookNode, cell_type: str) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == cell_type]


def texts(notebook: NotebookNode) -> Iterator[str]:
    """Yield everything that a reader sees: the cells' sources and their outputs, pictures aside."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", ()):
            yield from (output[key] for key in ("text", "evalue") if key in output)
            yield from (str(value) for mime, value in output.get("data", {}).items() if not mime.startswith("image/"))


def test_there_is_a_lesson() -> None:
    assert PATHS, f"no notebook in {FOLDER}"


def test_it_was_run_in_order_and_cleaned(notebook: NotebookNode) -> None:
    assert not list(problems(notebook))


def test_every_picture_has_a_text_that_says_what_it_shows(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                alt = output.metadata.get("image/png", {}).get("alt", "")
                assert len(alt) >= 20, f"no alt text for the picture of: {cell.source}"
    for source in sources(notebook, "markdown"):
        assert not re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=)", source), f"no alt text for a picture in: {source}"


def test_its_size_is_a_lesson_s(path: Path, notebook: NotebookNode) -> None:
    assert path.stat().st_size < 1_500_000
    assert 35 <= len(notebook.cells) <= 55
    assert median(len(source.splitlines()) for source in sources(notebook, "code")) <= 12


def test_it_follows_the_pattern_of_a_lesson(notebook: NotebookNode) -> None:
    first = notebook.cells[0].source
    assert first.startswith("# ")
    assert "You will be able to" in first
    assert re.search(r"\d+ minutes", first)
    prose = "\n".join(sources(notebook, "markdown"))
    places = [re.search(rf"^##+ (\d+ · )?{heading}", prose, re.MULTILINE) for heading in HEADINGS]
    assert all(places), f"one of these headings is missing: {HEADINGS}"
    starts = [place.start() for place in places if place]
    assert starts == sorted(starts), f"these headings stand in another order: {HEADINGS}"
    questions = prose[starts[-2] : starts[-1]]
    assert questions.count("<details>") == questions.count("</details>") == 3


def test_its_headings_are_nested(notebook: NotebookNode) -> None:
    prose = re.sub(r"^```.*?^```", "", "\n".join(sources(notebook, "markdown")), flags=re.DOTALL | re.MULTILINE)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", prose, re.MULTILINE)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_it_fetches_nothing(notebook: NotebookNode) -> None:
    for text in texts(notebook):
        assert not FETCHED.search(text), text
    for source in sources(notebook, "code"):
        assert not ADDRESS.search(source), source


def test_it_names_no_machine_s_folder(notebook: NotebookNode) -> None:
    for text in texts(notebook):
        assert not HOME_FOLDER.search(text), text


@pytest.mark.parametrize(
    "text", ["see /opt/ann/x.py", "/tmp/ipykernel_8/1.py:3: Warning", r"C:\Users\ann", "'/usr/lib/a'"]
)
def test_a_machine_s_folder_would_be_noticed(text: str) -> None:
    assert HOME_FOLDER.search(text)


@pytest.mark.parametrize(
    "text", ["data/scenes/", "../data/tmp/x", "x/home/y", "1 / 16", "https://a.org/home/x", "H / W"]
)
def test_a_path_within_the_course_is_none(text: str) -> None:
    assert not HOME_FOLDER.search(text)


@pytest.mark.parametrize(
    "text", ["![a box](https://a.org/b.png)", '<img src="https://a.org/b.png">', "url('http://a')"]
)
def test_a_fetched_picture_would_be_noticed(text: str) -> None:
    assert FETCHED.search(text)


def test_a_link_to_follow_is_allowed() -> None:
    assert not FETCHED.search("[the paper](https://example.org/paper)")
