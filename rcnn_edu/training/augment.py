"""Augmentation: each look at an image is mirrored or not, and larger or smaller."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rcnn_edu.models.transform import Target, resize_masks

MIN_SIDE = 2  # pixels that must be left of an object, each way, at the edge of the picture
GREY = (0.485, 0.456, 0.406)  # fills up what a smaller picture leaves free: 0 once it is normalised


def augment(
    image: Float[Tensor, "3 H W"],
    target: Target,
    generator: torch.Generator,
    *,
    flip: bool = True,
    scale_range: tuple[float, float] = (0.8, 1.25),
) -> tuple[Float[Tensor, "3 H W"], Target]:
    """Return the image and its target, mirrored with probability 1/2, then scaled, and cut or filled up to its size.

    Objects of which the cut leaves next to nothing are dropped.

    Lesson: 09.
    """
    if flip and torch.rand((), generator=generator) < 0.5:
        image, target = flip_horizontally(image, target)
    low, high = scale_range
    if (low, high) != (1, 1):
        spread = math.log(high / low)
        scale = low * math.exp(spread * torch.rand((), generator=generator).item())
        image, target = zoom(image, target, scale, generator)
    return image, target


def flip_horizontally(image: Float[Tensor, "3 H W"], target: Target) -> tuple[Float[Tensor, "3 H W"], Target]:
    """Return the mirror image and its target."""
    x1, y1, x2, y2 = target["boxes"].unbind(dim=1)
    width = image.shape[2]
    flipped = {**target, "boxes": torch.stack([width - x2, y1, width - x1, y2], dim=1)}
    if "masks" in target:
        flipped["masks"] = target["masks"].flip(2)
    return image.flip(2), flipped


def zoom(
    image: Float[Tensor, "3 H W"], target: Target, scale: float, generator: torch.Generator
) -> tuple[Float[Tensor, "3 H W"], Target]:
    """Return the picture ``scale`` times as large in a frame of the old size: a random cut, or with grey around it."""
    height, width = image.shape[1:]
    new_height, new_width = max(1, round(scale * height)), max(1, round(scale * width))
    top, left = (
        int(torch.randint(min(0, old - new), max(0, old - new) + 1, (), generator=generator))
        for old, new in ((height, new_height), (width, new_width))
    )
    # The part of the new picture that falls into the frame, and where.
    source = slice(max(0, -top), max(0, -top) + height), slice(max(0, -left), max(0, -left) + width)
    place = slice(max(0, top), max(0, top) + new_height), slice(max(0, left), max(0, left) + new_width)
    resized = F.interpolate(image[None], (new_height, new_width), mode="bilinear", antialias=True)[0]
    framed = image.new_tensor(GREY)[:, None, None].expand_as(image).clone()
    framed[:, *place] = resized[:, *source]
    limit = image.new_tensor([width, height, width, height])
    factors = image.new_tensor([new_width / width, new_height / height] * 2)
    boxes = target["boxes"] * factors + image.new_tensor([left, top, left, top])
    boxes = boxes.clamp(min=0).minimum(limit)
    zoomed = {**target, "boxes": boxes}
    if "masks" in target:
        masks = resize_masks(target["masks"], (new_height, new_width))
        zoomed["masks"] = masks.new_zeros(len(masks), height, width)
        zoomed["masks"][:, *place] = masks[:, *source]
    left_over = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(dim=1)
    return framed, {name: values[left_over] for name, values in zoomed.items()}
