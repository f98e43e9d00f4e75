"""Does Soft-NMS find more than NMS, in crowds and where objects stand apart?

Command: ``python -m rcnn_edu experiment soft_nms``; about a minute a seed on two cores.
Paper: Bodla et al. 2017. The abstract has COCO AP +1.3 for R-FCN and +1.1 for Faster R-CNN; later users report less.

The shipped Mask R-CNN's scored boxes, before any is suppressed, go through each kind of suppression; a seed is a fresh
set of scenes. All kinds keep boxes from a score of 0.001 on, but for the row that cuts them at 0.05 in the end.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rcnn_edu.datasets import SceneSettings, SyntheticScenes, as_coco
from rcnn_edu.models import DetectionSelector, FasterRCNN, tiny_mask_rcnn
from rcnn_edu.training.evaluate import evaluate_results
from rcnn_edu.training.experiments import Rows
from rcnn_edu.training.results import Coco, to_results

PAPER: Rows = {}  # its gains are on COCO, and of whole systems; see the header

SCENES = {
    "sparse": SceneSettings(num_objects=(2, 5), object_size=(16, 120), crowding=0.0),
    "crowded": SceneSettings(num_objects=(10, 16), object_size=(24, 120), crowding=0.7),
}
HARD = DetectionSelector(score_thresh=0.001)
SELECTORS = {
    **{f"NMS, N_t = {thresh}": replace(HARD, iou_thresh=thresh) for thresh in (0.3, 0.4, 0.5, 0.6, 0.7)},
    **{f"linear, N_t = {thresh}": replace(HARD, suppression="linear", iou_thresh=thresh) for thresh in (0.3, 0.4, 0.5)},
    **{f"Gaussian, sigma = {sigma}": replace(HARD, suppression="gaussian", sigma=sigma) for sigma in (0.3, 0.5, 0.7)},
}
CUT = 0.05
CUT_ROW = f"Gaussian, sigma = 0.5, cut at {CUT}"

Scored = tuple[Tensor, Tensor]  # an image's boxes for each class, and their probabilities


def measure(seed: int, *, quick: bool, device: str) -> Rows:
    """Return AP and AR of boxes by kind of suppression and kind of scene."""
    model = tiny_mask_rcnn(weights="scenes").eval().to(device)
    rows: Rows = {}
    for kind, settings in SCENES.items():
        scenes = SyntheticScenes(4 if quick else 100, seed=1000 + seed, settings=settings)
        coco = as_coco(scenes)
        scored = [score(model, scenes[index][0].to(device)) for index in range(len(scenes))]
        for row, select in SELECTORS.items():
            rows.setdefault(row, {}).update(_figures(kind, scored, select, coco))
        gaussian = SELECTORS["Gaussian, sigma = 0.5"]
        rows.setdefault(CUT_ROW, {}).update(_figures(kind, scored, gaussian, coco, CUT))
    return rows


@torch.inference_mode()
def score(model: FasterRCNN, image: Tensor) -> Scored:
    """Return an image's boxes, clipped and at its own size, and their class probabilities: nothing is selected yet."""
    batch = model.transform([image])
    features = model.backbone(batch.images)
    proposals, _ = model.rpn(features, batch.sizes)
    [(boxes, probabilities)] = model.box_head.predict(features, proposals, batch.sizes)
    return boxes * (image.shape[1] / batch.sizes[0][0]), probabilities


def _figures(
    kind: str,
    scored: Sequence[Scored],
    select: DetectionSelector,
    coco: Coco,
    cut: float = 0,
) -> dict[str, float]:
    results = []
    for image, (boxes, probabilities) in zip(coco["images"], scored, strict=True):
        detection = select(boxes, probabilities)
        sure = {name: values[detection["scores"] >= cut] for name, values in detection.items()}
        results += to_results(sure, image["id"], [category["id"] for category in coco["categories"]])
    figures = evaluate_results(results, coco)["bbox"].figures
    return {f"{kind} {name}": figures[name] for name in ("AP", "AP50", "AP75", "AR100")}
