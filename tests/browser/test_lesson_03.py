"""Lesson 03 as a learner has it: three boxes to drag, a slider with two ends, a tick box."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator

from rcnn_edu.explore.lesson_03 import SIDE, AnchorState
from rcnn_edu.explore.scene import PALETTE
from tests.browser.conftest import Notebook

pytestmark = pytest.mark.browser
LESSON = "03_anchor_assignment.ipynb"
START = AnchorState()


@pytest.fixture(scope="module")
def lesson(browser: Browser, lab: str) -> Iterator[Notebook]:
    """The lesson, run from top to bottom once."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    notebook = Notebook(page, lab, LESSON)
    notebook.run_all()
    notebook.scroll_to("anchor_explorer()")
    page.wait_for_selector("canvas[data-seq]", timeout=60_000)
    yield notebook
    page.close()


@pytest.fixture
def canvas(lesson: Notebook) -> Locator:
    """The explorer's canvas, in sight and in its first state."""
    lesson.ask("explorer.set(**vars(lesson_03.AnchorState()))")
    lesson.scroll_to("anchor_explorer()")
    canvas = lesson.page.locator("canvas[data-seq]").first
    canvas.scroll_into_view_if_needed()
    says(lesson, "Negative below 0.30, positive from 0.70, best-anchor rule on. Of 2268 anchors: 1 positive, 5 rescued")
    return canvas


def says(lesson: Notebook, text: str) -> None:
    """Wait until the picture's text contains this."""
    lesson.page.wait_for_function(
        "text => document.querySelector('canvas[data-seq]').ariaLabel.includes(text)", arg=text, timeout=30_000
    )


def box_in_kernel(lesson: Notebook, name: str) -> list[float]:
    box: list[float] = json.loads(lesson.ask(f"import json; print(json.dumps(explorer.state.{name}))"))
    return box


def spot(canvas: Locator, x: float, y: float) -> tuple[float, float]:
    """Where the scene's pixel (x, y) lies in the window; its panel is 400 of 960 wide for 192 pixels."""
    box = canvas.bounding_box()
    assert box is not None
    scale = box["width"] / 960
    return box["x"] + scale * (10 + x * 400 / SIDE), box["y"] + scale * (28 + y * 400 / SIDE)


def drag(lesson: Notebook, canvas: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    mouse = lesson.page.mouse
    mouse.move(*spot(canvas, *start))
    mouse.down()
    for step in range(1, 6):
        before = canvas.get_attribute("data-seq")
        mouse.move(*spot(canvas, *(a + step / 5 * (b - a) for a, b in zip(start, end, strict=True))))
        lesson.page.wait_for_function(
            "before => document.querySelector('canvas[data-seq]').dataset.seq !== before", arg=before
        )
    mouse.up()


def shows(canvas: Locator, x: float, y: float, color: str) -> bool:
    """Whether the canvas shows the colour at the scene's pixel (x, y), soft edges allowed for."""
    rgb: list[int] = canvas.evaluate(
        """(canvas, [x, y]) => {
            const scale = canvas.width / 960;
            const data = canvas.getContext("2d").getImageData(Math.floor(x * scale), Math.floor(y * scale), 1, 1).data;
            return [...data].slice(0, 3);
        }""",
        [10 + x * 400 / SIDE, 28 + y * 400 / SIDE],
    )
    return all(abs(seen - int(color[1 + 2 * i : 3 + 2 * i], 16)) <= 40 for i, seen in enumerate(rgb))


def test_every_cell_runs_and_nothing_complains(lesson: Notebook, canvas: Locator) -> None:
    assert lesson.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert lesson.page.get_by_text("Traceback").count() == 0
    assert lesson.page.get_by_text("Error displaying widget").count() == 0
    assert lesson.complaints == []


def test_each_box_is_dragged_by_itself(lesson: Notebook, canvas: Locator) -> None:
    drag(lesson, canvas, (112, 35), (132, 135))  # B, from its middle
    x1, y1, x2, y2 = box_in_kernel(lesson, "b")
    assert (x1, y1) == pytest.approx((START.b[0] + 20, START.b[1] + 100), abs=1.5)
    assert (x2 - x1, y2 - y1) == pytest.approx((36, 35), abs=0.11)
    lesson.page.wait_for_timeout(500)  # until the last answer is drawn
    assert shows(canvas, x1, y1 + 25, PALETTE["green"][0])
    drag(lesson, canvas, (66, 77), (166, 27))  # C lies within A, and on top of it
    assert box_in_kernel(lesson, "c")[0] == pytest.approx(START.c[0] + 100, abs=1.5)
    assert box_in_kernel(lesson, "a") == list(START.a)


def test_a_corner_resizes_and_the_counts_follow(lesson: Notebook, canvas: Locator) -> None:
    drag(lesson, canvas, (START.c[2], START.c[3]), (START.c[0] + 8, START.c[1] + 8))
    says(lesson, "C 8 × 8 px: best IoU 0.06, 0 positive, 15 rescued")


def test_keys_choose_move_and_resize_a_box(lesson: Notebook, canvas: Locator) -> None:
    cells = lesson.page.locator(".jp-Cell").count()
    canvas.click(position={"x": 3, "y": 3})  # no box there: it only gets the focus
    canvas.focus()
    assert lesson.page.get_by_text("The keys n and p choose the next or the previous box").first.is_visible()
    lesson.ask("explorer.set(a=(64.0, 64.0, 128.0, 128.0))")
    says(lesson, "A 64 × 64 px: best IoU 1.00")
    drag(lesson, canvas, (100, 120), (101, 120))  # A is chosen
    canvas.focus()
    for key in ("n", "ArrowRight", "ArrowDown", "Shift+ArrowRight", "b"):
        canvas.press(key)
    says(lesson, "B 37 × 35 px")
    assert box_in_kernel(lesson, "b") == pytest.approx([95, 19, 132, 54], abs=0.01)
    canvas.press("p")
    canvas.press("ArrowLeft")
    lesson.page.wait_for_timeout(300)
    assert box_in_kernel(lesson, "a")[0] == pytest.approx(64, abs=0.3)
    assert lesson.page.locator(".jp-Cell").count() == cells  # b would have inserted a cell


def test_the_slider_moves_both_thresholds(lesson: Notebook, canvas: Locator) -> None:
    low, high = lesson.page.locator(".widget-slider", has_text="IoU thresholds").locator(".noUi-handle").all()
    high.focus()
    for _ in range(4):
        high.press("ArrowLeft")
    says(lesson, "Negative below 0.30, positive from 0.50")
    low.focus()
    low.press("ArrowRight")
    says(lesson, "Negative below 0.35, positive from 0.50")


def test_the_rule_and_the_presets_reach_the_canvas(lesson: Notebook, canvas: Locator) -> None:
    lesson.page.get_by_label("best-anchor rule").first.uncheck()
    says(lesson, "best-anchor rule off. Of 2268 anchors: 1 positive, 0 rescued")
    lesson.page.get_by_role("button", name="the scene's objects").click()
    says(lesson, "best-anchor rule on")
    lesson.page.get_by_role("button", name="A half a cell off").click()
    says(lesson, "A 64 × 64 px: best IoU 0.62, 0 positive, 4 rescued")


def test_a_finger_drags_too(lesson: Notebook, canvas: Locator) -> None:
    session = lesson.page.context.new_cdp_session(lesson.page)
    x, y = spot(canvas, 112, 35)
    for kind, shift in (("touchStart", 0), ("touchMove", 10), ("touchMove", 40)):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x + shift, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    lesson.page.wait_for_timeout(500)
    assert box_in_kernel(lesson, "b")[0] > START.b[0] + 10


def test_both_themes_read_well(lesson: Notebook, canvas: Locator, screenshots: Path) -> None:
    for number, theme in ((0, "JupyterLab Light"), (1, "JupyterLab Dark"), (0, "JupyterLab Light")):
        lesson.command("apputils:change-theme", theme=theme)
        lesson.page.wait_for_selector(f"body[data-jp-theme-name='{theme}']", state="attached")
        lesson.page.wait_for_timeout(500)
        assert shows(canvas, START.a[0], 100, PALETTE["green"][number])
        lesson.page.screenshot(path=screenshots / f"lesson_03_{'dark' if number else 'light'}.png")
