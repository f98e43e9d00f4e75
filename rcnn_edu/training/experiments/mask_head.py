"""Must a mask head keep the layout of its RoI, or can fully connected layers learn it?

Command: ``python -m rcnn_edu experiment mask_head``; about 2 minutes a seed on two cores.
Paper: Mask R-CNN (He et al. 2017), Table 2e on COCO's minival.

Mask heads of either kind learn from the same RoIs and draw masks in the same boxes, those that the shipped Mask R-CNN
finds in the test's scenes: only the masks differ. The fully connected head of 1,024 units a layer is the paper's, that
of 128 a small one for our few classes. The features were trained along with the convolutional head, and stay as they
are.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from rcnn_edu.models import MaskHead, MLPMasks, RoISampler
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

NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {  # by row, which says how many parameters there are
    "FCN, 0.09 million": TINY.mask_head["network"],
    "MLP of 128, 2.0 million": partial(MLPMasks, hidden=128),
    "MLP of 1,024, 17.1 million": MLPMasks,
}
PAPER: Rows = {
    "FCN, 0.09 million": {"mask AP": 33.6, "mask AP50": 55.2, "mask AP75": 35.3},
    "MLP of 1,024, 17.1 million": {"mask AP": 31.5},
}
STEPS = 300
SAMPLER = RoISampler(num_samples=32)  # of which up to 8 are positive: those have masks


def measure(seed: int, *, quick: bool, device: str) -> Rows:
    """Return AP of masks by kind of network."""
    trunk = frozen_trunk(device)
    train, test = see_for_experiment(trunk, seed, quick=quick)
    detections = detect_boxes(trunk.box_head, test, trunk.select)
    rows: Rows = {}
    for row, network in NETWORKS.items():
        parts = {**TINY.mask_head, "network": network}
        head = new_head(partial(MaskHead, SCENES_CLASSES, TINY.channels, **parts), seed, device)
        losses = mask_losses(head, SAMPLER)
        train_head(head, losses, train, steps=2 if quick else STEPS, seed=seed)
        mask = evaluate_masks(head, detections, test)["segm"].figures
        rows[row] = {f"mask {name}": mask[name] for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
    return rows
