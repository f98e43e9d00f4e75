"""Which anchors should teach an RPN: how much do the thresholds matter, and the rule that saves the best anchor?

Command: ``python -m rcnn_edu experiment assignment``; about 6 minutes a seed on two cores.
Paper: Faster R-CNN (Ren et al. 2015) sets 0.7, 0.3 and the rule in section 3.1.2; it has no table on them.

RPN heads learn from scratch on the pyramid of the shipped Mask R-CNN, whose weights stay as they are; all start from
the same weights and see the same scenes. Recall (AR) is that of their best 10, 50 or 100 proposals, and of 100 by size.
Besides, what each rule makes of the training scenes: the positive anchors of an image, and the share of objects that no
anchor is to learn.

Two rules are wrong on purpose, or right elsewhere. Without the rule, an object that no anchor overlaps by the positive
threshold is lost; "rescued for another" is torchvision's matching: the saved anchor is positive, but learns the object
that it overlaps most itself. A third famous mistake, to count an overlap of 0 as a best one, cannot show: with anchors
of 16 px every 4 px, some anchor touches any object (lesson 03 shows it).

The training is short, and more positive anchors may help just there: so two rules have four times the steps once more.
The pyramid has learnt under an RPN of 0.7 and 0.3, so it may suit that one best; and it does not follow the others.
"""

from collections.abc import Callable
from functools import partial
from statistics import fmean

import torch
from torch import Tensor

from rcnn_edu.models import RPN
from rcnn_edu.models.presets import TINY
from rcnn_edu.ops import assign_anchors_to_gt, box_iou, match_boxes
from rcnn_edu.training.experiments import Rows
from rcnn_edu.training.frozen_trunk import (
    SeenScenes,
    frozen_trunk,
    new_head,
    rpn_losses,
    see_for_experiment,
    train_head,
)
from rcnn_edu.training.recall import average_recall

PAPER: Rows = {}  # it has no table on this; see the header

Assign = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # anchors, ground truths -> labels, their ground truths

STEPS, LONGER = 500, 4


def without_rescue(
    anchors: Tensor, gt_boxes: Tensor, pos_iou_thresh: float = 0.7, neg_iou_thresh: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Return each anchor's label and ground truth by the thresholds alone."""
    match, labels = match_boxes(box_iou(anchors, gt_boxes), pos_iou_thresh, neg_iou_thresh, keep_best=False)
    return labels, gt_boxes[match] if len(gt_boxes) else torch.zeros_like(anchors)


def rescued_for_another(anchors: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the right labels, but for each anchor the ground truth that it overlaps most itself."""
    labels, _ = assign_anchors_to_gt(anchors, gt_boxes)
    _, own = without_rescue(anchors, gt_boxes)
    return labels, own


def _thresholds(positive: float, negative: float) -> Assign:
    return partial(assign_anchors_to_gt, pos_iou_thresh=positive, neg_iou_thresh=negative)


RULES: dict[str, Assign] = {
    **{
        f"{positive} / {negative}": _thresholds(positive, negative)
        for positive, negative in ((0.7, 0.3), (0.5, 0.5), (0.5, 0.3), (0.6, 0.4), (0.7, 0.7), (0.9, 0.3))
    },
    "0.5 / 0.3, no rescue": partial(without_rescue, pos_iou_thresh=0.5),
    "0.7 / 0.3, no rescue": without_rescue,
    "0.9 / 0.3, no rescue": partial(without_rescue, pos_iou_thresh=0.9),
    "0.7 / 0.3, rescued for another": rescued_for_another,
}
ROWS = {name: (name, 1) for name in RULES} | {  # which rule, and how many times as long an RPN learns
    f"{name}, {LONGER} times the steps": (name, LONGER) for name in ("0.7 / 0.3", "0.5 / 0.3")
}


def measure(seed: int, *, quick: bool, device: str) -> Rows:
    """Return recall of the proposals, and how many anchors and objects take part, by the rule that assigns anchors."""
    trunk = frozen_trunk(device)
    to_learn, to_test = see_for_experiment(trunk, seed, quick=quick)
    rows: Rows = {}
    for row, (name, times) in ROWS.items():
        rpn = new_head(partial(RPN, TINY.channels, **TINY.rpn, assign=RULES[name]), seed, device)
        train_head(rpn, rpn_losses(rpn), to_learn, steps=2 if quick else times * STEPS, seed=seed)
        rows[row] = {
            **average_recall(propose(rpn.eval(), to_test, device), to_test.coco),
            **positives(rpn, to_learn),
        }
    return rows


@torch.inference_mode()
def propose(rpn: RPN, scenes: SeenScenes, device: str) -> list[Tensor]:
    """Return each scene's proposals, best first."""
    proposals = []
    for batch in scenes.in_order(device):
        boxes, _ = rpn(batch.features, batch.sizes)
        proposals += [image_boxes.cpu() for image_boxes in boxes]
    return proposals


def positives(rpn: RPN, scenes: SeenScenes) -> dict[str, float]:
    """Return the mean number of an image's positive anchors, and the share of objects that none of them is to learn."""
    anchors = torch.cat(rpn.anchors([(level.shape[1], level.shape[2]) for level in scenes.levels]))
    counts: list[int] = []
    missed: list[bool] = []
    for target in scenes.targets:
        labels, gt_boxes = rpn.assign(anchors, target["boxes"])
        learnt = gt_boxes[labels > 0]
        counts.append(len(learnt))
        missed += [not (learnt == box).all(dim=1).any() for box in target["boxes"]]
    return {"positives/image": fmean(counts), "objects without one": fmean(missed)}
