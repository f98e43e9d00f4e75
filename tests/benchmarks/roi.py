"""RoIAlign and RoI Pooling: ours on channels_last features, torchvision's on whichever layout suits it better."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor

from rcnn_edu.ops import roi_align, roi_pool
from tests.benchmarks.harness import Case, Contenders


class Shape(NamedTuple):
    features: tuple[int, int, int, int]  # B, C, H, W
    num_rois: int
    output_size: int
    stride: int

    def __str__(self) -> str:
        return f"{self.features}, {self.num_rois} RoIs, {self.output_size} x {self.output_size}, scale 1/{self.stride}"


SHAPES = [
    Shape((2, 256, 200, 272), 1000, 7, 4),
    Shape((1, 256, 100, 136), 512, 7, 8),
    Shape((2, 256, 50, 68), 512, 14, 16),
    Shape((1, 64, 48, 48), 256, 7, 4),
]
QUICK_SHAPES = [Shape((2, 8, 12, 16), 20, 3, 4)]

Pool = Callable[[Tensor, Tensor, int, float], Tensor]


def cases(quick: bool) -> list[Case]:
    fixed = partial(roi_align, sampling_ratio=2), partial(torchvision.ops.roi_align, sampling_ratio=2, aligned=True)
    adaptive = partial(roi_align, sampling_ratio=0), partial(torchvision.ops.roi_align, sampling_ratio=0, aligned=True)
    pooling = roi_pool, torchvision.ops.roi_pool
    shapes = QUICK_SHAPES if quick else SHAPES
    groups: list[tuple[str, tuple[Pool, Pool], bool, list[Shape]]] = [
        ("roi_align, forward", fixed, False, shapes),
        ("roi_align, forward and backward", fixed, True, shapes),
        ("roi_align with adaptive samples, forward and backward", adaptive, True, shapes[-2:]),
        ("roi_pool, forward", pooling, False, shapes[-2:]),
        ("roi_pool, forward and backward", pooling, True, shapes[-2:]),
    ]
    return [
        Case(group, str(shape), partial(_contenders, shape, *pair, backward))
        for group, pair, backward, chosen in groups
        for shape in chosen
    ]


def _contenders(shape: Shape, ours: Pool, theirs: Pool, backward: bool) -> Contenders:
    generator = torch.Generator().manual_seed(0)
    rois = _random_rois(shape, generator)
    size = shape.output_size
    features = torch.randn(shape.features, generator=generator)
    upstream = torch.randn(len(rois), shape.features[1], size, size, generator=generator)  # the gradient that comes in

    def contender(pool: Pool, memory_format: torch.memory_format) -> Callable[[], object]:
        own_features = features.contiguous(memory_format=memory_format).requires_grad_(backward)
        own_upstream = upstream.contiguous(memory_format=memory_format)

        def call() -> object:
            pooled = pool(own_features, rois, size, 1 / shape.stride)
            return torch.autograd.grad(pooled, own_features, own_upstream)[0] if backward else pooled

        return call

    return {
        "ours": contender(ours, torch.channels_last),
        "torchvision, channels_last": contender(theirs, torch.channels_last),
        "torchvision, contiguous": contender(theirs, torch.contiguous_format),
    }


def _random_rois(shape: Shape, generator: torch.Generator) -> Tensor:
    """RoIs within the image, their sides log-uniform from 4 to 40 cells: what the pyramid's rule sends to a level."""
    batch, _, height, width = shape.features
    image = shape.stride * torch.tensor([width, height])
    centre = torch.rand(shape.num_rois, 2, generator=generator) * image
    half = shape.stride * 2 * 10 ** torch.rand(shape.num_rois, 2, generator=generator)
    batch_index = torch.randint(batch, (shape.num_rois, 1), generator=generator)
    return torch.cat([batch_index, (centre - half).clamp(min=0), torch.minimum(centre + half, image)], dim=1)
