"""Cascade R-CNN: box heads in a row, each trained at a higher IoU on the boxes that the one before it has refined."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rcnn_edu.models.box_head import Boxes, BoxHead, RoISampler, SampledRoIs
from rcnn_edu.models.fpn import Pyramid
from rcnn_edu.models.transform import Size, Target


class Cascade(nn.Module):
    """The stages, in the place of one box head: each takes the boxes of the one before it for its proposals.

    Between two stages boxes are detached and clipped. In evaluation none is dropped on the way: row i is the same RoI
    at every stage, so that the stages' probabilities can be averaged (Cascade R-CNN, section 4).

    Raises:
        ValueError: if ``iou_thresholds`` is empty.

    Lesson: 06.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 256,
        iou_thresholds: Sequence[float] = (0.5, 0.6, 0.7),
        *,
        head: Callable[..., BoxHead] = BoxHead,  # makes a stage
        sampler: RoISampler | None = None,  # of every stage, but for its IoU
        loss_weights: Sequence[float] = (1.0, 0.5, 0.25),  # of the stages; any further one weighs as the last
    ) -> None:
        super().__init__()
        if len(iou_thresholds) == 0:
            raise ValueError(
                f"iou_thresholds must name at least one stage, got {iou_thresholds}; (0.5, 0.6, 0.7) is usual"
            )
        sampler = sampler if sampler is not None else RoISampler()
        self.stages: Sequence[BoxHead] = cast(
            "Sequence[BoxHead]",
            nn.ModuleList(
                head(
                    num_classes,
                    in_channels,
                    class_agnostic=True,  # a stage's box must not depend on a class not yet decided
                    delta_weights=tuple(weight * number for weight in (10.0, 10.0, 5.0, 5.0)),  # deltas shrink: fig. 2
                    sampler=replace(sampler, iou_thresh=iou_thresh),
                )
                for number, iou_thresh in enumerate(iou_thresholds, start=1)
            ),
        )
        self.loss_weights = loss_weights

    def losses(
        self,
        features: Pyramid,
        proposals: Boxes,
        targets: Sequence[Target],
        sizes: Sequence[Size],
        generator: torch.Generator | None = None,
    ) -> tuple[dict[str, Tensor], SampledRoIs]:
        """Return each stage's weighted losses, ``loss_classifier_1`` and so on, and the first stage's RoIs."""
        losses: dict[str, Tensor] = {}
        samples: list[SampledRoIs] = []
        for number, head in enumerate(self.stages, start=1):
            sampled = head.sampler(proposals, targets, generator)
            class_logits, deltas = head(features, sampled.rois)
            class_loss, box_loss = head.loss(class_logits, deltas, sampled)
            weight = self.loss_weights[min(number, len(self.loss_weights)) - 1]
            losses[f"loss_classifier_{number}"] = weight * class_loss
            losses[f"loss_box_reg_{number}"] = weight * box_loss
            samples.append(sampled)
            if number < len(self.stages):
                proposals = self.refine(head, deltas.detach(), sampled, sizes)
        return losses, samples[0]

    def refine(
        self, head: BoxHead, deltas: Float[Tensor, "R 1 4"], sampled: SampledRoIs, sizes: Sequence[Size]
    ) -> list[Float[Tensor, "_ 4"]]:
        """Return each image's moved boxes as the next stage's proposals, without those that cannot teach it anything.

        The next sampler adds the ground truths by itself, and a box that clipping left empty has no features.
        """
        per_image = [sampled.rois[:, 0] == index for index in range(len(sizes))]
        deltas = torch.cat([deltas[here] for here in per_image])
        moved = head.decode(deltas, [sampled.rois[here, 1:] for here in per_image], sizes)
        return [
            boxes[(boxes[:, 2:] > boxes[:, :2]).all(dim=1) & ~sampled.is_gt[here]]
            for boxes, here in zip((boxes[:, 0] for boxes in moved), per_image, strict=True)
        ]

    def predict(
        self,
        features: Pyramid,
        proposals: Boxes,
        sizes: Sequence[Size],
    ) -> list[tuple[Float[Tensor, "_ 1 4"], Float[Tensor, "_ K_plus_1"]]]:
        """Return each image's boxes of the last stage and the mean of all stages' probabilities."""
        per_stage = []
        for head in self.stages:
            predictions = head.predict(features, proposals, sizes)
            proposals = [boxes[:, 0].detach() for boxes, _ in predictions]
            per_stage.append([probabilities for _, probabilities in predictions])
        means = [torch.stack(stages).mean(dim=0) for stages in zip(*per_stage, strict=True)]
        return [(boxes[:, None], mean) for boxes, mean in zip(proposals, means, strict=True)]
