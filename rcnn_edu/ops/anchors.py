"""Anchors: the boxes an RPN starts from, the same few around every cell of every pyramid level."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class AnchorGenerator:
    """The anchors of a feature pyramid, fixed by sizes, shapes and strides (Faster R-CNN, section 3.1.1; FPN, 4.1).

    A level's anchors are all its sizes in all the aspect ratios, rounded to whole pixels and centred on each cell's
    top left corner, (x · stride, y · stride). That is torchvision's layout, so that its weights fit.

    Attributes:
        sizes: for each level, the anchors' sizes in pixels: the square roots of their areas.
        aspect_ratios: height / width, for all the levels.
        strides: for each level, the pixels from one cell to the next.

    Raises:
        ValueError: if the levels do not agree with each other, or a number is not positive.

    Lesson: 03.
    """

    sizes: Sequence[Sequence[float]] = ((32,), (64,), (128,), (256,), (512,))
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0)
    strides: Sequence[int] = (4, 8, 16, 32, 64)

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.strides):
            raise ValueError(f"sizes and strides must agree in levels, got {len(self.sizes)} and {len(self.strides)}")
        if len({len(sizes) for sizes in self.sizes}) != 1 or self.num_anchors_per_cell == 0:
            raise ValueError(
                f"every level needs the same number of sizes, at least one, and a ratio, got {self.sizes} and "
                f"{self.aspect_ratios}; the RPN's one head serves all the levels"
            )
        numbers = [*self.aspect_ratios, *self.strides, *(size for sizes in self.sizes for size in sizes)]
        if not all(0 < number < math.inf for number in numbers):
            raise ValueError(f"sizes, aspect_ratios and strides must be positive, got {self}")

    @property
    def num_anchors_per_cell(self) -> int:
        """Anchors around each cell, the same number on every level."""
        return len(self.sizes[0]) * len(self.aspect_ratios)

    def __call__(
        self,
        feature_sizes: Sequence[tuple[int, int]],
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> list[Float[Tensor, "A_l 4"]]:
        """Return each level's anchors, shape (H · W · num_anchors_per_cell, 4): row by row, cell by cell.

        Args:
            feature_sizes: each level's (H, W), fine to coarse.
            device: where the anchors are to lie.
            dtype: their type.

        Raises:
            ValueError: for another number of levels than there are strides.
        """
        if len(feature_sizes) != len(self.strides):
            raise ValueError(f"feature_sizes must name {len(self.strides)} levels' (H, W), got {list(feature_sizes)}")
        anchors = []
        for sizes, stride, (height, width) in zip(self.sizes, self.strides, feature_sizes, strict=True):
            y, x = torch.meshgrid(
                torch.arange(height, device=device, dtype=dtype) * stride,
                torch.arange(width, device=device, dtype=dtype) * stride,
                indexing="ij",
            )
            corners = torch.stack([x, y, x, y], dim=-1)  # (H, W, 4)
            around_cell = self._around_cell(sizes).to(corners)  # (A, 4)
            anchors.append((corners[:, :, None] + around_cell).view(-1, 4))
        return anchors

    def _around_cell(self, sizes: Sequence[float]) -> Float[Tensor, "A 4"]:
        """Return one level's anchors around (0, 0), ratio by ratio; of one size, all have the same area."""
        root = torch.tensor(self.aspect_ratios, dtype=torch.float32).sqrt()[:, None]
        size = torch.tensor(sizes, dtype=torch.float32)
        width, height = (size * (1 / root)).flatten(), (size * root).flatten()
        return (torch.stack([-width, -height, width, height], dim=1) / 2).round()
