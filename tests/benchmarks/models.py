"""Whole detectors: inference and training steps, ours and torchvision's, with the same weights or the same backbone."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from rcnn_edu.models import (
    BoxHead,
    MaskRCNN,
    load_torchvision_state_dict,
    mask_rcnn_resnet50_fpn,
    tiny_mask_rcnn,
)
from tests.benchmarks.harness import Case, Contenders

CLASSES = 4  # of the tiny model


def cases(quick: bool) -> list[Case]:
    size, small = ((64, 64), (64, 64)) if quick else ((800, 1066), (192, 192))
    batch = 1 if quick else 4
    resnet = f"ResNet-50-FPN, an image of {size[0]} x {size[1]}"
    return [
        Case("Mask R-CNN, inference", resnet, partial(_inference, size)),
        Case("Mask R-CNN, training step", f"{resnet}, 10 objects", partial(_training, size)),
        Case(
            "tiny Mask R-CNN, training step",
            f"{batch} images of {small[0]} x {small[1]}, 10 objects each",
            partial(_tiny_training, batch, small),
        ),
    ]


def _inputs(batch: int, size: tuple[int, int], num_classes: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return random images and targets of ten rectangles each, a fortieth to a quarter of the image long."""
    generator = torch.Generator().manual_seed(0)
    extent = torch.tensor([size[1], size[0]])
    targets = []
    for _ in range(batch):
        half = extent * (0.0125 + 0.1125 * torch.rand(10, 2, generator=generator))
        centre = half + (extent - 2 * half) * torch.rand(10, 2, generator=generator)
        boxes = torch.cat([centre - half, centre + half], dim=1)
        masks = torch.zeros(10, *size, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        labels = torch.randint(1, num_classes + 1, (10,), generator=generator)
        targets.append({"boxes": boxes, "labels": labels, "masks": masks})
    return [torch.rand(3, *size, generator=generator) for _ in range(batch)], targets


def _resnet_pair(size: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
    """Return our model and torchvision's with the same weights, frozen as after pretraining."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    theirs = TorchvisionMaskRCNN(backbone, num_classes=91, min_size=min(size))
    ours = mask_rcnn_resnet50_fpn()
    ours.transform = type(ours.transform)(min_size=min(size))
    load_torchvision_state_dict(ours, theirs.state_dict())
    ours.backbone.body.freeze(2)  # type: ignore[union-attr, operator]
    return ours, theirs


def _inference(size: tuple[int, int]) -> Contenders:
    ours, theirs = _resnet_pair(size)
    images, _ = _inputs(1, size, 90)
    return {"ours": _detect(ours, images), "torchvision": _detect(theirs, images)}


def _detect(model: nn.Module, images: Sequence[Tensor]) -> Callable[[], object]:
    model.eval()
    return torch.inference_mode()(lambda: model(images))


def _training(size: tuple[int, int]) -> Contenders:
    ours, theirs = _resnet_pair(size)
    images, targets = _inputs(1, size, 90)
    return {"ours": _step(ours, images, targets), "torchvision": _step(theirs, images, targets)}


def _step(model: nn.Module, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]) -> Callable[[], object]:
    """Return a training step without the optimiser's part, which is the same for both."""

    def step() -> None:
        model.zero_grad()
        sum(model(images, targets).values()).backward()

    return step


class _NamedLevels(nn.Module):
    """Our backbone as torchvision wants one: with ``out_channels``, and its levels in a dict."""

    def __init__(self, backbone: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> Any:
        return OrderedDict((str(level), features) for level, features in enumerate(self.backbone(images)))


def torchvision_tiny(ours: MaskRCNN, num_classes: int) -> TorchvisionMaskRCNN:
    """Return torchvision's model of the architecture of our tiny one, its backbone a copy of ours."""
    levels = [str(level) for level in range(4)]
    box_head = cast(BoxHead, ours.box_head)
    hidden = box_head.fc1.out_features
    return TorchvisionMaskRCNN(
        _NamedLevels(copy.deepcopy(ours.backbone), 64),
        min_size=ours.transform.min_size,
        max_size=ours.transform.max_size,
        rpn_anchor_generator=AnchorGenerator(((16,), (32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 4),
        rpn_pre_nms_top_n_train=ours.rpn.pre_nms_top_n[0],
        rpn_pre_nms_top_n_test=ours.rpn.pre_nms_top_n[1],
        rpn_post_nms_top_n_train=ours.rpn.post_nms_top_n[0],
        rpn_post_nms_top_n_test=ours.rpn.post_nms_top_n[1],
        box_batch_size_per_image=box_head.sampler.num_samples,
        box_roi_pool=MultiScaleRoIAlign(levels, 7, 2),
        box_head=TwoMLPHead(64 * 7 * 7, hidden),
        box_predictor=FastRCNNPredictor(hidden, num_classes + 1),
        mask_roi_pool=MultiScaleRoIAlign(levels, 14, 2),
        mask_head=MaskRCNNHeads(64, (64, 64), 1),
        mask_predictor=MaskRCNNPredictor(64, 64, num_classes + 1),
    )


def _tiny_training(batch: int, size: tuple[int, int]) -> Contenders:
    images, targets = _inputs(batch, size, CLASSES)
    torch.manual_seed(0)
    ours = tiny_mask_rcnn(CLASSES)
    ours.transform = type(ours.transform)(min_size=min(size))
    theirs = torchvision_tiny(ours, CLASSES)
    return {"ours": _step(ours, images, targets), "torchvision": _step(theirs, images, targets)}
