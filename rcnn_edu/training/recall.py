"""How many of the objects do an RPN's proposals find? Average recall, whatever the class, as the papers count it."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from math import nan

import torch
from jaxtyping import Float
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from rcnn_edu.training.results import Coco, load_ground_truth, load_results, to_results


def average_recall(
    proposals: Sequence[Float[Tensor, "_ 4"]], coco: Coco, counts: Sequence[int] = (10, 50, 100)
) -> dict[str, float]:
    """Return ``AR10`` and so on, from 0 to 1, and ``ARs``, ``ARm``, ``ARl`` of small, medium and large objects.

    That is the share of objects that a proposal overlaps by an IoU, averaged over IoU 0.50, 0.55, … 0.95, each proposal
    finding one object at most. Classes are not looked at. A figure that no object speaks for is NaN.

    Args:
        proposals: each image's, best first, in its pixels.
        coco: the dataset as :func:`~rcnn_edu.datasets.coco.as_coco` gives it.
        counts: of proposals that may take part, rising; the figures by size are at the last.

    Raises:
        ValueError: for another number of images than ``coco`` has.

    Lesson: 02 (FPN, section 5.1).
    """
    if len(proposals) != len(coco["images"]):
        raise ValueError(
            f"proposals must be one tensor for each of {len(coco['images'])} images, got {len(proposals)}; "
            "an image without any has one of shape (0, 4)"
        )
    category = coco["categories"][0]["id"]  # any: classes are not looked at
    results = []
    for image, boxes in zip(coco["images"], proposals, strict=True):
        ranks = torch.arange(1, len(boxes) + 1)
        found = {"boxes": boxes, "labels": torch.ones_like(ranks), "scores": 1 / ranks}
        results += to_results(found, image["id"], [category])
    ground_truth = load_ground_truth(coco)
    evaluator = COCOeval(ground_truth, load_results(results, ground_truth), "bbox")
    evaluator.params.useCats = 0
    evaluator.params.maxDets = list(counts)
    with redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
    recall = evaluator.eval["recall"][:, 0].mean(axis=0)  # (all sizes, small, medium, large) by counts
    by_count = {f"AR{count}": recall[0, place] for place, count in enumerate(counts)}
    by_size = {f"AR{size}": recall[place, -1] for place, size in enumerate("sml", start=1)}
    return {name: nan if value < 0 else float(value) for name, value in {**by_count, **by_size}.items()}
