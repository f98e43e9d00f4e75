"""Multi-scale testing: several looks at one image, at several sizes and mirrored, and one answer."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rcnn_edu.models.box_head import DetectionSelector
from rcnn_edu.models.rcnn import CascadeRCNN, FasterRCNN, MaskRCNN
from rcnn_edu.models.transform import Detection, Size, resize_boxes


@torch.no_grad()
def multi_scale_test(
    model: FasterRCNN,
    image: Float[Tensor, "3 H W"],
    scales: Sequence[float] = (0.5, 1.0, 1.5),
    flip: bool = False,
    select: DetectionSelector | None = None,
) -> Detection:
    """Return the image's detections, merged from a view at each scale, with ``flip`` also mirrored.

    All the views' boxes with all their class scores go into one NMS, or Soft-NMS; the masks of the detections that come
    out are averaged over the views. One view at scale 1 gives what the model gives.

    Args:
        model: a detector in evaluation mode.
        image: shape (3, H, W), from 0 to 1.
        scales: factors on the size at which the model looks at an image; 1 is the one it was trained at.
        flip: add each view's mirror image.
        select: chooses the detections; the model's own by default. For Soft-NMS: ``suppression="gaussian"``.

    Raises:
        ValueError: for a model in training mode, no scales, or a scale that is not positive.

    Lesson: 08 (Deep residual learning, Table 9).
    """
    if model.training:
        raise ValueError("the model must be in evaluation mode: call model.eval()")
    views = [(scale, flipped) for scale in scales for flipped in ((False, True) if flip else (False,))]
    if not views:
        raise ValueError("scales must name at least one scale, got none; 1.0 is the model's own")
    if views == [(1.0, False)] and select is None:
        alone: Detection = model([image])[0]
        return alone
    size = (image.shape[1], image.shape[2])
    boxes, probabilities, pyramids = [], [], []
    for scale, flipped in views:
        batch = model.transform([image.flip(2) if flipped else image], scale=scale)
        features = model.backbone(batch.images)
        proposals, _ = model.rpn(features, batch.sizes)
        [(view_boxes, view_probabilities)] = model.box_head.predict(features, proposals, batch.sizes)
        restored = resize_boxes(view_boxes.flatten(0, 1), batch.sizes[0], size)
        restored = mirror(restored, size) if flipped else restored
        boxes.append(restored.view_as(view_boxes))
        probabilities.append(view_probabilities)
        pyramids.append((features, batch.sizes[0], flipped))
    detection = (select or model.select)(torch.cat(boxes), torch.cat(probabilities))
    if isinstance(model, MaskRCNN | CascadeRCNN) and model.mask_head is not None:
        masks = []
        for features, view_size, flipped in pyramids:
            seen = mirror(detection["boxes"], size) if flipped else detection["boxes"]
            seen = resize_boxes(seen, size, view_size)
            [view_masks] = model.mask_head.predict(features, [{**detection, "boxes": seen}])
            masks.append(view_masks.flip(2) if flipped else view_masks)
        detection["masks"] = model.paste(torch.stack(masks).mean(dim=0), detection["boxes"], size)[:, None]
    return detection


def mirror(boxes: Float[Tensor, "n 4"], size: Size) -> Float[Tensor, "n 4"]:
    """Return the boxes in the mirror image of an image of ``size`` (H, W)."""
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    return torch.stack([size[1] - x2, y1, size[1] - x1, y2], dim=1)
