import json
from collections.abc import Sequence

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rcnn_edu.datasets import SyntheticScenes
from rcnn_edu.datasets.coco import as_coco
from rcnn_edu.explore import lesson_00
from rcnn_edu.explore.lesson_00 import (
    SIDE,
    CodecState,
    Outputs,
    PairState,
    ScoreState,
    codec_explorer,
    codec_scene,
    iou_explorer,
    overlap,
    pair_scene,
    precision_recall,
    score_explorer,
    score_scene,
)
from rcnn_edu.explore.scene import XYXY, Box, Scene, Text
from rcnn_edu.ops import encode_boxes
from rcnn_edu.training import error_breakdown, to_results


@st.composite
def boxes(draw: st.DrawFn) -> XYXY:
    x = sorted(draw(st.lists(st.integers(0, 10 * SIDE - 10), min_size=2, max_size=2)))
    y = sorted(draw(st.lists(st.integers(0, 10 * SIDE - 10), min_size=2, max_size=2)))
    return x[0] / 10, y[0] / 10, x[1] / 10 + 1, y[1] / 10 + 1  # as the canvas has them: tenths, at least 1 px wide


def texts(scene: Scene) -> list[str]:
    return [item.text for panel in scene.panels for item in panel.items if isinstance(item, Text)]


# Two boxes


def test_an_overlap_by_hand() -> None:
    found = overlap((0, 0, 4, 4), (2, 1, 6, 5))  # 2 × 3 of 16 + 16 − 6
    assert (found.shared, found.intersection, found.union) == ((2, 1, 4, 4), 6, 26)
    assert found.iou == pytest.approx(6 / 26)
    assert found.legacy_iou == pytest.approx(12 / 38)  # 3 × 4 of 25 + 25 − 12


def test_boxes_that_only_touch_share_nothing() -> None:
    found = overlap((0, 0, 4, 4), (4, 0, 8, 4))
    assert (found.shared, found.intersection, found.iou) == (None, 0, 0)
    assert found.legacy_iou > 0  # which is one of the things that the + 1 does


@given(boxes(), boxes())
def test_the_numbers_shown_agree_with_each_other_and_with_torchvision(truth: XYXY, guess: XYXY) -> None:
    found = overlap(truth, guess)
    theirs = torchvision.ops.box_iou(torch.tensor([truth]), torch.tensor([guess]))
    assert found.iou == pytest.approx(float(theirs), abs=1e-5)
    assert found.iou == pytest.approx(found.intersection / found.union, abs=1e-5)
    scene = pair_scene(PairState(truth, guess))
    assert len(json.dumps(scene.to_dict(), allow_nan=False)) < 20_000
    assert f"IoU {found.iou:.3f}" in scene.alt


@pytest.mark.parametrize(("shift", "threshold", "is_match"), [(5, 0.5, True), (6, 0.5, False), (3, 0.75, False)])
def test_how_far_sixteen_pixels_may_move(shift: float, threshold: float, is_match: bool) -> None:
    """Moved sideways by d, a square of side s keeps (s − d) / (s + d): 11/21, 10/22 and 13/19."""
    state = PairState((80, 80, 96, 96), (80 + shift, 80, 96 + shift, 96), threshold)
    assert ("a match" in texts(pair_scene(state))) is is_match
    assert (", a match at" in pair_scene(state).alt) is is_match


def test_an_iou_of_exactly_the_threshold_matches_whatever_the_slider_s_last_bit() -> None:
    assert ", a match at 0.25" in pair_scene(PairState((0, 0, 64, 64), (16, 16, 48, 48), 0.1 + 0.15)).alt


def test_the_pair_can_be_dragged_and_the_controls_reach_it() -> None:
    explorer = iou_explorer()
    handles = [
        item.handle for panel in pair_scene(explorer.state).panels for item in panel.items if isinstance(item, Box)
    ]
    assert [handle for handle in handles if handle] == ["truth", "guess"]
    (threshold,) = explorer.children[0].children
    threshold.value = 0.2
    assert "a match at 0.20" in explorer.canvas.scene["alt"]
    buttons = {button.description: button for button in explorer.children[1].children}
    for name in ("two of 16 px", "two of 160 px"):
        buttons[name].click()
        assert "IoU 1.000" in explorer.canvas.scene["alt"]
    buttons["a quarter inside"].click()
    assert "IoU 0.250" in explorer.canvas.scene["alt"]
    buttons["as at the start"].click()
    assert explorer.state == PairState()


# The codec


def test_deltas_of_zero_leave_the_box() -> None:
    assert "Deltas [+0.0, +0.0, +0.0, +0.0] take the box [16.0, 32.0, 56.0, 72.0] to [16.0, 32.0, 56.0, 72.0]" in (
        codec_scene(CodecState()).alt
    )


def test_deltas_by_hand() -> None:
    state = CodecState(truth=(20, 32, 60, 72), box=(16, 32, 56, 72), dx=1)  # a tenth of 40 px to the right
    assert "its IoU with the object [20.0, 32.0, 60.0, 72.0] goes from 0.82 to 1.00" in codec_scene(state).alt
    assert "The box has arrived." in texts(codec_scene(state))


def test_what_encode_boxes_says_takes_the_box_there_and_twice_the_size_needs_the_same() -> None:
    twice = [tuple(2 * value for value in getattr(CodecState, name)) for name in ("truth", "box")]
    wanted = encode_boxes(torch.tensor([CodecState.truth]), torch.tensor([CodecState.box]))[0]
    assert torch.allclose(encode_boxes(torch.tensor([twice[0]]), torch.tensor([twice[1]]))[0], wanted)
    dx, dy, dw, dh = (round(value, 1) for value in wanted.tolist())
    assert codec_scene(CodecState(dx=dx, dy=dy, dw=dw, dh=dh)).alt.endswith(("to 0.99.", "to 1.00."))


@given(boxes(), boxes(), st.lists(st.integers(-100, 100), min_size=4, max_size=4), st.booleans())
def test_every_codec_state_has_a_picture(truth: XYXY, box: XYXY, tenths: Sequence[int], tell: bool) -> None:
    dx, dy, dw, dh = (tenth / 10 for tenth in tenths)
    scene = codec_scene(CodecState(truth, box, dx, dy, dw, dh, tell))
    assert len(json.dumps(scene.to_dict(), allow_nan=False)) < 20_000
    assert ("?" in texts(scene)) is not tell


def test_the_codec_s_controls_reach_its_picture() -> None:
    explorer = codec_explorer()
    *sliders, tell = explorer.children[0].children
    sliders[0].value, sliders[3].value, tell.value = 5.5, 1.7, True
    assert explorer.state == CodecState(dx=5.5, dh=1.7, tell=True)
    buttons = {button.description: button for button in explorer.children[1].children}
    buttons["all twice as large"].click()
    assert (explorer.state.box, explorer.state.dx) == ((32, 64, 112, 144), 5.5)
    buttons["at the start"].click()
    buttons["deltas to 0"].click()
    assert explorer.state == CodecState(tell=True)


# What a model finds


def detection(rows: list[tuple[list[float], int, float]]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([box for box, _, _ in rows], dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor([label for _, label, _ in rows], dtype=torch.long),
        "scores": torch.tensor([score for _, _, score in rows]),
    }


TARGET = {"boxes": torch.tensor([[10.0, 10, 50, 50], [100, 100, 140, 140]]), "labels": torch.tensor([1, 2])}
FOUND = detection(
    [([10, 10, 50, 50], 1, 0.9), ([100, 100, 140, 130], 2, 0.6), ([10, 10, 50, 48], 1, 0.7), ([0, 90, 9, 99], 3, 0.2)]
)
OUTPUTS = Outputs([torch.rand(3, 192, 192)], [TARGET], [FOUND], ("leaf", "drop", "flower", "gear"))


def test_precision_and_recall_by_hand() -> None:
    assert precision_recall([True, False, True], 4) == [(0.25, 1), (0.25, 0.5), (0.5, 2 / 3)]
    assert precision_recall([], 4) == []
    assert precision_recall([False], 0) == [(0, 0)]


@pytest.mark.parametrize(
    ("score", "iou", "said"),
    [
        (0.5, 0.5, "3 shown, 2 right, 1 wrong, 0 missed; precision 0.67, recall 1.00"),
        (0.5, 0.8, "3 shown, 1 right, 2 wrong, 1 missed; precision 0.33, recall 0.50"),  # the second overlaps by 0.75
        (0.8, 0.5, "1 shown, 1 right, 0 wrong, 1 missed; precision 1.00, recall 0.50"),
        (0.95, 0.5, "0 shown, 0 right, 0 wrong, 2 missed; precision 1.00, recall 0.00"),
        (0.05, 0.5, "4 shown, 2 right, 2 wrong, 0 missed; precision 0.50, recall 1.00"),
    ],
)
def test_a_scene_is_counted(score: float, iou: float, said: str) -> None:
    assert score_scene(ScoreState(0, score, iou), OUTPUTS).alt.endswith(said + ".")


def test_an_empty_scene_has_a_picture_too() -> None:
    nothing = Outputs(
        [torch.rand(3, 64, 64)], [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}], [FOUND], "abcd"
    )
    assert "0 objects" in score_scene(ScoreState(), nothing).alt
    nothing = Outputs([torch.rand(3, 64, 64)], [TARGET], [detection([])], "abcd")
    assert "0 shown, 0 right, 0 wrong, 2 missed" in score_scene(ScoreState(), nothing).alt


@pytest.mark.parametrize("score", [0.1, 0.3, 0.6])
def test_right_and_missed_are_those_of_the_breakdown(score: float, generator: torch.Generator) -> None:
    scenes = SyntheticScenes(3, seed=5)
    targets = [scenes[index][1] for index in range(3)]
    found = []
    for target in targets:  # each object twice, moved, some under a wrong name
        labels = target["labels"].repeat(2)
        labels = torch.where(torch.rand(len(labels), generator=generator) < 0.2, labels % 4 + 1, labels)
        moved = target["boxes"].repeat(2, 1) + torch.randn(len(labels), 1, generator=generator) * 3
        found.append({"boxes": moved, "labels": labels, "scores": torch.rand(len(labels), generator=generator)})
    outputs = Outputs([scenes[index][0] for index in range(3)], targets, found, scenes.categories)
    results = [result for index in range(3) for result in to_results(found[index], index + 1, (1, 2, 3, 4))]
    counts = error_breakdown(results, as_coco(scenes), score_thresh=score).counts
    shown = [score_scene(ScoreState(index, score), outputs).alt for index in range(3)]
    right = sum(int(alt.split(" right")[0].split()[-1]) for alt in shown)
    missed = sum(int(alt.split(" missed")[0].split()[-1]) for alt in shown)
    assert (right, missed) == (counts["correct"], counts["missed"])


def test_the_score_explorer_s_controls_reach_its_picture() -> None:
    explorer = score_explorer(OUTPUTS)
    scene, score, iou = explorer.children[0].children
    score.value, iou.value = 0.8, 0.7
    assert (scene.max, explorer.state) == (0, ScoreState(0, 0.8, 0.7))
    assert "from a score of 0.80, a match from an IoU of 0.70" in explorer.canvas.scene["alt"]
    assert "scene 0" in explorer.canvas.images


# Pictures


def test_the_sample_scenes_are_those_of_the_course() -> None:
    scenes = lesson_00.sample_scenes()
    assert len(scenes) == 24
    assert scenes[0][0].shape == (3, SIDE, SIDE)


def test_an_image_stands_beside_what_was_found() -> None:
    figure = lesson_00.beside_truth_figure(OUTPUTS.images[0], TARGET, FOUND, OUTPUTS.categories, 0.7)
    assert [axes.get_title() for axes in figure.axes] == ["What is there", "What the model finds, scores from 0.7"]


def test_plots_carry_their_data_and_labels() -> None:
    shifts = torch.linspace(0, 40, 5)
    pixels, widths = lesson_00.shift_figure(shifts, {"16 px": shifts / 40, "160 px": shifts / 80}).axes
    assert [line.get_label() for line in pixels.lines[:2]] == ["16 px", "160 px"]
    assert widths.lines[0].get_xdata() == pytest.approx([0, 0.625, 1.25, 1.875, 2.5])
    left, right = lesson_00.precision_recall_figure([0, 0.5, 1], {"IoU 0.5": [1, 1, 0.4], "IoU 0.9": [0, 0, 0]}).axes
    assert [line.get_label() for line in left.lines] == ["IoU 0.5", "IoU 0.9"]
    assert [text.get_text() for text in right.texts] == ["80", "0"]
