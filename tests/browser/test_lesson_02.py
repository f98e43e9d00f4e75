"""Lesson 02 as a learner has it: a box to resize, and a real pyramid to look into."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from rcnn_edu.explore.lesson_02 import LevelState, PyramidState, level_scene, pyramid_scene
from rcnn_edu.explore.scene import PALETTE, Scene
from tests.browser.conftest import Notebook, Picture, check_static_pictures

pytestmark = pytest.mark.browser
LESSON = "02_fpn.ipynb"
START = LevelState()
EXPLORERS: dict[str, Scene] = {  # by their cells
    "level_explorer()": level_scene(START),
    "pyramid_explorer()": pyramid_scene(PyramidState()),
}


@pytest.fixture
def levels(lesson: Notebook) -> Picture:
    """The explorer of the level rule, in its first state."""
    lesson.ask("levels.set(**vars(lesson_02.LevelState()))")
    picture = lesson.explorer("level_explorer()", EXPLORERS["level_explorer()"])
    picture.says("4 + log2(335.8 / 224) = 4.58, floor: P4")
    return picture


@pytest.fixture
def pyramids(lesson: Notebook) -> Picture:
    """The explorer of the features, in its first state."""
    lesson.ask("pyramids.set(**vars(lesson_02.PyramidState()))")
    picture = lesson.explorer("pyramid_explorer()", EXPLORERS["pyramid_explorer()"])
    picture.says("Scene 15: objectness on P2 to P5")
    return picture


@pytest.mark.parametrize("source", EXPLORERS)
def test_every_cell_runs_and_nothing_complains(lesson: Notebook, source: str) -> None:
    lesson.explorer(source, EXPLORERS[source])
    lesson.check_that_nothing_complains()


def test_a_corner_resizes_the_box_and_its_level_follows(lesson: Notebook, levels: Picture) -> None:
    x1, y1, x2, y2 = START.box
    levels.drag((x2, y2), (x1 + 40, y1 + 40))
    levels.says("floor: P3")
    found = lesson.value("levels.state.box")
    assert found[:2] == [x1, y1]
    assert found[2:] == pytest.approx([x1 + 40, y1 + 40], abs=1.5)
    lesson.page.wait_for_timeout(500)  # until the last answer is drawn
    assert levels.shows(found[2], y1 + 20, PALETTE["blue"][0])


def test_the_box_is_moved_and_keeps_its_level(lesson: Notebook, levels: Picture) -> None:
    levels.drag((100, 80), (110, 100))
    levels.says("floor: P4")
    assert lesson.value("levels.state.box")[1] == pytest.approx(START.box[1] + 20, abs=1.5)


def test_keys_resize_the_box(lesson: Notebook, levels: Picture) -> None:
    levels.press("Shift+ArrowRight", "Shift+ArrowDown", "Alt+Shift+ArrowRight")
    levels.says("A box of 81.7 × 81.6 px")


def test_the_picture_s_size_the_rule_and_the_presets_decide(lesson: Notebook, levels: Picture) -> None:
    lesson.slide("resized to, px", "ArrowRight")
    levels.says("resized from 192 to 1152 px")
    levels.says("floor: P5")
    lesson.page.get_by_role("button", name="336 px at 800").click()
    levels.says("floor: P4")
    lesson.page.get_by_label("rule", exact=True).first.select_option("round")
    levels.says("4.58, round: P5")
    lesson.page.get_by_role("button", name="this course's detector").click()
    levels.says("resized from 192 to 192 px")
    lesson.page.get_by_role("button", name="the flower").click()
    levels.says("A box of 13.0 × 13.0 px")


def test_a_finger_drags_too(lesson: Notebook, levels: Picture) -> None:
    levels.touch((100, 80), (60, 0))
    lesson.page.wait_for_timeout(500)
    assert lesson.value("levels.state.box")[0] > START.box[0] + 10


def test_scene_variant_and_channel_are_chosen(lesson: Notebook, pyramids: Picture) -> None:
    lesson.slide("scene", "Home", "ArrowRight")
    pyramids.says("Scene 1: objectness")
    lesson.page.get_by_label("below", exact=True).first.select_option("no lateral connections")
    pyramids.says("no lateral connections, ")
    lesson.page.get_by_label("show", exact=True).first.select_option("one channel")
    pyramids.says("Scene 1: channel 0 on P2 to P5")
    lesson.slide("channel", "ArrowRight")
    pyramids.says("channel 1")
    lesson.page.get_by_label("proposals of").first.select_option("P5")
    pyramids.says("best proposals of P5")


def test_both_themes_read_well(lesson: Notebook, screenshots: Path) -> None:
    for number, theme in lesson.themes():
        lesson.ask("levels.set(**vars(lesson_02.LevelState())); pyramids.set(**vars(lesson_02.PyramidState()))")
        for source, scene in EXPLORERS.items():
            picture = lesson.explorer(source, scene)
            lesson.page.wait_for_timeout(500)
            if source == "level_explorer()":
                assert picture.shows(START.box[0], 80, PALETTE["blue"][number])
            lesson.page.screenshot(path=screenshots / f"lesson_02_{source.split('_')[0]}_{theme}.png")


def test_without_a_kernel_the_committed_lesson_shows_its_explorers(browser: Browser, tmp_path: Path) -> None:
    check_static_pictures(browser, tmp_path, LESSON, list(EXPLORERS))
