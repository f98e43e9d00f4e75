"""Datasets and detections small enough to be checked by hand: rectangles in images of 300 by 300 pixels."""

from collections.abc import Sequence
from typing import Any

from pycocotools import mask as coco_mask

from rcnn_edu.training.results import Coco, Result

SIDE = 300


def dataset_of(annotations: list[dict[str, Any]], categories: dict[int, str] | None = None, images: int = 1) -> Coco:
    categories = categories if categories is not None else {1: "a", 2: "b", 3: "c"}
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": SIDE, "width": SIDE} for n in range(1, images + 1)],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
        "annotations": [{"id": n, **annotation} for n, annotation in enumerate(annotations, start=1)],
    }


def rle_of(box: Sequence[float]) -> dict[str, Any]:
    (rle,) = coco_mask.frPyObjects([polygon_of(box)], SIDE, SIDE)
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def polygon_of(box: Sequence[float]) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def thing(category: int, box: Sequence[float], *, image: int = 1, crowd: bool = False) -> dict[str, Any]:
    """Return the annotation of an object that fills its box, or of a crowd."""
    shape = {"bbox": list(box), "segmentation": rle_of(box), "area": box[2] * box[3]}
    return {"image_id": image, "category_id": category, "iscrowd": int(crowd), **shape}


def found(category: int, box: Sequence[float], score: float, *, image: int = 1) -> Result:
    """Return a detection that fills its box."""
    shape = {"bbox": list(box), "segmentation": rle_of(box)}
    return {"image_id": image, "category_id": category, "score": score, **shape}
