"""Lesson 01 as a learner has it: a real JupyterLab, a mouse, a keyboard, a finger."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, Locator

from rcnn_edu.explore.scene import PALETTE
from tests.browser.conftest import ROOT, Notebook

pytestmark = pytest.mark.browser
LESSON = "01_roi_quantization_vs_roialign.ipynb"
FACE = (152.6, 21.3, 375.8, 331.4)


@pytest.fixture(scope="module")
def lesson(browser: Browser, lab: str) -> Iterator[Notebook]:
    """The lesson, run from top to bottom once."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    notebook = Notebook(page, lab, LESSON)
    notebook.run_all()
    notebook.scroll_to("roi_explorer()")
    page.wait_for_selector("canvas[data-seq]", timeout=60_000)
    yield notebook
    page.close()


@pytest.fixture
def canvas(lesson: Notebook) -> Locator:
    """The explorer's canvas, in sight and showing the face at stride 32."""
    lesson.ask(f"explorer.set(roi={FACE}, stride=32, output_size=7, picture='photograph', aligned=True, bin=16)")
    lesson.scroll_to("roi_explorer()")
    canvas = lesson.page.locator("canvas[data-seq]").first
    canvas.scroll_into_view_if_needed()
    lesson.page.wait_for_function("document.querySelector('canvas[data-seq]').ariaLabel.includes('[152.6, 21.3')")
    return canvas


def roi_in_kernel(lesson: Notebook) -> list[float]:
    roi: list[float] = json.loads(lesson.ask("import json; print(json.dumps(explorer.state.roi))"))
    return roi


def spot(canvas: Locator, x: float, y: float) -> tuple[float, float]:
    """Where the pixel (x, y) of the photograph lies in the window; its panel is 392 of 960 wide for 512 pixels."""
    box = canvas.bounding_box()
    assert box is not None
    scale = box["width"] / 960
    return box["x"] + scale * (10 + x * 392 / 512), box["y"] + scale * (28 + y * 294 / 384)


def drag(
    lesson: Notebook, canvas: Locator, start: tuple[float, float], end: tuple[float, float], steps: int = 10
) -> list[float]:
    """Drag from one pixel of the photograph to another and return the round trip of each step in ms."""
    mouse = lesson.page.mouse
    mouse.move(*spot(canvas, *start))
    mouse.down()
    times = []
    for step in range(1, steps + 1):
        share = step / steps
        before = canvas.get_attribute("data-seq")
        mouse.move(*spot(canvas, *(a + share * (b - a) for a, b in zip(start, end, strict=True))))
        lesson.page.wait_for_function(
            "before => document.querySelector('canvas[data-seq]').dataset.seq !== before", arg=before
        )
        times.append(float(canvas.get_attribute("data-round-trip") or "nan"))
    mouse.up()
    return times


def settled(lesson: Notebook, canvas: Locator) -> str:
    """Wait until the canvas shows the kernel's RoI, and return what it says."""
    roi = roi_in_kernel(lesson)
    text = "[" + ", ".join(f"{value:.1f}" for value in roi) + "]"
    lesson.page.wait_for_function(
        "text => document.querySelector('canvas[data-seq]').ariaLabel.includes(text)", arg=text
    )
    return canvas.get_attribute("aria-label") or ""


def shows(canvas: Locator, x: float, y: float, color: str) -> bool:
    """Whether the canvas shows the colour at the pixel (x, y) of the photograph, soft edges allowed for."""
    rgb: list[int] = canvas.evaluate(
        """(canvas, [x, y]) => {
            const scale = canvas.width / 960;
            const data = canvas.getContext("2d").getImageData(Math.round(x * scale), Math.round(y * scale), 1, 1).data;
            return [...data].slice(0, 3);
        }""",
        [10 + x * 392 / 512, 28 + y * 294 / 384],
    )
    return all(abs(seen - int(color[1 + 2 * i : 3 + 2 * i], 16)) <= 40 for i, seen in enumerate(rgb))


def test_every_cell_runs_and_nothing_complains(lesson: Notebook, canvas: Locator) -> None:
    assert lesson.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert lesson.page.get_by_text("Traceback").count() == 0
    assert lesson.page.get_by_text("Error displaying widget").count() == 0
    assert lesson.complaints == []


def test_the_canvas_shows_the_box_in_its_colour(canvas: Locator) -> None:
    x1, y1, x2, y2 = FACE
    blue = PALETTE["blue"][0]
    for x, y in ((x1, 200), (x2, 200), (250, y1), (250, y2)):
        assert shows(canvas, x, y, blue), (x, y)
    assert not shows(canvas, 250, 200, blue)


def test_a_mouse_moves_the_roi_in_the_kernel_and_on_the_canvas(lesson: Notebook, canvas: Locator) -> None:
    drag(lesson, canvas, (250, 200), (300, 230))
    said = settled(lesson, canvas)
    x1, y1, x2, y2 = roi_in_kernel(lesson)
    assert x1 == pytest.approx(FACE[0] + 50, abs=2)
    assert y1 == pytest.approx(FACE[1] + 30, abs=2)
    assert (x2 - x1, y2 - y1) == pytest.approx((FACE[2] - FACE[0], FACE[3] - FACE[1]), abs=0.11)  # it kept its size
    rounded = [int(value / 32 + 0.5) for value in (x1, y1, x2, y2)]
    assert f"rounds it to cells {rounded}" in said
    assert shows(canvas, x1, 200, PALETTE["blue"][0])


def test_a_mouse_resizes_the_roi_by_its_corner_and_the_picture_is_the_limit(lesson: Notebook, canvas: Locator) -> None:
    drag(lesson, canvas, (FACE[2], FACE[3]), (600, 500))
    assert roi_in_kernel(lesson) == pytest.approx([FACE[0], FACE[1], 512, 384], abs=0.11)


def test_keys_move_and_resize_the_roi(lesson: Notebook, canvas: Locator) -> None:
    cells = lesson.page.locator(".jp-Cell").count()
    canvas.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Alt+ArrowLeft", "Shift+ArrowRight", "b"):
        canvas.press(key)
    settled(lesson, canvas)
    assert roi_in_kernel(lesson) == pytest.approx([154.5, 22.3, 378.7, 332.4], abs=0.01)
    assert lesson.page.locator(".jp-Cell").count() == cells  # b would have inserted a cell


def test_a_slider_changes_what_is_pooled(lesson: Notebook, canvas: Locator) -> None:
    slider = lesson.page.locator(".widget-slider", has_text="stride").locator(".noUi-handle").first
    slider.focus()
    slider.press("ArrowLeft")
    lesson.page.wait_for_function("document.querySelector('canvas[data-seq]').ariaLabel.includes('at stride 16')")
    assert lesson.ask("print(explorer.state.stride)") == "16"


def test_a_typed_number_and_a_preset_reach_the_canvas(lesson: Notebook, canvas: Locator) -> None:
    field = lesson.page.locator(".widget-text", has_text="x1").locator("input").first
    field.fill("100.5")
    field.press("Enter")
    lesson.page.wait_for_function("document.querySelector('canvas[data-seq]').ariaLabel.includes('[100.5, 21.3')")
    lesson.page.get_by_role("button", name="[12.4, 8.7, 45.2, 32.1]").click()
    lesson.page.wait_for_function("document.querySelector('canvas[data-seq]').ariaLabel.includes('[12, 9, 45, 32]')")
    assert lesson.ask("print(explorer.state.roi)") == "(12.4, 8.7, 45.2, 32.1)"


def test_a_finger_drags_too(lesson: Notebook, canvas: Locator) -> None:
    session = lesson.page.context.new_cdp_session(lesson.page)
    x, y = spot(canvas, 250, 200)
    for kind, shift in (("touchStart", 0), ("touchMove", 10), ("touchMove", 20)):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x + shift, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    lesson.page.wait_for_function("!document.querySelector('canvas[data-seq]').ariaLabel.includes('[152.6,')")
    settled(lesson, canvas)
    assert roi_in_kernel(lesson)[0] > FACE[0] + 10


def test_both_themes_read_well(lesson: Notebook, canvas: Locator, screenshots: Path) -> None:
    for number, theme in ((0, "JupyterLab Light"), (1, "JupyterLab Dark"), (0, "JupyterLab Light")):
        lesson.command("apputils:change-theme", theme=theme)
        lesson.page.wait_for_selector(f"body[data-jp-theme-name='{theme}']", state="attached")
        lesson.page.wait_for_timeout(500)
        assert shows(canvas, 250, FACE[1], PALETTE["blue"][number])
        lesson.page.screenshot(path=screenshots / f"lesson_01_{'dark' if number else 'light'}.png")


def test_how_long_a_drag_takes(lesson: Notebook, canvas: Locator, capsys: pytest.CaptureFixture[str]) -> None:
    times = drag(lesson, canvas, (250, 180), (290, 220), steps=60)
    assert len(times) == 60
    assert min(times) > 0
    with capsys.disabled():
        middle, most = statistics.median(times), max(times)
        print(f"\nA drag's new state shows after {middle:.0f} ms (median of {len(times)}; at most {most:.0f}).")


def test_without_a_kernel_the_committed_lesson_shows_the_explorer(
    browser: Browser, tmp_path: Path, screenshots: Path
) -> None:
    exporter = HTMLExporter(require_js_url="", mathjax_url="")
    html, _ = exporter.from_filename(str(ROOT / "notebooks" / LESSON))
    (tmp_path / "lesson.html").write_text(html)
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.goto((tmp_path / "lesson.html").as_uri())
    picture = page.locator(".jp-Cell", has_text="roi_explorer()").locator("img")
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("image => image.naturalWidth") == 1920
    assert page.locator("canvas").count() == 0
    page.screenshot(path=screenshots / "lesson_01_static.png")
    page.close()
