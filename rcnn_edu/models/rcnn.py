"""The detectors, each forward pass on one screen, in the order of its paper's figure."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rcnn_edu.models.box_head import BoxHead, DetectionSelector
from rcnn_edu.models.cascade import Cascade
from rcnn_edu.models.fpn import resnet_fpn
from rcnn_edu.models.mask_head import MaskHead
from rcnn_edu.models.rpn import RPN
from rcnn_edu.models.transform import Detection, ImageTransform, Target, check_targets
from rcnn_edu.ops import paste_masks

Images = Sequence[Tensor] | Tensor
Output = dict[str, Tensor] | list[Detection]  # losses in training mode, detections in evaluation mode


class FasterRCNN(nn.Module):
    """Faster R-CNN: a network proposes regions, a second one classifies and refines them (Ren et al. 2015, figure 2).

    Called with images and, in training mode, targets, it returns a dict of losses or, in evaluation mode, each image's
    ``boxes``, ``labels`` and ``scores``, best first. Every part has a default, that of a ResNet-50 with FPN.

    Lesson: 04.
    """

    def __init__(
        self,
        num_classes: int = 80,
        *,
        transform: ImageTransform | None = None,
        backbone: nn.Module | None = None,  # images -> the levels of a pyramid
        rpn: RPN | None = None,
        box_head: BoxHead | Cascade | None = None,
        select: DetectionSelector | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.transform = transform if transform is not None else ImageTransform()
        self.backbone = backbone if backbone is not None else resnet_fpn()
        self.rpn = rpn if rpn is not None else RPN()
        self.box_head = box_head if box_head is not None else BoxHead(num_classes)
        self.select = select if select is not None else DetectionSelector()
        self.to(memory_format=torch.channels_last)  # weights lie as features do: convolutions are fastest so

    def forward(
        self, images: Images, targets: Sequence[Target] | None = None, generator: torch.Generator | None = None
    ) -> Output:
        """Return the losses in training mode, the detections in evaluation mode."""
        targets = check_targets(images, targets, self.num_classes, with_masks=False) if self.training else None
        batch = self.transform(images, targets)
        features = self.backbone(batch.images)  # P2 to P6
        proposals, losses = self.rpn(features, batch.sizes, batch.targets, generator)
        if batch.targets is not None:
            box_losses, _ = self.box_head.losses(features, proposals, batch.targets, batch.sizes, generator)
            return {**losses, **box_losses}
        predictions = self.box_head.predict(features, proposals, batch.sizes)
        return batch.restore([self.select(*prediction) for prediction in predictions])


class MaskRCNN(FasterRCNN):
    """Mask R-CNN: Faster R-CNN with a branch that draws each detection's mask (He et al. 2017, figure 1).

    Targets hold ``masks`` too, and so do the detections: probabilities of shape (n, 1, H, W).

    Lesson: 05.
    """

    def __init__(
        self,
        num_classes: int = 80,
        *,
        mask_head: MaskHead | None = None,
        paste: Callable[..., Tensor] = paste_masks,  # from a RoI into the image
        **parts: Any,  # those of :class:`FasterRCNN`
    ) -> None:
        super().__init__(num_classes, **parts)
        self.mask_head = mask_head if mask_head is not None else MaskHead(num_classes)
        self.paste = paste
        self.to(memory_format=torch.channels_last)

    def forward(
        self, images: Images, targets: Sequence[Target] | None = None, generator: torch.Generator | None = None
    ) -> Output:
        """Return the losses in training mode, the detections in evaluation mode."""
        targets = check_targets(images, targets, self.num_classes, with_masks=True) if self.training else None
        batch = self.transform(images, targets)
        features = self.backbone(batch.images)  # P2 to P6
        proposals, losses = self.rpn(features, batch.sizes, batch.targets, generator)
        if batch.targets is not None:
            box_losses, sampled = self.box_head.losses(features, proposals, batch.targets, batch.sizes, generator)
            mask_losses = self.mask_head.losses(features, sampled, batch.targets)
            return {**losses, **box_losses, **mask_losses}
        predictions = self.box_head.predict(features, proposals, batch.sizes)
        detections = [self.select(*prediction) for prediction in predictions]
        masks = self.mask_head.predict(features, detections)  # in the boxes, not yet in the image
        return batch.restore(detections, masks, self.paste)


class CascadeRCNN(FasterRCNN):
    """Cascade R-CNN: box heads in a row, at rising IoU (Cai & Vasconcelos 2018, figure 3d), with or without masks.

    The mask head learns from the first stage's RoIs and draws the masks of the final boxes.

    Lesson: 06.
    """

    def __init__(
        self,
        num_classes: int = 80,
        iou_thresholds: Sequence[float] = (0.5, 0.6, 0.7),  # one for each stage
        *,
        mask: bool = False,
        box_head: Cascade | None = None,
        mask_head: MaskHead | None = None,
        paste: Callable[..., Tensor] = paste_masks,
        **parts: Any,  # the others of :class:`FasterRCNN`
    ) -> None:
        cascade = box_head if box_head is not None else Cascade(num_classes, iou_thresholds=iou_thresholds)
        super().__init__(num_classes, box_head=cascade, **parts)
        self.mask_head = mask_head if mask_head is not None or not mask else MaskHead(num_classes)
        self.paste = paste
        self.to(memory_format=torch.channels_last)

    def forward(
        self, images: Images, targets: Sequence[Target] | None = None, generator: torch.Generator | None = None
    ) -> Output:
        """Return the losses in training mode, the detections in evaluation mode."""
        with_masks = self.mask_head is not None
        targets = check_targets(images, targets, self.num_classes, with_masks=with_masks) if self.training else None
        batch = self.transform(images, targets)
        features = self.backbone(batch.images)  # P2 to P6
        proposals, losses = self.rpn(features, batch.sizes, batch.targets, generator)
        if batch.targets is not None:
            stage_losses, sampled = self.box_head.losses(features, proposals, batch.targets, batch.sizes, generator)
            mask_losses = self.mask_head.losses(features, sampled, batch.targets) if self.mask_head is not None else {}
            return {**losses, **stage_losses, **mask_losses}
        predictions = self.box_head.predict(features, proposals, batch.sizes)
        detections = [self.select(*prediction) for prediction in predictions]
        masks = self.mask_head.predict(features, detections) if self.mask_head is not None else None
        return batch.restore(detections, masks, self.paste)
