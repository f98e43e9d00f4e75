"""Lesson 04 as a learner has it: two rows of buttons and four sliders, and a picture without anything to drag."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from rcnn_edu.explore.lesson_04 import SampleState, sample_scene
from rcnn_edu.explore.scene import PALETTE
from tests.browser.conftest import Notebook, Picture, check_static_pictures

pytestmark = pytest.mark.browser
LESSON = "04_balanced_sampling.ipynb"
START = SampleState(scene=1)


@pytest.fixture
def picture(lesson: Notebook) -> Picture:
    """The explorer, in sight and in its first state."""
    lesson.ask("explorer.set(**vars(lesson_04.SampleState(scene=1)))")
    picture = lesson.explorer("sample_explorer(", sample_scene(START))
    picture.says("RPN, trained, scene 1: 256 of 8977 drawn, 12 positive")
    return picture


def test_every_cell_runs_and_nothing_complains(lesson: Notebook, picture: Picture) -> None:
    lesson.check_that_nothing_complains()


def test_the_sliders_draw_another_sample(lesson: Notebook, picture: Picture) -> None:
    before = picture.said()
    lesson.slide("draw", "ArrowRight")
    picture.says("scene 1: 256 of 8977 drawn, 12 positive")
    lesson.page.wait_for_function("(old) => document.querySelector('canvas[data-seq]').ariaLabel !== old", arg=before)
    lesson.slide("num_samples", *["ArrowLeft"] * 5)
    picture.says("scene 1: 8 of 8977 drawn, 4 positive")
    lesson.slide("pos_fraction", "Home")
    picture.says("scene 1: 8 of 8977 drawn, 0 positive")
    lesson.slide("scene", "ArrowRight")
    picture.says("scene 2: 8 of 8893 drawn")
    assert lesson.value("[explorer.state.scene, explorer.state.draw]") == [2, 1]


def test_the_buttons_change_the_head_and_the_network(lesson: Notebook, picture: Picture) -> None:
    button = lesson.page.get_by_role("button", name="untrained")
    button.click()
    picture.says("RPN, untrained, scene 1: 256 of 8977 drawn, 12 positive, 244 hard and 0 easy negatives")
    lesson.page.get_by_role("button", name="box head: 64 at 1/4").click()
    picture.says("box head, untrained, scene 1: 64 of 206 drawn")
    lesson.page.get_by_role("button", name="draw all").click()
    picture.says("box head, untrained, scene 1: 206 of 206 drawn")
    lesson.page.get_by_role("button", name="RPN: 256 at 1/2").click()
    picture.says("RPN, untrained, scene 1: 256 of 8977 drawn")


def test_there_is_nothing_to_drag_and_no_help_for_it(lesson: Notebook, picture: Picture) -> None:
    picture.canvas.click(position={"x": 200, "y": 200})
    picture.press("ArrowRight")
    assert lesson.page.get_by_text("Drag the box, an edge or a corner").count() == 0
    assert lesson.value("explorer.state.draw") == 0


def test_both_themes_read_well(lesson: Notebook, picture: Picture, screenshots: Path) -> None:
    bars = lesson.explorer("sample_explorer(", sample_scene(START), panel=1)
    for number, theme in lesson.themes():
        assert bars.shows(200, 64, PALETTE["muted"][number])  # of all that are labelled, most are easy negatives
        lesson.page.screenshot(path=screenshots / f"lesson_04_{theme}.png")


def test_without_a_kernel_the_committed_lesson_shows_the_explorer(browser: Browser, tmp_path: Path) -> None:
    check_static_pictures(browser, tmp_path, LESSON, ["sample_explorer("])
