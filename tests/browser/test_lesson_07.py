"""Lesson 07 as a learner has it: a real JupyterLab, a mouse, a keyboard, a finger."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from rcnn_edu.explore.lesson_07 import CrowdState, crowd_scene
from rcnn_edu.explore.scene import PALETTE
from tests.browser.conftest import Notebook, Picture, check_static_pictures

pytestmark = pytest.mark.browser
LESSON = "07_soft_nms.ipynb"
E = (127.0, 42.0, 179.0, 121.0)  # where box E begins, alone with F
CROWD = crowd_scene(CrowdState())


@pytest.fixture
def picture(lesson: Notebook) -> Picture:
    """The first explorer, in sight and in its first state."""
    lesson.ask(
        "from dataclasses import asdict; "
        "explorer.set(**asdict(lesson_07.CrowdState(step=5))); explorer.set(**asdict(lesson_07.CrowdState()))"
    )
    picture = lesson.explorer("explore.crowd_explorer()", CROWD)
    picture.says("N_t 0.50, sigma 0.50, cut 0.001. Gaussian after step 6")
    return picture


def test_every_cell_runs_and_nothing_complains(lesson: Notebook, picture: Picture) -> None:
    lesson.check_that_nothing_complains()


def test_a_mouse_moves_a_box_and_what_is_kept_follows(lesson: Notebook, picture: Picture) -> None:
    picture.drag((150, 49), (100, 69))  # within E, outside F
    expect(picture.canvas).not_to_have_attribute("aria-label", re.compile(r"AP50 0\.55"))
    x1, y1, x2, y2 = lesson.value("explorer.state.e")
    assert (x1, y1) == pytest.approx((E[0] - 50, E[1] + 20), abs=2)
    assert (x2 - x1, y2 - y1) == pytest.approx((E[2] - E[0], E[3] - E[1]), abs=0.11)


def test_keys_choose_a_box_and_move_it(lesson: Notebook, picture: Picture) -> None:
    before = {name: lesson.value(f"explorer.state.{name}") for name in "abcdef"}
    picture.press("n", "ArrowRight", "ArrowRight", "Alt+ArrowDown", "Shift+ArrowRight")
    lesson.page.wait_for_timeout(800)
    after = {name: lesson.value(f"explorer.state.{name}") for name in "abcdef"}
    (moved,) = [name for name in "abcdef" if before[name] != after[name]]
    x1, y1, x2, y2 = before[moved]
    assert after[moved] == pytest.approx([x1 + 2, y1 + 0.1, x2 + 3, y2 + 0.1], abs=0.01)


def test_sliders_and_buttons_change_what_is_kept(lesson: Notebook, picture: Picture) -> None:
    for label, key, text in (("N_t", "ArrowRight", "N_t 0.55, "), ("step", "ArrowLeft", "after step 5")):
        lesson.slide(label, key)
        picture.says(text)
    lesson.page.get_by_role("button", name="NMS").first.click()
    picture.says("NMS after step 5")
    lesson.page.get_by_role("button", name="one object").click()
    picture.says("NMS keeps A, AP50 1.00")


def test_a_finger_drags_too(lesson: Notebook, picture: Picture) -> None:
    before = [lesson.value(f"explorer.state.{name}") for name in "ef"]
    picture.touch((150, 80), (0, 20))
    lesson.page.wait_for_timeout(800)
    assert [lesson.value(f"explorer.state.{name}") for name in "ef"] != before


def test_both_themes_read_well(lesson: Notebook, picture: Picture, screenshots: Path) -> None:
    for number, theme in lesson.themes():
        assert picture.shows(E[0], 100, PALETTE["blue"][number])
        lesson.page.screenshot(path=screenshots / f"lesson_07_{theme}.png")


def test_the_second_explorer_measures_again(lesson: Notebook, screenshots: Path) -> None:
    picture = lesson.explorer("explore.ap_explorer(", CROWD)  # nothing is dragged: any layout will do
    before = lesson.value("ap_explorer.state.scene")
    lesson.slide("scene", "ArrowLeft")
    picture.says(f"The picture shows scene {before - 1} ")
    assert lesson.value("ap_explorer.state.scene") == before - 1
    lesson.page.screenshot(path=screenshots / "lesson_07_ap.png")


def test_without_a_kernel_the_committed_lesson_shows_the_explorers(browser: Browser, tmp_path: Path) -> None:
    check_static_pictures(browser, tmp_path, LESSON, ["explore.crowd_explorer()", "explore.ap_explorer("])
