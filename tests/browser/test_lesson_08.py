"""Lesson 08 as a learner has it: tick boxes for the scales, sliders, a table of dots and a plane that follow."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator

from rcnn_edu.explore.scene import PALETTE, Panel, Scene
from tests.browser.conftest import Notebook, Picture, check_static_pictures

pytestmark = pytest.mark.browser
LESSON = "08_multi_scale_testing.ipynb"
IMAGE, LEGEND = Panel((10, 28, 380, 380), (0, 0, 192, 192), []), Panel((10, 416, 380, 62), (0, 0, 380, 62), [])
LAYOUT = Scene(960, 482, [IMAGE, LEGEND])  # what the test needs of the picture's


@pytest.fixture
def picture(lesson: Notebook) -> Picture:
    """The explorer, in sight and in its first state."""
    lesson.ask("explorer.set(**vars(lesson_08.ScaleState(scene=12)))")
    picture = lesson.explorer("scale_explorer(album", LAYOUT)
    picture.says("1×, 2×, merged by NMS at N_t 0.50. AP on 24 scenes")
    return picture


def tick(lesson: Notebook, label: str) -> Locator:
    return lesson.page.get_by_label(label, exact=True).first


def test_every_cell_runs_and_nothing_complains(lesson: Notebook, picture: Picture) -> None:
    lesson.check_that_nothing_complains()


def test_scales_are_ticked_and_the_picture_follows(lesson: Notebook, picture: Picture) -> None:
    tick(lesson, "2×").uncheck()
    picture.says("1×, merged by NMS")
    tick(lesson, "and mirrored").check()
    picture.says("1× and mirrored, merged by NMS at N_t 0.50.")
    picture.says("for 2.00 times the pixels")
    tick(lesson, "1×").focus()
    lesson.page.keyboard.press("Space")  # no view is left
    picture.says("no view, merged by NMS")
    assert lesson.value("explorer.state.scales") == []


def test_the_merge_the_cut_and_the_scene_reach_the_picture(lesson: Notebook, picture: Picture) -> None:
    lesson.page.get_by_role("button", name="Soft-NMS").click()
    picture.says("merged by Soft-NMS")
    lesson.slide("N_t", "ArrowRight", "ArrowRight")
    picture.says("at N_t 0.60")
    lesson.slide("score cut", *["ArrowLeft"] * 4)
    picture.says("scores from 0.30")
    lesson.slide("scene", "ArrowLeft")
    picture.says("Scene 11,")


def test_presets_tick_the_scales_too(lesson: Notebook, picture: Picture) -> None:
    lesson.page.get_by_role("button", name="everything").click()
    picture.says("0.5×, 0.75×, 1×, 1.5×, 2× and mirrored")
    assert all(tick(lesson, label).is_checked() for label in ("0.5×", "0.75×", "1×", "1.5×", "2×", "and mirrored"))
    lesson.page.get_by_role("button", name="the package's default").click()
    picture.says("0.5×, 1×, 1.5×, merged by NMS")
    assert not tick(lesson, "2×").is_checked()


def test_both_themes_read_well(lesson: Notebook, picture: Picture, screenshots: Path) -> None:
    legend = lesson.explorer("scale_explorer(album", LAYOUT, panel=1)
    for number, theme in lesson.themes():
        assert legend.shows(8, 8, PALETTE["green"][number])
        lesson.page.screenshot(path=screenshots / f"lesson_08_{theme}.png")


def test_without_a_kernel_the_committed_lesson_shows_the_explorer(browser: Browser, tmp_path: Path) -> None:
    check_static_pictures(browser, tmp_path, LESSON, ["scale_explorer(album"])
