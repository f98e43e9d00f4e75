"""Lesson 09 as a learner has it: a real training that draws its losses, then the explorer on what it has learnt."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from rcnn_edu.explore.lesson_09 import PrecisionState, Results, SortingLine, precision_scene
from rcnn_edu.explore.scene import PALETTE
from tests.browser.conftest import Notebook, Picture, check_static_pictures

pytestmark = pytest.mark.browser
LESSON = "09_your_own_data.ipynb"
SOURCE = "precision_explorer(own)"
LAYOUT = precision_scene(PrecisionState(), Results(SortingLine(1, seed=71), []))  # laid out as the lesson's picture is


@pytest.fixture
def picture(lesson: Notebook) -> Picture:
    """The explorer, in sight and in its first state."""
    lesson.ask("explorer.set(**vars(lesson_09.PrecisionState()))")
    picture = lesson.explorer(SOURCE, LAYOUT)
    picture.says("smooth, a match from an IoU of 0.50, scores from 0.50, in all 48 images")
    return picture


def test_every_cell_runs_and_nothing_complains(lesson: Notebook, picture: Picture) -> None:
    lesson.check_that_nothing_complains()


def test_the_training_has_drawn_its_losses(lesson: Notebook) -> None:
    lesson.scroll_to("plot = explore.LivePlot()")
    drawn = lesson.page.locator(".jp-CodeCell", has_text="plot = explore.LivePlot()").locator("img")
    drawn.wait_for(timeout=60_000)
    assert drawn.count() == 1
    assert lesson.value("plot.records[-1]['step']") == 40


def test_the_sliders_and_the_class_reach_the_picture(lesson: Notebook, picture: Picture) -> None:
    lesson.slide("score", "ArrowLeft")
    picture.says("scores from 0.45")
    lesson.slide("IoU", *["ArrowRight"] * 5)
    picture.says("a match from an IoU of 0.75")
    lesson.slide("image", "ArrowRight")
    picture.says("The picture shows image 1.")
    lesson.page.get_by_label("class").first.select_option("notched")
    picture.says("notched, a match from an IoU of 0.75, scores from 0.45")
    assert lesson.value("explorer.state.label") == 2


def test_the_keys_stay_in_the_picture(lesson: Notebook, picture: Picture) -> None:
    picture.press("ArrowRight")  # there is nothing to drag, and nothing for JupyterLab to do


def test_both_themes_read_well(lesson: Notebook, picture: Picture, screenshots: Path) -> None:
    curve = lesson.explorer(SOURCE, LAYOUT, panel=2)
    for number, theme in lesson.themes():
        best = lesson.value("own.ranking(1, 0.5).sampled()[0].item()")
        assert curve.shows(34, 250 - 230 * best, PALETTE["blue"][number])  # the curve's first sample
        lesson.page.screenshot(path=screenshots / f"lesson_09_{theme}.png")


def test_without_a_kernel_the_committed_lesson_shows_the_explorer(browser: Browser, tmp_path: Path) -> None:
    check_static_pictures(browser, tmp_path, LESSON, [SOURCE])
