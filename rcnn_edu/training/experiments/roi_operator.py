"""How much do masks and boxes lose when RoIs are rounded to whole cells, and does it grow with the stride?

Command: ``python -m rcnn_edu experiment roi_operator``; about 8 minutes a seed on two cores.
Paper: Mask R-CNN (He et al. 2017), Table 2c at stride 16 and Table 2d at stride 32, on COCO's minival.

Every RoI, small or large, is pooled from one map. Three kinds of rows:

- "stride ...": the map is a level of the shipped Mask R-CNN's pyramid, which stays as it is. For each operator a box
  head and a mask head learn from the same sampled RoIs, from the same initial weights, on the usual scenes. The pyramid
  was trained with RoIAlign (aligned, 2 x 2 samples a bin): RoI Pooling gets features that were not made for it. And at
  strides 16 and 32 most objects of these scenes are smaller than a cell or two, where no operator can save them.
- "large objects, stride ...": so the paper's question is asked again as the paper asked it: objects of several cells,
  and a detector with a single map, C4 or C5, that is trained as a whole with the operator.

A test's masks are drawn in the boxes that the operator's own box head finds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from rcnn_edu.datasets import SceneSettings, SyntheticScenes, as_coco
from rcnn_edu.models import BoxHead, FasterRCNN, MaskHead, RoISampler, SingleMap
from rcnn_edu.models.backbone import STRIDES
from rcnn_edu.models.presets import SCENES_CLASSES, TINY
from rcnn_edu.ops import roi_align, roi_pool
from rcnn_edu.training.evaluate import Evaluation, detect_all, evaluate_results
from rcnn_edu.training.experiments import Rows
from rcnn_edu.training.frozen_trunk import (
    TEST_SEED,
    TRAINING_SEED,
    SceneBatch,
    detect_boxes,
    evaluate_masks,
    frozen_trunk,
    new_head,
    see_for_experiment,
    train_head,
)
from rcnn_edu.training.whole_detector import DrawnScenes, new_detector, train_whole

PAPER: Rows = {
    "large objects, stride 16, RoIPool": {"mask AP": 26.9, "mask AP50": 48.8, "mask AP75": 26.4},
    "large objects, stride 16, RoIAlign": {"mask AP": 30.2, "mask AP50": 51.0, "mask AP75": 31.8},
    "large objects, stride 32, RoIPool": {
        "mask AP": 23.6,
        "mask AP50": 46.5,
        "mask AP75": 21.6,
        "box AP": 28.2,
        "box AP50": 52.7,
        "box AP75": 26.9,
    },
    "large objects, stride 32, RoIAlign": {
        "mask AP": 30.9,
        "mask AP50": 51.8,
        "mask AP75": 32.1,
        "box AP": 34.0,
        "box AP50": 55.3,
        "box AP75": 36.4,
    },
}
STEPS, WHOLE_STEPS = 250, 300
SAMPLER = RoISampler(num_samples=32)  # of which up to 8 are positive: those have boxes and masks
LARGE = SceneSettings(num_objects=(1, 4), object_size=(64, 160))

Operator = Callable[[Tensor, Tensor, int, float], Tensor]  # (features, rois, output_size, spatial_scale) -> pooled


@dataclass(frozen=True)
class OneMap:
    """Pools every RoI from the same one of the backbone's maps."""

    operator: Operator
    output_size: int
    stride: int
    index: int  # of the map

    def __call__(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return the pooled features."""
        return self.operator(features[self.index], rois, self.output_size, 1 / self.stride)


OPERATORS: dict[str, Operator] = {
    "RoIPool": roi_pool,
    "RoIAlign, not aligned": partial(roi_align, aligned=False),
    "RoIAlign": roi_align,
}
MORE_OF_16: dict[str, Operator] = {
    "RoIAlign, 1 sample a bin": partial(roi_align, sampling_ratio=1),
    "RoIAlign, adaptive": partial(roi_align, sampling_ratio=0),
}
HEADS_ALONE = {
    f"stride {stride}, {name}": (operator, stride) for stride in (4, 16, 32) for name, operator in OPERATORS.items()
}
WHOLE = {
    f"large objects, stride {stride}, {name}": (operator, stride)
    for stride in (16, 32)
    for name, operator in {**OPERATORS, **(MORE_OF_16 if stride == 16 else {})}.items()
    if name != "RoIAlign, not aligned"
}


class Heads(nn.Module):
    """A box head and a mask head that learn from the same RoIs, as in Mask R-CNN."""

    def __init__(self, operator: Operator, stride: int) -> None:
        super().__init__()
        level = STRIDES.index(stride)
        box = {**TINY.box_head, "pool": OneMap(operator, 7, stride, level), "sampler": SAMPLER}
        mask = {**TINY.mask_head, "pool": OneMap(operator, 14, stride, level)}
        self.box = BoxHead(SCENES_CLASSES, TINY.channels, **box)
        self.mask = MaskHead(SCENES_CLASSES, TINY.channels, **mask)

    def losses(self, batch: SceneBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the losses of both heads."""
        losses, sampled = self.box.losses(batch.features, batch.proposals, batch.targets, batch.sizes, generator)
        return {**losses, **self.mask.losses(batch.features, sampled, batch.targets)}


def single_map_detector(operator: Operator, stride: int) -> FasterRCNN:
    """Return a Mask R-CNN whose heads pool from the body's map of this stride."""
    neck = partial(SingleMap, level=STRIDES.index(stride))
    return new_detector(neck, (stride,), OneMap(operator, 7, stride, 0), OneMap(operator, 14, stride, 0))


def measure(seed: int, *, quick: bool, device: str) -> Rows:
    """Return AP of masks and boxes by stride and operator."""
    return _heads_alone(seed, quick, device) | _whole(seed, quick, device)


def _heads_alone(seed: int, quick: bool, device: str) -> Rows:
    train, test = see_for_experiment(frozen_trunk(device), seed, quick=quick)
    rows: Rows = {}
    for row, (operator, stride) in HEADS_ALONE.items():
        heads = new_head(partial(Heads, operator, stride), seed, device)
        train_head(heads, heads.losses, train, steps=2 if quick else STEPS, seed=seed)
        rows[row] = _figures(evaluate_masks(heads.mask, detect_boxes(heads.box, test), test))
    return rows


def _whole(seed: int, quick: bool, device: str) -> Rows:
    to_learn = DrawnScenes(SyntheticScenes(8 if quick else 500, seed=TRAINING_SEED + seed, settings=LARGE))
    to_test = SyntheticScenes(4 if quick else 200, seed=TEST_SEED, settings=LARGE)
    coco = as_coco(to_test)
    rows: Rows = {}
    for row, (operator, stride) in WHOLE.items():
        make = partial(single_map_detector, operator, stride)
        model = train_whole(make, to_learn, steps=2 if quick else WHOLE_STEPS, seed=seed, device=device)
        results, _ = detect_all(model, to_test, coco=coco, device=device)
        rows[row] = _figures(evaluate_results(results, coco))
    return rows


def _figures(evaluation: Evaluation) -> dict[str, float]:
    mask, box = evaluation["segm"].figures, evaluation["bbox"].figures
    names = ("AP", "AP50", "AP75", "APs")
    return {f"mask {name}": mask[name] for name in names} | {f"box {name}": box[name] for name in names}
