"""Lesson 00 as a newcomer has it: the first detection, two boxes, a codec and a threshold to play with."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from rcnn_edu.explore.lesson_00 import CodecState, PairState, codec_scene, pair_scene
from rcnn_edu.explore.scene import PALETTE, Scene
from tests.browser.conftest import Notebook, Picture, check_static_pictures

pytestmark = pytest.mark.browser
LESSON = "00_start_here.ipynb"
PAIR = pair_scene(PairState())
EXPLORERS: dict[str, Scene] = {  # by their cells; where nothing is dragged, any layout will do
    "iou_explorer()": PAIR,
    "codec_explorer()": codec_scene(CodecState()),
    "score_explorer(": PAIR,
}


@pytest.fixture
def pair(lesson: Notebook) -> Picture:
    """The first explorer, in its first state."""
    lesson.ask("explorer.set(**vars(lesson_00.PairState()))")
    pair = lesson.explorer("iou_explorer()", PAIR)
    pair.says("IoU 0.231, no match at 0.50")
    return pair


@pytest.mark.parametrize("source", EXPLORERS)
def test_every_cell_runs_and_nothing_complains(lesson: Notebook, source: str) -> None:
    lesson.explorer(source, EXPLORERS[source])
    lesson.check_that_nothing_complains()


def test_the_first_detection_is_there(lesson: Notebook) -> None:
    lesson.scroll_to("beside_truth_figure(")
    picture = lesson.page.locator(".jp-CodeCell", has_text="beside_truth_figure(").locator("img")
    assert picture.evaluate("image => image.naturalWidth") > 1000


def test_each_box_is_dragged_by_itself(lesson: Notebook, pair: Picture) -> None:
    pair.drag((130, 130), (114, 114))
    guess = lesson.value("explorer.state.guess")
    assert guess == pytest.approx([value - 16 for value in PairState.guess], abs=1.5)
    pair.says(f"a guess [{guess[0]:.1f}, {guess[1]:.1f}")
    pair.drag((PairState.truth[0], 100), (PairState.truth[0] + 8, 100))  # its left edge
    x1, *rest = lesson.value("explorer.state.truth")
    assert x1 == pytest.approx(PairState.truth[0] + 8, abs=1.5)
    assert rest == list(PairState.truth[1:])
    lesson.page.wait_for_timeout(500)  # until the last answer is drawn
    assert pair.shows(x1, 75, PALETTE["green"][0])


def test_sixteen_pixels_slip_by_five_key_presses_and_no_more(lesson: Notebook, pair: Picture) -> None:
    lesson.page.get_by_role("button", name="two of 16 px").click()
    pair.says("IoU 1.000")
    pair.press("n", *["ArrowRight"] * 5)  # the guess is the second box
    pair.says("IoU 0.524, a match at 0.50")
    pair.press("ArrowRight")
    pair.says("no match at 0.50")
    pair.press("Alt+ArrowLeft")
    pair.says("a guess [85.9, 80.0")
    assert lesson.value("explorer.state.guess")[0] == pytest.approx(85.9, abs=0.01)
    pair.press("p")


def test_the_threshold_is_moved_by_keys(lesson: Notebook, pair: Picture) -> None:
    lesson.slide("IoU threshold", *["ArrowLeft"] * 6)
    pair.says("a match at 0.20")


def test_a_finger_drags_too(lesson: Notebook, pair: Picture) -> None:
    pair.touch((130, 130), (20, 0))
    expect(pair.canvas).not_to_have_attribute("aria-label", re.compile(r"a guess \[80\.0"))
    assert lesson.value("explorer.state.guess")[0] > PairState.guess[0] + 5


def test_deltas_move_the_box_and_twice_the_size_needs_the_same(lesson: Notebook) -> None:
    codec = lesson.explorer("codec_explorer()", EXPLORERS["codec_explorer()"])
    lesson.ask("head.set(dx=5.5, dw=1.7, dh=1.7)")
    codec.says("goes from 0.28 to 0.99")
    lesson.page.get_by_role("button", name="all twice as large").click()
    codec.says("take the box [32.0, 64.0, 112.0, 144.0]")
    codec.says("goes from 0.28 to 0.99")
    lesson.slide("dy", "ArrowRight")
    codec.says("Deltas [+5.5, +0.1, +1.7, +1.7]")
    codec.drag((72, 128), (62, 128))
    assert lesson.value("head.state.box")[0] == pytest.approx(2 * CodecState.box[0] - 10, abs=1.5)


def test_the_score_s_threshold_filters_a_real_output(lesson: Notebook) -> None:
    picture = lesson.explorer("score_explorer(", EXPLORERS["score_explorer("])
    counts = []
    for score in (0.05, 0.5, 0.95):
        lesson.ask(f"scores.set(score={score})")
        picture.says(f"from a score of {score:.2f}")
        found = re.search(r": (\d+) shown", picture.said())
        assert found
        counts.append(int(found[1]))
    assert counts[0] > counts[1] > 0
    assert counts == sorted(counts, reverse=True)
    lesson.slide("scene", "Home")
    picture.says("Scene 0,")


def test_both_themes_read_well(lesson: Notebook, screenshots: Path) -> None:
    for number, theme in lesson.themes():
        lesson.ask("explorer.set(**vars(lesson_00.PairState())); scores.set(scene=number, score=0.5)")
        for source, scene in EXPLORERS.items():
            picture = lesson.explorer(source, scene)
            lesson.page.wait_for_timeout(500)
            if source == "iou_explorer()":
                assert picture.shows(PairState.truth[0], 90, PALETTE["green"][number])
            lesson.page.screenshot(path=screenshots / f"lesson_00_{source.split('_')[0]}_{theme}.png")
        lesson.scroll_to("beside_truth_figure(")
        lesson.page.wait_for_timeout(500)
        lesson.page.screenshot(path=screenshots / f"lesson_00_first_{theme}.png")


def test_without_a_kernel_the_committed_lesson_shows_its_explorers(browser: Browser, tmp_path: Path) -> None:
    check_static_pictures(browser, tmp_path, LESSON, list(EXPLORERS))
