"""The index of the lessons: the README's and that of lesson 00 say the same, and link every notebook that there is."""

import json
import re
from pathlib import Path

import pytest

from tests.notebooks.pictures import CUTS, SIZE, cut

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
ROW = re.compile(r"^\| !\[.*\|$", re.MULTILINE)
PICTURE = re.compile(r"!\[(.{20,})\]\(data/pictures/(\w+\.png)\)")
LINK = re.compile(r"\]\((?:notebooks/)?(\d\d_\w+\.ipynb)\)")


def rows_of_readme() -> list[str]:
    return ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))


def rows_of_lesson_00() -> list[str]:
    cells = json.loads((FOLDER / "00_start_here.ipynb").read_text(encoding="utf-8"))["cells"]
    return [row for cell in cells if cell["cell_type"] == "markdown" for row in ROW.findall("".join(cell["source"]))]


def test_every_lesson_is_in_the_readme_with_a_picture_of_its_own() -> None:
    rows = rows_of_readme()
    assert [name for row in rows for name in LINK.findall(row)] == sorted(path.name for path in FOLDER.glob("*.ipynb"))
    pictures = [picture for row in rows for _, picture in PICTURE.findall(row)]
    assert pictures == [f"lesson_{number:02}.png" for number in range(len(rows))]
    assert all((ROOT / "data" / "pictures" / picture).is_file() for picture in pictures)


def test_lesson_00_has_the_readme_s_rows() -> None:
    seen_from_there = [row.replace("(notebooks/", "(").replace("(data/", "(../data/") for row in rows_of_readme()]
    assert rows_of_lesson_00() == seen_from_there


def test_every_picture_is_cut_from_its_lesson() -> None:
    assert sorted(CUTS) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    for name, (source, part) in CUTS.items():
        assert cut(FOLDER / f"{name}.ipynb", source, part).size == SIZE


def test_a_picture_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"no cell of 02_fpn\.ipynb that contains 'nothing' shows a picture"):
        cut(FOLDER / "02_fpn.ipynb", "nothing", (0, 0, 1, 1))


def test_the_glossary_names_lessons_of_the_course() -> None:
    cells = json.loads((FOLDER / "00_start_here.ipynb").read_text(encoding="utf-8"))["cells"]
    (text,) = ["".join(cell["source"]) for cell in cells if "**Glossary.**" in "".join(cell["source"])]
    terms = re.findall(r"^\| (.+?) \| .+ \| (\d\d(?:, \d\d)*) \|$", text.split("**Glossary.**")[1], re.MULTILINE)
    assert len(terms) >= 20
    assert [term for term, _ in terms] == sorted((term for term, _ in terms), key=str.lower)
    assert all(int(number) < 10 for _, numbers in terms for number in numbers.split(", "))
