"""Twins: torchvision's model and ours with the same random, calibrated weights."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from rcnn_edu.models import (
    FasterRCNN,
    faster_rcnn_resnet50_fpn,
    load_torchvision_state_dict,
    mask_rcnn_resnet50_fpn,
)

# Small images, and few proposals and detections.
QUICK = {
    "min_size": 128,
    "max_size": 220,
    "rpn_post_nms_top_n_train": 200,
    "rpn_post_nms_top_n_test": 200,
    "box_detections_per_img": 15,
}

Detector = TypeVar("Detector", bound=FasterRCNN)


@dataclass(frozen=True)
class Twins:
    theirs: nn.Module
    ours: FasterRCNN


def picture(height: int, width: int, seed: int) -> Tensor:
    """Return an image of random blobs and noise, shape (3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    blobs = F.interpolate(torch.rand(1, 3, 12, 12, generator=generator), size=(height, width), mode="bicubic")[0]
    return (0.7 * blobs + 0.3 * torch.rand(3, height, width, generator=generator)).clamp(0, 1)


def pictures() -> list[Tensor]:
    """Return images of several sizes, odd ones too, padded together to 224 x 224, where P6 has 4 x 4 cells."""
    return [picture(91, 145, 0), picture(128, 128, 1), picture(301, 175, 2)]


@torch.no_grad()
def calibrate(model: nn.Module, images: list[Tensor]) -> None:
    """Give batch norms the statistics of ``images`` and spread the outputs: a fresh model's are nearly ties.

    The residual branches are damped, else a random network is chaotic: it enlarges rounding errors layer by layer.
    """
    generator = torch.Generator().manual_seed(0)

    def normalise(norm: Any, inputs: Any) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance + 1e-3)

    hooks = []
    for name, norm in model.named_modules():
        if isinstance(norm, FrozenBatchNorm2d):
            norm.weight.uniform_(0.5, 1.5, generator=generator).mul_(0.1 if name.endswith("bn3") else 1)
            norm.bias.uniform_(-0.3, 0.3, generator=generator)
            hooks.append(norm.register_forward_pre_hook(normalise))
    model(images)
    for hook in hooks:
        hook.remove()

    spreads: dict[str, float] = {
        "cls_logits": 2.0,
        "rpn.head.bbox_pred": 0.3,
        "cls_score": 2.5,
        "box_predictor.bbox_pred": 1.0,
    }

    def spread(width: float) -> Callable[..., None]:
        def hook(layer: Any, inputs: Any, output: Tensor) -> None:
            channel = output.movedim(1, -1).flatten(0, -2)  # (outputs, channels)
            factor = width / channel.std(dim=0).mean()
            layer.weight.mul_(factor)
            layer.bias.copy_((layer.bias - channel.mean(dim=0)) * factor)

        return hook

    for ending, width in spreads.items():
        for layer in (module for name, module in model.named_modules() if name.endswith(ending)):
            handle = layer.register_forward_hook(spread(width))
            model(images[:1])
            handle.remove()


def make_twins() -> Twins:
    """Return torchvision's Mask R-CNN and ours, in evaluation mode, with the same weights."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
    )
    theirs = TorchvisionMaskRCNN(backbone, num_classes=91, **QUICK).eval()
    calibrate(theirs, pictures())
    return Twins(theirs, twin_of(theirs, mask_rcnn_resnet50_fpn()))


def without_masks(twins: Twins) -> Twins:
    """Return torchvision's Faster R-CNN and ours with the weights of the given Mask R-CNNs."""
    backbone, weights = copy.deepcopy(twins.theirs.backbone), twins.theirs.state_dict()
    theirs = TorchvisionFasterRCNN(backbone, num_classes=91, **QUICK).eval()
    theirs.load_state_dict({name: weights[name] for name in weights if "mask" not in name})
    return Twins(theirs, twin_of(theirs, faster_rcnn_resnet50_fpn()))


def twin_of(theirs: nn.Module, ours: Detector) -> Detector:
    """Return ``ours``, with the sizes and the weights of ``theirs``."""
    ours.transform = replace(ours.transform, min_size=QUICK["min_size"], max_size=QUICK["max_size"])
    ours.rpn.post_nms_top_n = (QUICK["rpn_post_nms_top_n_train"], QUICK["rpn_post_nms_top_n_test"])
    ours.select = replace(ours.select, max_detections=QUICK["box_detections_per_img"])
    load_torchvision_state_dict(ours, theirs.state_dict())
    return ours.eval()


def doubled(twins: Twins) -> Twins:
    """Return copies of the twins in double precision, where rounding decides nothing."""
    theirs, ours = copy.deepcopy(twins.theirs).double(), copy.deepcopy(twins.ours).double()
    load_torchvision_state_dict(ours, theirs.state_dict())
    return Twins(theirs, ours)
