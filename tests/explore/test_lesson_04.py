import json
import math
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rcnn_edu.explore import lesson_04
from rcnn_edu.explore.lesson_04 import (
    ALL,
    HEADS,
    NETWORKS,
    NUM_SCENES,
    NUMBERS,
    PARTS,
    SIDE,
    SampleState,
    draw,
    everything,
    load_network,
    load_pixels,
    look,
    sample_explorer,
    sample_scene,
    shares,
    split_loss,
)
from rcnn_edu.explore.scene import Box, Points, Text
from rcnn_edu.models import BoxHead, RoISampler
from rcnn_edu.ops import box_head_loss, encode_boxes, rpn_loss

START = SampleState(scene=1)  # as the lesson shows it
BOX_HEAD = replace(START, head="box head", num_samples=64, pos_fraction=0.25)
STATES = st.builds(
    SampleState,
    st.sampled_from(HEADS),
    st.sampled_from(NETWORKS),
    st.sampled_from(NUMBERS),
    st.integers(0, 100).map(lambda percent: percent * 0.01),  # as a slider has them: 0.29 and 0.35000000000000003
    st.integers(0, 1),  # of the scenes: each has to be looked at first
    st.integers(0, 19),
)


def test_the_networks_are_the_same_each_time_and_leave_the_world_s_randomness_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_network.cache_clear()
    first = load_network("untrained").rpn.conv.weight.clone()
    load_network.cache_clear()
    assert torch.equal(load_network("untrained").rpn.conv.weight, first)
    assert torch.rand(1) == expected
    assert not torch.equal(load_network("trained").rpn.conv.weight, first)
    assert load_network("trained").training


def test_a_view_fits_together() -> None:
    view = look("trained", 1)
    assert load_pixels(1).shape == (SIDE, SIDE, 3)
    assert len(view.anchors) == len(view.labels) == len(view.gt_boxes) == 3 * (48**2 + 24**2 + 12**2 + 6**2)
    assert len(view.proposals) == 200  # as many as in training
    assert torch.equal(view.labels, look("untrained", 1).labels)  # the anchors' labels hang on no network


@pytest.mark.parametrize("head", HEADS)
def test_the_parts_are_the_package_s_loss(head: str) -> None:
    """All parts together, in loss and in gradient, are what the detector's own loss says of the same sample."""
    state = replace(START if head == "RPN" else BOX_HEAD, draw=3)
    model, view, generator = load_network("trained"), look("trained", 1), torch.Generator().manual_seed(3)
    if head == "RPN":
        losses = model.rpn.losses(view.features, view.anchors, [view.target], generator)
    else:
        sampler = RoISampler(num_samples=64, pos_fraction=0.25)
        sampled = sampler([view.proposals], [view.target], generator)
        box_head = cast(BoxHead, model.box_head)
        logits, deltas = box_head(view.features, sampled.rois)
        losses = dict(zip(("class", "box"), box_head.loss(logits, deltas, sampled), strict=True))
    class_loss, box_loss = (float(loss.detach()) for loss in losses.values())
    parts = draw(state).loss
    assert sum(parts.values()) - parts["box"] == pytest.approx(class_loss, rel=1e-4)
    assert parts["box"] == pytest.approx(box_loss, rel=1e-4)


def test_parts_and_pulls_by_hand() -> None:
    """Logits w · x + b: a positive and a hard negative at p = 1/2 (x = 0), an easy negative at 1/100 (x = -1)."""
    head = torch.nn.Linear(1, 1)
    with torch.no_grad():
        head.weight.fill_(math.log(99))
        head.bias.zero_()
    scores = head(torch.tensor([[0.0], [0.0], [-1.0]]))[:, 0]
    deltas = torch.zeros(3, 4) + 0 * head.bias  # within the graph, and 0
    labels, targets = torch.tensor([1, 0, 0]), torch.tensor([[1.0, 0, 0, 0]])
    sample = lesson_04.judge(rpn_loss, head, torch.zeros(3, 4), scores, deltas, labels, targets)
    assert sample.hard.tolist() == [False, True, False]
    log_2, log_easy = math.log(2) / 3, -math.log(0.99) / 3
    parts = {"positive": log_2, "box": (1 - 1 / 18) / 3, "hard": log_2, "easy": log_easy}
    assert sample.loss == pytest.approx(parts, abs=1e-6)
    pulls = {"positive": 0.5 / 3, "box": 0, "hard": 0.5 / 3, "easy": 0.01 / 3 * 2**0.5}  # |p - y| · |(x, 1)| / n
    assert sample.pull == pytest.approx(pulls, abs=1e-6)
    assert sample.counts() == {"positive": 1, "box": 0, "hard": 1, "easy": 1}


def test_an_object_s_chance_at_the_box_head_is_all_but_background() -> None:
    head = torch.nn.Linear(1, 1)
    nothing = 0 * head.weight.sum()  # brings a tensor into the graph
    logits, deltas = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]) + nothing, torch.zeros(2, 2, 4) + nothing
    labels, no_targets = torch.tensor([0, 0]), torch.zeros(0, 4)
    sample = lesson_04.judge(box_head_loss, head, torch.zeros(2, 4), logits, deltas, labels, no_targets)
    assert sample.hard.tolist() == [True, False]


def test_parts_of_nothing_are_zero() -> None:
    none = torch.zeros(0, requires_grad=True)
    parts = split_loss(rpn_loss, none, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), none > 0)
    assert {name: part.item() for name, part in parts.items()} == dict.fromkeys(("positive", "hard", "easy", "box"), 0)
    assert shares(dict.fromkeys(PARTS, 0.0)) == dict.fromkeys(PARTS, 0.0)


def test_the_same_draw_is_the_same_sample_and_another_is_not() -> None:
    first = draw(START)
    draw.cache_clear()
    assert torch.equal(draw(START).boxes, first.boxes)
    assert not torch.equal(draw(replace(START, draw=1)).boxes, first.boxes)


def test_what_the_lesson_s_answers_say_whatever_the_trained_weights() -> None:
    """The folded answers beside the explorer."""
    newborn = draw(everything(replace(START, network="untrained")))
    assert newborn.counts()["easy"] == 0
    count, loss = shares(newborn.counts()), shares(newborn.loss)
    assert loss["positive"] == pytest.approx(count["positive"], rel=0.2)
    labels = look("trained", 1).labels
    assert int((labels > 0).sum()) == 12  # at 256, a limit of 0.05 lets them all through, and 0.04 does not
    drawn = [draw(replace(START, pos_fraction=fraction)).counts()["positive"] for fraction in (1.0, 0.5, 0.05, 0.04, 0)]
    assert drawn == [12, 12, 12, 10, 0]
    assert draw(replace(START, pos_fraction=0.0)).loss["box"] == 0
    assert draw(replace(START, num_samples=8)).counts()["positive"] == 4


def test_what_the_lesson_s_answers_say_of_a_trained_network() -> None:
    """Of any that was decently trained."""
    pool, sample = draw(everything(START)), draw(START)
    assert shares(pool.counts())["hard"] < 0.1
    assert shares(pool.loss)["hard"] > 0.4
    assert shares(pool.pull)["hard"] > 0.4
    for amounts in (sample.loss, sample.pull):
        part = shares(amounts)
        assert part["positive"] + part["box"] > 0.5
    assert draw(BOX_HEAD).counts()["positive"] == 16
    assert draw(replace(BOX_HEAD, pos_fraction=0.5)).counts()["positive"] > 16


@settings(max_examples=25)
@given(STATES)
def test_every_state_that_can_be_reached_has_a_picture(state: SampleState) -> None:
    scene = sample_scene(state)
    assert len(json.dumps(scene.to_dict(), allow_nan=False)) < 120_000
    sample = draw(state)
    counts = sample.counts()
    assert sum(counts.values()) == len(sample.labels) <= state.num_samples
    assert counts["positive"] <= max(1e-6 + state.num_samples * state.pos_fraction, 0)
    for amounts in (counts, sample.loss, sample.pull):
        assert sum(shares(amounts).values()) == pytest.approx(1)
    assert (sample.labels[sample.hard] == 0).all()


def test_the_picture_says_what_it_counts() -> None:
    scene, sample = sample_scene(START), draw(START)
    counts = sample.counts()
    assert f"256 of 8977 drawn, {counts['positive']} positive, {counts['hard']} hard and" in scene.alt
    shown = [item.text for panel in scene.panels for item in panel.items if isinstance(item, Text)]
    for title, amounts in (("How many", counts), ("Loss", sample.loss), ("Gradient", sample.pull)):
        row = shown.index(title)
        values = [f"{100 * share:.1f}" for name, share in shares(amounts).items() if (title, name) != lesson_04.SKIP]
        place = shown.index("sample", row)
        assert shown[place + 1 : place + 1 + len(values)] == values
    assert f"box {sample.loss['box']:.3f}, divided by the 256 drawn" in shown[-6]


def test_bars_end_where_they_should_and_the_drawn_ones_are_marked() -> None:
    scene = sample_scene(BOX_HEAD)
    picture, bars, _ = scene.panels
    boxes = [item for item in bars.items if isinstance(item, Box)]
    ends = {round(box.xyxy[2], 3) for box in boxes}
    assert max(ends) == pytest.approx(lesson_04.BAR[1])
    outlines = [item for item in picture.items if isinstance(item, Box)]
    assert sum(box.color == "blue" for box in outlines) == draw(BOX_HEAD).counts()["positive"]
    assert sum(box.color == "green" for box in outlines) == len(look("trained", 1).target["boxes"])
    crowd = sample_scene(replace(BOX_HEAD, scene=3, num_samples=ALL, pos_fraction=1.0))
    if draw(replace(BOX_HEAD, scene=3, num_samples=ALL, pos_fraction=1.0)).counts()["positive"] > lesson_04.MOST_BOXES:
        assert not any(isinstance(item, Box) and item.color == "blue" for item in crowd.panels[0].items)


def test_explorer_controls_and_presets_reach_the_picture() -> None:
    explorer = sample_explorer(START)
    head, network, number, fraction, scene, seed = explorer.children[0].children
    head.value, network.value, number.value, fraction.value, scene.value, seed.value = (
        "box head",
        "untrained",
        16,
        0.5,
        4,
        2,
    )
    assert explorer.state == SampleState("box head", "untrained", 16, 0.5, 4, 2)
    assert explorer.canvas.scene["alt"].startswith("box head, untrained, scene 4: 16 of ")
    assert "scene 4" in explorer.canvas.images
    buttons = {button.description: button for button in explorer.children[1].children}
    buttons["RPN: 256 at 1/2"].click()
    assert (explorer.state.head, explorer.state.num_samples, explorer.state.pos_fraction) == ("RPN", 256, 0.5)
    buttons["box head: 64 at 1/4"].click()
    assert (explorer.state.head, explorer.state.num_samples, explorer.state.pos_fraction) == ("box head", 64, 0.25)
    buttons["draw all"].click()
    assert explorer.state.num_samples == ALL
    assert scene.max == NUM_SCENES - 1


def test_the_problem_as_a_picture_has_a_dot_for_each_labelled_anchor() -> None:
    drawn = torch.arange(9)
    scene = lesson_04.problem_scene(1, drawn)
    labels = look("trained", 1).labels
    for panel, count in zip(scene.panels[1:3], (int((labels >= 0).sum()), 9), strict=True):
        assert sum(len(item.xy) for item in panel.items if isinstance(item, Points)) == count
    assert "its 12 positive anchors" in scene.alt
    blue = [item for item in scene.panels[0].items if isinstance(item, Box) and item.color == "blue"]
    assert len(blue) == 12


def test_plots_carry_their_data_and_labels() -> None:
    figure = lesson_04.learning_figure({"all": {"object": [0.5, 0.1]}, "few": {"object": [0.5, 0.9]}})
    assert [np.asarray(axes.lines[0].get_ydata()).tolist() for axes in figure.axes] == [[0.5, 0.1], [0.5, 0.9]]
    (axes,) = lesson_04.shares_figure({"a": {"positive": 0.25, "hard": 0.75}, "b": {"positive": 1.0}}, "shares").axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert [bar.get_width() for bar in axes.containers[0]] == [25, 100]
    weights, part = lesson_04.normaliser_figure([4, 8], {"n": [0.1, 0.1]}, {"n": [40.0, 60.0]}).axes
    assert np.asarray(weights.collections[0].get_offsets()).tolist() == [[4, 0.1], [8, 0.1]]
    assert np.asarray(part.collections[0].get_offsets()).tolist() == [[4, 40], [8, 60]]


def test_the_deltas_to_learn_are_those_of_the_matched_objects() -> None:
    """Moved onto its object, a positive anchor has no box loss left."""
    view = look("trained", 1)
    positive = view.labels > 0
    targets = encode_boxes(view.gt_boxes[positive], view.anchors[positive], lesson_04.UNIT)
    ones = torch.ones(len(targets), dtype=torch.long)
    assert rpn_loss(torch.zeros(len(targets)), targets, ones, targets)[1] == 0
