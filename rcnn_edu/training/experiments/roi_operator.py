"""How much do masks and boxes lose when RoIs are rounded to whole cells, and does it grow with the stride?

Command: ``python -m rcnn_edu experiment roi_operator``; some ten minutes a seed on two cores.
Paper: Mask R-CNN (He et al. 2017), Table 2c at stride 16 and Table 2d at stride 32, on COCO's minival.

Every RoI, small or large, is pooled from one level of the shipped Mask R-CNN's pyramid, as it would be without one. For
each operator a box head and a mask head learn from the same sampled RoIs, from the same initial weights; a test's masks
are drawn in the boxes that the operator's own box head finds. The pyramid was trained with RoIAlign (aligned, 2 x 2
samples a bin) and stays as it is: RoI Pooling gets features that were not made for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from rcnn_edu.models import BoxHead, MaskHead, RoISampler
from rcnn_edu.models.backbone import STRIDES
from rcnn_edu.models.presets import SCENES_CLASSES, TINY
from rcnn_edu.ops import roi_align, roi_pool
from rcnn_edu.training.experiments import Rows
from rcnn_edu.training.frozen_trunk import (
    SceneBatch,
    SeenScenes,
    detect_boxes,
    evaluate_masks,
    frozen_trunk,
    new_head,
    see_for_experiment,
    train_head,
)

PAPER: Rows = {
    "stride 16, RoIPool": {"mask AP": 26.9, "mask AP50": 48.8, "mask AP75": 26.4},
    "stride 16, RoIAlign": {"mask AP": 30.2, "mask AP50": 51.0, "mask AP75": 31.8},
    "stride 32, RoIPool": {
        "mask AP": 23.6,
        "mask AP50": 46.5,
        "mask AP75": 21.6,
        "box AP": 28.2,
        "box AP50": 52.7,
        "box AP75": 26.9,
    },
    "stride 32, RoIAlign": {
        "mask AP": 30.9,
        "mask AP50": 51.8,
        "mask AP75": 32.1,
        "box AP": 34.0,
        "box AP50": 55.3,
        "box AP75": 36.4,
    },
}
STEPS = 250
SAMPLER = RoISampler(num_samples=32)  # of which up to 8 are positive: those have boxes and masks

Operator = Callable[[Tensor, Tensor, int, float], Tensor]  # (features, rois, output_size, spatial_scale) -> pooled


@dataclass(frozen=True)
class OneLevel:
    """Pools every RoI from the same level of the pyramid."""

    operator: Operator
    output_size: int
    stride: int

    def __call__(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return the pooled features."""
        level = STRIDES.index(self.stride)
        return self.operator(features[level], rois, self.output_size, 1 / self.stride)


OPERATORS: dict[str, Operator] = {
    "RoIPool": roi_pool,
    "RoIAlign, not aligned": partial(roi_align, aligned=False),
    "RoIAlign": roi_align,
}
MORE_AT_16: dict[str, Operator] = {
    "RoIAlign, 1 sample a bin": partial(roi_align, sampling_ratio=1),
    "RoIAlign, adaptive": partial(roi_align, sampling_ratio=0),
}
ROWS = {
    f"stride {stride}, {name}": (operator, stride)
    for stride in (4, 16, 32)
    for name, operator in {**OPERATORS, **(MORE_AT_16 if stride == 16 else {})}.items()
}


class Heads(nn.Module):
    """A box head and a mask head that learn from the same RoIs, as in Mask R-CNN."""

    def __init__(self, operator: Operator, stride: int) -> None:
        super().__init__()
        box = {**TINY.box_head, "pool": OneLevel(operator, 7, stride), "sampler": SAMPLER}
        mask = {**TINY.mask_head, "pool": OneLevel(operator, 14, stride)}
        self.box = BoxHead(SCENES_CLASSES, TINY.channels, **box)
        self.mask = MaskHead(SCENES_CLASSES, TINY.channels, **mask)

    def losses(self, batch: SceneBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the losses of both heads."""
        losses, sampled = self.box.losses(batch.features, batch.proposals, batch.targets, batch.sizes, generator)
        return {**losses, **self.mask.losses(batch.features, sampled, batch.targets)}


def measure(seed: int, *, quick: bool, device: str) -> Rows:
    """Return AP of masks and boxes by stride and operator."""
    train, test = see_for_experiment(frozen_trunk(device), seed, quick=quick)
    rows: Rows = {}
    for row, (operator, stride) in ROWS.items():
        heads = new_head(partial(Heads, operator, stride), seed, device)
        train_head(heads, heads.losses, train, steps=2 if quick else STEPS, seed=seed)
        rows[row] = _figures(heads, test)
    return rows


def _figures(heads: Heads, test: SeenScenes) -> dict[str, float]:
    evaluation = evaluate_masks(heads.mask, detect_boxes(heads.box, test), test)
    mask, box = evaluation["segm"].figures, evaluation["bbox"].figures
    names = ("AP", "AP50", "AP75", "APs")
    return {f"mask {name}": mask[name] for name in names} | {f"box {name}": box[name] for name in names}
