"""Should a mask's classes compete for each pixel, or may every class draw its own and the box's class choose?

Command: ``python -m rcnn_edu experiment mask_competition``; some ten minutes a seed on two cores.
Paper: Mask R-CNN (He et al. 2017), Table 2b on COCO's minival, and section 4.2's text for the class-agnostic mask.

Three mask heads learn from the same RoIs and draw masks in the same boxes, those that the shipped Mask R-CNN finds in
the test's scenes: only the masks differ. Its features were trained along with a mask for each class, by sigmoid, and
stay as they are.
"""

from functools import partial

from rcnn_edu.models import AgnosticMaskHead, MaskHead, RoISampler, SoftmaxMaskHead
from rcnn_edu.models.presets import SCENES_CLASSES, TINY
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
HEADS: dict[str, type[MaskHead]] = {
    "softmax over the classes": SoftmaxMaskHead,
    "sigmoid for each class": MaskHead,
    "sigmoid, one for all classes": AgnosticMaskHead,
}
STEPS = 300
SAMPLER = RoISampler(num_samples=32)  # of which up to 8 are positive: those have masks


def measure(seed: int, *, quick: bool, device: str) -> Rows:
    """Return AP of masks by kind of head."""
    trunk = frozen_trunk(device)
    train, test = see_for_experiment(trunk, seed, quick=quick)
    detections = detect_boxes(trunk.box_head, test, trunk.select)
    rows: Rows = {}
    for row, kind in HEADS.items():
        head = new_head(partial(kind, SCENES_CLASSES, TINY.channels, **TINY.mask_head), seed, device)
        losses = mask_losses(head, SAMPLER)
        train_head(head, losses, train, steps=2 if quick else STEPS, seed=seed)
        mask = evaluate_masks(head, detections, test)["segm"].figures
        rows[row] = {f"mask {name}": mask[name] for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
    return rows
