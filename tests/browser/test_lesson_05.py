"""Lesson 05 as a learner has it: the steps of a forward pass, and a RoI to drag."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from rcnn_edu.explore.lesson_05 import MaskState, PipelineState, mask_scene, pipeline_scene
from rcnn_edu.explore.scene import PALETTE
from tests.browser.conftest import Notebook, Picture, check_static_pictures

pytestmark = pytest.mark.browser
LESSON = "05_mask_rcnn.ipynb"
PIPELINE, BY_HAND = "explore.pipeline_explorer", "explore.mask_explorer"
START = MaskState()


@pytest.fixture
def pipeline(lesson: Notebook) -> Picture:
    """The explorer of the forward pass, in sight and at step 5."""
    lesson.ask("pipeline.set(**vars(lesson_05.PipelineState(step=5)))")
    picture = lesson.explorer(PIPELINE, pipeline_scene(PipelineState(step=5)))
    picture.says("Scene 14, step 5, masks")
    return picture


@pytest.fixture
def by_hand(lesson: Notebook) -> Picture:
    """The explorer of one RoI, in sight and in its first state."""
    lesson.ask("by_hand.set(**vars(lesson_05.MaskState()))")
    picture = lesson.explorer(BY_HAND, mask_scene(START))
    picture.says("Scene 14, RoI [40.0, 30.0, 106.0, 92.0].")
    return picture


def test_every_cell_runs_and_nothing_complains(lesson: Notebook, pipeline: Picture, by_hand: Picture) -> None:
    lesson.check_that_nothing_complains()


def test_the_steps_are_gone_through(lesson: Notebook, pipeline: Picture, screenshots: Path) -> None:
    slider = lesson.page.locator(".jp-CodeCell", has_text=PIPELINE).locator(".widget-slider", has_text="step")
    knob = slider.locator(".noUi-handle")
    knob.focus()
    for key, said in (("Home", "step 1, pyramid"), *[("ArrowRight", f"step {step}, ") for step in range(2, 7)]):
        knob.press(key)
        pipeline.says(said)
        lesson.page.wait_for_timeout(300)
        pipeline.canvas.screenshot(path=screenshots / f"lesson_05_{said[:6].replace(' ', '_')}.png")
    assert lesson.value("pipeline.state.step") == 6


def test_another_scene_is_shown(lesson: Notebook, pipeline: Picture) -> None:
    cell = lesson.page.locator(".jp-CodeCell", has_text=PIPELINE)
    cell.locator(".widget-dropdown select").first.select_option(label="number 22")
    pipeline.says("Scene 22, step 5")


def test_the_roi_is_dragged_and_the_heads_answer(lesson: Notebook, by_hand: Picture) -> None:
    by_hand.drag((73, 60), (133, 140))
    x1, y1, x2, y2 = lesson.value("by_hand.state.roi")
    assert (x1, y1) == pytest.approx((100, 110), abs=1.5)
    assert (x2 - x1, y2 - y1) == pytest.approx((66, 62), abs=0.11)
    by_hand.says(f"RoI [{x1:.1f}, {y1:.1f}, {x2:.1f}, {y2:.1f}]. The box head: background")
    lesson.page.wait_for_timeout(500)  # until the last answer is drawn
    assert by_hand.shows(x1, y1 + 20, PALETTE["blue"][0])


def test_keys_move_and_resize_the_roi(lesson: Notebook, by_hand: Picture) -> None:
    by_hand.press("ArrowRight", "ArrowDown", "Shift+ArrowRight")
    by_hand.says("RoI [41.0, 31.0, 108.0, 93.0]")


def test_a_finger_drags_too(lesson: Notebook, by_hand: Picture) -> None:
    by_hand.touch((73, 60), (60, 0))
    lesson.page.wait_for_timeout(700)
    assert lesson.value("by_hand.state.roi")[0] > START.roi[0] + 10


def test_the_controls_and_the_presets_reach_the_canvas(lesson: Notebook, by_hand: Picture) -> None:
    cell = lesson.page.locator(".jp-CodeCell", has_text=BY_HAND)
    cell.locator(".widget-dropdown select").nth(1).select_option(label="leaf")
    by_hand.says("The mask of leaf")
    knob = cell.locator(".widget-slider", has_text="mask threshold").locator(".noUi-handle")
    knob.focus()
    knob.press("ArrowLeft")
    by_hand.says("from 0.45 on")
    cell.get_by_role("button", name="half of it").click()
    by_hand.says("in the box [40.0, 30.0, 73.0, 92.0]")
    cell.get_by_label("move the box first").check()
    lesson.page.wait_for_timeout(500)
    assert "in the box [40.0, 30.0, 73.0, 92.0]" not in by_hand.said()
    cell.get_by_role("button", name="nothing").click()
    by_hand.says("The box head: background")


def test_both_themes_read_well(lesson: Notebook, by_hand: Picture, screenshots: Path) -> None:
    for number, theme in lesson.themes():
        assert by_hand.shows(START.roi[0], 60, PALETTE["blue"][number])
        lesson.page.screenshot(path=screenshots / f"lesson_05_{theme}.png")


def test_without_a_kernel_the_committed_lesson_shows_the_explorers(browser: Browser, tmp_path: Path) -> None:
    check_static_pictures(browser, tmp_path, LESSON, [PIPELINE, BY_HAND])
