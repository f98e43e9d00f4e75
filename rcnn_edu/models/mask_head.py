"""The mask branch: for each RoI a small picture of every class's mask, from which the box head's class picks one.

Shape shorthand: R RoIs of all images together, m = 28 the side of the small picture.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rcnn_edu.models.box_head import Pool, PyramidRoIAlign, SampledRoIs, to_rois
from rcnn_edu.models.fpn import Pyramid
from rcnn_edu.models.transform import Detection, Target
from rcnn_edu.ops import crop_masks, mask_loss


class FCNMasks(nn.Sequential):
    """The mask as a picture: convolutions that keep the RoI's layout, enlarged to twice its bins (section 3.1)."""

    def __init__(self, out_channels: int, in_channels: int = 256, hidden: int = 256, num_convs: int = 4) -> None:
        layers: list[nn.Module] = []
        for before in [in_channels, *[hidden] * (num_convs - 1)]:
            layers += [nn.Conv2d(before, hidden, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [
            nn.ConvTranspose2d(hidden, hidden, 2, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, out_channels, 1),
        ]
        super().__init__(*layers)
        for layer in layers[::2]:
            nn.init.kaiming_normal_(cast(Tensor, layer.weight), mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, layer.bias))


class MLPMasks(nn.Sequential):
    """The mask as a vector: fully connected layers, which must learn the layout themselves (Table 2e)."""

    def __init__(self, out_channels: int, in_channels: int = 256, hidden: int = 1024, pool_size: int = 14) -> None:
        side = 2 * pool_size
        super().__init__(
            nn.Flatten(),
            nn.Linear(in_channels * pool_size**2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, out_channels * side**2),
            nn.Unflatten(1, (out_channels, side, side)),
        )


class MaskHead(nn.Module):
    """K masks for each RoI, none aware of the others: the class says which one counts (Mask R-CNN, section 3).

    Lesson: 05.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 256,
        *,
        pool: Pool | None = None,  # by default RoIAlign on the pyramid, 14 x 14 bins
        network: Callable[[int, int], nn.Module] = FCNMasks,  # called with its output's and its input's channels
        crop: Callable[..., Tensor] = crop_masks,  # makes the targets
    ) -> None:
        super().__init__()
        self.pool = pool if pool is not None else PyramidRoIAlign(14)
        self.network = network(self.num_channels(num_classes), in_channels)
        self.crop = crop

    def num_channels(self, num_classes: int) -> int:
        """Return how many masks the network makes: one for each class; channel = label - 1."""
        return num_classes

    def forward(self, features: Pyramid, rois: Float[Tensor, "R 5"]) -> Float[Tensor, "R channels m m"]:
        """Return the mask logits."""
        return cast(Tensor, self.network(self.pool(features, rois)).to(rois.dtype))

    def loss(
        self, logits: Float[Tensor, "R channels m m"], labels: Int[Tensor, " R"], targets: Float[Tensor, "R m m"]
    ) -> Float[Tensor, ""]:
        """Return the loss of the labels' masks; the other classes' are left alone."""
        return mask_loss(logits, labels, targets)

    def probabilities(
        self, logits: Float[Tensor, "R channels m m"], labels: Int[Tensor, " R"]
    ) -> Float[Tensor, "R m m"]:
        """Return the probability that a pixel belongs to the object of the given class."""
        return logits[torch.arange(len(labels), device=labels.device), labels - 1].sigmoid()

    def losses(self, features: Pyramid, sampled: SampledRoIs, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return ``loss_mask`` of the positive RoIs; without one it is 0, with its graph."""
        positive = sampled.labels > 0
        rois, gt_index = sampled.rois[positive], sampled.gt_index[positive]
        logits = self(features, rois)
        crops = []
        for index, target in enumerate(targets):
            here = rois[:, 0] == index
            crops.append(self.crop(target["masks"], rois[here, 1:], logits.shape[-1], gt_index[here]))
        return {"loss_mask": self.loss(logits, sampled.labels[positive], torch.cat(crops))}

    def predict(self, features: Pyramid, detections: Sequence[Detection]) -> list[Float[Tensor, "_ m m"]]:
        """Return the mask probabilities of each image's detections, within their boxes."""
        logits = self(features, to_rois([detection["boxes"] for detection in detections]))
        probabilities = self.probabilities(logits, torch.cat([detection["labels"] for detection in detections]))
        return list(torch.split(probabilities, [len(detection["labels"]) for detection in detections]))


class AgnosticMaskHead(MaskHead):
    """One mask, whatever the class is (Mask R-CNN, section 4.2)."""

    def num_channels(self, num_classes: int) -> int:
        """Return 1."""
        return 1

    def loss(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the one mask."""
        return mask_loss(logits, torch.ones_like(labels), targets)

    def probabilities(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the probability of each pixel."""
        return logits[:, 0].sigmoid()


class SoftmaxMaskHead(MaskHead):
    """Classes and background compete for every pixel, as in semantic segmentation (Mask R-CNN, Table 2b)."""

    def num_channels(self, num_classes: int) -> int:
        """Return K + 1: background has a channel here, so channel = label."""
        return num_classes + 1

    def loss(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each pixel's class: the label inside the mask, background outside."""
        classes = (targets >= 0.5) * labels[:, None, None]
        return F.cross_entropy(logits, classes, reduction="sum") / max(1, classes.numel())

    def probabilities(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the probability of each pixel's class being the label."""
        return logits.softmax(dim=1)[torch.arange(len(labels), device=labels.device), labels]
