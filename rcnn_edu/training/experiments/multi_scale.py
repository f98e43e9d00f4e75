"""What do several scales and a mirror image gain, and what do they cost?

Command: ``python -m rcnn_edu experiment multi_scale``; about a minute a seed on two cores.
Paper: Deep residual learning (He et al. 2016), Table 9: COCO AP50 51.1 and AP 30.0 become 53.8 and 32.5 on val.

The shipped Mask R-CNN looks at fresh scenes, those of a seed, in each of the ways.
"""

import time

from rcnn_edu.datasets import SyntheticScenes, as_coco
from rcnn_edu.models import multi_scale_test, tiny_mask_rcnn
from rcnn_edu.models.transform import Detection
from rcnn_edu.training.evaluate import evaluate_results
from rcnn_edu.training.experiments import Rows
from rcnn_edu.training.results import to_results

PAPER: Rows = {
    "scale 1": {"box AP50": 51.1, "box AP": 30.0},
    "0.5, 1, 1.5": {"box AP50": 53.8, "box AP": 32.5},
}
WAYS: dict[str, tuple[tuple[float, ...], bool]] = {
    "scale 1": ((1.0,), False),
    "scale 1, mirrored": ((1.0,), True),
    "scale 1.5": ((1.5,), False),
    "1, 1.5": ((1.0, 1.5), False),
    "0.5, 1, 1.5": ((0.5, 1.0, 1.5), False),
    "0.5, 1, 1.5, mirrored": ((0.5, 1.0, 1.5), True),
}


def measure(seed: int, *, quick: bool, device: str) -> Rows:
    """Return AP of boxes and masks, by size too, and the time of an image, by the way of looking at it."""
    model = tiny_mask_rcnn(weights="scenes").eval().to(device)
    scenes = SyntheticScenes(2 if quick else 100, seed=2000 + seed)
    coco = as_coco(scenes)
    images = [scenes[index][0].to(device) for index in range(len(scenes))]
    category_ids = [category["id"] for category in coco["categories"]]
    rows: Rows = {}
    for way, (scales, flip) in WAYS.items():
        start = time.perf_counter()
        detections = [_on_cpu(multi_scale_test(model, image, scales, flip)) for image in images]
        seconds = (time.perf_counter() - start) / len(images)
        results = []
        for entry, detection in zip(coco["images"], detections, strict=True):
            results += to_results(detection, entry["id"], category_ids)
        evaluation = evaluate_results(results, coco)
        box, mask = evaluation["bbox"].figures, evaluation["segm"].figures
        rows[way] = {
            "box AP50": box["AP50"],
            "box AP": box["AP"],
            "mask AP": mask["AP"],
            **{f"box {size}": box[size] for size in ("APs", "APm", "APl")},
            "seconds/image": seconds,
        }
    return rows


def _on_cpu(detection: Detection) -> Detection:
    return {name: values.cpu() for name, values in detection.items()}
