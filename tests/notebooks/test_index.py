"""The index of the lessons: the README's and that of lesson 00 say the same, and link every notebook that there is."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
ROW = re.compile(r"^\| \[?\d\d .*\|$", re.MULTILINE)
LINK = re.compile(r"\]\((?:notebooks/)?(\d\d_\w+\.ipynb)\)")


def rows_of_readme() -> list[str]:
    return [row.replace("(notebooks/", "(") for row in ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))]


def rows_of_lesson_00() -> list[str]:
    cells = json.loads((FOLDER / "00_start_here.ipynb").read_text(encoding="utf-8"))["cells"]
    return [row for cell in cells if cell["cell_type"] == "markdown" for row in ROW.findall("".join(cell["source"]))]


def test_every_lesson_is_in_the_readme() -> None:
    linked = [name for row in rows_of_readme() for name in LINK.findall(row)]
    assert linked == sorted(path.name for path in FOLDER.glob("*.ipynb"))


def test_lesson_00_has_the_readme_s_rows_and_names_the_lessons_to_come() -> None:
    rows = rows_of_lesson_00()
    assert [re.sub(r"\D*(\d\d).*", r"\1", row) for row in rows] == [f"{number:02}" for number in range(10)]
    assert [row for row in rows if LINK.search(row)] == rows_of_readme()
    assert all("| to come |" in row for row in rows if not LINK.search(row))


def test_the_glossary_names_lessons_of_the_course() -> None:
    cells = json.loads((FOLDER / "00_start_here.ipynb").read_text(encoding="utf-8"))["cells"]
    (text,) = ["".join(cell["source"]) for cell in cells if "**Glossary.**" in "".join(cell["source"])]
    terms = re.findall(r"^\| (.+?) \| .+ \| (\d\d(?:, \d\d)*) \|$", text.split("**Glossary.**")[1], re.MULTILINE)
    assert len(terms) >= 20
    assert [term for term, _ in terms] == sorted((term for term, _ in terms), key=str.lower)
    assert all(int(number) < 10 for _, numbers in terms for number in numbers.split(", "))
