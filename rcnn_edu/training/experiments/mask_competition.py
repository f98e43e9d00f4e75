"""Should a mask's classes compete for each pixel, or may every class draw its own and the box's class choose?

Command: ``python -m rcnn_edu experiment mask_competition``; about 4 minutes a seed on two cores.
Paper: Mask R-CNN (He et al. 2017), Table 2b on COCO's minival, and section 4.2's text for the class-agnostic mask.

Three mask heads learn from the same RoIs and draw masks in the same boxes, those that the shipped Mask R-CNN finds in
the test's scenes: only the masks differ. Its features were trained along with a mask for each class, by sigmoid, and
stay as they are.

Further rows look for the reason where a softmax is worse. It may learn more slowly: so it has four times the steps
once. And at a threshold of 0.5 a pixel needs more than all other classes have together: so both are read "against
background", too, where the box's class competes with background alone.
"""

from functools import partial

import torch
from torch import Tensor

from rcnn_edu.models import AgnosticMaskHead, MaskHead, RoISampler, SoftmaxMaskHead
from rcnn_edu.models.presets import SCENES_CLASSES, TINY
from rcnn_edu.training.evaluate import Evaluation
from rcnn_edu.training.experiments import Rows
from rcnn_edu.training.frozen_trunk import (
    detect_boxes,
    evaluate_masks,
    frozen_trunk,
    mask_losses,
    new_head,
    see_for_experiment,
    train_head,
)

PAPER: Rows = {
    "softmax over the classes": {"mask AP": 24.8, "mask AP50": 44.1, "mask AP75": 25.1},
    "sigmoid for each class": {"mask AP": 30.3, "mask AP50": 51.2, "mask AP75": 31.5},
    "sigmoid, one for all classes": {"mask AP": 29.7},
}
HEADS: dict[str, tuple[type[MaskHead], int]] = {  # and how many times as long they learn
    "softmax over the classes": (SoftmaxMaskHead, 1),
    "softmax, 4 times the steps": (SoftmaxMaskHead, 4),
    "sigmoid for each class": (MaskHead, 1),
    "sigmoid, one for all classes": (AgnosticMaskHead, 1),
}
STEPS = 300
SAMPLER = RoISampler(num_samples=32)  # of which up to 8 are positive: those have masks


class AgainstBackground(SoftmaxMaskHead):
    """Learns like its parent, but draws masks in which the label competes with background alone."""

    def probabilities(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the probability that a pixel is the label's, if it is the label's or background's."""
        return (logits[torch.arange(len(labels), device=labels.device), labels] - logits[:, 0]).sigmoid()


def measure(seed: int, *, quick: bool, device: str) -> Rows:
    """Return AP of masks by kind of head."""
    trunk = frozen_trunk(device)
    train, test = see_for_experiment(trunk, seed, quick=quick)
    detections = detect_boxes(trunk.box_head, test, trunk.select)
    rows: Rows = {}
    for row, (kind, times) in HEADS.items():
        head = new_head(partial(kind, SCENES_CLASSES, TINY.channels, **TINY.mask_head), seed, device)
        train_head(head, mask_losses(head, SAMPLER), train, steps=2 if quick else times * STEPS, seed=seed)
        rows[row] = figures(evaluate_masks(head, detections, test))
        if kind is SoftmaxMaskHead:
            reader = AgainstBackground(SCENES_CLASSES, TINY.channels, **TINY.mask_head).to(device)
            reader.load_state_dict(head.state_dict())
            rows[f"{row}, against background"] = figures(evaluate_masks(reader, detections, test))
    return rows


def figures(evaluation: Evaluation) -> dict[str, float]:
    """Return the masks' figures that the table has."""
    masks = evaluation["segm"].figures
    return {f"mask {name}": masks[name] for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
