"""Lesson 07 as a learner has it: a real JupyterLab, a mouse, a keyboard, a finger."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, Locator

from rcnn_edu.explore.scene import PALETTE
from tests.browser.conftest import ROOT, Notebook

pytestmark = pytest.mark.browser
LESSON = "07_soft_nms.ipynb"
E = (127.0, 42.0, 179.0, 121.0)  # where box E begins, alone with F


@pytest.fixture(scope="module")
def lesson(browser: Browser, lab: str) -> Iterator[Notebook]:
    """The lesson, run from top to bottom once."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    notebook = Notebook(page, lab, LESSON)
    notebook.run_all()
    notebook.scroll_to("explore.crowd_explorer()")
    page.wait_for_selector("canvas[data-seq]", timeout=60_000)
    yield notebook
    page.close()


@pytest.fixture
def canvas(lesson: Notebook) -> Locator:
    """The first explorer's canvas, in sight and in its first state."""
    lesson.ask(
        "from dataclasses import asdict; "
        "explorer.set(**asdict(lesson_07.CrowdState(step=5))); explorer.set(**asdict(lesson_07.CrowdState()))"
    )
    lesson.scroll_to("explore.crowd_explorer()")
    canvas = lesson.page.locator("canvas[data-seq]").first
    canvas.scroll_into_view_if_needed()
    says(lesson, "N_t 0.50, sigma 0.50, cut 0.001. Gaussian after step 6")
    return canvas


def says(lesson: Notebook, text: str) -> None:
    """Wait until the first canvas says this."""
    lesson.page.wait_for_function(
        "text => document.querySelector('canvas[data-seq]').ariaLabel.includes(text)", arg=text
    )


def box_in_kernel(lesson: Notebook, name: str) -> list[float]:
    box: list[float] = json.loads(lesson.ask(f"import json; print(json.dumps(explorer.state.{name}))"))
    return box


def spot(canvas: Locator, x: float, y: float) -> tuple[float, float]:
    """Where the pixel (x, y) of the crowd lies in the window; its panel is 420 of 960 wide for 192 pixels."""
    box = canvas.bounding_box()
    assert box is not None
    scale = box["width"] / 960
    return box["x"] + scale * (10 + x * 420 / 192), box["y"] + scale * (28 + y * 420 / 192)


def shows(canvas: Locator, x: float, y: float, color: str) -> bool:
    """Whether the canvas shows the colour at the pixel (x, y) of the crowd, soft edges allowed for."""
    rgb: list[int] = canvas.evaluate(
        """(canvas, [x, y]) => {
            const scale = canvas.width / 960;
            const data = canvas.getContext("2d").getImageData(Math.round(x * scale), Math.round(y * scale), 1, 1).data;
            return [...data].slice(0, 3);
        }""",
        [10 + x * 420 / 192, 28 + y * 420 / 192],
    )
    return all(abs(seen - int(color[1 + 2 * i : 3 + 2 * i], 16)) <= 40 for i, seen in enumerate(rgb))


def test_every_cell_runs_and_nothing_complains(lesson: Notebook, canvas: Locator) -> None:
    assert lesson.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert lesson.page.get_by_text("Traceback").count() == 0
    assert lesson.page.get_by_text("Error displaying widget").count() == 0
    assert lesson.complaints == []


def test_a_mouse_moves_a_box_and_what_is_kept_follows(lesson: Notebook, canvas: Locator) -> None:
    mouse = lesson.page.mouse
    mouse.move(*spot(canvas, 150, 49))  # within E, outside F
    mouse.down()
    for step in range(1, 11):
        mouse.move(*spot(canvas, 150 - 5 * step, 49 + 2 * step))
        lesson.page.wait_for_timeout(60)
    mouse.up()
    lesson.page.wait_for_function("!document.querySelector('canvas[data-seq]').ariaLabel.includes('AP50 0.55')")
    x1, y1, x2, y2 = box_in_kernel(lesson, "e")
    assert (x1, y1) == pytest.approx((E[0] - 50, E[1] + 20), abs=2)
    assert (x2 - x1, y2 - y1) == pytest.approx((E[2] - E[0], E[3] - E[1]), abs=0.11)


def test_keys_choose_a_box_and_move_it(lesson: Notebook, canvas: Locator) -> None:
    cells = lesson.page.locator(".jp-Cell").count()
    canvas.focus()
    before = {name: box_in_kernel(lesson, name) for name in "abcdef"}
    for key in ("n", "ArrowRight", "ArrowRight", "Alt+ArrowDown", "Shift+ArrowRight", "b"):
        canvas.press(key)
    lesson.page.wait_for_timeout(800)
    after = {name: box_in_kernel(lesson, name) for name in "abcdef"}
    (moved,) = [name for name in "abcdef" if before[name] != after[name]]
    x1, y1, x2, y2 = before[moved]
    assert after[moved] == pytest.approx([x1 + 2, y1 + 0.1, x2 + 3, y2 + 0.1], abs=0.01)
    assert lesson.page.locator(".jp-Cell").count() == cells  # b would have inserted a cell


def test_sliders_and_buttons_change_what_is_kept(lesson: Notebook, canvas: Locator) -> None:
    for label, key, text in (("N_t", "ArrowRight", "N_t 0.55, "), ("step", "ArrowLeft", "after step 5")):
        slider = lesson.page.locator(".widget-slider", has_text=label).locator(".noUi-handle").first
        slider.focus()
        slider.press(key)
        says(lesson, text)
    lesson.page.get_by_role("button", name="NMS").first.click()
    says(lesson, "NMS after step 5")
    lesson.page.get_by_role("button", name="one object").click()
    says(lesson, "NMS keeps A, AP50 1.00")


def test_a_finger_drags_too(lesson: Notebook, canvas: Locator) -> None:
    session = lesson.page.context.new_cdp_session(lesson.page)
    x, y = spot(canvas, 150, 80)
    before = box_in_kernel(lesson, "e"), box_in_kernel(lesson, "f")
    for kind, shift in (("touchStart", 0), ("touchMove", 10), ("touchMove", 20)):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y + shift}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    lesson.page.wait_for_timeout(800)
    assert (box_in_kernel(lesson, "e"), box_in_kernel(lesson, "f")) != before


def test_both_themes_read_well(lesson: Notebook, canvas: Locator, screenshots: Path) -> None:
    for number, theme in ((0, "JupyterLab Light"), (1, "JupyterLab Dark"), (0, "JupyterLab Light")):
        lesson.command("apputils:change-theme", theme=theme)
        lesson.page.wait_for_selector(f"body[data-jp-theme-name='{theme}']", state="attached")
        lesson.page.wait_for_timeout(500)
        assert shows(canvas, E[0], 100, PALETTE["blue"][number])
        lesson.page.screenshot(path=screenshots / f"lesson_07_{'dark' if number else 'light'}.png")


def test_the_second_explorer_measures_again(lesson: Notebook, screenshots: Path) -> None:
    lesson.scroll_to("explore.ap_explorer(")
    page = lesson.page
    slider = page.locator(".widget-slider", has_text="scene").locator(".noUi-handle").first
    slider.scroll_into_view_if_needed()
    before = lesson.ask("print(ap_explorer.state.scene)")
    slider.focus()
    slider.press("ArrowLeft")
    page.wait_for_function(
        "text => [...document.querySelectorAll('canvas[data-seq]')].some(({ ariaLabel }) => ariaLabel.includes(text))",
        arg=f"The picture shows scene {int(before) - 1} ",
        timeout=60_000,
    )
    assert lesson.ask("print(ap_explorer.state.scene)") == str(int(before) - 1)
    page.screenshot(path=screenshots / "lesson_07_ap.png")


def test_without_a_kernel_the_committed_lesson_shows_the_explorers(browser: Browser, tmp_path: Path) -> None:
    exporter = HTMLExporter(require_js_url="", mathjax_url="")
    html, _ = exporter.from_filename(str(ROOT / "notebooks" / LESSON))
    (tmp_path / "lesson.html").write_text(html)
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.goto((tmp_path / "lesson.html").as_uri())
    for source in ("explore.crowd_explorer()", "explore.ap_explorer("):
        picture = page.locator(".jp-Cell", has_text=source).locator("img")
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("image => image.naturalWidth") == 1920
    assert page.locator("canvas").count() == 0
    page.close()
