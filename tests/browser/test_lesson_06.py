"""Lesson 06 as a learner has it: a proposal to drag, a threshold to move, and a regressor's curve to read."""

from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Locator

from rcnn_edu.datasets import SyntheticScenes
from rcnn_edu.explore.lesson_06 import CHAINS, ProposalState, proposal_scene, stages_of, trace
from rcnn_edu.explore.scene import PALETTE, XYXY, Scene
from rcnn_edu.models import tiny_cascade_rcnn
from tests.browser.conftest import Notebook, Picture, check_static_pictures

pytestmark = pytest.mark.browser
LESSON = "06_cascade_rcnn.ipynb"
START: XYXY = (70.0, 71.0, 163.0, 178.0)  # a third of the flower's width to its right: an IoU of 0.5


def layout() -> Scene:
    """Return a picture laid out as the lesson's; what the boxes are does not matter, so no trained model is needed."""
    torch.manual_seed(0)
    model = tiny_cascade_rcnn().eval()
    return proposal_scene(ProposalState(START), stages_of(model), trace(model, *SyntheticScenes(1, seed=6)[0]))


@pytest.fixture
def picture(lesson: Notebook) -> Picture:
    """The explorer with the proposal, in sight and in its first state."""
    lesson.ask(f"proposal_explorer.set(proposal={START}, chain={CHAINS[0]!r})")
    picture = lesson.explorer("explore.proposal_explorer(", layout())
    picture.says("The proposal overlaps the flower by 0.50. the cascade: ")
    return picture


def cell(lesson: Notebook, source: str) -> Locator:
    return lesson.page.locator(".jp-CodeCell", has_text=source)


def test_every_cell_runs_and_nothing_complains(lesson: Notebook, picture: Picture) -> None:
    lesson.check_that_nothing_complains()


def test_the_proposal_is_dragged_and_the_stages_follow(lesson: Notebook, picture: Picture) -> None:
    before = picture.said()
    picture.drag((116, 124), (86, 124))  # onto the flower
    x1, y1, x2, y2 = lesson.value("proposal_explorer.state.proposal")
    assert (x1, y1) == pytest.approx((START[0] - 30, START[1]), abs=1.5)
    assert (x2 - x1, y2 - y1) == pytest.approx((93, 107), abs=0.11)
    picture.says("The proposal overlaps the flower by 0.9")
    assert picture.said() != before


def test_a_corner_resizes_and_another_object_is_the_nearest(lesson: Notebook, picture: Picture) -> None:
    lesson.ask("proposal_explorer.set(proposal=(130.0, 34.0, 180.0, 90.0))")
    picture.says("The proposal overlaps the gear")
    picture.drag((180, 90), (160, 64))
    picture.says("The proposal overlaps the gear by 0.5")


def test_keys_move_and_resize_the_proposal(lesson: Notebook, picture: Picture) -> None:
    picture.press("ArrowLeft", "ArrowLeft", "ArrowUp", "Shift+ArrowDown")
    lesson.page.wait_for_timeout(500)
    expected = [START[0] - 2, START[1] - 1, START[2] - 2, START[3]]
    assert lesson.value("proposal_explorer.state.proposal") == pytest.approx(expected, abs=0.01)


def test_presets_and_the_chain_reach_the_canvas(lesson: Notebook, picture: Picture) -> None:
    controls = cell(lesson, "explore.proposal_explorer(")
    controls.get_by_role("button", name="the object itself").click()
    picture.says("The proposal overlaps the flower by 1.00")
    controls.get_by_role("button", name="stage 1 again and again").click()
    picture.says("Shown: stage 1 again and again.")
    controls.get_by_role("button", name="too large").click()
    picture.says("The proposal overlaps the flower by 0.5")


def test_a_finger_drags_too(lesson: Notebook, picture: Picture) -> None:
    picture.touch((116, 124), (-40, 0))
    lesson.page.wait_for_timeout(500)
    assert lesson.value("proposal_explorer.state.proposal")[0] < START[0] - 10


def test_both_themes_read_well(lesson: Notebook, picture: Picture, screenshots: Path) -> None:
    for number, theme in lesson.themes():
        assert picture.shows(START[0], 100, PALETTE["ink"][number])
        lesson.page.screenshot(path=screenshots / f"lesson_06_{theme}.png")


def test_the_threshold_moves(lesson: Notebook, screenshots: Path) -> None:
    picture = lesson.explorer("explore.threshold_explorer(", layout())
    picture.says("Positive from an IoU of 0.50: before stage 1 ")
    at_half = picture.said()
    lesson.slide("threshold u", *["ArrowRight"] * 4)
    picture.says("Positive from an IoU of 0.70: before stage 1 ")
    assert picture.said() != at_half
    cell(lesson, "explore.threshold_explorer(").get_by_role("button", name="3", exact=True).click()
    lesson.page.wait_for_timeout(500)
    assert lesson.value("[threshold_explorer.state.u, threshold_explorer.state.image]") == pytest.approx([0.7, 3])
    lesson.page.screenshot(path=screenshots / "lesson_06_threshold.png")


def test_the_regressors_are_read_at_another_iou(lesson: Notebook, screenshots: Path) -> None:
    picture = lesson.explorer("explore.regressor_explorer(", layout())
    picture.says("boxes that came in with an IoU from 0.50 to 0.55")
    lesson.slide("IoU before, from", *["ArrowRight"] * 8)
    picture.says("boxes that came in with an IoU from 0.90 to 0.95")
    cell(lesson, "explore.regressor_explorer(").get_by_role("button", name="the cascade").click()
    picture.says("after stage 3")
    lesson.page.wait_for_timeout(500)
    lesson.page.screenshot(path=screenshots / "lesson_06_regressor.png")


def test_without_a_kernel_the_committed_lesson_shows_the_explorers(browser: Browser, tmp_path: Path) -> None:
    sources = [f"explore.{name}_explorer(" for name in ("regressor", "proposal", "threshold")]
    check_static_pictures(browser, tmp_path, LESSON, sources)
