from typing import Any

import pytest
import torch
from torch import Tensor

from rcnn_edu.models import ImageTransform
from rcnn_edu.models.transform import check_images, check_targets, resize_boxes, resize_masks

pytestmark = pytest.mark.usefixtures("without_shape_checks")  # our own messages are under test


def target(**changes: Any) -> dict[str, Tensor]:
    """A target of one object in an image of 20 x 30 pixels."""
    made = {
        "boxes": torch.tensor([[2.0, 3.0, 12.0, 13.0]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, 20, 30, dtype=torch.bool),
    }
    return {**made, **changes}


def test_images_are_resized_normalised_and_padded() -> None:
    transform = ImageTransform(min_size=40, max_size=70, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    batch = transform([torch.ones(3, 20, 30), torch.zeros(3, 20, 60)])
    assert batch.sizes == [(40, 60), (23, 70)]  # the longer side of the second would be 120
    assert batch.original_sizes == [(20, 30), (20, 60)]
    assert batch.images.shape == (2, 3, 64, 96)
    assert (batch.images[0, :, :40, :60] == 1).all()
    assert (batch.images[1, :, :23, :70] == -1).all()
    assert (batch.images[0, :, 40:] == 0).all()
    assert (batch.images[1, :, :, 70:] == 0).all()


def test_targets_follow_their_image_and_the_given_ones_stay() -> None:
    given = target()
    batch = ImageTransform(min_size=40, max_size=100)([torch.ones(3, 20, 30)], [given])
    assert batch.targets is not None
    assert batch.targets[0]["boxes"].tolist() == [[4, 6, 24, 26]]
    assert batch.targets[0]["masks"].shape == (1, 40, 60)
    assert given["boxes"].tolist() == [[2, 3, 12, 13]]


def test_detections_go_back_to_the_original_image() -> None:
    batch = ImageTransform(min_size=40, max_size=100)([torch.ones(3, 20, 30)])
    detection = {"boxes": torch.tensor([[4.0, 6.0, 24.0, 26.0]]), "labels": torch.tensor([1]), "scores": torch.ones(1)}
    (restored,) = batch.restore([detection], [torch.ones(1, 28, 28)])
    assert restored["boxes"].tolist() == [[2, 3, 12, 13]]
    inside = restored["masks"][0, 0] >= 0.5
    assert inside.sum() == 100
    assert inside[3:13, 2:12].all()


def test_resize_boxes_scales_each_axis_by_its_own() -> None:
    assert resize_boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), (10, 20), (30, 10)).tolist() == [[0.5, 6, 1.5, 12]]


@pytest.mark.parametrize("new_side", [14, 17, 25, 48])
def test_resized_masks_stay_where_their_objects_are(new_side: int) -> None:
    starts = torch.arange(2, 12)
    masks = torch.zeros(len(starts), 20, 20, dtype=torch.bool)
    for mask, start in zip(masks, starts, strict=True):
        mask[start : start + 7, start : start + 7] = True
    resized = resize_masks(masks, (new_side, new_side)).nonzero()
    middles = torch.stack([resized[resized[:, 0] == i, 1:].float().mean(dim=0) + 0.5 for i in range(len(masks))])
    error = middles - (starts[:, None] + 3.5) * new_side / 20
    assert error.abs().max() <= 0.5001  # a mask is of whole pixels
    assert error.mean().abs() < 0.2  # and rounded as often one way as the other; "nearest" is 0.3 to 0.5 off


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ValueError, r"images must hold at least one image"),
        ([torch.zeros(3, 4, 4, dtype=torch.uint8)], TypeError, r"images\[0\] must be a float tensor, got torch.uint8"),
        (["photo.jpg"], TypeError, r"images\[0\] must be a float tensor, got str"),
        (
            [torch.rand(3, 4, 4), torch.rand(4, 4)],
            ValueError,
            r"images\[1\] must be of shape \(3, H, W\), got \(4, 4\)",
        ),
        (torch.rand(3, 8, 8), ValueError, r"a single image goes in as a list"),
        ([torch.full((3, 4, 4), 200.0)], ValueError, r"values from 0 to 1, got 200 to 200; divide by 255"),
        ([torch.full((3, 4, 4), torch.nan)], ValueError, r"values from 0 to 1, got nan to nan"),
    ],
)
def test_odd_images_are_refused(images: list[Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_images(images)


def test_a_scale_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scale must be positive, got 0"):
        ImageTransform()([torch.rand(3, 8, 8)], scale=0)


WITHOUT_LABELS = {"boxes": torch.tensor([[2.0, 3.0, 12.0, 13.0]])}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (None, ValueError, r"training needs one target for each of 1 images, got none; for results: eval\(\)"),
        ([], ValueError, r"training needs one target for each of 1 images, got 0"),
        ([WITHOUT_LABELS], ValueError, r"targets\[0\] must have .*, got \['boxes'\]: add \['labels', 'masks'\]"),
        (
            [target(boxes=torch.tensor([[12.0, 3.0, 10.0, 10.0]]))],
            ValueError,
            r"targets\[0\]\['boxes'\]\[0\] must have x2 > x1 and y2 > y1, .*\(x, y, width, height\)",
        ),
        ([target(boxes=torch.tensor([[2.0, 3.0, 2.0, 9.0]]))], ValueError, r"\['boxes'\]\[0\] must have x2 > x1"),
        ([target(boxes=torch.tensor([[torch.nan, 3.0, 4.0, 9.0]]))], ValueError, r"\['boxes'\]\[0\] is not finite"),
        (
            [target(boxes=torch.tensor([[2.0, 3.0, 60.0, 13.0]]))],
            ValueError,
            r"targets\[0\]\['boxes'\]\[0\] must lie within its image of 20 x 30 pixels",
        ),
        ([target(boxes=torch.tensor([[2, 3, 12, 13]]))], TypeError, r"\['boxes'\] must be a floating-point tensor"),
        ([target(labels=torch.tensor([1.0]))], TypeError, r"\['labels'\] must be int64 of shape \(1,\).*torch.float32"),
        ([target(labels=[1])], TypeError, r"\['labels'\] must be int64 of shape \(1,\), one for each box, got list"),
        ([target(labels=torch.tensor([1, 2]))], TypeError, r"\['labels'\] must be int64 of shape \(1,\)"),
        (
            [target(labels=torch.tensor([0]))],
            ValueError,
            r"\['labels'\]\[0\] must be from 1 to 4, got 0; 0 is background",
        ),
        ([target(labels=torch.tensor([5]))], ValueError, r"\['labels'\]\[0\] must be from 1 to 4, got 5"),
        (
            [target(masks=torch.ones(1, 40, 60))],
            ValueError,
            r"targets\[0\]\['masks'\] must be of shape \(1, 20, 30\).*got \(1, 40, 60\)",
        ),
        (
            [target(masks=torch.full((1, 20, 30), 255, dtype=torch.uint8))],
            ValueError,
            r"targets\[0\]\['masks'\]\[0\] must be of 0 and 1, .* got 255; write masks > 0",
        ),
    ],
)
def test_degenerate_targets_are_refused(
    given: list[dict[str, Tensor]] | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_targets([torch.rand(3, 20, 30)], given, 4, with_masks=True)


def test_a_degenerate_target_is_named_by_its_image_and_its_row() -> None:
    two = {
        "boxes": torch.tensor([[2.0, 3.0, 12.0, 13.0], [20.0, 10.0, 8.0, 9.0]]),
        "labels": torch.tensor([1, 2]),
        "masks": torch.ones(2, 20, 30, dtype=torch.bool),
    }
    with pytest.raises(ValueError, match=r"^targets\[1\]\['boxes'\]\[1\] must have x2 > x1.*\(x, y, width, height\)"):
        check_targets([torch.rand(3, 20, 30)] * 2, [target(), two], 4, with_masks=True)
    two["boxes"], two["labels"][1] = torch.tensor([[2.0, 3.0, 12.0, 13.0]] * 2), 9
    with pytest.raises(ValueError, match=r"^targets\[1\]\['labels'\]\[1\] must be from 1 to 4, got 9"):
        check_targets([torch.rand(3, 20, 30)] * 2, [target(), two], 4, with_masks=True)


def test_good_targets_pass_and_an_image_may_have_no_object() -> None:
    nothing = target(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64), masks=torch.zeros(0, 20, 30))
    images = [torch.rand(3, 20, 30), torch.rand(3, 20, 30)]
    given = [target(), nothing]
    assert check_targets(images, given, 4, with_masks=True) is given
