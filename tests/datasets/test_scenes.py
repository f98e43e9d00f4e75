"""The scenes: first what one can check by hand, then what holds for any of them."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rcnn_edu.datasets import SceneSettings, SyntheticScenes, scenes
from rcnn_edu.models.transform import check_targets

SMALL = SceneSettings(size=(64, 96), num_objects=(2, 6), object_size=(8, 48))


def square(rng: np.random.Generator) -> scenes.Floats:
    return np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def items(dataset: SyntheticScenes) -> list[tuple[Tensor, dict[str, Tensor]]]:
    return [dataset[index] for index in range(len(dataset))]


def box_around(mask: Tensor) -> list[float]:
    y, x = mask.nonzero().unbind(dim=1)
    return [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]


def sides(boxes: Tensor) -> Tensor:
    return boxes[:, 2:] - boxes[:, :2]


# By hand.


def test_a_shape_covers_its_pixels_in_part_at_its_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """A square of 10.5 px: 10 or 11 pixels in a row, of which the outer ones are covered in part."""
    monkeypatch.setitem(scenes.OUTLINES, "leaf", square)
    for seed in range(20):
        alpha = scenes._silhouette("leaf", 10.5, 0, np.random.default_rng(seed))
        across, down = alpha.sum(axis=1).max(), alpha.sum(axis=0).max()  # a row's and a column's covered length
        assert max(across, down) == pytest.approx(10.5, abs=0.3)  # it is drawn with quarters of a pixel
        assert alpha.sum() == pytest.approx(across * down, rel=1e-3)
        assert alpha.min() >= 0
        assert alpha.max() == 1
        assert ((alpha > 0) & (alpha < 1)).any()


def test_masks_are_what_is_painted_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each object in a grey of its own on black: then the picture itself tells which pixels show it."""
    painted: list[tuple[float, int]] = []  # each object's size and whole number of pixels

    def paint(canvas: scenes.Floats, alpha: scenes.Floats, size: float, light: float, rng: Any) -> None:
        painted.append((size, int((alpha >= 0.5).sum())))
        canvas[alpha >= 0.5] = len(painted) / 4

    monkeypatch.setattr(scenes, "_ground", lambda size, rng: np.zeros((*size, 3)))
    monkeypatch.setattr(scenes, "_paint", paint)
    hidden = 0
    dataset = SyntheticScenes(20, settings=SceneSettings((64, 96), (2, 4), (16, 60), crowding=0.9))
    for index in range(len(dataset)):
        image, target = dataset[index]
        numbers = torch.arange(1, len(target["masks"]) + 1)[:, None, None]
        assert torch.equal((image * 4).round(), (numbers * target["masks"]).sum(dim=0).expand(3, -1, -1).float())
        assert painted == sorted(painted, key=lambda each: -each[0])  # the smaller in front
        hidden += sum(mask.sum() < whole for mask, (_, whole) in zip(target["masks"], painted, strict=True))
        painted.clear()
    assert hidden


@pytest.mark.parametrize(("crowding", "hides"), [(0.0, False), (0.4, True)])
def test_crowding_lets_objects_hide_one_another(monkeypatch: pytest.MonkeyPatch, crowding: float, hides: bool) -> None:
    """Squares that nothing hides fill their boxes, but for the corners' pixels, which they may only touch."""
    for name in scenes.OUTLINES:
        monkeypatch.setitem(scenes.OUTLINES, name, square)
    monkeypatch.setattr(scenes, "HOLES", {})
    lacking = []
    for _, target in items(
        SyntheticScenes(10, settings=SceneSettings(num_objects=(6, 9), crowding=crowding, rotation=0))
    ):
        lacking += (sides(target["boxes"]).prod(dim=1) - target["masks"].sum(dim=(1, 2))).tolist()
    assert (max(lacking) > 4) == hides


def test_through_a_gear_s_hole_one_sees_what_is_behind() -> None:
    dataset = SyntheticScenes(30, settings=SceneSettings((96, 96), (1, 1), (40, 60)))
    middles: dict[int, list[bool]] = {}
    for _, target in items(dataset):
        for label, box, mask in zip(target["labels"].tolist(), target["boxes"], target["masks"], strict=True):
            x, y = ((box[:2] + box[2:]) / 2).int().tolist()
            middles.setdefault(label, []).append(bool(mask[y, x]))
    gear = scenes.CATEGORIES.index("gear") + 1
    assert not any(middles.pop(gear))
    assert all(all(seen) for seen in middles.values())


def test_without_rotation_leaves_lie_flat() -> None:
    def flat(rotation: float) -> set[bool]:
        dataset = SyntheticScenes(30, settings=SceneSettings((96, 96), (1, 1), (24, 60), rotation=rotation))
        leaves = [target["boxes"][target["labels"] == 1] for _, target in items(dataset)]
        return {bool(width > height) for boxes in leaves for width, height in sides(boxes)}

    assert flat(rotation=0) == {True}
    assert flat(rotation=90) == {True, False}


def test_sizes_are_evenly_spread_on_a_logarithmic_scale() -> None:
    """Half of them below the geometric mean of 8 and 128 px, an eighth of the objects in each half octave."""
    dataset = SyntheticScenes(240, settings=SceneSettings((144, 144), (1, 1), (8, 128)))
    longest = torch.cat([sides(target["boxes"]).amax(dim=1) for _, target in items(dataset)])
    assert longest.max() <= 128 + 1.25  # it may begin within a pixel and end within another
    assert longest.min() >= 0.5 * 8  # a leaf's tips are narrower than a pixel
    assert len(longest) > 230
    assert (longest < 32).float().mean() == pytest.approx(0.5, abs=0.1)
    assert (longest < 16).float().mean() == pytest.approx(0.25, abs=0.1)


def test_an_empty_scene_is_one_too() -> None:
    image, target = SyntheticScenes(1, settings=SceneSettings((32, 48), num_objects=(0, 0)))[0]
    assert image.shape == (3, 32, 48)
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert target["masks"].shape == (0, 32, 48)
    check_targets([image], [target], num_classes=4, with_masks=True)


def test_there_are_four_classes_and_all_occur() -> None:
    assert SyntheticScenes.categories == ("leaf", "drop", "flower", "gear")
    labels = torch.cat([target["labels"] for _, target in items(SyntheticScenes(20, settings=SMALL))])
    assert set(labels.tolist()) == {1, 2, 3, 4}


# Seed and index.


def test_a_scene_follows_from_its_seed_and_its_index() -> None:
    dataset = SyntheticScenes(5, seed=3, settings=SMALL)
    later = dataset[4]
    again = SyntheticScenes(100, seed=3, settings=SMALL)[4]
    assert torch.equal(later[0], again[0])
    assert later[1].keys() == again[1].keys()
    assert all(torch.equal(later[1][name], again[1][name]) for name in later[1])


def test_other_seeds_and_other_indices_are_other_scenes() -> None:
    images = [SyntheticScenes(3, seed=seed, settings=SMALL)[index][0] for seed in range(3) for index in range(3)]
    for first in range(9):
        for second in range(first):
            assert (images[first] - images[second]).abs().mean() > 0.02


def test_an_index_beyond_the_last_is_an_error() -> None:
    dataset = SyntheticScenes(3, settings=SMALL)
    assert len(dataset) == 3
    with pytest.raises(IndexError, match=r"scene 3 is not among scenes 0 to 2"):
        dataset[3]
    with pytest.raises(IndexError, match=r"scene -1 is not among"):
        dataset[-1]


# Any scene.


@st.composite
def any_settings(draw: st.DrawFn) -> SceneSettings:
    few = draw(st.integers(0, 6))
    size = (draw(st.integers(16, 100)), draw(st.integers(16, 100)))
    small = draw(st.floats(4, 0.9 * min(size)))
    return SceneSettings(
        size=size,
        num_objects=(few, few + draw(st.integers(0, 6))),
        object_size=(small, small + draw(st.floats(0, 120))),
        crowding=draw(st.floats(0, 0.9)),
        rotation=draw(st.floats(0, 180)),
    )


@settings(max_examples=60)
@given(any_settings(), st.integers(0, 2**31))
@example(SceneSettings((16, 100), (3, 3), (14, 160)), 0)  # larger than the image
@example(SceneSettings((100, 100), (12, 12), (4, 4), crowding=0.9), 0)
@example(SceneSettings((43, 43), (6, 9), (32.625, 38.625), crowding=0.0, rotation=1.0), 698)  # the widest that was seen
def test_any_scene_is_sound(knobs: SceneSettings, seed: int) -> None:
    image, target = SyntheticScenes(1, seed, knobs)[0]
    assert image.shape == (3, *knobs.size)
    assert image.dtype == torch.float32
    assert image.min() >= 0
    assert image.max() <= 1
    assert (image * 255 - (image * 255).round()).abs().max() < 1e-4  # as exact as a file holds it
    check_targets([image], [target], num_classes=4, with_masks=True)
    masks = target["masks"]
    assert masks.dtype == torch.bool
    assert len(masks) <= knobs.num_objects[1]
    assert masks.sum(dim=0).max() <= 1  # they exclude each other
    for mask, box in zip(masks, target["boxes"], strict=True):
        assert mask.sum() >= scenes.MIN_VISIBLE
        assert box.tolist() == box_around(mask)
        # Half a pixel at each end, and two of the four steps to a pixel: rounding to them, and the brush's width.
        assert sides(box[None]).max() <= knobs.object_size[1] + 1.5


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"size": (192, 15)}, r"size must be at least 16 x 16 pixels, got \(192, 15\)"),
        ({"num_objects": (3, 2)}, r"num_objects must be the fewest and the most, got \(3, 2\)"),
        ({"num_objects": (-1, 2)}, r"num_objects must be .*\(-1, 2\)"),
        ({"object_size": (3, 20)}, r"object_size must be the smallest, from 4 px, and the largest, got \(3, 20\)"),
        ({"object_size": (20, 10)}, r"object_size must be .*\(20, 10\)"),
        (
            {"object_size": (50, 160), "size": (192, 50)},
            r"object_size must begin well below .*\(192, 50\), got \(50, 160\)",
        ),
        ({"crowding": -0.1}, r"crowding must be from 0 to 0\.9, got -0\.1"),
        ({"crowding": 1.0}, r"crowding must be .* got 1\.0"),
        ({"crowding": float("nan")}, r"crowding must be .* got nan"),
    ],
)
def test_settings_that_no_scene_could_have_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SceneSettings(**knobs)


@pytest.mark.parametrize(("length", "seed"), [(-1, 0), (1, -1)])
def test_negative_lengths_and_seeds_are_refused(length: int, seed: int) -> None:
    with pytest.raises(ValueError, match=rf"length and seed must not be negative, got {length} and {seed}"):
        SyntheticScenes(length, seed)
