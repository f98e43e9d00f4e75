from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from rcnn_edu.models import FasterRCNN, multi_scale_test, tiny_cascade_rcnn, tiny_faster_rcnn, tiny_mask_rcnn
from rcnn_edu.models.multi_scale import mirror
from tests.models.twins import picture


def untrained(model: FasterRCNN) -> FasterRCNN:
    """A model whose every class passes: an untrained head is sure of nothing."""
    model.transform = replace(model.transform, min_size=64, max_size=128)
    model.select = replace(model.select, score_thresh=0.0, max_detections=8)
    return model.eval()


@pytest.fixture
def image() -> Tensor:
    return picture(64, 80, seed=0)


def test_one_view_at_scale_one_is_the_model_s_own_answer(image: Tensor) -> None:
    torch.manual_seed(0)
    model = untrained(tiny_mask_rcnn(2))
    with torch.no_grad():
        alone = model([image])[0]
    merged = multi_scale_test(model, image, scales=(1.0,))
    assert merged.keys() == alone.keys()
    for name, values in merged.items():
        assert torch.equal(values, alone[name]), name


def test_the_long_way_round_gives_one_view_s_answer_too(image: Tensor) -> None:
    torch.manual_seed(0)
    model = untrained(tiny_mask_rcnn(2))
    alone = multi_scale_test(model, image, scales=(1.0,))
    merged = multi_scale_test(
        model, image, scales=(1.0,), select=model.select
    )  # a selection of one's own: no short cut
    assert torch.equal(merged["labels"], alone["labels"])
    assert torch.allclose(merged["boxes"], alone["boxes"], atol=1e-3)
    assert torch.allclose(merged["scores"], alone["scores"], atol=1e-5)
    assert torch.allclose(merged["masks"], alone["masks"], atol=1e-3)


def test_a_mirrored_image_has_mirrored_detections(image: Tensor) -> None:
    torch.manual_seed(0)
    model = untrained(tiny_faster_rcnn(2))
    seen = multi_scale_test(model, image, scales=(0.5, 1.0), flip=True)
    mirrored = multi_scale_test(model, image.flip(2), scales=(0.5, 1.0), flip=True)
    order = [tensor["scores"].argsort(stable=True) for tensor in (seen, mirrored)]
    assert torch.allclose(seen["scores"][order[0]], mirrored["scores"][order[1]], atol=1e-4)
    assert torch.allclose(
        mirror(seen["boxes"], (64, 80)).sort(dim=0).values, mirrored["boxes"].sort(dim=0).values, atol=0.05
    )


@pytest.mark.parametrize("suppression", ["hard", "gaussian", "linear"])
def test_several_scales_merge_into_one_answer_with_masks(
    image: Tensor, suppression: Literal["hard", "gaussian", "linear"]
) -> None:
    torch.manual_seed(0)
    model = untrained(tiny_cascade_rcnn(2, mask=True))
    select = replace(model.select, suppression=suppression)
    merged = multi_scale_test(model, image, scales=(0.5, 1.0, 1.5), flip=True, select=select)
    assert merged["masks"].shape == (len(merged["boxes"]), 1, 64, 80)
    assert 0 < len(merged["boxes"]) <= 8
    assert (merged["scores"].diff() <= 0).all()
    assert (merged["masks"] >= 0).all()
    assert (merged["masks"] <= 1).all()
    assert (merged["boxes"][:, 2] <= 80 + 1e-3).all()


def test_mirror_by_hand() -> None:
    assert mirror(torch.tensor([[1.0, 2.0, 4.0, 8.0]]), (10, 20)).tolist() == [[16, 2, 19, 8]]


def test_a_model_in_training_mode_is_refused(image: Tensor) -> None:
    with pytest.raises(ValueError, match=r"evaluation mode: call model.eval\(\)"):
        multi_scale_test(tiny_faster_rcnn(2), image)


@pytest.mark.parametrize(("scales", "message"), [((), "at least one scale"), ((0.0,), "scale must be positive")])
def test_scales_are_checked(image: Tensor, scales: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        multi_scale_test(untrained(tiny_faster_rcnn(2)), image, scales=scales)
