"""How good is a detector? Its detections in COCO's format, COCO's figures by pycocotools, and what goes wrong."""

import io
import statistics
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn
from tqdm.auto import tqdm

from rcnn_edu.datasets.coco import DetectionDataset, as_coco
from rcnn_edu.training.errors import ErrorBreakdown, IouType, judge
from rcnn_edu.training.results import Coco, Result, load_ground_truth, load_results, to_results

# COCO's twelve figures: precision, averaged over IoU thresholds or at one, of all objects or of small, medium and large
# ones; and recall, with at most 1, 10 or 100 detections of a class in an image, or by size.
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
IOU_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
RECALLS = np.linspace(0, 1, 101)
WIDTH = 100  # of a table, in characters
ROWS: dict[IouType, str] = {"bbox": "boxes", "segm": "masks"}


@dataclass(frozen=True, eq=False, repr=False)
class Accuracy:
    """How well boxes, or masks, match the objects'. What no object speaks for is NaN, where pycocotools says -1.

    Attributes:
        figures: COCO's twelve, from 0 to 1, named as in ``FIGURES``.
        per_class: AP of each category.
        per_threshold: AP at each of ``IOU_THRESHOLDS``.
        precision: of shape (10, K, 101): for each threshold and class, that at each of ``RECALLS``.
        scores: of the same shape: that of the detection that reaches the recall, 0 where none does.
        errors: what the detections are that one would show.
    """

    figures: dict[str, float]
    per_class: dict[str, float]
    per_threshold: dict[float, float]
    precision: NDArray[np.float64]
    scores: NDArray[np.float64]
    errors: ErrorBreakdown

    def __repr__(self) -> str:
        """Return the figures."""
        return f"Accuracy({self.figures})"


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The figures of a detector on a dataset; shown as a table, and got as ``evaluation["bbox"].figures["AP"]``.

    Attributes:
        accuracy: of "bbox", and of "segm" where there are masks.
        images: how many.
        objects: how many, crowds not among them.
        detections: how many, whatever their score.
        seconds_per_image: the median; NaN where it was not measured.
    """

    accuracy: dict[IouType, Accuracy]
    images: int
    objects: int
    detections: int
    seconds_per_image: float = nan

    def __getitem__(self, iou_type: IouType) -> Accuracy:
        """Return the accuracy of "bbox" or "segm"."""
        return self.accuracy[iou_type]

    def __repr__(self) -> str:
        """Return the table."""
        return self.table()

    def table(self) -> str:
        """Return the figures for a terminal."""
        rows = {ROWS[iou_type]: accuracy for iou_type, accuracy in self.accuracy.items()}
        pace = "" if isnan(self.seconds_per_image) else f", {1000 * self.seconds_per_image:.0f} ms an image"
        sure = next(iter(rows.values())).errors.score_thresh
        return "\n".join(
            [
                f"{self.images} images, {self.objects} objects, {self.detections} detections{pace}",
                *_table("COCO's figures", {name: row.figures for name, row in rows.items()}),
                *_table("AP at IoU", {name: _named(row.per_threshold) for name, row in rows.items()}),
                *_table("AP of", {name: row.per_class for name, row in rows.items()}),
                *_table(
                    f"Detections that score at least {sure}, and objects they miss",
                    {name: row.errors.counts for name, row in rows.items()},
                ),
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Return all of it as json can hold it: NaN becomes None, and the curves have four decimals."""
        by_type = {
            iou_type: {
                "figures": accuracy.figures,
                "per_class": accuracy.per_class,
                "per_threshold": _named(accuracy.per_threshold),
                "precision": accuracy.precision.round(4).tolist(),
                "scores": accuracy.scores.round(4).tolist(),
                "errors": {"score_thresh": accuracy.errors.score_thresh, **accuracy.errors.counts},
            }
            for iou_type, accuracy in self.accuracy.items()
        }
        counts = {"images": self.images, "objects": self.objects, "detections": self.detections}
        jsonable: dict[str, Any] = _nan_to_none({**counts, "seconds_per_image": self.seconds_per_image, **by_type})
        return jsonable


def _named(per_threshold: dict[float, float]) -> dict[str, float]:
    return {f"{threshold:.2f}": ap for threshold, ap in per_threshold.items()}


def _nan_to_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nan_to_none(item) for item in value]
    return None if isinstance(value, float) and isnan(value) else value


def _table(title: str, rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the lines of a table; columns that do not fit side by side go below."""
    margin = [f"{name:6}" for name in ("", *rows)]
    lines, part = ["", title], margin
    for column in next(iter(rows.values())):
        cells = [column, *(_shown(row[column]) for row in rows.values())]
        width = max(map(len, cells)) + 2
        if part != margin and len(part[0]) + width > WIDTH:
            lines, part = [*lines, *part], margin
        part = [line + cell.rjust(width) for line, cell in zip(part, cells, strict=True)]
    return [*lines, *part]


def _shown(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "–" if isnan(value) else f"{value:.3f}"


def evaluate(
    model: nn.Module,
    dataset: DetectionDataset,
    *,
    device: torch.device | str | None = None,
    score_thresh: float = 0.5,
) -> Evaluation:
    """Return the figures of ``model`` on ``dataset``.

    Args:
        model: a detector; moved to ``device``.
        dataset: the images and their targets.
        device: to run on; None: the model's.
        score_thresh: of the detections that the breakdown of errors looks at.

    Raises:
        ValueError: for an empty dataset, or a model of other classes.

    Lesson: 09.
    """
    coco = as_coco(dataset)
    results, seconds = detect_all(model, dataset, coco=coco, device=device)
    evaluation = evaluate_results(results, coco, score_thresh=score_thresh)
    return replace(evaluation, seconds_per_image=statistics.median(seconds))  # the first image warms up


@torch.no_grad()  # not inference_mode: what a model keeps from it, training could not use
def detect_all(
    model: nn.Module,
    dataset: DetectionDataset,
    *,
    coco: Coco | None = None,
    device: torch.device | str | None = None,
) -> tuple[list[Result], list[float]]:
    """Return the detections in all images, in COCO's format, and the seconds that each image took.

    The images go in one by one: batches would pad them, and blur the time.

    Args:
        model: a detector; moved to ``device``, and left in the mode that it is in.
        dataset: the images.
        coco: ``as_coco(dataset)``, if it is at hand.
        device: to run on; None: the model's.

    Raises:
        ValueError: for an empty dataset, or a model of other classes.

    Lesson: 09.
    """
    if len(dataset) == 0:
        raise ValueError("the dataset is empty: there is nothing to detect")
    coco = coco if coco is not None else as_coco(dataset)
    category_ids = [category["id"] for category in coco["categories"]]
    if device is not None:
        model.to(device)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    results: list[Result] = []
    seconds: list[float] = []
    was_training = model.training
    model.eval()
    try:
        for index in tqdm(range(len(dataset)), desc="detecting", unit="image", dynamic_ncols=True):
            image = dataset[index][0].to(device)
            start = time.perf_counter()
            detection = model([image])[0]
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            seconds.append(time.perf_counter() - start)
            results += to_results(detection, coco["images"][index]["id"], category_ids)
    finally:
        model.train(was_training)
    return results, seconds


def evaluate_results(results: list[Result], coco: Coco, *, score_thresh: float = 0.5) -> Evaluation:
    """Return the figures of ``results``, those that pycocotools gives for the same json.

    Masks are measured too where results and annotations have them; with no results at all, where the annotations do.
    Beside a bbox, pycocotools takes the bbox's area, not the mask's, for the size of a detection that finds nothing.

    Args:
        results: in COCO's format.
        coco: the dataset that they are of, as :func:`~rcnn_edu.datasets.coco.as_coco` gives it.
        score_thresh: of the detections that the breakdown of errors looks at.

    Raises:
        ValueError: for results that are not in COCO's format, or not of this dataset.

    Lesson: 09.
    """
    ground_truth = load_ground_truth(coco)
    detections = load_results(results, ground_truth)
    with_masks = all(shape.get("segmentation") for shape in [*results[:1], *coco["annotations"]])
    iou_types: list[IouType] = ["bbox", "segm"] if with_masks else ["bbox"]
    return Evaluation(
        {iou_type: _accuracy(detections, ground_truth, iou_type, score_thresh) for iou_type in iou_types},
        images=len(coco["images"]),
        objects=sum(not annotation["iscrowd"] for annotation in ground_truth.dataset["annotations"]),
        detections=len(results),
    )


def _accuracy(detections: COCO, ground_truth: COCO, iou_type: IouType, score_thresh: float) -> Accuracy:
    evaluator = COCOeval(ground_truth, detections, iou_type)
    with redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    categories = ground_truth.dataset["categories"]
    names = [category["name"] for category in categories]
    order = [list(evaluator.params.catIds).index(category["id"]) for category in categories]  # that of the labels
    # Of objects of all sizes, and with as many detections as it takes.
    precision, scores = (evaluator.eval[name][:, :, order, 0, -1].swapaxes(1, 2) for name in ("precision", "scores"))
    present = (precision >= 0).all(axis=(0, 2))
    precision[:, ~present] = scores[:, ~present] = nan
    per_threshold = precision[:, present].mean(axis=(1, 2)) if present.any() else np.full(len(precision), nan)
    return Accuracy(
        figures={
            name: nan if value < 0 else value for name, value in zip(FIGURES, evaluator.stats.tolist(), strict=True)
        },
        per_class=dict(zip(_distinct(names), precision.mean(axis=(0, 2)).tolist(), strict=True)),
        per_threshold=dict(zip(IOU_THRESHOLDS, per_threshold.tolist(), strict=True)),
        precision=precision,
        scores=scores,
        errors=judge(detections, ground_truth, iou_type, score_thresh),
    )


def _distinct(names: list[str]) -> list[str]:
    """Return the names, those that are not the only ones of their kind with their label."""
    return [name if names.count(name) == 1 else f"{name} ({label})" for label, name in enumerate(names, start=1)]
