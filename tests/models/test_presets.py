"""What the presets promise: torchvision's peculiarities, all of them, in its own preset alone."""

import functools
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator as TheirAnchors
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image

from rcnn_edu.models import (
    CascadeRCNN,
    FasterRCNN,
    MaskRCNN,
    PyramidRoIAlign,
    cascade_rcnn_resnet50_fpn,
    faster_rcnn_resnet50_fpn,
    mask_rcnn_resnet50_fpn,
    tiny_cascade_rcnn,
    tiny_faster_rcnn,
    tiny_mask_rcnn,
)
from rcnn_edu.models.box_head import BoxHead
from rcnn_edu.models.presets import BUILDERS, TorchvisionAnchors, paste_as_torchvision
from rcnn_edu.ops import AnchorGenerator, clip_boxes, paste_masks

IMAGE = (50, 70)


def stages(model: FasterRCNN) -> list[BoxHead]:
    return [model.box_head] if isinstance(model.box_head, BoxHead) else list(model.box_head.stages)


def aligned(model: FasterRCNN) -> set[bool]:
    pools = [stage.pool for stage in stages(model)]
    head = model.mask_head if isinstance(model, MaskRCNN | CascadeRCNN) else None
    crops = [] if head is None else [getattr(head.crop, "keywords", {}).get("aligned", True)]
    pools += [] if head is None else [head.pool]
    return {cast(PyramidRoIAlign, pool).aligned for pool in pools} | set(crops)


@pytest.mark.parametrize("build", [faster_rcnn_resnet50_fpn, mask_rcnn_resnet50_fpn])
def test_torchvision_s_peculiarities_are_in_its_preset(build: Callable[[], FasterRCNN]) -> None:
    """Half a cell off, quadratic below 1/9, strides by division, its own paste: what its weights were trained with."""
    model = build()
    assert aligned(model) == {False}
    assert isinstance(model.rpn.anchors, TorchvisionAnchors)
    assert model.rpn.loss_beta == stages(model)[0].loss_beta == 1 / 9
    if isinstance(model, MaskRCNN):
        assert model.paste is paste_as_torchvision


@pytest.mark.parametrize(
    "build",
    [
        functools.partial(cascade_rcnn_resnet50_fpn, 2, mask=True),
        functools.partial(tiny_faster_rcnn, 2),
        functools.partial(tiny_mask_rcnn, 2),
        functools.partial(tiny_cascade_rcnn, 2, mask=True),
        functools.partial(MaskRCNN, 2),
    ],
)
def test_and_in_no_other(build: Callable[[], FasterRCNN]) -> None:
    model = build()
    assert aligned(model) == {True}
    assert type(model.rpn.anchors) is AnchorGenerator
    if isinstance(model, MaskRCNN | CascadeRCNN):
        assert model.paste is paste_masks


def test_every_builder_is_known_by_its_name() -> None:
    assert all(builder.__name__ == name for name, builder in BUILDERS.items())
    assert len(BUILDERS) == 6


@pytest.mark.parametrize("size", [(64, 96), (96, 160), (800, 1088)])
def test_torchvision_anchors_are_torchvision_s(size: tuple[int, int]) -> None:
    """Odd multiples of 32 too, where its P6 has strides of its own: at 800 px, 61 instead of 64."""
    sizes, ratios = ((32,), (64,), (128,), (256,), (512,)), (0.5, 1.0, 2.0)
    cells = [(size[0] // stride, size[1] // stride) for stride in (4, 8, 16, 32)]
    cells.append((-(-cells[-1][0] // 2), -(-cells[-1][1] // 2)))
    features = [torch.zeros(1, 1, height, width) for height, width in cells]
    images = ImageList(torch.zeros(1, 3, *size), [size])
    [expected] = TheirAnchors(sizes, (ratios,) * 5)(images, features)
    assert torch.equal(torch.cat(TorchvisionAnchors()(cells)), expected)
    if size[0] == 800:
        assert not torch.equal(torch.cat(AnchorGenerator()(cells)), expected)


@pytest.mark.parametrize("seed", range(3))
def test_its_paste_is_torchvision_s(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(20, 2, generator=generator) * torch.tensor([69.0, 49.0])
    boxes = torch.cat([corner, corner + 0.2 + torch.rand(20, 2, generator=generator) * 40], dim=1)
    boxes = clip_boxes(boxes, IMAGE)
    probs = torch.rand(20, 28, 28, generator=generator)
    expected = paste_masks_in_image(probs[:, None], boxes, IMAGE)[:, 0]
    torch.testing.assert_close(paste_as_torchvision(probs, boxes, IMAGE), expected, rtol=0, atol=1e-4)


def test_a_preset_s_model_has_as_many_classes_as_asked_for() -> None:
    model = tiny_mask_rcnn(7)
    assert model.num_classes == 7
    assert model.box_head.get_submodule("class_logits").get_parameter("weight").shape[0] == 8
    assert model.mask_head.network[-1].get_parameter("weight").shape[0] == 7  # type: ignore[index]
