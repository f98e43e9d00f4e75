"""Lesson 03 as a learner has it: three boxes to drag, a slider with two ends, a tick box."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from rcnn_edu.explore.lesson_03 import AnchorState, anchor_scene
from rcnn_edu.explore.scene import PALETTE
from tests.browser.conftest import Notebook, Picture, check_static_pictures

pytestmark = pytest.mark.browser
LESSON = "03_anchor_assignment.ipynb"
START = AnchorState()


@pytest.fixture
def picture(lesson: Notebook) -> Picture:
    """The explorer, in sight and in its first state."""
    lesson.ask("explorer.set(**vars(lesson_03.AnchorState()))")
    picture = lesson.explorer("anchor_explorer()", anchor_scene(START))
    picture.says("Negative below 0.30, positive from 0.70, best-anchor rule on. Of 2268 anchors: 1 positive, 5 rescued")
    return picture


def test_every_cell_runs_and_nothing_complains(lesson: Notebook, picture: Picture) -> None:
    lesson.check_that_nothing_complains()


def test_each_box_is_dragged_by_itself(lesson: Notebook, picture: Picture) -> None:
    picture.drag((112, 35), (132, 135))  # B, from its middle
    x1, y1, x2, y2 = lesson.value("explorer.state.b")
    assert (x1, y1) == pytest.approx((START.b[0] + 20, START.b[1] + 100), abs=1.5)
    assert (x2 - x1, y2 - y1) == pytest.approx((36, 35), abs=0.11)
    lesson.page.wait_for_timeout(500)  # until the last answer is drawn
    assert picture.shows(x1, y1 + 25, PALETTE["green"][0])
    picture.drag((66, 77), (166, 27))  # C lies within A, and on top of it
    assert lesson.value("explorer.state.c")[0] == pytest.approx(START.c[0] + 100, abs=1.5)
    assert lesson.value("explorer.state.a") == list(START.a)


def test_a_corner_resizes_and_the_counts_follow(lesson: Notebook, picture: Picture) -> None:
    picture.drag((START.c[2], START.c[3]), (START.c[0] + 8, START.c[1] + 8))
    picture.says("C 8 × 8 px: best IoU 0.06, 0 positive, 15 rescued")


def test_keys_choose_move_and_resize_a_box(lesson: Notebook, picture: Picture) -> None:
    picture.canvas.click(position={"x": 3, "y": 3})  # no box there: it only gets the focus
    picture.canvas.focus()
    assert lesson.page.get_by_text("The keys n and p choose the next or the previous box").first.is_visible()
    lesson.ask("explorer.set(a=(64.0, 64.0, 128.0, 128.0))")
    picture.says("A 64 × 64 px: best IoU 1.00")
    picture.drag((100, 120), (101, 120))  # A is chosen
    picture.press("n", "ArrowRight", "ArrowDown", "Shift+ArrowRight")
    picture.says("B 37 × 35 px")
    assert lesson.value("explorer.state.b") == pytest.approx([95, 19, 132, 54], abs=0.01)
    picture.press("p", "ArrowLeft")
    lesson.page.wait_for_timeout(300)
    assert lesson.value("explorer.state.a")[0] == pytest.approx(64, abs=0.3)


def test_the_slider_moves_both_thresholds(lesson: Notebook, picture: Picture) -> None:
    lesson.slide("IoU thresholds", *["ArrowLeft"] * 4, handle=1)
    picture.says("Negative below 0.30, positive from 0.50")
    lesson.slide("IoU thresholds", "ArrowRight")
    picture.says("Negative below 0.35, positive from 0.50")


def test_the_rule_and_the_presets_reach_the_canvas(lesson: Notebook, picture: Picture) -> None:
    lesson.page.get_by_label("best-anchor rule").first.uncheck()
    picture.says("best-anchor rule off. Of 2268 anchors: 1 positive, 0 rescued")
    lesson.page.get_by_role("button", name="the scene's objects").click()
    picture.says("best-anchor rule on")
    lesson.page.get_by_role("button", name="A half a cell off").click()
    picture.says("A 64 × 64 px: best IoU 0.62, 0 positive, 4 rescued")


def test_a_finger_drags_too(lesson: Notebook, picture: Picture) -> None:
    picture.touch((112, 35), (40, 0))
    lesson.page.wait_for_timeout(500)
    assert lesson.value("explorer.state.b")[0] > START.b[0] + 10


def test_both_themes_read_well(lesson: Notebook, picture: Picture, screenshots: Path) -> None:
    for number, theme in lesson.themes():
        assert picture.shows(START.a[0], 100, PALETTE["green"][number])
        lesson.page.screenshot(path=screenshots / f"lesson_03_{theme}.png")


def test_without_a_kernel_the_committed_lesson_shows_the_explorer(browser: Browser, tmp_path: Path) -> None:
    check_static_pictures(browser, tmp_path, LESSON, ["anchor_explorer()"])
