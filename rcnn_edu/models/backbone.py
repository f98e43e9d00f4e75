"""Feature extractors: images of shape (B, 3, H, W) become the maps C2 to C5, at strides 4, 8, 16 and 32.

A backbone is a body from this file and a neck from ``fpn``: ``nn.Sequential(body, neck)``.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
import torchvision
from jaxtyping import Float
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)  # of C2 to C5


class FrozenNormConv2d(nn.Conv2d):
    """A convolution with the frozen batch norm after it folded in: each output channel times a scale, plus a shift.

    The scale goes into the weight in every forward pass, a hundredth of the convolution's work. So a training step is
    spared the batch norm's passes over the activations too, and the weight is still the one a checkpoint knows.
    """

    scale: Float[Tensor, " C"]
    shift: Float[Tensor, " C"]

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0], conv.kernel_size[1]),
            (conv.stride[0], conv.stride[1]),
            conv.padding,  # type: ignore[arg-type]  # a pair of numbers here too
            (conv.dilation[0], conv.dilation[1]),
            conv.groups,
            bias=False,
            device="meta",  # no second weight: the given one is taken over
        )
        self.weight = conv.weight
        self.register_buffer("scale", conv.weight.new_ones(conv.out_channels))
        self.register_buffer("shift", conv.weight.new_zeros(conv.out_channels))

    def forward(self, x: Float[Tensor, "B _ _ _"]) -> Float[Tensor, "B C _ _"]:
        """Return the scaled and shifted convolution."""
        folded: Tensor = self._conv_forward(x, self.weight * self.scale[:, None, None, None], self.shift)
        return folded


def fold_batch_norms(module: nn.Module) -> None:
    """Replace, in place, each convolution that a batch norm follows by a :class:`FrozenNormConv2d`, at any depth."""
    for (conv_name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, conv_name, FrozenNormConv2d(conv))
            setattr(module, norm_name, nn.Identity())
    for child in module.children():
        fold_batch_norms(child)


class Body(nn.Module):
    """A stem and four stages, each of which halves the map.

    Attributes:
        channels: of C2 to C5.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], channels: Sequence[int]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.channels = list(channels)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return C2 to C5."""
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def freeze(self, count: int) -> None:
        """Stop training the first ``count`` of stem and stages: 2, the stem and C2, is usual after pretraining."""
        for part in [self.stem, *self.stages][:count]:
            part.requires_grad_(False)


class ResNetBody(Body):
    """torchvision's ResNet without its classifier, its batch norms frozen and folded (Mask R-CNN, section 3).

    ``name`` is torchvision's: "resnet18", "resnet34", "resnet50", "resnet101".

    Lesson: 02.
    """

    def __init__(self, name: str = "resnet50") -> None:
        resnet = torchvision.models.get_model(name, weights=None)
        fold_batch_norms(resnet)
        stages = [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4]
        widest = resnet.fc.in_features
        super().__init__(
            stem=nn.Sequential(resnet.conv1, resnet.relu, resnet.maxpool),
            stages=stages,
            channels=[widest // 8, widest // 4, widest // 2, widest],
        )
        # Without statistics to normalise by, every block would double the variance: damp the branch that each one adds.
        blocks = [block for stage in stages for block in stage]
        for block in blocks:
            last = [conv for conv in block.children() if isinstance(conv, FrozenNormConv2d)][-1]
            last.scale.fill_(len(blocks) ** -0.5)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, halving the map. Group norm: it serves batches of a few images as well."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=2)

    def forward(self, x: Float[Tensor, "B _ _ _"]) -> Float[Tensor, "B _ _ _"]:
        """Return the block's features at half the resolution."""
        branch = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(branch + self.shortcut(x))


class TinyBody(Body):
    """A residual network of half a million parameters that learns from scratch on a laptop."""

    def __init__(self, channels: tuple[int, int, int, int] = (32, 64, 96, 128)) -> None:
        super().__init__(
            stem=nn.Sequential(
                nn.Conv2d(3, channels[0], 3, stride=2, padding=1, bias=False), nn.GroupNorm(8, channels[0]), nn.ReLU()
            ),
            stages=[ResidualBlock(before, after) for before, after in pairwise((channels[0], *channels))],
            channels=channels,
        )
