"""Augmentation: by hand on pictures of a few pixels, then that boxes and masks stay where the objects are."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rcnn_edu.training.augment import GREY, augment, flip_horizontally, zoom


def picture(height: int, width: int, box: tuple[int, int, int, int]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a black picture with one white rectangle, and its target."""
    x1, y1, x2, y2 = box
    mask = torch.zeros(1, height, width, dtype=torch.uint8)
    mask[:, y1:y2, x1:x2] = 1
    target = {"boxes": torch.tensor([box], dtype=torch.float32), "labels": torch.tensor([1]), "masks": mask}
    return mask.expand(3, -1, -1).float(), target


def test_a_mirror_image_by_hand() -> None:
    image, target = picture(4, 10, (1, 0, 4, 2))
    flipped_image, flipped = flip_horizontally(image, target)
    assert flipped["boxes"].tolist() == [[6, 0, 9, 2]]
    assert flipped["masks"][0, 0].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 0]
    assert torch.equal(flipped_image, image.flip(2))
    assert target["boxes"].tolist() == [[1, 0, 4, 2]]  # the argument is as it was


def test_a_smaller_picture_stands_on_grey(generator: torch.Generator) -> None:
    image, target = picture(20, 20, (0, 0, 20, 20))
    framed, zoomed = zoom(image, target, 0.5, generator)
    assert framed.shape == image.shape
    white = (framed == 1).all(dim=0)
    assert white.sum() == 100
    assert torch.equal(white, zoomed["masks"][0] == 1)
    torch.testing.assert_close(framed[:, ~white], torch.tensor(GREY)[:, None].expand(3, 300))


def test_a_larger_picture_is_cut(generator: torch.Generator) -> None:
    image, target = picture(20, 20, (5, 5, 15, 15))
    framed, zoomed = zoom(image, target, 2.0, generator)
    assert framed.shape == image.shape
    x1, y1, x2, y2 = zoomed["boxes"][0].int().tolist()
    assert zoomed["masks"][0, y1:y2, x1:x2].all()
    assert zoomed["masks"].sum() == (x2 - x1) * (y2 - y1)


def test_an_object_that_the_cut_leaves_out_is_dropped() -> None:
    image, target = picture(40, 40, (0, 0, 4, 4))
    left = {len(zoom(image, target, 4.0, torch.Generator().manual_seed(seed))[1]["labels"]) for seed in range(20)}
    assert left == {0, 1}


def test_nothing_asked_is_nothing_done(generator: torch.Generator) -> None:
    image, target = picture(8, 8, (1, 1, 5, 5))
    same_image, same = augment(image, target, generator, flip=False, scale_range=(1, 1))
    assert same_image is image
    assert same is target


def test_half_of_the_pictures_are_mirrored() -> None:
    image, target = picture(8, 8, (0, 0, 2, 2))
    generator = torch.Generator().manual_seed(0)
    looks = [augment(image, target, generator, scale_range=(1, 1))[1]["boxes"][0, 0].item() for _ in range(200)]
    assert 70 < looks.count(6.0) < 130


def test_targets_without_masks_have_none_after(generator: torch.Generator) -> None:
    image, target = picture(16, 16, (2, 2, 12, 12))
    del target["masks"]
    _, augmented = augment(image, target, generator)
    assert sorted(augmented) == ["boxes", "labels"]


def test_an_image_without_objects(generator: torch.Generator) -> None:
    target = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 16, 24, dtype=torch.bool),
    }
    image, augmented = augment(torch.rand(3, 16, 24), target, generator)
    assert image.shape == (3, 16, 24)
    assert augmented["masks"].shape == (0, 16, 24)


@given(
    height=st.integers(12, 40),
    width=st.integers(12, 40),
    low=st.floats(0.4, 1.0),
    high=st.floats(1.0, 2.5),
    seed=st.integers(0, 1000),
)
def test_box_and_mask_and_pixels_agree(height: int, width: int, low: float, high: float, seed: int) -> None:
    image, target = picture(height, width, (2, 3, 10, 11))
    generator = torch.Generator().manual_seed(seed)
    augmented_image, augmented = augment(image, target, generator, scale_range=(low, high))
    assert augmented_image.shape == image.shape
    assert augmented_image.min() >= 0
    assert augmented_image.max() <= 1 + 1e-6
    for box, mask in zip(augmented["boxes"], augmented["masks"], strict=True):
        assert box.min() >= 0
        assert (box[2:] <= torch.tensor([width, height])).all()
        y, x = mask.nonzero(as_tuple=True)
        around = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert (box - around).abs().max() <= 0.5001  # a mask is of whole pixels, a box is not


@pytest.mark.parametrize("scale", [0.3, 1.7])
def test_the_scale_is_the_scale(scale: float, generator: torch.Generator) -> None:
    image, target = picture(100, 100, (45, 45, 55, 55))
    for _ in range(20):
        _, zoomed = zoom(image, target, scale, generator)
        if len(zoomed["boxes"]) and zoomed["boxes"].min() > 0 and zoomed["boxes"].max() < 100:
            side = zoomed["boxes"][0, 2] - zoomed["boxes"][0, 0]
            assert side.item() == pytest.approx(10 * scale, rel=0.02)
            return
    pytest.fail("no zoom kept the whole object")
