"""The detectors ready made: every number in which one differs from another, and a builder for each.

What does not stand here has one default, in the signature of its module.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rcnn_edu.models.backbone import Body, TinyBody
from rcnn_edu.models.box_head import BoxHead, PyramidRoIAlign, RoISampler
from rcnn_edu.models.cascade import Cascade
from rcnn_edu.models.fpn import FPN, resnet_fpn
from rcnn_edu.models.mask_head import FCNMasks, MaskHead
from rcnn_edu.models.rcnn import CascadeRCNN, FasterRCNN, MaskRCNN
from rcnn_edu.models.rpn import RPN
from rcnn_edu.models.transform import ImageTransform, Size
from rcnn_edu.models.weights import fetch_coco_weights, load_checkpoint, load_torchvision_state_dict, read_checkpoint
from rcnn_edu.ops import AnchorGenerator, crop_masks, paste_masks

CHECKPOINTS = Path(__file__).resolve().parents[2] / "data" / "checkpoints"  # in a clone of the course
COCO_CLASSES = 90  # of torchvision's weights: COCO's category ids, some of which are unused
SCENES_CLASSES = 4  # of the synthetic scenes

Model = TypeVar("Model", bound=FasterRCNN)


class TorchvisionAnchors(AnchorGenerator):
    """torchvision's anchors: a stride is the padded image's side divided by the level's, rounded down.

    That is our stride but for P6 of an image that is an odd multiple of 32: at 800 px, 61 instead of 64.
    """

    def __call__(
        self, feature_sizes: Sequence[Size], device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> list[Float[Tensor, "_ 4"]]:
        """Return each level's anchors."""
        height, width = (cells * self.strides[0] for cells in feature_sizes[0])
        anchors = []
        for level_anchors, stride, (h, w) in zip(
            super().__call__(feature_sizes, device, dtype), self.strides, feature_sizes, strict=True
        ):
            y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
            shift = torch.stack([x * (width // w - stride), y * (height // h - stride)], dim=-1).to(dtype)
            anchors.append((level_anchors.view(h, w, -1, 4) + shift.repeat(1, 1, 2)[:, :, None]).view(-1, 4))
        return anchors


def paste_as_torchvision(
    probs: Float[Tensor, "n m m"], boxes: Float[Tensor, "n 4"], size: Size
) -> Float[Tensor, "n H W"]:
    """Return the masks pasted as torchvision does: into boxes of whole pixels, enlarged by a mask cell, cut, plus one.

    Lesson: 05.
    """
    enlarge = 1 + 2 / probs.shape[-1]
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    centre = boxes[:, :2] + half
    start, end = (centre - half * enlarge).trunc(), (centre + half * enlarge).trunc() + 1
    half, centre = (end - start).clamp(min=1) / 2 / enlarge, (start + end) / 2
    return paste_masks(probs, torch.cat([centre - half, centre + half], dim=1), size)


@dataclass(frozen=True)
class Preset:
    """A detector's parts, or the arguments that make them."""

    transform: ImageTransform = field(default_factory=ImageTransform)
    backbone: Callable[..., nn.Module] = resnet_fpn
    channels: int = 256  # of the pyramid
    rpn: Mapping[str, Any] = field(default_factory=dict)
    box_head: Mapping[str, Any] = field(default_factory=dict)
    mask_head: Mapping[str, Any] = field(default_factory=dict)
    paste: Callable[..., Tensor] = paste_masks


RESNET50 = Preset()

# What torchvision's weights were trained with, and its users are used to. All of its peculiarities are here.
TORCHVISION = Preset(
    rpn={"anchors": TorchvisionAnchors(), "loss_beta": 1 / 9},
    box_head={"pool": PyramidRoIAlign(7, aligned=False), "loss_beta": 1 / 9},
    mask_head={"pool": PyramidRoIAlign(14, aligned=False), "crop": partial(crop_masks, aligned=False)},
    paste=paste_as_torchvision,
)


def tiny_fpn() -> nn.Sequential:
    """Return a backbone of 0.7 million parameters with a pyramid of 64 channels, P2 to P5."""
    body = TinyBody()
    return nn.Sequential(OrderedDict(body=body, fpn=FPN(body.channels, 64, p6=None)))


# A whole Mask R-CNN of 1.7 million parameters for images of about 192 px and objects of 8 to 160 px.
TINY = Preset(
    transform=ImageTransform(min_size=192, max_size=320),
    backbone=tiny_fpn,
    channels=64,
    rpn={
        "anchors": AnchorGenerator(sizes=((16,), (32,), (64,), (128,)), strides=(4, 8, 16, 32)),
        "pre_nms_top_n": (400, 400),
        "post_nms_top_n": (200, 200),
    },
    box_head={"hidden": 256, "sampler": RoISampler(num_samples=64)},
    mask_head={"network": partial(FCNMasks, hidden=64, num_convs=2)},
)


def _parts(preset: Preset, num_classes: int, *, mask: bool) -> dict[str, Any]:
    """Return what all detectors of a preset share: everything but the box head."""
    parts: dict[str, Any] = {
        "transform": preset.transform,
        "backbone": preset.backbone(),
        "rpn": RPN(preset.channels, **preset.rpn),
    }
    if mask:
        parts["mask_head"] = MaskHead(num_classes, preset.channels, **preset.mask_head)
        parts["paste"] = preset.paste
    return parts


def _faster(preset: Preset, num_classes: int) -> FasterRCNN:
    box_head = BoxHead(num_classes, preset.channels, **preset.box_head)
    return FasterRCNN(num_classes, box_head=box_head, **_parts(preset, num_classes, mask=False))


def _mask(preset: Preset, num_classes: int) -> MaskRCNN:
    box_head = BoxHead(num_classes, preset.channels, **preset.box_head)
    return MaskRCNN(num_classes, box_head=box_head, **_parts(preset, num_classes, mask=True))


def _cascade(preset: Preset, num_classes: int, iou_thresholds: Sequence[float], *, mask: bool) -> CascadeRCNN:
    box_head = Cascade(
        num_classes,
        preset.channels,
        iou_thresholds,
        head=partial(BoxHead, **preset.box_head),
        sampler=preset.box_head.get("sampler"),
    )
    return CascadeRCNN(num_classes, box_head=box_head, **_parts(preset, num_classes, mask=mask))


def faster_rcnn_resnet50_fpn(num_classes: int = COCO_CLASSES, weights: Literal["COCO_V1"] | None = None) -> FasterRCNN:
    """Return torchvision's ``fasterrcnn_resnet50_fpn``: with the same weights, it finds the same."""
    return _with_coco_weights(_faster(TORCHVISION, num_classes), "fasterrcnn_resnet50_fpn", weights)


def mask_rcnn_resnet50_fpn(num_classes: int = COCO_CLASSES, weights: Literal["COCO_V1"] | None = None) -> MaskRCNN:
    """Return torchvision's ``maskrcnn_resnet50_fpn``: with the same weights, it finds the same.

    With ``weights`` and another number of classes, the layers that know about classes start at random, for training on
    other data; and in either case the stem and C2 stay as they are.
    """
    return _with_coco_weights(_mask(TORCHVISION, num_classes), "maskrcnn_resnet50_fpn", weights)


def cascade_rcnn_resnet50_fpn(
    num_classes: int = COCO_CLASSES, iou_thresholds: Sequence[float] = (0.5, 0.6, 0.7), mask: bool = False
) -> CascadeRCNN:
    """Return a Cascade R-CNN on a ResNet-50 with FPN, to be trained: there are no published weights in its layout."""
    return _cascade(RESNET50, num_classes, iou_thresholds, mask=mask)


def tiny_faster_rcnn(num_classes: int = SCENES_CLASSES) -> FasterRCNN:
    """Return a Faster R-CNN that trains on a laptop, for images of about 192 px."""
    return _faster(TINY, num_classes)


def tiny_mask_rcnn(num_classes: int = SCENES_CLASSES, weights: Literal["scenes"] | None = None) -> MaskRCNN:
    """Return a Mask R-CNN that trains on a laptop, or, with ``weights``, has done so on the synthetic scenes."""
    return _with_shipped_weights(_mask(TINY, num_classes), "tiny_mask_rcnn", weights)


def tiny_cascade_rcnn(
    num_classes: int = SCENES_CLASSES,
    weights: Literal["scenes"] | None = None,
    *,
    iou_thresholds: Sequence[float] = (0.5, 0.6, 0.7),
    mask: bool = False,
) -> CascadeRCNN:
    """Return a Cascade R-CNN that trains on a laptop, or, with ``weights`` and ``mask=True``, has done so on scenes."""
    return _with_shipped_weights(_cascade(TINY, num_classes, iou_thresholds, mask=mask), "tiny_cascade_rcnn", weights)


BUILDERS: dict[str, Callable[..., FasterRCNN]] = {
    builder.__name__: builder
    for builder in (
        faster_rcnn_resnet50_fpn,
        mask_rcnn_resnet50_fpn,
        cascade_rcnn_resnet50_fpn,
        tiny_faster_rcnn,
        tiny_mask_rcnn,
        tiny_cascade_rcnn,
    )
}


def load_model(path: str | os.PathLike[str]) -> tuple[FasterRCNN, list[str]]:
    """Return the detector in a checkpoint, in evaluation mode, and the names of its classes, that of label 1 first.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_checkpoint`.
    """
    _, card = read_checkpoint(path)
    if card["preset"] not in BUILDERS:
        raise ValueError(f"{path} is of the preset {card['preset']!r}; this version knows {sorted(BUILDERS)}")
    model = BUILDERS[card["preset"]](len(card["categories"]), **card["options"])
    load_checkpoint(model, path)
    model.transform = replace(model.transform, **card["sizes"])
    return model.eval(), card["categories"]


def _with_coco_weights(model: Model, name: str, weights: str | None) -> Model:
    if weights is None:
        return model
    if weights != "COCO_V1":
        raise ValueError(f"weights must be None or 'COCO_V1', got {weights!r}; your own: load_checkpoint")
    new_classes = model.num_classes != COCO_CLASSES
    load_torchvision_state_dict(model, fetch_coco_weights(name), batch_norm_eps=0.0, new_classes=new_classes)
    cast(Body, model.backbone.body).freeze(2)  # they see edges and blobs, whatever the data
    return model


def _with_shipped_weights(model: Model, name: str, weights: str | None) -> Model:
    if weights is None:
        return model
    if weights != "scenes":
        raise ValueError(f"weights must be None or 'scenes', got {weights!r}; your own: load_checkpoint")
    load_checkpoint(model, CHECKPOINTS / f"{name}.safetensors")
    return model
