"""The detectors, as ``nn.Module``s with plain arguments: read ``rcnn`` first, the rest in the order that it names."""

from rcnn_edu.models.backbone import ResNetBody, TinyBody
from rcnn_edu.models.box_head import BoxHead, DetectionSelector, PyramidRoIAlign, RoISampler
from rcnn_edu.models.cascade import Cascade
from rcnn_edu.models.fpn import FPN, ConvP6, SingleMap, resnet_fpn, subsampled_p6
from rcnn_edu.models.mask_head import AgnosticMaskHead, FCNMasks, MaskHead, MLPMasks, SoftmaxMaskHead
from rcnn_edu.models.multi_scale import multi_scale_test
from rcnn_edu.models.presets import (
    cascade_rcnn_resnet50_fpn,
    faster_rcnn_resnet50_fpn,
    load_model,
    mask_rcnn_resnet50_fpn,
    tiny_cascade_rcnn,
    tiny_faster_rcnn,
    tiny_mask_rcnn,
)
from rcnn_edu.models.rcnn import CascadeRCNN, FasterRCNN, MaskRCNN
from rcnn_edu.models.rpn import RPN
from rcnn_edu.models.transform import ImageTransform
from rcnn_edu.models.weights import load_checkpoint, load_torchvision_state_dict, save_checkpoint

__all__ = [
    "FPN",
    "RPN",
    "AgnosticMaskHead",
    "BoxHead",
    "Cascade",
    "CascadeRCNN",
    "ConvP6",
    "DetectionSelector",
    "FCNMasks",
    "FasterRCNN",
    "ImageTransform",
    "MLPMasks",
    "MaskHead",
    "MaskRCNN",
    "PyramidRoIAlign",
    "ResNetBody",
    "RoISampler",
    "SingleMap",
    "SoftmaxMaskHead",
    "TinyBody",
    "cascade_rcnn_resnet50_fpn",
    "faster_rcnn_resnet50_fpn",
    "load_checkpoint",
    "load_model",
    "load_torchvision_state_dict",
    "mask_rcnn_resnet50_fpn",
    "multi_scale_test",
    "resnet_fpn",
    "save_checkpoint",
    "subsampled_p6",
    "tiny_cascade_rcnn",
    "tiny_faster_rcnn",
    "tiny_mask_rcnn",
]
