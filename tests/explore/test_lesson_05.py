import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rcnn_edu.datasets.scenes import CATEGORIES
from rcnn_edu.explore import lesson_05
from rcnn_edu.explore.lesson_05 import (
    SCENES,
    SIDE,
    STEPS,
    MaskState,
    PipelineState,
    Trace,
    answer,
    detector,
    found_objects,
    load_scene,
    mask_explorer,
    mask_iou,
    mask_scene,
    outline,
    pipeline_explorer,
    pipeline_scene,
    round_trip,
    trace,
)
from rcnn_edu.explore.scene import XYXY, Box, Cells, Image, Lines, Scene, Text
from rcnn_edu.models.presets import paste_as_torchvision


def square(x1: int, y1: int, x2: int, y2: int) -> torch.Tensor:
    mask = torch.zeros(12, 16, dtype=torch.bool)
    mask[y1:y2, x1:x2] = True
    return mask


def texts(scene: Scene) -> list[str]:
    return [item.text for panel in scene.panels for item in panel.items if isinstance(item, Text)]


# The forward pass


@pytest.fixture(scope="module")
def traced() -> Trace:
    return trace(detector(), load_scene(SCENES[0])[0])


def test_a_trace_ends_where_the_model_does(traced: Trace) -> None:
    with torch.no_grad():
        (found,) = detector()([load_scene(SCENES[0])[0]])
    for name in ("boxes", "labels", "scores"):
        assert torch.equal(traced.detections[name], found[name])
    assert torch.equal(traced.masks, found["masks"][:, 0])


def test_a_trace_has_every_step_between(traced: Trace) -> None:
    assert [tuple(level.shape[1:]) for level in traced.features] == [(64, side, side) for side in (48, 24, 12, 6)]
    assert [tuple(level.shape) for level in traced.objectness] == [(3, side, side) for side in (48, 24, 12, 6)]
    assert len(traced.anchors) == 3 * (48**2 + 24**2 + 12**2 + 6**2)
    assert len(traced.candidates) > len(traced.proposals) > 0
    kept = (traced.candidates[:, None] == traced.proposals).all(dim=2).any(dim=0)
    assert kept.all()  # what NMS leaves is among what came
    assert traced.probabilities.sum(dim=1) == pytest.approx(torch.ones(len(traced.proposals)))
    labels, scores = traced.detections["labels"], traced.detections["scores"]
    assert torch.equal(traced.probabilities[traced.source, labels], scores)
    assert torch.equal(traced.boxes[traced.source, labels - 1], traced.detections["boxes"])
    assert traced.mask_logits.shape == (len(labels), 4, 28, 28)


def test_the_anchors_come_best_first(traced: Trace) -> None:
    best = max(float(level.max()) for level in traced.objectness)
    for level, (objectness, size) in enumerate(zip(traced.objectness, (16, 32, 64, 128), strict=True)):
        if float(objectness.max()) == best:
            x1, y1, x2, y2 = traced.anchors[0].tolist()
            assert (x2 - x1) * (y2 - y1) == pytest.approx(size**2, rel=0.1), level


def test_an_image_that_would_be_resized_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be of the size that the model works at, \(192, 192\); got"):
        trace(detector(), torch.rand(3, 100, 100))


def test_an_object_is_found_once_and_by_a_sure_detection(traced: Trace) -> None:
    target = {"boxes": torch.tensor([[0.0, 0, 10, 10], [50, 50, 90, 90]]), "labels": torch.tensor([1, 2])}
    detections = {
        "boxes": torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 90, 85], [50, 50, 90, 90]]),
        "labels": torch.tensor([1, 1, 2, 1]),
        "scores": torch.tensor([0.9, 0.8, 0.4, 0.7]),
    }
    which, gt = found_objects(replace(traced, detections=detections), target)
    assert (which.tolist(), gt.tolist()) == ([0], [0])  # a second box, an unsure one, and one of the wrong class


# Masks


def test_mask_iou_by_hand() -> None:
    one = torch.stack([square(0, 0, 4, 4), square(8, 8, 12, 12)])
    other = torch.stack([square(2, 0, 6, 4), square(0, 0, 2, 2), square(0, 0, 0, 0)])
    torch.testing.assert_close(mask_iou(one, other), torch.tensor([[8 / 24, 4 / 16, 0], [0, 0, 0]]))


def test_borders_alone_by_hand() -> None:
    """Of 6 × 6 pixels 20 lie on the edge; moved by one to the right, 5 + 5 of them do not meet 5 + 5 others."""
    one, other = square(2, 2, 8, 8)[None], square(3, 2, 9, 8)[None]
    assert mask_iou(one, one, width=1).item() == 1
    assert mask_iou(one, other, width=1).item() == pytest.approx(10 / 30)
    assert mask_iou(one, other, width=9).item() == mask_iou(one, other).item()  # as wide as the mask is


def test_a_border_runs_along_the_image_s_side_too() -> None:
    whole = torch.ones(1, 12, 16, dtype=torch.bool)
    inner = torch.zeros(1, 12, 16, dtype=torch.bool)
    inner[:, 1:-1, 1:-1] = True
    assert mask_iou(whole, ~inner, width=1).item() == 1


def test_outline_by_hand() -> None:
    assert sorted(outline(square(3, 2, 6, 8))) == [(3, 2, 3, 8), (3, 2, 6, 2), (3, 8, 6, 8), (6, 2, 6, 8)]
    assert outline(square(0, 0, 0, 0)) == []
    assert sorted(outline(square(0, 0, 16, 12)))[0] == (0, 0, 0, 12)


@given(st.lists(st.booleans(), min_size=30, max_size=30))
def test_an_outline_is_every_side_between_in_and_out(pixels: list[bool]) -> None:
    mask = torch.tensor(pixels).view(5, 6)
    inside = np.pad(mask.numpy(), 1).astype(int)
    sides = np.abs(np.diff(inside, axis=0)).sum() + np.abs(np.diff(inside, axis=1)).sum()
    assert sum(abs(x2 - x1) + abs(y2 - y1) for x1, y1, x2, y2 in outline(mask)) == sides


def test_a_fine_mask_comes_back_whole_and_a_coarse_one_does_not() -> None:
    _, target = load_scene(SCENES[0])
    back = round_trip(target["masks"], target["boxes"], 112)
    assert mask_iou(back, target["masks"]).diagonal().min() > 0.995
    coarse = mask_iou(round_trip(target["masks"], target["boxes"], 7), target["masks"]).diagonal()
    assert coarse.max() < 0.98
    legacy = round_trip(target["masks"], target["boxes"], 112, paste_as_torchvision)
    assert mask_iou(legacy, target["masks"]).diagonal().min() < 0.9


# Step by step


@pytest.mark.parametrize("number", SCENES)
@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_every_step_of_every_scene_has_a_picture(number: int, step: int) -> None:
    state = PipelineState(scene=number, step=step, mask_thresh=0.3)
    scene = pipeline_scene(state)
    assert len(json.dumps(scene.to_dict(), allow_nan=False)) < 250_000
    assert scene.alt.startswith(f"Scene {number}, step {step}, {STEPS[step - 1]}: ")
    assert scene.to_dict() == pipeline_scene(state).to_dict()
    (here,) = [item for item in scene.panels[0].items if isinstance(item, Text) and item.bold]
    assert here.text == f"{step} {STEPS[step - 1]}"
    assert all(len(panel.items) >= 1 for panel in scene.panels)


def test_a_picture_of_a_name_has_always_the_same_pixels() -> None:
    """The canvas sends a picture once: what the threshold changes must not be one."""
    seen: dict[str, Any] = {}
    for number in SCENES:
        for step in range(1, len(STEPS) + 1):
            for threshold in (0.2, 0.8):
                for image in pipeline_scene(PipelineState(number, step, threshold)).images():
                    assert np.array_equal(seen.setdefault(image.name, image.pixels), image.pixels)
    assert len(seen) == len(SCENES) * (1 + 4 + 4 + 1)


def test_the_strip_counts_what_there_is(traced: Trace) -> None:
    shown = texts(pipeline_scene(PipelineState()))
    assert "9,180 anchors" in shown
    assert f"{len(traced.candidates):,} → {len(traced.proposals)}" in shown
    assert f"{len(traced.masks)} in the image" in shown


def test_the_chosen_mask_is_framed(traced: Trace) -> None:
    scene = pipeline_scene(PipelineState(step=5))
    framed = [panel for panel in scene.panels[1:] if any(isinstance(item, Box) for item in panel.items)]
    masks = [panel for panel in framed if any(isinstance(item, Cells) for item in panel.items)]
    sure = int((traced.detections["scores"] >= 0.5).sum())
    assert len(masks) == min(sure, lesson_05.MOST_SHOWN)


def test_a_lower_threshold_has_more_pixels() -> None:
    def pixels(threshold: float) -> int:
        table = pipeline_scene(PipelineState(step=6, mask_thresh=threshold)).panels[4]
        values = [item.text for item in table.items if isinstance(item, Text)]
        return int(values[6].replace(",", ""))  # the first row: name, score, pixels

    assert pixels(0.05) > pixels(0.5) > pixels(0.95)


def test_pipeline_controls_reach_the_picture() -> None:
    explorer = pipeline_explorer(PipelineState(step=5))
    step, scene, threshold = explorer.children[0].children
    step.value = 6
    scene.value = SCENES[1]
    threshold.value = 0.3
    assert explorer.state == PipelineState(scene=SCENES[1], step=6, mask_thresh=0.3)
    assert "cut at 0.30" in explorer.canvas.scene["alt"]


# One RoI, by hand


@st.composite
def boxes(draw: st.DrawFn) -> XYXY:
    x = sorted(draw(st.lists(st.floats(0, SIDE - 1), min_size=2, max_size=2)))
    y = sorted(draw(st.lists(st.floats(0, SIDE - 1), min_size=2, max_size=2)))
    return x[0], y[0], x[1] + 1, y[1] + 1  # what the canvas lets through: within the picture, at least 1 px wide


# The fields and not the state: checking its types draws random numbers, which Hypothesis wants to draw itself.
FIELDS = st.fixed_dictionaries(
    {
        "roi": boxes(),
        "scene": st.sampled_from(SCENES),
        "mask_of": st.sampled_from([MaskState.mask_of, *CATEGORIES]),
        "mask_thresh": st.sampled_from([0.05, 0.5, 0.95]),
        "refine": st.booleans(),
    }
)


@settings(max_examples=20)
@given(FIELDS)
def test_every_roi_has_a_picture(fields: dict[str, Any]) -> None:
    scene = mask_scene(MaskState(**fields))
    assert len(json.dumps(scene.to_dict(), allow_nan=False)) < 150_000
    handles = [item.handle for panel in scene.panels for item in panel.items if isinstance(item, Box) and item.handle]
    assert handles == ["roi"]
    assert {image.name for image in scene.images()} == {f"scene {fields['scene']}"}


def test_the_heads_answers_are_the_model_s(traced: Trace) -> None:
    """A proposal dragged by hand gives the detection that the model makes of it."""
    best = int(traced.source[0])
    x1, y1, x2, y2 = traced.proposals[best].tolist()
    found = answer(MaskState(roi=(x1, y1, x2, y2)))
    assert found.label == traced.detections["labels"][0]
    torch.testing.assert_close(found.probabilities, traced.probabilities[best], rtol=0, atol=1e-4)
    torch.testing.assert_close(found.final_box, traced.detections["boxes"][0], rtol=0, atol=1e-2)
    torch.testing.assert_close(found.masks, traced.mask_logits[0].sigmoid(), rtol=0, atol=1e-2)
    torch.testing.assert_close(found.pasted, traced.masks[0], rtol=0, atol=1e-2)


def test_whose_mask_is_pasted_is_the_learner_s_choice() -> None:
    own = answer(MaskState(refine=False))
    for channel, name in enumerate(CATEGORIES):
        other = answer(MaskState(refine=False, mask_of=name))
        assert other.label == channel + 1
        assert torch.equal(other.masks, own.masks)  # the branches do not know of each other
        assert torch.equal(other.probabilities, own.probabilities)


def test_without_refinement_the_mask_stays_in_the_box_that_was_dragged() -> None:
    state = MaskState(roi=(40.0, 30.0, 73.0, 92.0), refine=False, mask_thresh=0.5)
    found = answer(state)
    assert found.final_box.tolist() == list(state.roi)
    y, x = (found.pasted >= state.mask_thresh).nonzero(as_tuple=True)
    assert x.min() >= 40
    assert x.max() < 73
    assert y.min() >= 30
    assert y.max() < 92
    drawn = [item for item in mask_scene(state).panels[0].items if isinstance(item, Box)]
    assert [box.handle for box in drawn] == ["roi"]  # no second box


def test_large_boxes_are_read_from_coarser_levels() -> None:
    levels = [answer(MaskState(roi=(0.0, 0.0, side, side), refine=False)).level for side in (20.0, 110.0, 114.0, 190.0)]
    assert levels == [2, 2, 3, 3]


def test_the_picture_says_what_the_heads_say() -> None:
    state = MaskState()
    found, scene = answer(state), mask_scene(state)
    best = int(found.probabilities.argmax())
    name = ("background", *CATEGORIES)[best]
    assert f"The box head: {name} {found.probabilities[best]:.2f}." in scene.alt
    assert f"IoU {found.iou.max():.2f}" in scene.alt
    assert f"{found.probabilities[best]:.2f}" in texts(scene)


def test_mask_controls_and_presets_reach_the_picture() -> None:
    explorer = mask_explorer()
    scene, mask_of, threshold, refine = explorer.children[0].children
    mask_of.value = "leaf"
    threshold.value = 0.3
    refine.value = False
    scene.value = SCENES[1]
    assert explorer.state == MaskState(scene=SCENES[1], mask_of="leaf", mask_thresh=0.3, refine=False)
    assert "The mask of leaf in the box [40.0, 30.0, 106.0, 92.0]" in explorer.canvas.scene["alt"]
    for button in explorer.children[1].children:
        button.click()
        assert f"Scene {SCENES[0]}, RoI [" in explorer.canvas.scene["alt"]
    assert explorer.state.roi == (100.0, 110.0, 170.0, 180.0)  # the last one's, "nothing"


def test_nothing_is_nothing() -> None:
    """The preset lies on no object."""
    _, target = load_scene(SCENES[0])
    assert not target["masks"][:, 110:180, 100:170].any()


# The pictures


def panels(scene: Scene) -> Iterator[str]:
    yield from (panel.title for panel in scene.panels)


def test_instances_scene_shows_the_three_tasks() -> None:
    image, target = load_scene(8)
    scene = lesson_05.instances_scene(image, target)
    assert [title.split(":")[0] for title in panels(scene)] == ["Detection", "Semantic", "Instances"]
    detection, semantic, instances = scene.panels
    assert sum(isinstance(item, Box) for item in detection.items) == len(target["labels"])
    assert sum(isinstance(item, Lines) for item in semantic.items) == 1  # one outline around all
    assert sum(isinstance(item, Lines) for item in instances.items) == len(target["labels"])
    pixels = [item.pixels for panel in (semantic, instances) for item in panel.items if isinstance(item, Image)]
    gears = target["masks"][:2].bool().numpy()
    means = [[picture[gear].mean(axis=0) for gear in gears] for picture in pixels]
    assert np.abs(means[0][0] - means[0][1]).max() < 40  # two gears: one class, one colour
    assert np.abs(means[1][0] - means[1][1]).max() > 80  # two objects, two colours


def test_resolution_scene_says_the_iou_it_draws() -> None:
    _, target = load_scene(8)
    scene = lesson_05.resolution_scene(target["masks"][0].bool(), target["boxes"][0], (7, 28))
    assert next(panels(scene)) == "7 × 7 cells"
    back = round_trip(target["masks"][:1], target["boxes"][:1], 28)
    iou = mask_iou(back, target["masks"][:1].bool()).item()
    assert list(panels(scene))[3] == f"pasted: IoU {iou:.3f}"
    assert f"{iou:.3f} at 28 × 28" in scene.alt


def test_plots_carry_their_data_and_labels() -> None:
    (ceiling,) = lesson_05.ceiling_figure(["small", "large"], {"7 × 7": [0.9, 0.8], "28 × 28": [1.0, 0.97]}).axes
    assert [np.asarray(line.get_ydata()).tolist() for line in ceiling.lines] == [[0.9, 0.8], [1.0, 0.97]]
    assert [label.get_text() for label in ceiling.get_xticklabels()] == ["small", "large"]
    (profile,) = lesson_05.profile_figure((1.3, 2.7), {"ours": torch.tensor([0.0, 1, 0])}).axes
    xs = [np.asarray(line.get_xdata()).tolist() for line in profile.lines]
    assert xs[:3] == [[0.5, 1.5, 2.5], [1.3, 1.3], [2.7, 2.7]]
    (threshold,) = lesson_05.threshold_figure([0.4, 0.5], {"all": [0.7, 0.6]}).axes
    assert np.asarray(threshold.lines[0].get_ydata()).tolist() == [0.7, 0.6]


def test_boxes_of_whole_numbers_come_from_the_browser_as_ints() -> None:
    ints, floats = answer(MaskState(roi=(40, 30, 106, 92))), answer(MaskState())
    assert torch.equal(ints.pasted, floats.pasted)
