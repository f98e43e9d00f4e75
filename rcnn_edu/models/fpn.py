"""Necks: what stands between a body's maps and the heads, the feature pyramid or a single map in its place."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rcnn_edu.models.backbone import ResNetBody

Maps = Sequence[Float[Tensor, "B _ _ _"]]  # of a body, fine to coarse
Pyramid = Sequence[Float[Tensor, "B C _ _"]]  # all of the same number of channels


def subsampled_p6(pyramid: Pyramid, features: Maps) -> Tensor:
    """Return P6: every other cell of P5, which only the RPN's largest anchors look at (FPN, section 4.1)."""
    return F.max_pool2d(pyramid[-1], kernel_size=1, stride=2)


class ConvP6(nn.Module):
    """P6 as a convolution of stride 2 on C5: RetinaNet's, of the same size as :func:`subsampled_p6`."""

    def __init__(self, c5_channels: int, out_channels: int = 256) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c5_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, pyramid: Pyramid, features: Maps) -> Tensor:
        """Return P6."""
        return cast(Tensor, self.conv(features[-1]))


class FPN(nn.Module):
    """A feature pyramid: strong features at every resolution, P2 to P5 from C2 to C5, and P6 (FPN, section 3).

    Args:
        in_channels_list: channels of the body's maps, fine to coarse.
        out_channels: channels of every level.
        p6: makes one more level from the pyramid and the body's maps: :func:`subsampled_p6`, a :class:`ConvP6`; None
            for no P6.
        merge: joins a level's lateral map with the enlarged one from above: their sum in the paper. A function that
            returns one of the two is the pyramid without top-down path, or without lateral connections (FPN, Table 1).

    Lesson: 02.
    """

    def __init__(
        self,
        in_channels_list: Sequence[int],
        out_channels: int = 256,
        p6: Callable[[Pyramid, Maps], Tensor] | None = subsampled_p6,
        merge: Callable[[Tensor, Tensor], Tensor] = torch.add,
    ) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels_list)
        self.outputs = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in in_channels_list)
        for conv in [*self.laterals, *self.outputs]:
            nn.init.kaiming_uniform_(cast(Tensor, conv.weight), a=1)
            nn.init.zeros_(cast(Tensor, conv.bias))
        self.p6 = p6
        self.merge = merge

    def forward(self, features: Maps) -> list[Float[Tensor, "B C _ _"]]:
        """Return P2 to P6 for C2 to C5."""
        laterals = [conv(c) for conv, c in zip(self.laterals, features, strict=True)]
        merged = [laterals[-1]]
        for lateral in reversed(laterals[:-1]):
            from_above = F.interpolate(merged[0], size=lateral.shape[-2:], mode="nearest")
            merged.insert(0, self.merge(lateral, from_above))
        pyramid = [conv(m) for conv, m in zip(self.outputs, merged, strict=True)]
        return pyramid if self.p6 is None else [*pyramid, self.p6(pyramid, features)]


class SingleMap(nn.Module):
    """One map of the body, brought to ``out_channels``: what detectors used before the FPN (Faster R-CNN's C4).

    Args:
        in_channels_list: channels of the body's maps, fine to coarse.
        out_channels: channels of the output.
        level: which map, counted from 0: 2 is C4, at stride 16.

    Lesson: 02.
    """

    def __init__(self, in_channels_list: Sequence[int], out_channels: int = 256, level: int = 2) -> None:
        super().__init__()
        self.level = level
        self.conv = nn.Conv2d(in_channels_list[level], out_channels, 1)

    def forward(self, features: Maps) -> list[Float[Tensor, "B C _ _"]]:
        """Return a list of the one map."""
        return [self.conv(features[self.level])]


def resnet_fpn(name: str = "resnet50") -> nn.Sequential:
    """Return the usual backbone: a ResNet's body, and an FPN of 256 channels with P6 by subsampling."""
    body = ResNetBody(name)
    return nn.Sequential(OrderedDict(body=body, fpn=FPN(body.channels)))
