"""Training a whole detector in a minute or two: the body is the shipped Mask R-CNN's, all that stands on it is new.

Where a frozen trunk would decide what is asked, because features have to grow along with what reads them, the detector
is trained from the body on, C3 to C5 included:

    scenes = DrawnScenes(SyntheticScenes(1000, seed=3000))
    model = train_whole(lambda: new_detector(SingleMap, (16,)), scenes, steps=250, seed=0)

The body has learnt under an FPN, on scenes of the same kind.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from rcnn_edu.datasets.coco import DetectionDataset, Sample
from rcnn_edu.models import RPN, BoxHead, FasterRCNN, MaskHead, MaskRCNN, PyramidRoIAlign, tiny_mask_rcnn
from rcnn_edu.models.backbone import Body
from rcnn_edu.models.box_head import Pool
from rcnn_edu.models.presets import SCENES_CLASSES, TINY
from rcnn_edu.ops import AnchorGenerator
from rcnn_edu.training.train import TrainSettings, train

Neck = Callable[[Sequence[int], int], nn.Module]  # makes what stands on the body, of its channels and of its own
CANDIDATES = 1308  # into NMS, of a single map: what four levels have together at 192 px


class DrawnScenes(Dataset[Sample]):
    """Scenes drawn once, for several detectors to learn from."""

    def __init__(self, scenes: DetectionDataset) -> None:
        self.categories = scenes.categories
        items = (scenes[index] for index in range(len(scenes)))
        self.items = [((255 * image).round().byte(), target) for image, target in items]  # 8 bits, as they are drawn

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        """Return scene ``index``."""
        image, target = self.items[index]
        return image.float() / 255, target


def new_detector(
    neck: Neck, strides: Sequence[int], box_pool: Pool | None = None, mask_pool: Pool | None = None
) -> FasterRCNN:
    """Return a detector on the shipped one's body.

    Args:
        neck: what stands between body and heads.
        strides: of the neck's levels. A single one bears anchors of all sizes, and brings as many candidates to NMS
            as the pyramid's levels do.
        box_pool: the box head's; RoIAlign by each RoI's level unless given.
        mask_pool: the mask head's; without it, the detector has none.
    """
    body = tiny_mask_rcnn(weights="scenes").backbone.body
    assert isinstance(body, Body)
    body.freeze(2)  # stem and C2, as is usual after pretraining
    sizes = TINY.rpn["anchors"].sizes
    rpn = dict(TINY.rpn)
    if len(strides) < len(sizes):
        sizes = [[size for level in sizes for size in level]]
        rpn["pre_nms_top_n"] = (CANDIDATES, CANDIDATES)
    rpn["anchors"] = AnchorGenerator(sizes=sizes, strides=strides)
    box = {**TINY.box_head, "pool": box_pool if box_pool is not None else PyramidRoIAlign(7, tuple(strides))}
    parts: dict[str, Any] = {
        "transform": TINY.transform,
        "backbone": nn.Sequential(OrderedDict(body=body, fpn=neck(body.channels, TINY.channels))),
        "rpn": RPN(TINY.channels, **rpn),
        "box_head": BoxHead(SCENES_CLASSES, TINY.channels, **box),
    }
    if mask_pool is None:
        return FasterRCNN(SCENES_CLASSES, **parts)
    mask_head = MaskHead(SCENES_CLASSES, TINY.channels, **{**TINY.mask_head, "pool": mask_pool})
    return MaskRCNN(SCENES_CLASSES, **parts, mask_head=mask_head)


def train_whole(
    make: Callable[[], FasterRCNN], scenes: DrawnScenes, *, steps: int, seed: int, device: str = "cpu"
) -> FasterRCNN:
    """Return the detector that ``make`` makes with the initial weights of ``seed``, trained, in evaluation mode.

    The global random state stays.
    """
    settings = TrainSettings(
        steps=steps,
        batch_size=8,
        warmup_steps=50,
        ema_decay=0,  # over so few steps, an average would not have forgotten where it began
        scale_range=(1, 1),
        seed=seed,
    )
    with torch.random.fork_rng(devices=[]), TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        model = make()
        train(model, scenes, folder, settings, device=device)
    return model.eval()
