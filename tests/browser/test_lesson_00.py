"""Lesson 00 as a newcomer has it: the first detection, two boxes, a codec and a threshold to play with."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, Locator, expect

from rcnn_edu.explore.lesson_00 import SIDE, CodecState, PairState
from rcnn_edu.explore.scene import PALETTE
from tests.browser.conftest import ROOT, Notebook

pytestmark = pytest.mark.browser
LESSON = "00_start_here.ipynb"
EXPLORERS = ("iou_explorer()", "codec_explorer()", "score_explorer(")


@pytest.fixture(scope="module")
def lesson(browser: Browser, lab: str) -> Iterator[Notebook]:
    """The lesson, run from top to bottom once."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    notebook = Notebook(page, lab, LESSON)
    notebook.run_all()
    yield notebook
    page.close()


def bring(lesson: Notebook, source: str) -> Locator:
    """Return the canvas of the explorer that a cell shows, in sight."""
    lesson.scroll_to(source)
    canvas = lesson.page.locator(".jp-CodeCell", has_text=source).locator("canvas[data-seq]")
    canvas.wait_for(timeout=60_000)
    canvas.scroll_into_view_if_needed()
    return canvas


@pytest.fixture
def pair(lesson: Notebook) -> Locator:
    """The first explorer, in its first state."""
    lesson.ask("explorer.set(**vars(lesson_00.PairState()))")
    canvas = bring(lesson, "iou_explorer()")
    says(canvas, "IoU 0.231, no match at 0.50")
    return canvas


def says(canvas: Locator, text: str) -> None:
    """Wait until the picture's text contains this."""
    expect(canvas).to_have_attribute("aria-label", re.compile(re.escape(text)), timeout=30_000)


def box_in_kernel(lesson: Notebook, name: str) -> list[float]:
    box: list[float] = json.loads(lesson.ask(f"import json; print(json.dumps({name}))"))
    return box


def spot(canvas: Locator, x: float, y: float) -> tuple[float, float]:
    """Where the paper's pixel (x, y) lies in the window; its panel is 400 of 960 wide for 192 pixels."""
    box = canvas.bounding_box()
    assert box is not None
    scale = box["width"] / 960
    return box["x"] + scale * (10 + x * 400 / SIDE), box["y"] + scale * (28 + y * 400 / SIDE)


def drag(lesson: Notebook, canvas: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    mouse = lesson.page.mouse
    mouse.move(*spot(canvas, *start))
    mouse.down()
    for step in range(1, 6):
        before = canvas.get_attribute("data-seq") or ""
        mouse.move(*spot(canvas, *(a + step / 5 * (b - a) for a, b in zip(start, end, strict=True))))
        expect(canvas).not_to_have_attribute("data-seq", before)
    mouse.up()


def shows(canvas: Locator, x: float, y: float, color: str) -> bool:
    """Whether the canvas shows the colour at the paper's pixel (x, y), soft edges allowed for."""
    rgb: list[int] = canvas.evaluate(
        """(canvas, [x, y]) => {
            const scale = canvas.width / 960;
            const data = canvas.getContext("2d").getImageData(Math.floor(x * scale), Math.floor(y * scale), 1, 1).data;
            return [...data].slice(0, 3);
        }""",
        [10 + x * 400 / SIDE, 28 + y * 400 / SIDE],
    )
    return all(abs(seen - int(color[1 + 2 * i : 3 + 2 * i], 16)) <= 40 for i, seen in enumerate(rgb))


@pytest.mark.parametrize("source", EXPLORERS)
def test_every_cell_runs_and_nothing_complains(lesson: Notebook, source: str) -> None:
    bring(lesson, source)
    assert lesson.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert lesson.page.get_by_text("Traceback").count() == 0
    assert lesson.page.get_by_text("Error displaying widget").count() == 0
    assert lesson.complaints == []


def test_the_first_detection_is_there(lesson: Notebook) -> None:
    lesson.scroll_to("beside_truth_figure(")
    picture = lesson.page.locator(".jp-CodeCell", has_text="beside_truth_figure(").locator("img")
    assert picture.evaluate("image => image.naturalWidth") > 1000


def test_each_box_is_dragged_by_itself(lesson: Notebook, pair: Locator) -> None:
    drag(lesson, pair, (130, 130), (114, 114))
    guess = box_in_kernel(lesson, "explorer.state.guess")
    assert guess == pytest.approx([value - 16 for value in PairState.guess], abs=1.5)
    says(pair, f"a guess [{guess[0]:.1f}, {guess[1]:.1f}")
    drag(lesson, pair, (PairState.truth[0], 100), (PairState.truth[0] + 8, 100))  # its left edge
    x1, *rest = box_in_kernel(lesson, "explorer.state.truth")
    assert x1 == pytest.approx(PairState.truth[0] + 8, abs=1.5)
    assert rest == list(PairState.truth[1:])
    lesson.page.wait_for_timeout(500)  # until the last answer is drawn
    assert shows(pair, x1, 75, PALETTE["green"][0])


def test_sixteen_pixels_slip_by_five_key_presses_and_no_more(lesson: Notebook, pair: Locator) -> None:
    cells = lesson.page.locator(".jp-Cell").count()
    lesson.page.get_by_role("button", name="two of 16 px").click()
    says(pair, "IoU 1.000")
    pair.focus()
    for key in ("n", *["ArrowRight"] * 5):  # the guess is the second box
        pair.press(key)
    says(pair, "IoU 0.524, a match at 0.50")
    pair.press("ArrowRight")
    says(pair, "no match at 0.50")
    pair.press("Alt+ArrowLeft")
    says(pair, "a guess [85.9, 80.0")
    assert box_in_kernel(lesson, "explorer.state.guess")[0] == pytest.approx(85.9, abs=0.01)
    pair.press("p")
    pair.press("b")
    assert lesson.page.locator(".jp-Cell").count() == cells  # b would have inserted a cell


def test_the_threshold_is_moved_by_keys(lesson: Notebook, pair: Locator) -> None:
    slider = lesson.page.locator(".widget-slider", has_text="IoU threshold").locator(".noUi-handle").first
    slider.focus()
    for _ in range(6):
        slider.press("ArrowLeft")
    says(pair, "a match at 0.20")


def test_a_finger_drags_too(lesson: Notebook, pair: Locator) -> None:
    session = lesson.page.context.new_cdp_session(lesson.page)
    x, y = spot(pair, 130, 130)
    for kind, shift in (("touchStart", 0), ("touchMove", 10), ("touchMove", 20)):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x + shift, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(pair).not_to_have_attribute("aria-label", re.compile(r"a guess \[80\.0"))
    assert box_in_kernel(lesson, "explorer.state.guess")[0] > PairState.guess[0] + 5


def test_deltas_move_the_box_and_twice_the_size_needs_the_same(lesson: Notebook) -> None:
    canvas = bring(lesson, "codec_explorer()")
    lesson.ask("head.set(dx=5.5, dw=1.7, dh=1.7)")
    says(canvas, "goes from 0.28 to 0.99")
    lesson.page.get_by_role("button", name="all twice as large").click()
    says(canvas, "take the box [32.0, 64.0, 112.0, 144.0]")
    says(canvas, "goes from 0.28 to 0.99")
    slider = lesson.page.locator(".widget-slider", has_text="dy").locator(".noUi-handle").first
    slider.focus()
    slider.press("ArrowRight")
    says(canvas, "Deltas [+5.5, +0.1, +1.7, +1.7]")
    drag(lesson, canvas, (72, 128), (62, 128))
    assert box_in_kernel(lesson, "head.state.box")[0] == pytest.approx(2 * CodecState.box[0] - 10, abs=1.5)


def test_the_score_s_threshold_filters_a_real_output(lesson: Notebook) -> None:
    canvas = bring(lesson, "score_explorer(")
    counts = []
    for score in (0.05, 0.5, 0.95):
        lesson.ask(f"scores.set(score={score})")
        says(canvas, f"from a score of {score:.2f}")
        found = re.search(r": (\d+) shown", canvas.get_attribute("aria-label") or "")
        assert found
        counts.append(int(found[1]))
    assert counts[0] > counts[1] > 0
    assert counts == sorted(counts, reverse=True)
    slider = lesson.page.locator(".widget-slider", has_text="scene").locator(".noUi-handle").first
    slider.focus()
    slider.press("Home")
    says(canvas, "Scene 0,")


def test_both_themes_read_well(lesson: Notebook, screenshots: Path) -> None:
    for number, theme in ((0, "JupyterLab Light"), (1, "JupyterLab Dark"), (0, "JupyterLab Light")):
        lesson.command("apputils:change-theme", theme=theme)
        lesson.page.wait_for_selector(f"body[data-jp-theme-name='{theme}']", state="attached")
        lesson.ask("explorer.set(**vars(lesson_00.PairState())); scores.set(scene=number, score=0.5)")
        for source in EXPLORERS:
            canvas = bring(lesson, source)
            lesson.page.wait_for_timeout(500)
            if source == EXPLORERS[0]:
                assert shows(canvas, PairState.truth[0], 90, PALETTE["green"][number])
            name = source.split("_")[0]
            lesson.page.screenshot(path=screenshots / f"lesson_00_{name}_{'dark' if number else 'light'}.png")
        lesson.scroll_to("beside_truth_figure(")
        lesson.page.wait_for_timeout(500)
        lesson.page.screenshot(path=screenshots / f"lesson_00_first_{'dark' if number else 'light'}.png")


def test_without_a_kernel_the_committed_lesson_shows_its_explorers(browser: Browser, tmp_path: Path) -> None:
    html, _ = HTMLExporter(require_js_url="", mathjax_url="").from_filename(str(ROOT / "notebooks" / LESSON))
    (tmp_path / "lesson.html").write_text(html)
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.goto((tmp_path / "lesson.html").as_uri())
    for source in EXPLORERS:
        picture = page.locator(".jp-Cell", has_text=source).locator("img")
        assert picture.evaluate("image => image.naturalWidth") == 1920
    assert page.locator("canvas").count() == 0
    page.close()
