"""Does the box head need a balanced sample of proposals: how many, and how many of them positive?

Command: ``python -m rcnn_edu experiment sampling``; about 3 minutes a seed on two cores.
Paper: none has a table on it. Fast R-CNN (Girshick 2015), section 2.3, takes 64 RoIs an image, a quarter of them
positive, and Mask R-CNN 512 with FPN; neither says what other numbers give.

A new box head learns from each kind of sample of the shipped Mask R-CNN's proposals, 1,000 a scene as in the papers and
not the 200 that suffice here, and the ground truths. The column "positives" says what share of the sample was positive:
the fraction asked for is an upper bound, met where there are enough of them. All heads take as many steps at the same
learning rate, so a larger sample is more to learn from, and costs more time. The features and the proposals are the
same for all, and the RPN has sorted out most of the background already: without one, there would be far more of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from rcnn_edu.models import BoxHead, RoISampler
from rcnn_edu.models.box_head import SampledRoIs
from rcnn_edu.models.presets import SCENES_CLASSES, TINY
from rcnn_edu.models.transform import Target
from rcnn_edu.training.experiments import Rows
from rcnn_edu.training.frozen_trunk import (
    SeenScenes,
    box_losses,
    detect_boxes,
    evaluate_boxes,
    frozen_trunk,
    new_head,
    see_for_experiment,
    train_head,
)

PAPER: Rows = {}  # see the header
STEPS = 250
PROPOSALS = (2000, 400), (1000, 100)  # a level's before NMS and an image's after it, in training and in a test
ALL = RoISampler(num_samples=10**6, pos_fraction=1.0)


@dataclass(frozen=True)
class BlindSampler(RoISampler):
    """Draws RoIs without a look at their labels."""

    def __call__(
        self, proposals: Sequence[Tensor], targets: Sequence[Target], generator: torch.Generator | None = None
    ) -> SampledRoIs:
        """Return the sample."""
        everything = ALL(proposals, targets, generator)
        drawn = []
        for image in range(len(proposals)):
            rows = (everything.rois[:, 0] == image).nonzero()[:, 0]
            order = torch.randperm(len(rows), generator=generator)[: self.num_samples]
            drawn.append(rows[order.to(rows.device)])
        chosen = torch.cat(drawn)
        return SampledRoIs(**{field.name: getattr(everything, field.name)[chosen] for field in fields(everything)})


SAMPLERS = {
    **{f"64, up to {fraction:.0%} positive": RoISampler(0.5, 64, fraction) for fraction in (0.1, 0.25, 0.5, 0.75)},
    "64, drawn blindly": BlindSampler(0.5, 64),
    "16, up to 25% positive": RoISampler(0.5, 16, 0.25),
    "256, up to 25% positive": RoISampler(0.5, 256, 0.25),
    "256, drawn blindly": BlindSampler(0.5, 256),
}


def measure(seed: int, *, quick: bool, device: str) -> Rows:
    """Return AP of boxes, and the share of positives, by the kind of sample."""
    trunk = frozen_trunk(device)
    trunk.rpn.pre_nms_top_n, trunk.rpn.post_nms_top_n = PROPOSALS
    train, test = see_for_experiment(trunk, seed, quick=quick)
    rows: Rows = {}
    for row, sampler in SAMPLERS.items():
        parts = {**TINY.box_head, "sampler": sampler}
        head = new_head(partial(BoxHead, SCENES_CLASSES, TINY.channels, **parts), seed, device)
        train_head(head, box_losses(head), train, steps=2 if quick else STEPS, seed=seed)
        box = evaluate_boxes(detect_boxes(head, test), test)["bbox"].figures
        figures = {f"box {name}": box[name] for name in ("AP", "AP50", "AP75", "APs", "AR100")}
        rows[row] = {"positives": _share_of_positives(sampler, train), **figures}
    return rows


def _share_of_positives(sampler: RoISampler, scenes: SeenScenes) -> float:
    sampled = sampler(scenes.proposals, scenes.targets, torch.Generator().manual_seed(0))
    return (sampled.labels > 0).double().mean().item()
