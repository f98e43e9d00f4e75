"""Detections in COCO's format: made of a model's output, checked, and loaded as pycocotools wants them."""

import io
from collections.abc import Hashable, Sequence
from contextlib import redirect_stdout
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.mask import encode

from rcnn_edu.datasets.coco import to_rle
from rcnn_edu.models.transform import Detection

Coco = dict[str, Any]  # a dataset's images, categories and annotations, as as_coco gives them
Result = dict[str, Any]  # a detection's image_id, category_id, score, bbox (x, y, width, height) and segmentation (RLE)

SHAPES = ("bbox", "segmentation")  # what a result may hold, both or one of them


def to_results(detection: Detection, image_id: int, category_ids: Sequence[int]) -> list[Result]:
    """Return an image's detections in COCO's format; ``category_ids[0]`` is that of label 1.

    Masks become run lengths of where they exceed 0.5.

    Raises:
        ValueError: for a label that has no category.

    Lesson: 09.
    """
    labels = detection["labels"].tolist()
    strange = [label for label in labels if not 1 <= label <= len(category_ids)]
    if strange:
        raise ValueError(
            f"the model found label {strange[0]}, but the dataset has {len(category_ids)} categories; "
            "it needs a model of as many classes"
        )
    x1, y1, x2, y2 = detection["boxes"].unbind(dim=1)
    rows = zip(
        labels, detection["scores"].tolist(), torch.stack([x1, y1, x2 - x1, y2 - y1], dim=1).tolist(), strict=True
    )
    results: list[Result] = [
        {"image_id": image_id, "category_id": category_ids[label - 1], "score": score, "bbox": box}
        for label, score, box in rows
    ]
    if "masks" in detection:
        masks = (detection["masks"][:, 0] > 0.5).to(torch.uint8).permute(1, 2, 0)
        for result, rle in zip(results, encode(np.asfortranarray(masks.cpu().numpy())), strict=True):
            result["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
    return results


def load_ground_truth(coco: Coco) -> COCO:
    """Return the dataset as pycocotools wants it: masks as compressed RLE, annotations numbered from 1.

    To pycocotools, a match with number 0 is none.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    annotations = []
    for number, annotation in enumerate(coco["annotations"], start=1):
        annotations.append({"iscrowd": 0, **annotation, "id": number})
        if annotation.get("segmentation"):
            annotations[-1]["segmentation"] = to_rle(annotation["segmentation"], sizes[annotation["image_id"]])
    return _indexed({**coco, "annotations": annotations})


def load_results(results: list[Result], ground_truth: COCO) -> COCO:
    """Return the results as pycocotools wants them, numbered from 1.

    Raises:
        ValueError: for results that are not in COCO's format, or not of this dataset; the message names the first.
    """
    if not isinstance(results, list):
        raise ValueError(
            f"results must be a list of detections, got {type(results).__name__}; a file with images, annotations and "
            "categories is a dataset, not results"
        )
    if not results:  # loadRes looks at the first one
        return _indexed({**ground_truth.dataset, "annotations": []})
    shapes = [shape for shape in SHAPES if any(isinstance(result, dict) and shape in result for result in results)]
    fields = ["image_id", "category_id", "score", *(shapes or SHAPES[:1])]
    checked = []
    for index, result in enumerate(results):
        try:
            checked.append(_checked(result, fields, ground_truth))
        except ValueError as error:
            raise ValueError(f"results[{index}] {error}") from error
    with redirect_stdout(io.StringIO()):
        return ground_truth.loadRes(checked)


def _indexed(dataset: Coco) -> COCO:
    loaded = COCO()
    loaded.dataset = dataset
    with redirect_stdout(io.StringIO()):
        loaded.createIndex()
    return loaded


def _checked(result: Result, fields: list[str], ground_truth: COCO) -> Result:
    """Return a copy of a result, its mask as compressed RLE; the error's message goes on after the result's name."""
    if not isinstance(result, dict):
        raise ValueError(f"must be a dict with {fields}, got {type(result).__name__}")
    missing = [name for name in fields if name not in result]
    if missing:
        raise ValueError(f"must have {fields}, as others have, got {sorted(result)}: add {missing}")
    image_id, category_id = result["image_id"], result["category_id"]
    if not (isinstance(image_id, Hashable) and image_id in ground_truth.imgs):
        raise ValueError(f"is of image {image_id!r}, which the dataset has not; is it of another dataset or split?")
    if not (isinstance(category_id, Hashable) and category_id in ground_truth.cats):
        raise ValueError(
            f"is of category {category_id!r}, but the dataset has {sorted(ground_truth.cats)}; "
            "category_id is the dataset's id, not the model's label"
        )
    if not _is_number(result["score"]):
        raise ValueError(f"must have a finite number as its score, got {result['score']!r}; did the training diverge?")
    if "bbox" in fields and not _is_box(result["bbox"]):
        raise ValueError(f"must have a finite bbox of [x, y, width, height], got {result['bbox']!r}; correct it")
    if "segmentation" not in fields:
        return dict(result)
    image = ground_truth.imgs[image_id]
    try:
        return {**result, "segmentation": to_rle(result["segmentation"], (image["height"], image["width"]))}
    except ValueError as error:
        raise ValueError(
            f"has a segmentation that {error}; masks must be of the whole image as it is stored"
        ) from error


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and isfinite(value)


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)) and min(value[2:]) >= 0
