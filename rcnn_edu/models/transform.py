"""From the user's images to the network's batch, and the way back."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from rcnn_edu.ops import check_boxes, paste_masks

Target = dict[str, Tensor]  # boxes (n, 4), labels (n,)[, masks (n, H, W)] of one image
Detection = dict[str, Tensor]  # boxes (n, 4), labels (n,), scores (n,)[, masks (n, 1, H, W)] of one image
Size = tuple[int, int]  # (H, W)


@dataclass(frozen=True)
class Batch:
    """What a detector works on.

    Attributes:
        images: normalised, resized, and padded with zeros at the right and the bottom to a common size.
        sizes: of each image without its padding, the frame of all boxes and masks within the network.
        original_sizes: of each image as it was given.
        targets: in the frame of ``sizes``; None outside training.
    """

    images: Float[Tensor, "B 3 H W"]
    sizes: list[Size]
    original_sizes: list[Size]
    targets: list[Target] | None

    def restore(
        self,
        detections: Sequence[Detection],
        masks: Sequence[Float[Tensor, "_ m m"]] | None = None,
        paste: Callable[..., Tensor] = paste_masks,
    ) -> list[Detection]:
        """Return the detections in the original images, with ``masks`` of shape (n, 1, H, W) if given."""
        restored = []
        for index, (size, original_size) in enumerate(zip(self.sizes, self.original_sizes, strict=True)):
            boxes = resize_boxes(detections[index]["boxes"], size, original_size)
            restored.append({**detections[index], "boxes": boxes})
            if masks is not None:
                restored[index]["masks"] = paste(masks[index], boxes, original_size)[:, None]
        return restored


@dataclass(frozen=True)
class ImageTransform:
    """Resizes images and targets, normalises, pads; and takes boxes back.

    Attributes:
        min_size: the length of the shorter side after resizing, in pixels,
        max_size: unless the longer side would exceed this one.
        mean: of each channel, subtracted; ImageNet's.
        std: of each channel, divided by.
        divisor: the padded sides are its multiples, so that every stride divides them.
    """

    min_size: int = 800
    max_size: int = 1333
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    divisor: int = 32

    def __call__(
        self, images: Sequence[Tensor] | Tensor, targets: Sequence[Target] | None = None, scale: float = 1.0
    ) -> Batch:
        """Return the batch for ``images``, each of shape (3, H, W) with values from 0 to 1.

        Args:
            images: a list, or one tensor of shape (B, 3, H, W).
            targets: one for each image, checked by the caller with :func:`check_targets`.
            scale: factor on ``min_size`` and ``max_size``, for multi-scale testing.

        Raises:
            TypeError, ValueError: for anything but images as described, or a scale that is not positive.
        """
        check_images(images)
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive, got {scale}; 1 is the size that the detector was trained at")
        original_sizes = [(image.shape[1], image.shape[2]) for image in images]
        sizes = [self.resized(size, scale) for size in original_sizes]
        height, width = (math.ceil(max(sides) / self.divisor) * self.divisor for sides in zip(*sizes, strict=True))
        # Laid out as channels_last: so are then all the features, and RoIAlign reads them as they lie.
        batch = images[0].new_zeros(len(sizes), height, width, 3).permute(0, 3, 1, 2)
        mean, std = (batch.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        for image, (h, w), slot in zip(images, sizes, batch, strict=True):
            if image.shape[1:] != (h, w):
                image = F.interpolate(image[None], size=(h, w), mode="bilinear", align_corners=False)[0]
            slot[:, :h, :w] = (image - mean) / std
        if targets is not None:
            targets = [_resize_target(*pair) for pair in zip(targets, original_sizes, sizes, strict=True)]
        return Batch(batch, sizes, original_sizes, targets)

    def resized(self, size: Size, scale: float = 1.0) -> Size:
        """Return the size that an image of ``size`` is resized to, its aspect ratio kept."""
        factor = scale * min(self.min_size / min(size), self.max_size / max(size))
        return max(1, math.floor(size[0] * factor)), max(1, math.floor(size[1] * factor))


def resize_boxes(boxes: Float[Tensor, "n 4"], size: Size, new_size: Size) -> Float[Tensor, "n 4"]:
    """Return boxes of an image of ``size`` as boxes of the same image at ``new_size``."""
    y, x = new_size[0] / size[0], new_size[1] / size[1]
    return boxes * boxes.new_tensor([x, y, x, y])


def _resize_target(target: Target, size: Size, new_size: Size) -> Target:
    resized = {**target, "boxes": resize_boxes(target["boxes"], size, new_size)}
    if "masks" in target and size != new_size:
        resized["masks"] = resize_masks(target["masks"], new_size)
    return resized


def resize_masks(masks: Shaped[Tensor, "n H W"], new_size: Size) -> UInt8[Tensor, "n new_H new_W"]:
    """Return masks of 0 and 1 at ``new_size``: each pixel takes the value of the one that its centre falls into.

    That is "nearest-exact": plain "nearest" takes the one at its upper left corner instead, so that masks drift half a
    pixel to the right and down, away from the image and the boxes.
    """
    return F.interpolate(masks[:, None].to(torch.uint8), size=new_size, mode="nearest-exact")[:, 0]


def check_images(images: Sequence[Tensor] | Tensor) -> None:
    """Raise a clear error unless ``images`` are float images of shape (3, H, W) with values from 0 to 1.

    Raises:
        TypeError: for an image that is not a floating-point tensor.
        ValueError: for no images, another shape, or values far outside [0, 1].
    """
    if len(images) == 0:
        raise ValueError("images must hold at least one image of shape (3, H, W), got none")
    for index, image in enumerate(images):
        if not isinstance(image, Tensor) or not image.is_floating_point():
            kind = image.dtype if isinstance(image, Tensor) else type(image).__name__
            raise TypeError(f"images[{index}] must be a float tensor, got {kind}; from uint8: image.float() / 255")
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(
                f"images[{index}] must be of shape (3, H, W), got {tuple(image.shape)}; "
                "repeat a grey image's channel: image.expand(3, -1, -1); a single image goes in as a list: [image]"
            )
        low, high = torch.stack(image.aminmax()).tolist()  # one device synchronisation
        if not (low > -0.5 and high < 1.5):  # NaN too; augmentation may leave [0, 1] a little
            raise ValueError(
                f"images[{index}] must have values from 0 to 1, got {low:g} to {high:g}; "
                "divide by 255, and leave the normalisation to the model"
            )


def check_targets(
    images: Sequence[Tensor] | Tensor, targets: Sequence[Target] | None, num_classes: int, *, with_masks: bool
) -> Sequence[Target]:
    """Return the targets if there is a valid one for each image; else the error names the image, the row and the cause.

    Raises:
        TypeError: for boxes or labels of another type.
        ValueError: for missing targets or fields, boxes without area, not finite or beyond the image, labels that are
            not 1 to ``num_classes``, or masks of another number or size, or of other values than 0 and 1.
    """
    if targets is None or len(targets) != len(images):
        came = "none" if targets is None else len(targets)
        raise ValueError(f"training needs one target for each of {len(images)} images, got {came}; for results: eval()")
    for index, (image, target) in enumerate(zip(images, targets, strict=True)):
        needed = ["boxes", "labels", "masks"] if with_masks else ["boxes", "labels"]
        missing = [name for name in needed if name not in target]
        if missing:
            raise ValueError(f"targets[{index}] must have {needed}, got {sorted(target)}: add {missing}")
        size = (image.shape[1], image.shape[2])
        _check_boxes(f"targets[{index}]['boxes']", target["boxes"], size)
        _check_labels(f"targets[{index}]['labels']", target["labels"], len(target["boxes"]), num_classes)
        if with_masks:
            _check_masks(f"targets[{index}]['masks']", target["masks"], len(target["boxes"]), size)
    return targets


def _check_boxes(name: str, boxes: Tensor, size: Size) -> None:
    check_boxes(boxes, name, positive_size=True)
    height, width = size
    outside = (boxes < -1) | (boxes > boxes.new_tensor([width, height, width, height]) + 1)
    if outside.any():
        row = int(outside.any(dim=1).nonzero()[0])
        raise ValueError(
            f"{name}[{row}] must lie within its image of {height} x {width} pixels (H x W), got {boxes[row].tolist()}; "
            "are these boxes of the image before it was resized, or (x, y, width, height)?"
        )


def _check_labels(name: str, labels: Tensor, count: int, num_classes: int) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != (count,):
        came = f"{labels.dtype} of shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(
            f"{name} must be int64 of shape ({count},), one for each box, got {came}; "
            "convert: torch.as_tensor(labels, dtype=torch.int64)"
        )
    wrong = ((labels < 1) | (labels > num_classes)).nonzero()[:, 0].tolist()
    if wrong:
        raise ValueError(
            f"{name}[{wrong[0]}] must be from 1 to {num_classes}, got {int(labels[wrong[0]])}; "
            "0 is background, and num_classes counts the classes without it"
        )


def _check_masks(name: str, masks: Tensor, count: int, size: Size) -> None:
    if masks.shape != (count, *size):
        raise ValueError(
            f"{name} must be of shape {(count, *size)}, one mask of the image's size for each box, "
            f"got {tuple(masks.shape)}; were the image resized, or objects dropped, without their masks?"
        )
    if count > 0 and masks.max() > 1:
        row = int((masks > 1).flatten(1).any(dim=1).nonzero()[0])
        raise ValueError(
            f"{name}[{row}] must be of 0 and 1, or False and True, got {masks[row].max():g}; write masks > 0"
        )
