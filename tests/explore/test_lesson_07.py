import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rcnn_edu.datasets import SceneSettings, SyntheticScenes, as_coco
from rcnn_edu.explore import lesson_07
from rcnn_edu.explore.lesson_07 import (
    IN_A_ROW,
    METHODS,
    NAMES,
    ONE_OBJECT,
    SIZE,
    APState,
    CrowdState,
    Outputs,
    ap_explorer,
    ap_scene,
    crowd_ap,
    crowd_explorer,
    crowd_scene,
    finish,
    suppress,
    walk,
)
from rcnn_edu.explore.scene import Box, Image, Scene, Text
from rcnn_edu.models import tiny_mask_rcnn
from rcnn_edu.models.transform import Detection
from rcnn_edu.ops import box_iou
from rcnn_edu.training import evaluate_results, to_results

# A and B overlap by 2/3, A and C by 1/3, B and C by 1/4.
THREE = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [0, 5, 10, 15]])
SCORES = torch.tensor([0.9, 0.8, 0.7])


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x, y = draw(st.integers(0, 1900)), draw(st.integers(0, 1900))
    width, height = draw(st.integers(10, 1920 - x)), draw(st.integers(10, 1920 - y))
    return x / 10, y / 10, (x + width) / 10, (y + height) / 10


# The fields and not the state: checking its types draws random numbers, which Hypothesis wants to draw itself.
FIELDS = st.fixed_dictionaries(
    {
        **{name: boxes() for name in NAMES},
        "method": st.sampled_from(METHODS),
        "iou_thresh": st.floats(0, 1),
        "sigma": st.floats(0.05, 1),
        "cut": st.sampled_from(lesson_07.CUTS),
        "step": st.integers(0, 6),
    }
)


def texts(scene: Scene) -> list[str]:
    return [item.text for panel in scene.panels for item in panel.items if isinstance(item, Text)]


def test_the_gaussian_walk_by_hand() -> None:
    first, second, third = walk(THREE, SCORES, "Gaussian", 0.5, 0.5, 0.001)
    assert [first.taken, second.taken, third.taken] == [0, 2, 1]
    assert first.scores == pytest.approx([0.9, 0.8 * np.exp(-8 / 9), 0.7 * np.exp(-2 / 9)])
    assert third.scores == pytest.approx([0.9, 0.8 * np.exp(-8 / 9 - 1 / 8), 0.7 * np.exp(-2 / 9)])


@pytest.mark.parametrize(
    ("method", "iou_thresh", "order", "scores"),
    [
        ("NMS", 0.5, [0, 2], [0.9, 0, 0.7]),
        ("NMS", 0.3, [0], [0.9, 0, 0]),
        ("NMS", 0.7, [0, 1, 2], [0.9, 0.8, 0.7]),
        ("linear", 0.5, [0, 2, 1], [0.9, 0.8 / 3, 0.7]),
        ("linear", 0.3, [0, 2, 1], [0.9, 0.8 / 3, 0.7 * 2 / 3]),
    ],
)
def test_the_other_walks_by_hand(method: str, iou_thresh: float, order: list[int], scores: list[float]) -> None:
    steps = walk(THREE, SCORES, method, iou_thresh, 0.5, 0.001)
    assert [step.taken for step in steps] == order
    assert steps[-1].scores == pytest.approx(scores)


@given(FIELDS, st.sampled_from(METHODS))
def test_the_walk_ends_where_the_package_s_functions_do(fields: dict[str, Any], method: str) -> None:
    state = CrowdState(**fields)
    crowd, scores = state.boxes(), torch.tensor(state.scores)
    iou = box_iou(crowd, crowd)
    if (iou - state.iou_thresh).abs().min() < 1e-5:  # a rounding decides
        return
    arguments = (method, state.iou_thresh, state.sigma, state.cut)
    steps = walk(crowd, scores, *arguments)
    keep, left = suppress(crowd, scores, *arguments)
    near = [abs(a - b) for a in (*steps[-1].scores, state.cut) for b in steps[-1].scores if a != b] if steps else []
    if min(near, default=1) > 1e-5:
        assert [step.taken for step in steps] == keep.tolist()
        assert [step.scores[step.taken] for step in steps] == pytest.approx(left.tolist(), abs=1e-5)


def test_no_threshold_of_nms_is_right_for_two_that_stand_close_and_gaussian_is() -> None:
    best = max(crowd_ap(CrowdState(iou_thresh=step / 20))["NMS"] for step in range(21))
    assert best < 0.95
    assert crowd_ap(CrowdState())["Gaussian"] == pytest.approx(1)
    # At N_t 0.5: A right, C wrong, E right, the second object missed.
    assert crowd_ap(CrowdState())["NMS"] == pytest.approx((34 * 1 + 33 * 2 / 3) / 101, abs=0.005)


@settings(max_examples=30)
@given(FIELDS)
def test_the_crowd_s_ap_is_pycocotools(fields: dict[str, Any]) -> None:
    state = CrowdState(**fields)
    objects = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in state.objects]
    coco = {
        "images": [{"id": 1, "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3]} for box in objects],
    }
    precisions = crowd_ap(state)
    for method, (keep, scores) in lesson_07.suppress_all(state).items():
        found = {"boxes": state.boxes()[keep], "scores": scores, "labels": torch.ones_like(keep)}
        expected = evaluate_results(to_results(found, 1, [1]), coco)["bbox"].figures["AP50"]
        assert precisions[method] == pytest.approx(expected, abs=1e-9)


def test_a_crowd_without_a_box_above_the_cut_has_no_precision() -> None:
    state = CrowdState(scores=(0.01,) * 6, cut=0.3)
    assert set(crowd_ap(state).values()) == {0.0}
    assert "keeps none" in crowd_scene(state).alt


@settings(max_examples=30)
@given(FIELDS)
def test_every_state_that_can_be_dragged_to_has_a_picture(fields: dict[str, Any]) -> None:
    state = CrowdState(**fields)
    scene = crowd_scene(state)
    assert len(json.dumps(scene.to_dict(), allow_nan=False)) < 60_000
    assert scene == crowd_scene(state)
    handles = {item.handle for panel in scene.panels for item in panel.items if isinstance(item, Box) and item.handle}
    assert handles == set(NAMES)


def test_steps_are_shown_one_by_one() -> None:
    assert texts(crowd_scene(CrowdState(step=0))).count("waits") == 18
    scene = crowd_scene(CrowdState(step=1, method="NMS"))
    assert scene.panels[1].title == "IoU with A"
    assert texts(scene).count("taken as no. 1") == 3
    assert texts(scene).count("dropped") == 2  # B and D, by NMS
    assert "taken A 0.95. In the end" in scene.alt


@pytest.mark.parametrize("crowd", [ONE_OBJECT, IN_A_ROW])
def test_presets_lie_in_the_picture(crowd: dict[str, Any]) -> None:
    state = CrowdState(**crowd)
    assert (state.boxes() >= 0).all()
    assert (state.boxes() <= SIZE[0]).all()
    assert crowd_ap(state)["NMS"] == pytest.approx(1)


def test_crowd_explorer_controls_reach_the_picture() -> None:
    explorer = crowd_explorer()
    method, step, iou_thresh, sigma, cut, b = explorer.children[0].children
    method.value, step.value, iou_thresh.value, sigma.value, cut.value = "NMS", 1, 0.3, 0.8, 0.05
    b.value = (120.0, 10.0, 180.0, 60.0)
    state = explorer.state
    assert (state.method, state.step, state.iou_thresh, state.sigma, state.cut) == ("NMS", 1, 0.3, 0.8, 0.05)
    assert state.b == (120.0, 10.0, 180.0, 60.0)
    assert "N_t 0.30, sigma 0.80, cut 0.05. NMS after step 1" in explorer.canvas.scene["alt"]
    explorer.children[1].children[1].click()
    assert explorer.state.objects == ONE_OBJECT["objects"]


def test_crowd_explorer_takes_real_boxes_and_a_background() -> None:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    explorer = crowd_explorer({"real": ONE_OBJECT}, pixels)
    assert explorer.state.a == ONE_OBJECT["a"]
    assert "crowd" in explorer.canvas.images
    assert isinstance(crowd_scene(CrowdState(), pixels).panels[0].items[0], Image)


# Measurements


def detection(rows: list[list[float]], labels: list[int], scores: list[float]) -> Detection:
    return {
        "boxes": torch.tensor(rows).view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.long),
        "scores": torch.tensor(scores),
    }


RAW = detection([*THREE.tolist(), [2.0, 0, 12, 10]], [1, 1, 1, 2], [0.9, 0.8, 0.7, 0.6])


@pytest.mark.parametrize(
    ("changes", "boxes_kept", "scores"),
    [
        ({}, [0, 2, 3], [0.9, 0.7, 0.6]),
        ({"by_class": False}, [0, 2], [0.9, 0.7]),
        ({"first_cut": 0.65}, [0, 2], [0.9, 0.7]),
        ({"method": "linear"}, [0, 2, 3, 1], [0.9, 0.7, 0.6, 0.8 / 3]),
        ({"method": "linear", "last_cut": 0.3}, [0, 2, 3], [0.9, 0.7, 0.6]),
        (
            {"method": "Gaussian", "sigma": 1.0},
            [0, 2, 3, 1],
            [0.9, 0.7 * np.exp(-1 / 9), 0.6, 0.8 * np.exp(-4 / 9 - 1 / 16)],
        ),
    ],
)
def test_finishing_by_hand(changes: dict[str, Any], boxes_kept: list[int], scores: list[float]) -> None:
    (finished,) = finish([RAW], **changes)
    assert finished["boxes"].tolist() == RAW["boxes"][boxes_kept].tolist()
    assert finished["labels"].tolist() == RAW["labels"][boxes_kept].tolist()
    assert finished["scores"].tolist() == pytest.approx(scores)


def test_scenes_become_coco_s_boxes() -> None:
    scenes = SyntheticScenes(2, seed=1)
    targets = [scenes[index][1] for index in range(2)]
    expected, coco = as_coco(scenes), lesson_07.to_coco(targets)
    assert coco["categories"] == expected["categories"]
    for ours, theirs in zip(coco["annotations"], expected["annotations"], strict=True):
        assert all(ours[key] == theirs[key] for key in ("image_id", "category_id", "bbox"))
    perfect = [detection(t["boxes"].tolist(), t["labels"].tolist(), [1.0] * len(t["labels"])) for t in targets]
    results = [row for index, found in enumerate(perfect) for row in to_results(found, index + 1, range(1, 5))]
    assert evaluate_results(results, coco)["bbox"].figures["AP"] == pytest.approx(1)


def test_only_neighbours_of_the_same_class_make_a_crowd() -> None:
    target = {"boxes": THREE, "labels": torch.tensor([1, 2, 1])}
    assert lesson_07.crowded(target).tolist() == [True, False, True]
    assert lesson_07.crowded(target, 0.5).tolist() == [False, False, False]
    assert lesson_07.crowded({"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}).tolist() == []


def test_recall_of_neighbours_and_of_the_others() -> None:
    target = {"boxes": torch.cat([THREE[:2], THREE[:1] + 50]), "labels": torch.tensor([1, 1, 1])}
    found = detection([THREE[0].tolist(), [80.0, 80, 90, 90]], [1, 1], [0.9, 0.8])
    assert lesson_07.recalls([found], [target]) == (50, 0, 2)


def test_a_real_crowd_is_the_closest_pair_and_three_boxes_about_each() -> None:
    objects = torch.tensor([[10.0, 10, 50, 50], [20, 10, 60, 50], [100, 100, 140, 140], [101, 100, 141, 140]])
    target = {"boxes": objects, "labels": torch.tensor([1, 1, 2, 1])}  # the last two are of different classes
    rows = [[10.0 + x, 10, 50 + x, 50] for x in (0, 1, 2, 3, 8, 9, 10, 11)] + [[20.0, 10, 60, 50], [100, 0, 120, 20]]
    raw = detection(rows, [1] * 8 + [2, 1], [0.1, 0.8, 0.7, 0.6, 0.95, 0.5, 0.4, 0.3, 0.99, 0.98])
    crowd = lesson_07.real_crowd(raw, target)
    assert crowd["objects"] == ((10, 10, 50, 50), (20, 10, 60, 50))
    assert crowd["scores"] == pytest.approx((0.95, 0.8, 0.7, 0.6, 0.5, 0.4))
    assert crowd["a"] == (18, 10, 58, 50)
    assert "keeps A" in crowd_scene(CrowdState(**crowd)).alt


def test_a_scene_without_a_crowd_is_refused() -> None:
    target = {"boxes": THREE[:2], "labels": torch.tensor([1, 1])}
    with pytest.raises(ValueError, match="no two close objects"):
        lesson_07.real_crowd(RAW, target)
    apart = {"boxes": THREE[:2], "labels": torch.tensor([1, 2])}
    with pytest.raises(ValueError, match="no two close objects"):
        lesson_07.real_crowd(RAW, apart)


def test_before_and_after_stand_side_by_side() -> None:
    target = {"boxes": THREE[:1], "labels": torch.tensor([1])}
    scene = lesson_07.boxes_scene(torch.zeros(3, 20, 30), target, {"Before": RAW, "After": finish([RAW])[0]})
    assert [panel.title for panel in scene.panels[:2]] == ["Before: 4 boxes", "After: 3 boxes"]
    assert scene.alt == "A crowded scene with 1 objects: before 4 boxes, after 3 boxes."
    colors = [item.color for item in scene.panels[0].items if isinstance(item, Box)]
    assert colors == ["orange"] * 3 + ["green"]  # the best on top


# On a detector: the numbers are an untrained one's, and mean nothing


def figures_of(scenes: SyntheticScenes, detections: list[Detection]) -> dict[str, float]:
    results = [row for index, found in enumerate(detections) for row in to_results(found, index + 1, range(1, 5))]
    figures = evaluate_results(results, as_coco(scenes))["bbox"].figures
    return {name: 100 * value for name, value in figures.items()}


@pytest.fixture(scope="module")
def outputs() -> Outputs:
    torch.manual_seed(0)
    scenes = SyntheticScenes(
        2, seed=1, settings=SceneSettings(size=(96, 128), num_objects=(3, 4), object_size=(16, 60))
    )
    images, targets = zip(*(scenes[index] for index in range(2)), strict=True)
    model = tiny_mask_rcnn().eval()
    raw = lesson_07.raw_detections(model, images)
    raw[0] = {**targets[0], "scores": torch.full((len(targets[0]["labels"]),), 0.9)}  # something to be right about
    return Outputs(images, targets, raw, partial(figures_of, scenes))


def test_raw_detections_are_those_of_the_model_before_its_selection() -> None:
    torch.manual_seed(0)
    model = tiny_mask_rcnn().eval()
    image = torch.rand(3, 96, 128)
    (raw,) = lesson_07.raw_detections(model, [image])
    with torch.no_grad():
        (expected,) = model([image])
    (finished,) = finish([raw])
    for key in ("boxes", "labels", "scores"):
        torch.testing.assert_close(finished[key], expected[key])
    assert len(raw["scores"]) > len(finished["scores"])


@pytest.mark.parametrize("method", METHODS)
def test_the_second_explorer_shows_what_is_measured(outputs: Outputs, method: str) -> None:
    scene = ap_scene(APState(method=method, scene=0, sigma=0.3), outputs)
    measured = outputs.figures("Gaussian", 0.3, 0.001)
    assert f"Gaussian {measured['AP']:.1f}. The picture shows scene 0 after {method}" in scene.alt
    assert f"{measured['AP50']:.1f}" in texts(scene)
    colors = {item.color for item in scene.panels[0].items if isinstance(item, Box)}
    assert "green" in colors
    assert json.dumps(scene.to_dict(), allow_nan=False)
    missed = ap_scene(APState(method=method, scene=1), outputs).panels[0].items
    assert sum(isinstance(item, Box) and item.fill > 0 for item in missed) > 0


def test_the_second_explorer_s_controls_reach_the_picture(outputs: Outputs) -> None:
    explorer = ap_explorer(outputs)
    method, scene, iou_thresh, sigma, cut = explorer.children[0].children
    method.value, scene.value, iou_thresh.value, sigma.value, cut.value = "linear", 1, 0.3, 0.7, 0.05
    assert explorer.state == APState("linear", 0.3, 0.7, 0.05, 1)
    assert "at N_t 0.30, sigma 0.70, cut 0.05" in explorer.canvas.scene["alt"]


def test_the_plot_carries_its_data() -> None:
    left, right = lesson_07.neighbours_figure([0.3, 0.5], [(10, 20, 5), (30, 40, 9)], (50, 60, 90)).axes
    assert np.array_equal(left.lines[0].get_ydata(), [10, 30])
    assert np.array_equal(right.lines[0].get_ydata(), [5, 9])
    assert len(left.lines) == 4


def test_boxes_of_whole_numbers_come_from_the_browser_as_ints() -> None:
    a, b, c, d, e, f = ((10 * place, 10, 10 * place + 30, 60) for place in range(6))
    ints = lesson_07.CrowdState(a, b, c, d, e, f, scores=(1, 1, 1, 0, 0, 0))
    assert ints.boxes().dtype == torch.float32
    lesson_07.crowd_scene(ints)
