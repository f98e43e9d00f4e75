"""What do the pyramid, its path from the top and its lateral connections bring, and to objects of which size?

Command: ``python -m rcnn_edu experiment pyramid``; about 7 minutes a seed on two cores.
Paper: Feature pyramid networks (Lin et al. 2017), Table 1 for the proposals and Table 2 for the boxes, on COCO minival.

Five Faster R-CNN, equal in all but what stands between body and heads, learn from the same scenes of a seed, and look
at others. AR is of proposals, whatever the class; ARs, ARm and ARl allow 100 of them, in the paper 1,000. A single map
bears anchors of all sizes, and its RPN brings as many candidates to NMS as four levels do.

Where the paper starts from a body trained on ImageNet, these start from the body, C2 to C5, of the shipped Mask R-CNN,
and train C3 to C5 further. That body has learnt under an FPN, on scenes of the same kind, so it may suit the FPN best.
Each detector sees its own RPN's proposals, while in the paper's Table 2 all see the same.

The training is short. P2 alone, where all objects teach one map, gains from that; so the two that come closest in the
paper learn four times as long once more.
"""

from collections.abc import Sequence
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from rcnn_edu.datasets import DetectionDataset, SyntheticScenes, as_coco
from rcnn_edu.models import FPN, FasterRCNN, SingleMap
from rcnn_edu.models.fpn import Maps
from rcnn_edu.training.evaluate import detect_all, evaluate_results
from rcnn_edu.training.experiments import Rows
from rcnn_edu.training.frozen_trunk import TEST_SEED, TRAINING_SEED
from rcnn_edu.training.recall import average_recall
from rcnn_edu.training.whole_detector import DrawnScenes, Neck, new_detector, train_whole

PAPER: Rows = {
    "FPN": {"AR100": 44.0, "ARs": 44.9, "ARm": 63.4, "ARl": 66.2, "box AP": 33.9, "box AP50": 56.9},
    "no top-down path": {"AR100": 37.4, "ARs": 30.5, "ARm": 59.9, "ARl": 68.0, "box AP": 24.9, "box AP50": 44.9},
    "no lateral connections": {"AR100": 34.5, "ARs": 26.5, "ARm": 57.4, "ARl": 64.7, "box AP": 31.3, "box AP50": 54.0},
    "C4 alone": {"AR100": 36.1, "ARs": 32.0, "ARm": 58.7, "ARl": 62.2, "box AP": 31.9, "box AP50": 54.7},
    "P2 alone": {"AR100": 38.4, "ARs": 35.1, "ARm": 59.7, "ARl": 67.6, "box AP": 33.4, "box AP50": 56.3},
}
STEPS, LONGER = 250, 4
CANDIDATES = 1308  # into NMS, of a single map: what the four levels have together at 192 px


class FinestLevel(FPN):
    """A pyramid of which P2 alone is looked at; so P3 to P5 are not made from what is merged."""

    def __init__(self, in_channels_list: Sequence[int], out_channels: int) -> None:
        super().__init__(in_channels_list, out_channels, p6=None)
        self.outputs = nn.ModuleList([self.outputs[0], *(nn.Identity() for _ in in_channels_list[1:])])

    def forward(self, features: Maps) -> list[Tensor]:
        """Return P2."""
        return super().forward(features)[:1]


PYRAMID = (4, 8, 16, 32)
VARIANTS: dict[str, tuple[Neck, tuple[int, ...]]] = {  # what stands between body and heads, and its levels' strides
    "FPN": (partial(FPN, p6=None), PYRAMID),
    "no top-down path": (partial(FPN, p6=None, merge=lambda lateral, _: lateral), PYRAMID),
    "no lateral connections": (partial(FPN, p6=None, merge=lambda _, from_above: from_above), PYRAMID),
    "C4 alone": (SingleMap, (16,)),
    "P2 alone": (FinestLevel, (4,)),
}
ROWS = {name: (name, 1) for name in VARIANTS} | {  # which neck, and how many times as long it learns
    f"{name}, {LONGER} times the steps": (name, LONGER) for name in ("FPN", "P2 alone")
}


def measure(seed: int, *, quick: bool, device: str) -> Rows:
    """Return recall of the proposals, AP of the boxes, the number of anchors and the time of an image, by neck."""
    to_learn = DrawnScenes(SyntheticScenes(8 if quick else 1000, seed=TRAINING_SEED + seed))
    to_test = SyntheticScenes(4 if quick else 100, seed=TEST_SEED + seed)
    rows: Rows = {}
    for row, (name, times) in ROWS.items():
        make = partial(new_detector, *VARIANTS[name])
        model = train_whole(make, to_learn, steps=2 if quick else times * STEPS, seed=seed, device=device)
        rows[row] = figures(model, to_test, device)
    return rows


def figures(model: FasterRCNN, scenes: DetectionDataset, device: str) -> dict[str, float]:
    """Return a trained detector's figures."""
    coco = as_coco(scenes)
    results, seconds = detect_all(model, scenes, coco=coco, device=device)
    boxes = evaluate_results(results, coco)["bbox"].figures
    looks = [propose(model, scenes[index][0].to(device)) for index in range(len(scenes))]
    return {
        **average_recall([proposals for proposals, _ in looks], coco, (50, 100)),
        **{f"box {name}": boxes[name] for name in ("AP", "AP50", "APs", "APm", "APl")},
        "anchors": looks[0][1],
        "seconds/image": median(seconds),
    }


@torch.inference_mode()
def propose(model: FasterRCNN, image: Tensor) -> tuple[Tensor, int]:
    """Return an image's proposals, best first, in its pixels, and the number of anchors that they come from."""
    batch = model.transform([image])
    features = model.backbone(batch.images)
    proposals, _ = model.rpn(features, batch.sizes)
    anchors = model.rpn.anchors([(level.shape[2], level.shape[3]) for level in features])
    [restored] = batch.restore([{"boxes": proposals[0]}])
    return restored["boxes"].cpu(), sum(map(len, anchors))
