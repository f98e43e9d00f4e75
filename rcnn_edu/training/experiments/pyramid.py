"""What do the pyramid, its path from the top and its lateral connections bring, and to objects of which size?

Command: ``python -m rcnn_edu experiment pyramid``; about 12 minutes a seed on two cores.
Paper: Feature pyramid networks (Lin et al. 2017), Table 1 for the proposals and Table 2 for the boxes, on COCO minival.

Five Faster R-CNN, equal in all but what stands between body and heads, learn from the same scenes of a seed, and look
at others. AR is of proposals, whatever the class; ARs, ARm and ARl allow 100 of them, in the paper 1,000. A single map
bears anchors of all sizes, and its RPN brings as many candidates to NMS as four levels do.

Where the paper starts from a body trained on ImageNet, these start from the body, C2 to C5, of the shipped Mask R-CNN,
and train C3 to C5 further. That body has learnt under an FPN, on scenes of the same kind, so it may suit the FPN best.
The training is short, and each detector sees its own RPN's proposals, while in the paper's Table 2 all see the same.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rcnn_edu.datasets import DetectionDataset, SyntheticScenes, as_coco
from rcnn_edu.models import FPN, RPN, BoxHead, FasterRCNN, PyramidRoIAlign, SingleMap, tiny_mask_rcnn
from rcnn_edu.models.backbone import Body
from rcnn_edu.models.fpn import Maps
from rcnn_edu.models.presets import SCENES_CLASSES, TINY
from rcnn_edu.models.transform import Target
from rcnn_edu.ops import AnchorGenerator
from rcnn_edu.training.evaluate import detect_all, evaluate_results
from rcnn_edu.training.experiments import Rows
from rcnn_edu.training.recall import average_recall
from rcnn_edu.training.train import TrainSettings, train

PAPER: Rows = {
    "FPN": {"AR100": 44.0, "ARs": 44.9, "ARm": 63.4, "ARl": 66.2, "box AP": 33.9, "box AP50": 56.9},
    "no top-down path": {"AR100": 37.4, "ARs": 30.5, "ARm": 59.9, "ARl": 68.0, "box AP": 24.9, "box AP50": 44.9},
    "no lateral connections": {"AR100": 34.5, "ARs": 26.5, "ARm": 57.4, "ARl": 64.7, "box AP": 31.3, "box AP50": 54.0},
    "C4 alone": {"AR100": 36.1, "ARs": 32.0, "ARm": 58.7, "ARl": 62.2, "box AP": 31.9, "box AP50": 54.7},
    "P2 alone": {"AR100": 38.4, "ARs": 35.1, "ARm": 59.7, "ARl": 67.6, "box AP": 33.4, "box AP50": 56.3},
}
STEPS = 250
CANDIDATES = 1308  # into NMS, of a single map: what the four levels have together at 192 px


class FinestLevel(FPN):
    """A pyramid of which P2 alone is looked at; so P3 to P5 are not made from what is merged."""

    def __init__(self, in_channels_list: Sequence[int], out_channels: int) -> None:
        super().__init__(in_channels_list, out_channels, p6=None)
        self.outputs = nn.ModuleList([self.outputs[0], *(nn.Identity() for _ in in_channels_list[1:])])

    def forward(self, features: Maps) -> list[Tensor]:
        """Return P2."""
        return super().forward(features)[:1]


@dataclass(frozen=True)
class Variant:
    """What stands between body and heads: makes it from the body's channels and its own, and its levels' strides."""

    neck: Callable[[Sequence[int], int], nn.Module]
    strides: tuple[int, ...]


PYRAMID = (4, 8, 16, 32)
VARIANTS = {
    "FPN": Variant(partial(FPN, p6=None), PYRAMID),
    "no top-down path": Variant(partial(FPN, p6=None, merge=lambda lateral, _: lateral), PYRAMID),
    "no lateral connections": Variant(partial(FPN, p6=None, merge=lambda _, from_above: from_above), PYRAMID),
    "C4 alone": Variant(SingleMap, (16,)),
    "P2 alone": Variant(FinestLevel, (4,)),
}


class LabelledScenes(Dataset[tuple[Tensor, Target]]):
    """Scenes drawn once for all five, without their masks, which no box needs."""

    categories = SyntheticScenes.categories

    def __init__(self, scenes: SyntheticScenes) -> None:
        items = (scenes[index] for index in range(len(scenes)))
        self.items = [((255 * image).round().byte(), t["boxes"], t["labels"]) for image, t in items]  # 8 bits as drawn

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image, boxes, labels = self.items[index]
        return image.float() / 255, {"boxes": boxes, "labels": labels}


def measure(seed: int, *, quick: bool, device: str) -> Rows:
    """Return recall of the proposals, AP of the boxes, the number of anchors and the time of an image, by neck."""
    to_learn = LabelledScenes(SyntheticScenes(8 if quick else 1000, seed=3000 + seed))
    to_test = SyntheticScenes(4 if quick else 100, seed=4000 + seed)
    settings = TrainSettings(
        steps=2 if quick else STEPS,
        batch_size=2 if quick else 8,
        warmup_steps=50,
        ema_decay=0,  # over so few steps, an average would not have forgotten where it began
        scale_range=(1, 1),
        seed=seed,
    )
    rows: Rows = {}
    for name, variant in VARIANTS.items():
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = build(variant)
        with TemporaryDirectory() as folder:
            train(model, to_learn, folder, settings, device=device)
        rows[name] = figures(model.eval(), to_test, device)
    return rows


def build(variant: Variant) -> FasterRCNN:
    """Return a detector with the shipped one's body and, between body and heads, what the variant says."""
    body = tiny_mask_rcnn(weights="scenes").backbone.body
    assert isinstance(body, Body)
    body.freeze(2)  # stem and C2, as is usual after pretraining
    sizes = TINY.rpn["anchors"].sizes
    rpn = dict(TINY.rpn)
    if len(variant.strides) < len(sizes):
        sizes = [[size for level in sizes for size in level]]
        rpn["pre_nms_top_n"] = (CANDIDATES, CANDIDATES)
    rpn["anchors"] = AnchorGenerator(sizes=sizes, strides=variant.strides)
    pool = PyramidRoIAlign(7, variant.strides)
    return FasterRCNN(
        SCENES_CLASSES,
        transform=TINY.transform,
        backbone=nn.Sequential(OrderedDict(body=body, fpn=variant.neck(body.channels, TINY.channels))),
        rpn=RPN(TINY.channels, **rpn),
        box_head=BoxHead(SCENES_CLASSES, TINY.channels, **{**TINY.box_head, "pool": pool}),
    )


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
