"""Does a row of box heads at rising IoU find better boxes than one head, and what of the cascade brings it about?

Command: ``python -m rcnn_edu experiment cascade``; about 6 minutes a seed on two cores.
Paper: Cascade R-CNN (Cai & Vasconcelos 2018), Tables 1 to 4 and figures 1c, 2, 4 and 5a, on COCO.

Box heads learn from scratch on the pyramid and the proposals of the shipped Mask R-CNN, whose weights stay as they are;
all start from the same weights and see the same scenes. So nothing that a stage learns reaches the trunk or another
stage's weights: stages weigh alike in the loss, and a cascade of 1, 2 or 3 stages is that of 4 without its last ones.
In the paper the trunk learns with the heads, and the first of three stages is better for it than a head by itself. The
trunk's RPN and pyramid have learnt with one head of u = 0.5.

The iterative row is the head of u = 0.5 applied three times. "IoU" is whether u rises, "statistics" whether the deltas'
weights do. "Stage 2 alone" has the boxes of stage 2 and only its own scores, where a cascade averages all its stages'.

Below, as the paper's figures have them, all of it on scenes that no head has learnt from: the shares of RoIs that enter
each stage above an IoU; the standard deviations of the deltas that a stage's positives (those of its u) are to learn;
and the mean IoU before and after each single head has moved a proposal, by the IoU before.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rcnn_edu.models import BoxHead, Cascade, DetectionSelector
from rcnn_edu.models.presets import SCENES_CLASSES, TINY
from rcnn_edu.ops import box_iou, encode_boxes
from rcnn_edu.training.experiments import Rows
from rcnn_edu.training.frozen_trunk import (
    SeenScenes,
    box_losses,
    evaluate_boxes,
    frozen_trunk,
    new_head,
    see_for_experiment,
    train_head,
)

AP_AT = {"AP50": 0.5, "AP60": 0.6, "AP70": 0.7, "AP80": 0.8, "AP90": 0.9}
SHARES = {"IoU 0.5 or more": 0.5, "IoU 0.6 or more": 0.6, "IoU 0.7 or more": 0.7}
SIGMAS = ("sigma x", "sigma y", "sigma w", "sigma h")


def _paper() -> Rows:
    """Return the paper's figures: AP, and at IoU 0.5 to 0.9; then those of figures 4 and 2."""
    columns = ("AP", *AP_AT)
    rows = {
        "u = 0.5": (34.9, 57.0, 51.9, 43.6, 29.7, 7.1),
        "iterative": (35.4, 57.2, 52.1, 44.2, 30.4, 8.1),
        "2 stages": (38.2,),
        "3 stages": (38.9, 57.8, 53.4, 46.9, 35.8, 15.8),
        "4 stages": (38.6,),
        "stage 2 alone": (38.3, 57.9, 53.4, 46.4, 35.2, 14.2),
        "stage 3 alone": (38.3, 56.6, 52.2, 46.3, 35.7, 15.9),
        "u = 0.6": (35.4,),
        "u = 0.7": (31.9,),
    }
    paper: Rows = {row: dict(zip(columns, figures, strict=False)) for row, figures in rows.items()}
    for row, ap, ap90 in (("neither", 36.8, 10.7), ("IoU", 38.5, 13.1), ("statistics", 37.5, 13.1)):
        paper[f"3 stages, {row}"] = {"AP": ap, "AP90": ap90}
    shares = ((16.7, 8.0, 2.9), (25.6, 21.7, 17.3), (28.0, 25.1, 21.7))
    sigmas = ((0.123, 0.130, 0.227, 0.226), (0.061, 0.061, 0.122, 0.123), (0.039, 0.038, 0.080, 0.077))
    for stage in range(3):
        paper[f"RoIs into stage {stage + 1}"] = dict(zip(SHARES, shares[stage], strict=True))
        paper[f"deltas of stage {stage + 1}"] = dict(zip(SIGMAS, sigmas[stage], strict=True))
    return paper


PAPER = _paper()
STEPS = 400
THRESHOLDS = (0.5, 0.6, 0.7, 0.75)  # u of the stages
BINS = tuple(round(0.5 + 0.05 * number, 2) for number in range(10))  # lower edges of the IoU before
FEWEST = 20  # boxes that a bin needs: fewer would show their own luck
UNWEIGHTED = (1.0, 1.0, 1.0, 1.0)

Scored = tuple[Float[Tensor, "r 1 4"], Float[Tensor, "r K_plus_1"]]  # a scene's boxes and their probabilities


def measure(seed: int, *, quick: bool, device: str) -> Rows:
    """Return AP by kind of head; by stage, the shares of good RoIs and the deltas' spread; and IoU before and after."""
    trunk = frozen_trunk(device)
    to_learn, to_test = see_for_experiment(trunk, seed, quick=quick)

    def trained(iou_thresholds: Sequence[float], *, statistics: bool = True) -> list[BoxHead]:
        cascade = new_head(partial(new_cascade, iou_thresholds, statistics=statistics), seed, device)
        train_head(cascade, box_losses(cascade), to_learn, steps=2 if quick else STEPS, seed=seed)
        return list(cascade.eval().stages)

    stages = trained(THRESHOLDS)
    passed = stage_by_stage(stages, to_test, device)
    singles = {0.5: passed[:1], **{u: stage_by_stage(trained([u]), to_test, device) for u in (0.6, 0.7)}}
    several = {
        "iterative": stage_by_stage([stages[0]] * 3, to_test, device),
        **{f"{count} stages": passed[:count] for count in (2, 3, 4)},
        **{f"stage {number} alone": passed[number - 1 : number] for number in (2, 3)},
        "3 stages, neither": stage_by_stage(trained([0.5] * 3, statistics=False), to_test, device),
        "3 stages, IoU": stage_by_stage(trained(THRESHOLDS[:3], statistics=False), to_test, device),
        "3 stages, statistics": stage_by_stage(trained([0.5] * 3), to_test, device),
    }
    return {
        **{f"u = {u}": figures(scored, to_test) for u, scored in singles.items()},
        **{name: figures(scored, to_test) for name, scored in several.items()},
        **refinement(passed, to_test),
        **regression(singles, to_test),
    }


def new_cascade(iou_thresholds: Sequence[float], *, statistics: bool = True) -> Cascade:
    """Return a cascade for the tiny trunk, its stages alike in the loss, with or without the deltas' weights rising."""
    cascade = Cascade(
        SCENES_CLASSES,
        TINY.channels,
        iou_thresholds,
        head=partial(BoxHead, **TINY.box_head),
        sampler=TINY.box_head["sampler"],
        loss_weights=(1.0,),
    )
    if not statistics:
        for stage in cascade.stages:
            stage.delta_weights = cascade.stages[0].delta_weights
    return cascade


@torch.inference_mode()
def stage_by_stage(stages: Sequence[BoxHead], scenes: SeenScenes, device: str) -> list[list[Scored]]:
    """Return, for each stage and each scene, the stage's boxes and probabilities, nothing selected yet."""
    passed: list[list[Scored]] = [[] for _ in stages]
    for batch in scenes.in_order(device):
        proposals = batch.proposals
        for scored, head in zip(passed, stages, strict=True):
            predictions = head.predict(batch.features, proposals, batch.sizes)
            proposals = [boxes[:, 0] for boxes, _ in predictions]
            scored += [(boxes.cpu(), probabilities.cpu()) for boxes, probabilities in predictions]
    return passed


def figures(passed: Sequence[Sequence[Scored]], scenes: SeenScenes) -> dict[str, float]:
    """Return AP of the last stage's boxes, scored by the mean of the given stages' probabilities."""
    select = DetectionSelector()
    detections = []
    for stages in zip(*passed, strict=True):
        mean = torch.stack([probabilities for _, probabilities in stages]).mean(dim=0)
        detections.append(select(stages[-1][0], mean))
    accuracy = evaluate_boxes(detections, scenes)["bbox"]
    return {"AP": accuracy.figures["AP"], **{name: accuracy.per_threshold[iou] for name, iou in AP_AT.items()}}


def refinement(passed: Sequence[Sequence[Scored]], scenes: SeenScenes) -> Rows:
    """Return the shares of RoIs that enter each of three stages above an IoU, and the spread of its deltas."""
    entering = [scenes.proposals, *(boxes_of(stage) for stage in passed)]
    into: Rows = {}
    deltas: Rows = {}
    for number, (rois, iou_thresh) in enumerate(zip(entering[:3], THRESHOLDS, strict=False), start=1):
        iou, gt_boxes = matched(rois, scenes)
        into[f"RoIs into stage {number}"] = {name: (iou >= u).float().mean().item() for name, u in SHARES.items()}
        positive = iou >= iou_thresh
        deltas[f"deltas of stage {number}"] = sigmas(torch.cat(rois)[positive], gt_boxes[positive])
    return {**into, **deltas}


def regression(singles: dict[float, list[list[Scored]]], scenes: SeenScenes) -> Rows:
    """Return the mean IoU of proposals, and of what each single head makes of them, by the IoU that they had."""
    before, gt_boxes = matched(scenes.proposals, scenes)
    rows = {"IoU before": by_bin(before, before)}
    for u, [scored] in singles.items():
        moved = torch.cat(boxes_of(scored))
        pairs = zip(torch.split(moved, 256), torch.split(gt_boxes, 256), strict=True)  # n x n would be too many
        rows[f"IoU after, u = {u}"] = by_bin(before, torch.cat([box_iou(*pair).diagonal() for pair in pairs]))
    return rows


def boxes_of(scored: Sequence[Scored]) -> list[Float[Tensor, "r 4"]]:
    """Return each scene's boxes, one for each RoI, whatever its class."""
    return [boxes[:, 0] for boxes, _ in scored]


def matched(rois: Sequence[Tensor], scenes: SeenScenes) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 4"]]:
    """Return, for the RoIs of all scenes in a row, the largest IoU with an object, and that object's box."""
    ious, matches = [], []
    for boxes, target in zip(rois, scenes.targets, strict=True):
        gt_boxes = F.pad(target["boxes"], (0, 0, 0, 1))  # a last row of zeros, for a scene without objects
        iou, match = box_iou(boxes, gt_boxes).max(dim=1)
        ious.append(iou)
        matches.append(gt_boxes[match])
    return torch.cat(ious), torch.cat(matches)


def sigmas(boxes: Float[Tensor, "n 4"], gt_boxes: Float[Tensor, "n 4"]) -> dict[str, float]:
    """Return the standard deviations of the unweighted deltas; fewer than two boxes have none."""
    if len(boxes) < 2:
        return {}
    return dict(zip(SIGMAS, encode_boxes(gt_boxes, boxes, UNWEIGHTED).std(dim=0).tolist(), strict=True))


def by_bin(before: Float[Tensor, " n"], after: Float[Tensor, " n"]) -> dict[str, float]:
    """Return the mean of ``after`` for each bin of ``before`` in which there are enough boxes."""
    place = torch.bucketize(before, before.new_tensor(BINS), right=True) - 1  # of the last edge not above it
    inside = {f"from {low:.2f}": after[place == number] for number, low in enumerate(BINS)}
    return {name: values.mean().item() for name, values in inside.items() if len(values) >= FEWEST}
