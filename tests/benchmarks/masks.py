"""Masks: into the image, and out of it as targets, ours and torchvision's."""

from functools import partial

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes

from rcnn_edu.ops import crop_masks, paste_masks
from tests.benchmarks.harness import Case, Contenders

IMAGE = (800, 1066)
SIZES = {"small": (20, 200), "large": (100, 700)}  # from and to, in pixels


def cases(quick: bool) -> list[Case]:
    n, image = (3, (20, 30)) if quick else (100, IMAGE)
    at = f"at {image[0]} x {image[1]}"
    return [
        *(
            Case("paste_masks", f"{n} masks in {kind} boxes, {at}", partial(_paste, n, size, image))
            for kind, size in SIZES.items()
        ),
        *(
            Case("crop_masks", f"{n} {kind} boxes, 10 masks, {at}", partial(_crop, n, size, image))
            for kind, size in SIZES.items()
        ),
    ]


def _random_boxes(n: int, size: tuple[int, int], image: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    limit = torch.tensor([image[1], image[0]])
    centre = torch.rand(n, 2, generator=generator) * limit
    half = size[0] / 2 * (size[1] / size[0]) ** torch.rand(n, 2, generator=generator)
    start = torch.minimum((centre - half).clamp(min=0), limit - 2)
    return torch.cat([start, torch.maximum(torch.minimum(centre + half, limit), start + 1)], dim=1)


def _paste(n: int, size: tuple[int, int], image: tuple[int, int]) -> Contenders:
    probs, boxes = torch.rand(n, 28, 28, generator=torch.Generator().manual_seed(0)), _random_boxes(n, size, image)
    return {
        "ours": lambda: paste_masks(probs, boxes, image),
        "torchvision": lambda: paste_masks_in_image(probs[:, None], boxes, image)[:, 0],
    }


def _crop(n: int, size: tuple[int, int], image: tuple[int, int]) -> Contenders:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(10, *image, generator=generator) > 0.5
    boxes, index = _random_boxes(n, size, image), torch.randint(10, (n,), generator=generator)
    return {
        "ours": lambda: crop_masks(masks, boxes, 28, index, aligned=False),
        "torchvision": lambda: project_masks_on_boxes(masks, boxes, index, 28),
    }
