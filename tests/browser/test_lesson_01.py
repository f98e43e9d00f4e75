"""Lesson 01 as a learner has it: a real JupyterLab, a mouse, a keyboard, a finger."""

import re
import statistics
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from rcnn_edu.explore.lesson_01 import RoIState, roi_scene
from rcnn_edu.explore.scene import PALETTE
from tests.browser.conftest import Notebook, Picture, check_static_pictures

pytestmark = pytest.mark.browser
LESSON = "01_roi_quantization_vs_roialign.ipynb"
FACE = (152.6, 21.3, 375.8, 331.4)


@pytest.fixture
def picture(lesson: Notebook) -> Picture:
    """The explorer, in sight and showing the face at stride 32."""
    lesson.ask(f"explorer.set(roi={FACE}, stride=32, output_size=7, picture='photograph', aligned=True, bin=16)")
    picture = lesson.explorer("roi_explorer()", roi_scene(RoIState(roi=FACE, picture="photograph")))
    picture.says("[152.6, 21.3")
    return picture


def settled(lesson: Notebook, picture: Picture) -> str:
    """Wait until the picture shows the kernel's RoI, and return what it says."""
    picture.says("[" + ", ".join(f"{value:.1f}" for value in lesson.value("explorer.state.roi")) + "]")
    return picture.said()


def test_every_cell_runs_and_nothing_complains(lesson: Notebook, picture: Picture) -> None:
    lesson.check_that_nothing_complains()


def test_the_canvas_shows_the_box_in_its_colour(picture: Picture) -> None:
    x1, y1, x2, y2 = FACE
    blue = PALETTE["blue"][0]
    for x, y in ((x1, 200), (x2, 200), (250, y1), (250, y2)):
        assert picture.shows(x, y, blue), (x, y)
    assert not picture.shows(250, 200, blue)


def test_a_mouse_moves_the_roi_in_the_kernel_and_on_the_canvas(lesson: Notebook, picture: Picture) -> None:
    picture.drag((250, 200), (300, 230))
    said = settled(lesson, picture)
    x1, y1, x2, y2 = lesson.value("explorer.state.roi")
    assert x1 == pytest.approx(FACE[0] + 50, abs=2)
    assert y1 == pytest.approx(FACE[1] + 30, abs=2)
    assert (x2 - x1, y2 - y1) == pytest.approx((FACE[2] - FACE[0], FACE[3] - FACE[1]), abs=0.11)  # it kept its size
    rounded = [int(value / 32 + 0.5) for value in (x1, y1, x2, y2)]
    assert f"rounds it to cells {rounded}" in said
    assert picture.shows(x1, 200, PALETTE["blue"][0])


def test_a_mouse_resizes_the_roi_by_its_corner_and_the_picture_is_the_limit(lesson: Notebook, picture: Picture) -> None:
    picture.drag((FACE[2], FACE[3]), (600, 500))
    assert lesson.value("explorer.state.roi") == pytest.approx([FACE[0], FACE[1], 512, 384], abs=0.11)


def test_keys_move_and_resize_the_roi(lesson: Notebook, picture: Picture) -> None:
    picture.press("ArrowRight", "ArrowRight", "ArrowDown", "Alt+ArrowLeft", "Shift+ArrowRight")
    settled(lesson, picture)
    assert lesson.value("explorer.state.roi") == pytest.approx([154.5, 22.3, 378.7, 332.4], abs=0.01)


def test_a_slider_changes_what_is_pooled(lesson: Notebook, picture: Picture) -> None:
    lesson.slide("stride", "ArrowLeft")
    picture.says("at stride 16")
    assert lesson.value("explorer.state.stride") == 16


def test_a_typed_number_and_a_preset_reach_the_canvas(lesson: Notebook, picture: Picture) -> None:
    field = lesson.page.locator(".widget-text", has_text="x1").locator("input").first
    field.fill("100.5")
    field.press("Enter")
    picture.says("[100.5, 21.3")
    lesson.page.get_by_role("button", name="[12.4, 8.7, 45.2, 32.1]").click()
    picture.says("[12, 9, 45, 32]")
    assert lesson.value("explorer.state.roi") == [12.4, 8.7, 45.2, 32.1]


def test_a_finger_drags_too(lesson: Notebook, picture: Picture) -> None:
    picture.touch((250, 200), (20, 0))
    expect(picture.canvas).not_to_have_attribute("aria-label", re.compile(r"\[152\.6,"))
    settled(lesson, picture)
    assert lesson.value("explorer.state.roi")[0] > FACE[0] + 10


def test_both_themes_read_well(lesson: Notebook, picture: Picture, screenshots: Path) -> None:
    for number, theme in lesson.themes():
        assert picture.shows(250, FACE[1], PALETTE["blue"][number])
        lesson.page.screenshot(path=screenshots / f"lesson_01_{theme}.png")


def test_how_long_a_drag_takes(lesson: Notebook, picture: Picture, capsys: pytest.CaptureFixture[str]) -> None:
    times = picture.drag((250, 180), (290, 220), steps=60)
    assert len(times) == 60
    assert min(times) > 0
    with capsys.disabled():
        middle, most = statistics.median(times), max(times)
        print(f"\nA drag's new state shows after {middle:.0f} ms (median of {len(times)}; at most {most:.0f}).")


def test_without_a_kernel_the_committed_lesson_shows_the_explorer(browser: Browser, tmp_path: Path) -> None:
    check_static_pictures(browser, tmp_path, LESSON, ["roi_explorer()"])
