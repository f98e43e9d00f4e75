import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import Rectangle

from rcnn_edu.explore import lesson_03
from rcnn_edu.explore.lesson_03 import (
    KINDS,
    OBJECTS,
    SIDE,
    AnchorState,
    anchor_explorer,
    anchor_scene,
    assign,
    load_scene,
    pyramid_anchors,
)
from rcnn_edu.explore.scene import XYXY, Box, Points, Text
from rcnn_edu.ops import assign_anchors_to_gt


@st.composite
def boxes(draw: st.DrawFn) -> XYXY:
    x = sorted(draw(st.lists(st.floats(0, SIDE - 1), min_size=2, max_size=2)))
    y = sorted(draw(st.lists(st.floats(0, SIDE - 1), min_size=2, max_size=2)))
    return x[0], y[0], x[1] + 1, y[1] + 1  # what the canvas lets through: within the picture, at least 1 px wide


@st.composite
def states(draw: st.DrawFn) -> AnchorState:
    steps = sorted(draw(st.lists(st.integers(0, 20), min_size=2, max_size=2)))
    thresholds = (steps[0] * 0.05, steps[1] * 0.05)  # as a slider has them: 0.15000000000000002
    return AnchorState(draw(boxes()), draw(boxes()), draw(boxes()), thresholds, draw(st.booleans()))


def texts(state: AnchorState) -> list[str]:
    return [item.text for panel in anchor_scene(state).panels for item in panel.items if isinstance(item, Text)]


def test_the_picture_s_boxes_are_those_of_its_objects() -> None:
    pixels, gt_boxes = load_scene()
    assert pixels.shape == (SIDE, SIDE, 3)
    assert gt_boxes == [getattr(AnchorState, name) for name in OBJECTS]


def test_the_pyramid_by_hand() -> None:
    anchors = pyramid_anchors()
    assert len(anchors) == 3 * (24**2 + 12**2 + 6**2)
    assert anchors[1].tolist() == [-16, -16, 16, 16]  # the first cell's square, centred on its top left corner
    assert anchors[3 * (24**2 + 12**2) + 5].tolist() == [32 - 45, -91, 32 + 45, 91]  # P5's second cell, upright


def test_an_anchor_s_own_size_is_not_enough() -> None:
    """Half a cell off both ways, a square of 64 px shares 56 × 56 px with an anchor: an IoU of 0.62."""
    exact = assign(AnchorState(a=(64.0, 64.0, 128.0, 128.0)))
    assert (exact.iou[:, 0].max().item(), exact.count("positive", 0)) == (1, 1)
    apart = assign(AnchorState(a=(72.0, 72.0, 136.0, 136.0)))
    assert apart.iou[:, 0].max().item() == pytest.approx(56**2 / (2 * 64**2 - 56**2))
    assert (apart.count("positive", 0), apart.count("rescued", 0)) == (0, 4)  # the four around it tie
    assert assign(replace(AnchorState(a=(72.0, 72.0, 136.0, 136.0)), keep_best=False)).count("rescued") == 0


def test_of_two_equal_objects_the_first_is_learnt() -> None:
    twins = assign(AnchorState(b=AnchorState.a))
    assert twins.count("rescued", 0) == 1
    assert twins.count("positive", 1) + twins.count("rescued", 1) == 0


def learners(state: AnchorState) -> list[int]:
    """How many anchors learn each object."""
    assigned = assign(state)
    return [assigned.count("positive", gt) + assigned.count("rescued", gt) for gt in range(len(OBJECTS))]


def test_what_the_lesson_s_answers_say() -> None:
    """The folded answers beside the explorer."""
    start = AnchorState()
    assert [round(value, 2) for value in assign(start).iou.amax(dim=0).tolist()] == [0.65, 0.73, 0.35]
    assert learners(replace(start, keep_best=False)) == [0, 1, 0]
    along = [assign(replace(start, a=(64.0 + d, 64.0, 128.0 + d, 128.0))).count("positive", 0) for d in range(17)]
    assert min(along) == 1
    assert assign(replace(start, a=(72.0, 64.0, 136.0, 128.0))).iou[:, 0].max().item() == pytest.approx(56 / 72)
    shrinking = [learners(replace(start, c=(57.0, 68.0, 57.0 + side, 68.0 + side)))[2] for side in (19, 12, 8)]
    assert shrinking == [4, 9, 15]
    assert learners(replace(start, thresholds=(0.5, 0.5))) == [9, 8, 4]
    assert assign(replace(start, thresholds=(0.5, 0.5))).count("ignored") == 0
    assert learners(replace(start, b=(28.0, 54.0, 108.0, 133.0)))[:2] == [1, 0]  # B 2 px beside A


@pytest.mark.parametrize(
    ("field", "box", "shapes"),
    [
        ("a", (20.0, 90.0, 172.0, 110.0), {(90, 46)}),
        ("a", (68.0, 72.0, 123.0, 127.0), {(64, 64)}),
        ("c", (57.0, 68.0, 65.0, 76.0), {(46, 22), (22, 46)}),
    ],
)
def test_which_anchors_the_lesson_s_answers_name(field: str, box: XYXY, shapes: set[tuple[int, int]]) -> None:
    fields: dict[str, Any] = {field: box}
    assigned = assign(replace(AnchorState(), **fields))
    learning = (assigned.kinds["positive"] | assigned.kinds["rescued"]) & (assigned.matched == OBJECTS.index(field))
    sizes = (pyramid_anchors()[:, 2:] - pyramid_anchors()[:, :2])[learning]
    assert {(int(width), int(height)) for width, height in sizes.tolist()} == shapes


@given(states())
def test_it_is_the_package_s_assignment(state: AnchorState) -> None:
    assigned = assign(replace(state, keep_best=True))
    gt_boxes = torch.tensor([getattr(state, name) for name in OBJECTS])
    low, high = (round(threshold, 2) for threshold in state.thresholds)
    labels, matched = assign_anchors_to_gt(pyramid_anchors(), gt_boxes, high, low)
    learning = assigned.kinds["positive"] | assigned.kinds["rescued"]
    assert torch.equal(learning, labels == 1)
    assert torch.equal(assigned.kinds["negative"], labels == 0)
    assert torch.equal(gt_boxes[assigned.matched][learning], matched[learning])


@given(states())
def test_every_state_that_can_be_reached_has_a_picture_and_every_anchor_one_dot(state: AnchorState) -> None:
    scene = anchor_scene(state)
    assert len(json.dumps(scene.to_dict(), allow_nan=False)) < 120_000
    assert scene == anchor_scene(state)
    dots = [item for panel in scene.panels[3:] for item in panel.items if isinstance(item, Points)]
    assert sum(len(item.xy) for item in dots) == len(pyramid_anchors())
    assert torch.stack(list(assign(state).kinds.values())).sum(dim=0).eq(1).all()


def test_the_picture_says_what_it_counts() -> None:
    state = AnchorState()
    assigned = assign(state)
    shown = texts(state)
    for kind in KINDS:
        assert str(assigned.count(kind)) in shown
        assert f"{assigned.count(kind)} {kind}" in anchor_scene(state).alt
    row = shown.index("C")
    assert shown[row : row + 5] == ["C", "19 × 19", "0.35", "0", "4"]
    assert "unlearnt" not in shown
    assert "unlearnt" in texts(replace(state, keep_best=False))


def test_the_anchors_that_learn_are_drawn_and_only_the_ground_truth_can_be_dragged() -> None:
    assigned = assign(AnchorState())
    drawn = [item for item in anchor_scene(AnchorState()).panels[0].items if isinstance(item, Box)]
    assert [box.handle for box in drawn if box.handle] == list(OBJECTS)
    for kind in ("positive", "rescued"):
        assert sum(box.color == KINDS[kind] for box in drawn) == assigned.count(kind)


def test_too_many_anchors_are_drawn_as_their_centres_alone() -> None:
    first, *_ = anchor_scene(AnchorState(thresholds=(0.0, 0.0))).panels  # every anchor is positive
    assert sum(isinstance(item, Box) for item in first.items) == len(OBJECTS)
    assert max(len(item.xy) for item in first.items if isinstance(item, Points)) == len(pyramid_anchors())


def test_explorer_controls_reach_the_picture() -> None:
    explorer = anchor_explorer()
    thresholds, keep_best = explorer.children[0].children
    thresholds.value = (0.2, 0.5)
    keep_best.value = False
    assert explorer.state == AnchorState(thresholds=(0.2, 0.5), keep_best=False)
    assert "Negative below 0.20, positive from 0.50, best-anchor rule off." in explorer.canvas.scene["alt"]
    assert "scene" in explorer.canvas.images


def test_explorer_presets_show_their_boxes() -> None:
    explorer = anchor_explorer()
    buttons = {button.description: button for button in explorer.children[1].children}
    buttons["A half a cell off"].click()
    assert "A 64 × 64 px: best IoU 0.62, 0 positive, 4 rescued" in explorer.canvas.scene["alt"]
    buttons["A exactly an anchor"].click()
    assert "A 64 × 64 px: best IoU 1.00, 1 positive, 0 rescued" in explorer.canvas.scene["alt"]
    buttons["A long and thin"].click()
    assert "A 152 × 20 px" in explorer.canvas.scene["alt"]
    explorer.set(keep_best=False, thresholds=(0.1, 0.2))
    buttons["the scene's objects"].click()
    assert explorer.state == AnchorState()


def test_windows_scene_has_a_panel_for_each_level_and_three_anchors_in_each() -> None:
    scene = lesson_03.windows_scene()
    assert [panel.title[:3] for panel in scene.panels] == ["P3:", "P4:", "P5:", ""]
    for panel, cells in zip(scene.panels, (24**2, 12**2, 6**2), strict=False):
        around = [item for item in panel.items if isinstance(item, Box) and item.color == "blue"]
        places = [item for item in panel.items if isinstance(item, Points)]
        assert len(around) == 3
        assert len(places[0].xy) == cells
        centres = [((box.xyxy[0] + box.xyxy[2]) / 2, (box.xyxy[1] + box.xyxy[3]) / 2) for box in around]
        assert set(centres) == set(places[1].xy)


def test_plots_carry_their_data_and_labels() -> None:
    sizes = torch.tensor([8.0, 32, 128])
    values = torch.tensor([[0.1, 0.2, 0.3], [0.6, 0.7, 0.8], [0.7, 0.8, 0.9]])
    middle, worst = lesson_03.best_iou_figure(sizes, {"1 : 1": values}).axes
    assert middle.lines[0].get_ydata() == pytest.approx([0.2, 0.7, 0.8])
    assert worst.lines[0].get_ydata() == pytest.approx([0.102, 0.602, 0.702])
    (axes,) = lesson_03.unlearnt_figure(["8–16", "16–32"], {"with": [0, 1], "without": [90, 40]}).axes
    assert [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)] == [0, 1, 90, 40]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8–16", "16–32"]


def test_boxes_of_whole_numbers_come_from_the_browser_as_ints() -> None:
    ints = assign(AnchorState(a=(40, 60, 110, 130), b=(100, 20, 140, 60), c=(70, 80, 90, 100)))
    floats = assign(
        AnchorState(a=(40.0, 60.0, 110.0, 130.0), b=(100.0, 20.0, 140.0, 60.0), c=(70.0, 80.0, 90.0, 100.0))
    )
    assert torch.equal(ints.iou, floats.iou)
