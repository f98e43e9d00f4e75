import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rcnn_edu.datasets import SyntheticScenes
from rcnn_edu.explore import lesson_06
from rcnn_edu.explore.lesson_06 import (
    CHAINS,
    QUALITIES,
    WANTED,
    ProposalState,
    RegressorState,
    ThresholdState,
    Trace,
    proposal_explorer,
    proposal_scene,
    regressor_explorer,
    regressor_scene,
    stages_of,
    threshold_explorer,
    threshold_scene,
)
from rcnn_edu.explore.scene import XYXY, Box, Points, Scene, Text
from rcnn_edu.models import CascadeRCNN, tiny_cascade_rcnn
from rcnn_edu.ops import box_iou

SIDE = 192
GT = torch.tensor([[20.0, 20, 60, 60], [100, 100, 120, 110]])


@pytest.fixture(scope="module")
def model() -> CascadeRCNN:
    """A cascade that has learnt nothing: what is tested here does not depend on what a model has learnt."""
    torch.manual_seed(0)
    return tiny_cascade_rcnn().eval()


@pytest.fixture(scope="module")
def traces(model: CascadeRCNN) -> list[Trace]:
    scenes = SyntheticScenes(3, seed=6)
    return [lesson_06.trace(model, *scenes[index]) for index in range(len(scenes))]


def by_hand(*stages: list[list[float]]) -> Trace:
    """Return a trace whose boxes are given: before stages 1, 2, 3, and after the last."""
    boxes = [torch.tensor(stage, dtype=torch.float32) for stage in stages]
    target = {"boxes": GT, "labels": torch.tensor([1, 3])}
    probabilities = [torch.full((len(boxes[0]), 5), 0.2)] * 3
    return Trace(torch.zeros(3, SIDE, SIDE), target, [], (SIDE, SIDE), boxes, probabilities)


IMPROVING = by_hand(
    [[20, 20, 60, 40], [20, 20, 60, 44], [150, 150, 160, 160]],  # IoU 0.5, 0.6, 0
    [[20, 20, 60, 48], [20, 20, 60, 50], [150, 150, 160, 160]],  # 0.7, 0.75, 0
    [[20, 20, 60, 58], [20, 20, 60, 60], [100, 100, 120, 109]],  # 0.95, 1, 0.9
    [[20, 20, 60, 60], [20, 20, 60, 60], [100, 100, 120, 110]],
)


def texts(scene: Scene) -> list[str]:
    return [item.text for panel in scene.panels for item in panel.items if isinstance(item, Text)]


def boxes_of(scene: Scene, panel: int, color: str) -> list[XYXY]:
    return [item.xyxy for item in scene.panels[panel].items if isinstance(item, Box) and item.color == color]


# The stages


def test_the_trace_is_what_the_cascade_predicts(model: CascadeRCNN, traces: list[Trace]) -> None:
    for seen in traces:
        with torch.no_grad():
            [(boxes, probabilities)] = model.box_head.predict(seen.features, seen.boxes[:1], [seen.size])
        assert len(seen.boxes) == 4
        assert torch.equal(seen.boxes[3], boxes[:, 0])
        torch.testing.assert_close(torch.stack(seen.probabilities).mean(dim=0), probabilities)


def test_a_stage_may_come_again(model: CascadeRCNN, traces: list[Trace]) -> None:
    head = stages_of(model)[0]
    start = traces[0].boxes[0]
    boxes, probabilities = lesson_06.run_stages([head, head], traces[0].features, start, traces[0].size)
    once, _ = lesson_06.run_stages([head], traces[0].features, boxes[1], traces[0].size)
    assert torch.equal(boxes[0], start)
    assert torch.equal(boxes[2], once[1])
    assert len(probabilities) == 2


def test_ious_by_hand() -> None:
    torch.testing.assert_close(IMPROVING.iou(1), torch.tensor([0.5, 0.6, 0]))
    torch.testing.assert_close(lesson_06.all_ious([IMPROVING, IMPROVING], 4), torch.ones(6))
    assert lesson_06.best_iou(GT, GT[:0]).tolist() == [0, 0]


def test_positives_by_hand() -> None:
    found = lesson_06.count_positives([IMPROVING], 1, 0.5)
    assert (found.count, found.total, found.filled) == (2, 3, 0)
    assert found.share == pytest.approx(200 / 3)
    assert found.mean_iou == pytest.approx(0.55)
    assert math.isnan(lesson_06.count_positives([IMPROVING], 1, 0.9).mean_iou)
    many = by_hand(*[[[20.0, 20, 60, 60]] * WANTED] * 4)
    assert lesson_06.count_positives([IMPROVING, many], 1, 0.9).filled == 1


def test_target_deltas_by_hand() -> None:
    """A box as wide as its object and half as high: dy is half of *its* height, dh the logarithm of 2."""
    expected = torch.tensor([[0, 0.5, 0, math.log(2)], [0, 8 / 24, 0, math.log(40 / 24)]])
    torch.testing.assert_close(lesson_06.target_deltas([IMPROVING], 1, 0.5), expected)
    assert lesson_06.target_deltas([IMPROVING], 3, 0.5).shape == (3, 4)


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_boxes_of_an_iou_have_it(iou: float) -> None:
    aside, around = lesson_06.boxes_of_iou(GT[1], iou)
    torch.testing.assert_close(box_iou(torch.stack([aside, around]), GT[1:])[:, 0], torch.full((2,), iou))
    torch.testing.assert_close(aside[2:] - aside[:2], GT[1, 2:] - GT[1, :2])


def test_quality_scene_shows_one_object_at_each_iou() -> None:
    scene = lesson_06.quality_scene(IMPROVING.image, IMPROVING.target, 1)
    assert [panel.title for panel in scene.panels] == ["IoU 0.5", "IoU 0.7", "IoU 0.9", ""]
    for place in range(3):
        assert boxes_of(scene, place, "green") == [(100, 100, 120, 110)]
        x1, y1, x2, y2 = scene.panels[place].view
        assert x2 - x1 == pytest.approx(y2 - y1)
        assert min(x1, y1) >= 0
        assert max(x2, y2) <= SIDE


# The proposal to drag


@st.composite
def boxes(draw: st.DrawFn) -> XYXY:
    x = sorted(draw(st.lists(st.floats(0, SIDE - 1), min_size=2, max_size=2)))
    y = sorted(draw(st.lists(st.floats(0, SIDE - 1), min_size=2, max_size=2)))
    return x[0], y[0], x[1] + 1, y[1] + 1  # what the canvas lets through: within the picture, at least 1 px wide


@settings(max_examples=25)
@given(proposal=boxes(), chain=st.sampled_from(CHAINS[:2]))
def test_every_proposal_has_a_picture(model: CascadeRCNN, traces: list[Trace], proposal: XYXY, chain: str) -> None:
    picture = partial(proposal_scene, heads=stages_of(model), seen=traces[0])
    scene = picture(ProposalState(proposal, chain))
    assert len(json.dumps(scene.to_dict(), allow_nan=False)) < 60_000
    assert scene.to_dict() == picture(ProposalState(proposal, chain)).to_dict()
    handles = [item for panel in scene.panels for item in panel.items if isinstance(item, Box) and item.handle]
    assert [(box.handle, box.xyxy) for box in handles] == [("proposal", proposal)]


def test_a_proposal_goes_through_the_stages(model: CascadeRCNN, traces: list[Trace]) -> None:
    heads, seen = stages_of(model), traces[0]
    proposal = tuple(round(value, 1) for value in seen.boxes[0][5].tolist())
    refined = lesson_06.refine_proposal(heads, seen, (proposal[0], proposal[1], proposal[2], proposal[3]))
    torch.testing.assert_close(
        refined.boxes[CHAINS[0]], torch.stack([stage[5] for stage in seen.boxes]), atol=0.5, rtol=0
    )
    torch.testing.assert_close(refined.boxes[CHAINS[1]][1], refined.boxes[CHAINS[0]][1])  # both begin with stage 1
    assert refined.probabilities.shape == (3, 5)
    shown = box_iou(refined.boxes[CHAINS[0]], seen.target["boxes"][[refined.target]])[:, 0]
    assert refined.iou[CHAINS[0]] == pytest.approx(shown.tolist())


def test_the_proposal_picture_says_what_it_shows(model: CascadeRCNN, traces: list[Trace]) -> None:
    heads, seen = stages_of(model), traces[0]
    state = ProposalState((40.0, 70.0, 130.0, 180.0))
    refined = lesson_06.refine_proposal(heads, seen, state.proposal)
    scene = proposal_scene(state, heads, seen)
    cascade = refined.iou[CHAINS[0]]
    assert scene.alt.startswith(f"The proposal overlaps the flower by {cascade[0]:.2f}. the cascade: {cascade[1]:.2f}")
    assert scene.alt.endswith("Shown: the cascade.")
    assert f"{cascade[0]:.2f}  →  {cascade[3]:.2f}" in texts(scene)
    for chain in CHAINS[:2]:
        drawn = proposal_scene(replace(state, chain=chain), heads, seen)
        last = boxes_of(drawn, 0, "pink")
        assert last == [pytest.approx(tuple(refined.boxes[chain][3].tolist()))]
    rows = refined.probabilities.tolist()
    assert sum(text == f"{rows[0][0]:.2f}" for text in texts(scene)) >= 1


def test_proposal_explorer_begins_with_bad_boxes_of_the_object(model: CascadeRCNN) -> None:
    image, target = SyntheticScenes(1, seed=6)[0]
    explorer = proposal_explorer(model, image, target)
    assert "The proposal overlaps the flower by 0.50." in explorer.canvas.scene["alt"]
    buttons = {button.description: button for button in explorer.children[1].children}
    for name, iou in (("the object itself", "1.00"), ("nearly right", "0.90"), ("a corner only", "0.36")):
        buttons[name].click()
        assert f"The proposal overlaps the flower by {iou}." in explorer.canvas.scene["alt"]
    chain, field = explorer.children[0].children
    chain.value = CHAINS[1]
    assert explorer.canvas.scene["alt"].endswith("Shown: stage 1 again and again.")
    field.value = (130.0, 35.0, 160.0, 65.0)
    assert explorer.state == ProposalState((130.0, 35.0, 160.0, 65.0), CHAINS[1])
    assert "The proposal overlaps the gear" in explorer.canvas.scene["alt"]


# The threshold


@pytest.mark.parametrize("step", range(14))
def test_every_threshold_has_a_picture(traces: list[Trace], step: int) -> None:
    state = ThresholdState(0.3 + step * 0.05, step % 3)  # as a slider has them: 0.44999999999999996
    scene = threshold_scene(state, [*traces, IMPROVING])
    assert len(json.dumps(scene.to_dict(), allow_nan=False)) < 200_000
    assert scene.alt.startswith(f"Positive from an IoU of {state.u:.2f}: before stage 1 ")


def test_the_threshold_picture_counts_by_hand() -> None:
    scene = threshold_scene(ThresholdState(0.6), [IMPROVING])
    assert scene.alt == (
        "Positive from an IoU of 0.60: before stage 1 1 of 3, 33.3 %; before stage 2 2 of 3, 66.7 %; "
        "before stage 3 3 of 3, 100.0 %."
    )
    titles = [panel.title for panel in scene.panels[::3]]  # the pictures
    assert titles == [f"Before stage {stage}: {stage} of 3 positive" for stage in (1, 2, 3)]
    assert [len(boxes_of(scene, 3 * place, color)) for place, color in enumerate(lesson_06.COLORS)] == [1, 2, 3]
    bars = [len(boxes_of(scene, 1 + 3 * place, color)) for place, color in enumerate(lesson_06.COLORS)]
    assert bars == [1, 2, 2]  # 0.95 and 1 share the last one
    assert len(boxes_of(scene, 1, "muted")) == 1  # the box of IoU 0.5; that of 0 is not drawn
    assert "none" in texts(threshold_scene(ThresholdState(0.95), [IMPROVING]))


def test_threshold_explorer_controls_reach_the_picture(traces: list[Trace]) -> None:
    explorer = threshold_explorer(traces, shown=2)
    u, image = explorer.children[0].children
    assert list(image.options) == [0, 1]
    u.value = 0.7
    image.value = 1
    assert explorer.state == ThresholdState(0.7, 1)
    assert explorer.canvas.scene["alt"].startswith("Positive from an IoU of 0.70")
    assert set(explorer.canvas.images) == {"picture 0", "picture 1"}


# The regressors


def test_disturbed_boxes_are_of_all_qualities_and_their_own_object_s() -> None:
    generator = torch.Generator().manual_seed(0)
    disturbed, owner = lesson_06.jitter(GT, 400, (SIDE, SIDE), generator)
    iou = box_iou(disturbed, GT)
    assert torch.equal(iou.argmax(dim=1), owner)
    own = iou.amax(dim=1)
    assert all(int(lesson_06.in_bin(own, low).sum()) > 5 for low in QUALITIES)
    assert disturbed.min() >= 0
    assert disturbed.max() <= SIDE


def test_qualities_do_not_overlap_and_leave_nothing_out() -> None:
    before = torch.linspace(0.3, 0.9999, 200)
    chosen = torch.stack([lesson_06.in_bin(before, low) for low in QUALITIES])
    assert chosen.sum(dim=0).eq(1).all()


def test_regression_agrees_with_the_stages(model: CascadeRCNN, traces: list[Trace]) -> None:
    data = lesson_06.regress(model, traces, copies=4)
    assert set(data.after) == set(CHAINS)
    assert all(values.shape == (3, len(data.before)) for values in data.after.values())
    first = [values[0] for values in data.after.values()]
    assert torch.equal(first[0], first[1])  # every chain begins with stage 1
    assert torch.equal(first[0], first[2])
    torch.testing.assert_close(lesson_06.regress(model, traces, copies=4).after[CHAINS[0]], data.after[CHAINS[0]])


def made_up(gain: float = 0.1) -> lesson_06.Regression:
    """Return boxes of every quality, of which each stage improves every one by as much."""
    before = torch.linspace(0.3, 0.99, 700)
    after: Tensor = (before + gain * torch.tensor([[1.0], [2], [-1]])).clamp(0, 1)
    return lesson_06.Regression(before, dict.fromkeys(CHAINS, after))


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("step", range(14))
def test_every_regressor_state_has_a_picture(chain: str, step: int) -> None:
    scene = regressor_scene(RegressorState(chain, 0.3 + step * 0.05), made_up())
    assert len(json.dumps(scene.to_dict(), allow_nan=False)) < 60_000
    words = lesson_06.WORDS[chain]
    assert all(word in texts(scene) and word in scene.alt for word in words)


def test_the_regressor_picture_says_gains() -> None:
    scene = regressor_scene(RegressorState(CHAINS[2], 0.5), made_up())
    shown = texts(scene)
    assert [text for text in shown if text.endswith("points")] == ["+10.0 points", "+20.0 points", "−10.0 points"]
    assert [text for text in shown if text.endswith("got worse")] == [
        "0 % got worse",
        "0 % got worse",
        "100 % got worse",
    ]
    assert "on average 0.525: stage 1 alone 0.625" in scene.alt
    dots = [item for item in scene.panels[0].items if isinstance(item, Points)]
    assert [len(item.xy) for item in dots] == [len(QUALITIES)] * 3


def test_without_boxes_of_a_quality_the_picture_says_so() -> None:
    data = made_up()
    few = lesson_06.Regression(data.before[300:], {name: values[:, 300:] for name, values in data.after.items()})
    scene = regressor_scene(RegressorState(iou=0.3), few)
    json.dumps(scene.to_dict(), allow_nan=False)
    assert scene.alt == "0 boxes that came in with an IoU from 0.30 to 0.35."
    assert len(scene.panels) == 1


def test_regressor_explorer_controls_reach_the_picture() -> None:
    explorer = regressor_explorer(made_up())
    chain, iou = explorer.children[0].children
    chain.value = CHAINS[0]
    iou.value = 0.9
    assert explorer.state == RegressorState(CHAINS[0], 0.9)
    assert "with an IoU from 0.90 to 0.95" in explorer.canvas.scene["alt"]
    assert "after stage 3" in explorer.canvas.scene["alt"]


# Plots


def test_plots_carry_their_data_and_labels() -> None:
    deltas = [torch.randn(20, 4) / stage for stage in (1, 2, 3)]
    place, size = lesson_06.delta_figure(deltas).axes
    assert len(place.collections) == len(size.collections) == 3
    assert (place.get_xlabel(), size.get_ylabel()) == ("dx", "dh")
    ious = [torch.tensor([0.4, 0.6]), torch.tensor([0.6, 0.8])]
    left, right = lesson_06.share_figure({"one": ious, "two": ious}).axes
    shares = np.asarray(left.lines[0].get_ydata())
    assert (shares[0], shares[-1]) == (100, 0)
    assert [line.get_label() for line in left.lines] == ["the proposals", "after 1"]
    assert left.get_ylim() == right.get_ylim()
