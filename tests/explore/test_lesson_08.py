import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rcnn_edu.datasets import SceneSettings, SyntheticScenes
from rcnn_edu.explore import lesson_08
from rcnn_edu.explore.figures import draw_scene
from rcnn_edu.explore.lesson_07 import to_coco
from rcnn_edu.explore.lesson_08 import (
    METHODS,
    SCALES,
    Album,
    Look,
    ScaleField,
    ScaleState,
    merge,
    scale_explorer,
    scale_scene,
    views_of,
)
from rcnn_edu.explore.scene import Box, Cells, Points, Scene, Text
from rcnn_edu.models import MaskRCNN, multi_scale_test, tiny_mask_rcnn
from rcnn_edu.models.multi_scale import mirror
from rcnn_edu.models.transform import Detection
from rcnn_edu.training import evaluate_results, to_results

SIZE = (60, 100)


def seen(scale: float, flipped: bool, boxes: Sequence[Sequence[float]], scores: Sequence[float]) -> Look:
    return {
        "scale": scale,
        "flipped": flipped,
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.ones(len(scores), dtype=torch.long),
        "scores": torch.tensor(scores, dtype=torch.float32),
    }


# The first object lies at (10, 20, 30, 60), seen by all; the second at (60, 10, 90, 50), seen by the second view alone.
LOOKS = (
    seen(1.0, False, [[10, 20, 30, 60]], [0.9]),
    seen(2.0, False, [[24, 40, 60, 120], [120, 20, 180, 100]], [0.6, 0.8]),
    seen(0.5, True, [[35, 10, 45, 30]], [0.3]),
)


def test_views_are_all_pairs_of_scale_and_mirror() -> None:
    assert views_of([0.5, 1.0]) == ((0.5, False), (1.0, False))
    assert views_of([2.0], flip=True) == ((2.0, False), (2.0, True))
    assert views_of([]) == ()


def test_the_way_back_by_hand() -> None:
    restored = [lesson_08.restore(one, SIZE)["boxes"].tolist() for one in LOOKS]
    assert restored == [[[10, 20, 30, 60]], [[12, 20, 30, 60], [60, 10, 90, 50]], [[10, 20, 30, 60]]]


def test_merging_by_hand() -> None:
    merged = merge(LOOKS, SIZE)
    assert merged["boxes"].tolist() == [[10, 20, 30, 60], [60, 10, 90, 50]]
    assert merged["scores"].tolist() == pytest.approx([0.9, 0.8])
    soft = merge(LOOKS, SIZE, method="Soft-NMS")
    assert len(soft["scores"]) == 4  # the copies have sunk
    assert soft["scores"][:2].tolist() == pytest.approx([0.9, 0.8])
    assert len(merge(LOOKS, SIZE, iou_thresh=0.95)["scores"]) == 3  # the overlap of 0.9 is no copy now
    assert len(merge([], SIZE)["scores"]) == 0


def test_averaged_scores_ask_every_view() -> None:
    averaged = lesson_08.average_scores(LOOKS, SIZE)
    assert averaged["boxes"].tolist() == [[10, 20, 30, 60], [60, 10, 90, 50]]
    assert averaged["scores"].tolist() == pytest.approx([(0.9 + 0.6 + 0.3) / 3, 0.8 / 3])
    turned = lesson_08.average_scores([LOOKS[1], seen(1.0, False, [[10, 20, 30, 60]], [0.7])], SIZE)
    assert turned["boxes"].tolist() == [[10, 20, 30, 60], [60, 10, 90, 50]]  # 0.65 before 0.4, though 0.8 was higher
    assert len(lesson_08.average_scores([seen(1.0, False, [], [])], SIZE)["scores"]) == 0


def test_voting_moves_the_boxes_alone() -> None:
    voted = lesson_08.vote(LOOKS, SIZE)
    assert voted["boxes"][0].tolist() == pytest.approx([(0.9 * 10 + 0.6 * 12 + 0.3 * 10) / 1.8, 20, 30, 60])
    assert voted["boxes"][1].tolist() == pytest.approx([60, 10, 90, 50])
    assert torch.equal(voted["scores"], merge(LOOKS, SIZE)["scores"])


def test_recall_by_size() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 32, 12], [0, 20, 40, 60]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 1, 1])}
    assert lesson_08.box_sizes(target).tolist() == [10, 12, 40]
    detection = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [0, 20, 40, 50]]),  # the second at an IoU of 0.75
        "labels": torch.tensor([1, 1]),
        "scores": torch.tensor([0.9, 0.8]),
    }
    groups = [(4.0, 16.0), (16.0, 64.0)]
    assert lesson_08.recall_by_size([detection], [target], groups) == [50, 100]
    assert lesson_08.recall_by_size([detection], [target], groups, 0.8) == [50, 0]


# On a detector: the numbers are an untrained one's, and mean nothing


@pytest.fixture(scope="module")
def model() -> MaskRCNN:
    torch.manual_seed(0)
    untrained = tiny_mask_rcnn()
    untrained.transform = replace(untrained.transform, min_size=64, max_size=128)
    return untrained.eval()


@pytest.fixture(scope="module")
def album(model: MaskRCNN) -> Album:
    scenes = SyntheticScenes(2, seed=1, settings=SceneSettings(size=(64, 64), num_objects=(3, 5), object_size=(12, 50)))
    images, targets = zip(*(scenes[index] for index in range(2)), strict=True)
    looks, seconds = lesson_08.take(model, images, views_of(SCALES, flip=True))
    for (scale, flipped), found in looks.items():  # something to be right about: at 1x and above the first object
        if scale >= 1 and not flipped:
            objects = targets[0]["boxes"][: 1 if scale < 2 else None]
            found[0] = seen(scale, False, (scale * objects).tolist(), [0.9] * len(objects))
            found[0]["labels"] = targets[0]["labels"][: len(objects)]
    coco = {**to_coco(targets), "images": [{"id": number, "height": 64, "width": 64} for number in (1, 2)]}

    def measure(detections: list[Detection]) -> dict[str, float]:
        results = [row for index, found in enumerate(detections) for row in to_results(found, index + 1, range(1, 5))]
        return {name: 100 * value for name, value in evaluate_results(results, coco)["bbox"].figures.items()}

    return Album(images, targets, looks, seconds, measure)


@pytest.mark.parametrize("flip", [False, True])
def test_merged_looks_are_the_package_s_multi_scale_test(model: MaskRCNN, flip: bool) -> None:
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    looks = [lesson_08.look(model, image, *view) for view in views_of((1.0, 1.5), flip)]
    merged, package = merge(looks, (64, 64)), multi_scale_test(model, image, (1.0, 1.5), flip)
    assert len(package["scores"]) > 0
    for key in ("boxes", "labels", "scores"):
        torch.testing.assert_close(merged[key], package[key], atol=1e-3, rtol=1e-4)


def test_a_look_is_in_the_view_s_own_pixels_and_has_copies(model: MaskRCNN) -> None:
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    large = lesson_08.look(model, image, 2.0)
    assert (large["scale"], large["flipped"]) == (2.0, False)
    assert 64 < large["boxes"].max() <= 128
    assert len(large["scores"]) > len(merge([large], (64, 64))["scores"])


def test_an_image_of_another_size_than_the_model_s_knows_its_own_scale(model: MaskRCNN) -> None:
    assert lesson_08.look(model, torch.rand(3, 128, 128), 0.5)["scale"] == 0.25


def test_masks_drawn_in_views_are_the_model_s_own(model: MaskRCNN, album: Album) -> None:
    image, target = album.images[0], album.targets[0]
    masks = lesson_08.draw_masks(model, image, target, [(1.0, False), (1.0, True), (2.0, False)])
    with torch.no_grad():
        batch = model.transform([image])
        (expected,) = model.mask_head.predict(model.backbone(batch.images), [target])
    torch.testing.assert_close(masks[0], expected)
    (again,) = lesson_08.draw_masks(
        model, image.flip(2), {**target, "boxes": mirror(target["boxes"], (64, 64))}, [(1.0, False)]
    )
    torch.testing.assert_close(masks[1], again.flip(2))


def test_the_truth_s_own_mask_has_an_iou_of_one() -> None:
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, 6:34, 6:34] = True
    target = {"boxes": torch.tensor([[6.0, 6, 34, 34]]), "labels": torch.tensor([1]), "masks": mask}
    assert lesson_08.mask_iou(torch.ones(1, 28, 28), target).tolist() == [1]
    half = torch.ones(1, 28, 28)
    half[:, :14] = 0
    assert lesson_08.mask_iou(half, target).tolist() == [0.5]


# The explorer


FIELDS = st.fixed_dictionaries(
    {
        "scales": st.lists(st.sampled_from(SCALES), unique=True).map(lambda scales: tuple(sorted(scales))),
        "flip": st.booleans(),
        "method": st.sampled_from(METHODS),
        "iou_thresh": st.sampled_from([0.1, 0.5, 0.9]),
        "cut": st.sampled_from([0.05, 0.3, 0.5, 0.95]),
        "scene": st.integers(0, 1),
    }
)


def texts(scene: Scene, panel: int) -> list[str]:
    return [item.text for item in scene.panels[panel].items if isinstance(item, Text)]


@settings(max_examples=15)
@given(FIELDS)
def test_every_state_that_can_be_reached_has_a_picture(album: Album, fields: dict[str, Any]) -> None:
    scene = scale_scene(ScaleState(**fields), album)
    assert len(json.dumps(scene.to_dict(), allow_nan=False)) < 120_000
    assert scene.to_dict() == scale_scene(ScaleState(**fields), album).to_dict()
    x1, y1, x2, y2 = scene.panels[4].view
    dots = [spot for item in scene.panels[4].items if isinstance(item, Points) for spot in item.xy]
    assert all(x1 <= x <= x2 and y1 <= y <= y2 for x, y in dots)


def test_the_picture_says_which_scale_finds_what(album: Album) -> None:
    count = len(album.targets[0]["labels"])
    state = ScaleState(scales=(1.0,), scene=0)
    order = lesson_08.box_sizes(album.targets[0]).argsort(stable=True).tolist()
    first = chr(65 + order.index(0))
    alone = scale_scene(state, album)
    assert f"scores from 0.50: 1 of {count} objects found, 0 too many" in alone.alt
    assert (
        f"0.5× nothing; 0.75× nothing; 1× {first}; 1.5× {first}; 2× {' '.join(map(chr, range(65, 65 + count)))}."
        in (alone.alt)
    )
    assert texts(alone, 2).count("missed") == count - 1
    assert texts(alone, 2).count("✓") == 1
    both = scale_scene(replace(state, scales=(1.0, 2.0)), album)
    assert f"{count} of {count} objects found" in both.alt
    assert "for 5.00 times the pixels" in both.alt
    assert "missed" not in texts(both, 2)
    assert sum(isinstance(item, Box) and item.color == "green" for item in both.panels[0].items) == count


def test_mirrored_views_have_dots_of_their_own(album: Album) -> None:
    state = ScaleState(scales=(1.0,), scene=0)
    count = len(album.targets[0]["labels"])
    for flip in (False, True):
        dots = [
            item for item in scale_scene(replace(state, flip=flip), album).panels[2].items if isinstance(item, Points)
        ]
        assert len(dots) == len(SCALES) * count * (1 + flip)


def test_without_a_view_nothing_is_found_and_nothing_is_paid(album: Album) -> None:
    scene = scale_scene(ScaleState(scales=(), flip=True), album)
    assert scene.alt.startswith("no view, merged by NMS")
    assert "0.00×" in texts(scene, 3)
    assert "your choice" in texts(scene, 3)


def test_cost_is_the_sum_of_the_views(album: Album) -> None:
    pixels, milliseconds = album.cost(views_of((0.5, 2.0), flip=True))
    assert pixels == 8.5
    parts = [album.seconds[view] for view in views_of((0.5, 2.0), flip=True)]
    assert milliseconds == pytest.approx(1000 * sum(parts))
    assert album.cost(()) == (0, 0)


def test_explorer_controls_reach_the_picture(album: Album) -> None:
    explorer = scale_explorer(album)
    scales, flip, method, iou_thresh, cut, scene = explorer.children[0].children
    ticks = {tick.description: tick for tick in scales.children[1:]}
    ticks["2×"].value = False
    ticks["0.5×"].value = True
    flip.value, method.value, iou_thresh.value, cut.value, scene.value = True, "Soft-NMS", 0.3, 0.2, 1
    assert explorer.state == ScaleState((0.5, 1.0), True, "Soft-NMS", 0.3, 0.2, 1)
    assert explorer.canvas.scene["alt"].startswith("0.5×, 1× and mirrored, merged by Soft-NMS at N_t 0.30.")
    assert "Scene 1, scores from 0.20" in explorer.canvas.scene["alt"]


def test_explorer_presets_tick_their_scales(album: Album) -> None:
    explorer = scale_explorer(album, ScaleState(scales=(2.0,)))
    scales = explorer.children[0].children[0]
    buttons = {button.description: button for button in explorer.children[1].children}
    buttons["everything"].click()
    assert all(tick.value for tick in scales.children[1:])
    assert explorer.state.scales == SCALES
    assert explorer.state.flip
    buttons["1× alone"].click()
    assert [tick.value for tick in scales.children[1:]] == [False, False, True, False, False]
    assert explorer.state.views() == ((1.0, False),)


def test_a_scale_field_says_what_is_ticked_in_order() -> None:
    field = ScaleField((2.0,), SCALES)
    field.children[1].value = True
    assert field.value == (0.5, 2.0)
    field.value = ()
    assert not any(tick.value for tick in field.children[1:])


# Pictures


def test_answers_stand_side_by_side(album: Album) -> None:
    answers = {"1×": merge(album.of_scene(0, [(1.0, False)]), (64, 64)), "2×": merge([], (64, 64))}
    scene = lesson_08.answers_scene(album.images[0], album.targets[0], answers, (1.0, 2.0))
    count = len(album.targets[0]["labels"])
    assert scene.alt == f"A scene with {count} objects; 1×: 1 found, 0 too many; 2×: 0 found, 0 too many."
    small, large, _ = scene.panels
    assert large.place[2] == pytest.approx(2 * small.place[2])
    assert large.place[0] + large.place[2] == pytest.approx(952)
    assert sum(isinstance(item, Box) and item.fill > 0 for item in small.items) == count - 1
    draw_scene(scene)


def test_a_mask_is_shown_in_each_view_and_as_their_mean() -> None:
    masks = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    truth = torch.zeros(1, 8, 8, dtype=torch.bool)
    truth[0, 2:6, 2:6] = True
    target = {"boxes": torch.tensor([[2.0, 2, 6, 6]]), "labels": torch.tensor([1]), "masks": truth}
    scene = lesson_08.masks_scene(target, masks, ["a", "b"], 0)
    assert [panel.title for panel in scene.panels] == ["a: IoU 0.00", "b: IoU 1.00", "mean: IoU 0.00", "truth"]
    shades = [item.shades[0][0] for panel in scene.panels for item in panel.items if isinstance(item, Cells)]
    assert shades == [0, 1, 0.5, 1]


def test_plots_carry_their_data() -> None:
    curves = {0.5: {"1×": [10.0, 90.0], "2×": [80.0, 20.0]}, 0.75: {"1×": [5.0, 50.0], "2×": [40.0, 2.0]}}
    left, right = lesson_08.recall_figure(["small", "large"], curves).axes
    assert left.lines[1].get_ydata() == pytest.approx([80, 20])
    assert right.lines[0].get_ydata() == pytest.approx([5, 50])
    assert [label.get_text() for label in right.get_xticklabels()] == ["small", "large"]
    plane, names = lesson_08.cost_figure({"slow": (30.0, 50.0), "fast": (10.0, 40.0), "bad": (20.0, 30.0)}).axes
    assert [text.get_text() for text in names.texts][1::2] == [
        "fast: 10 ms, AP 40.0",
        "bad: 20 ms, AP 30.0",
        "slow: 30 ms, AP 50.0",
    ]
    front = plane.lines[-1]
    assert front.get_xdata() == pytest.approx([10, 30, 30])
    assert front.get_ydata() == pytest.approx([40, 50, 50])
