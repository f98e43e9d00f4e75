"""Right answers to the exercise of lesson 08, written in different ways, and its untouched stub."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor

from rcnn_edu.ops import batched_nms, box_iou

View = Mapping[str, Any]


def stub(views: Sequence[View], width: float, iou_thresh: float = 0.5, max_detections: int = 100) -> Any:
    """Return a dict with boxes (k, 4), labels (k,) and scores (k,) of the whole image, best first."""
    # 1. Bring each view's boxes back.


def with_a_list(
    views: Sequence[View], width: float, iou_thresh: float = 0.5, max_detections: int = 100
) -> dict[str, Tensor]:
    restored = []
    for view in views:
        boxes = view["boxes"] / view["scale"]
        if view["flipped"]:
            x1, y1, x2, y2 = boxes.unbind(dim=1)
            boxes = torch.stack([width - x2, y1, width - x1, y2], dim=1)
        restored.append(boxes)
    boxes = torch.cat(restored)
    labels = torch.cat([view["labels"] for view in views])
    scores = torch.cat([view["scores"] for view in views])
    keep = batched_nms(boxes, scores, labels, iou_thresh)[:max_detections]
    return {"boxes": boxes[keep], "labels": labels[keep], "scores": scores[keep]}


def mirrored_first(views: Sequence[View], width: float, iou_thresh: float, max_detections: int) -> dict[str, Tensor]:
    """Mirror in the view's own pixels, where the image is scale times as wide; torchvision suppresses."""
    parts = []
    for view in views:
        boxes = view["boxes"].clone()
        if view["flipped"]:
            boxes[:, [0, 2]] = width * view["scale"] - boxes[:, [2, 0]]
        parts.append(torch.cat([boxes / view["scale"], view["labels"][:, None], view["scores"][:, None]], dim=1))
    rows = torch.cat(parts)
    keep = torchvision.ops.batched_nms(rows[:, :4], rows[:, 5], rows[:, 4].long(), iou_thresh)
    best = rows[keep[:max_detections]]
    return {"scores": best[:, 5], "boxes": best[:, :4], "labels": best[:, 4].int(), "views": rows}


def by_hand(views: Sequence[View], width: float, iou_thresh: float, max_detections: int) -> dict[str, Any]:
    """Walk over all boxes, best first, by plain numbers."""
    found = []
    for view in views:
        for (x1, y1, x2, y2), label, score in zip(
            view["boxes"].numpy() / view["scale"], view["labels"].tolist(), view["scores"].tolist(), strict=True
        ):
            left, right = (width - x2, width - x1) if view["flipped"] else (x1, x2)
            found.append((score, label, [left, y1, right, y2]))
    kept: list[Any] = []
    for score, label, box in sorted(found, key=lambda row: -row[0]):
        copies = [
            other for _, its, other in kept if its == label and box_iou(*map(_row, (box, other))).item() > iou_thresh
        ]
        if not copies:
            kept.append((score, label, box))
    scores, labels, boxes = ([row[part] for row in kept[:max_detections]] for part in range(3))
    return {"boxes": np.array(boxes), "labels": labels, "scores": scores}


def _row(box: Sequence[float]) -> Tensor:
    return torch.tensor([[float(value) for value in box]])
