"""What goes wrong: each detection is correct or an error of one kind, and some objects are missed.

The kinds are those of Hoiem et al. 2012 and of TIDE (Bolya et al. 2020); a detection is of the first that fits.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.mask import iou

from rcnn_edu.training.results import Coco, Result, load_ground_truth, load_results

IouType = Literal["bbox", "segm"]
Bools = NDArray[np.bool_]

KINDS = ("correct", "duplicate", "localisation", "confusion", "both", "background", "ignored")
HIT, TOUCH = 0.5, 0.1  # IoU from which a detection has found an object, and from which it is about one at all


@dataclass(frozen=True)
class Judgement:
    """What became of a detection.

    Attributes:
        result: its place among the results.
        kind: one of ``KINDS``.
        annotation: the place among the annotations of the object, or crowd, that it is about; None on background.
    """

    result: int
    kind: str
    annotation: int | None


@dataclass(frozen=True, repr=False)
class ErrorBreakdown:
    """The judgements on the detections that score at least ``score_thresh``.

    Attributes:
        score_thresh: below it, detections are left out.
        judgements: one for each detection.
        missed: the places among the annotations of the objects that no detection is correct about.
    """

    score_thresh: float
    judgements: list[Judgement]
    missed: list[int]

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of detections of each kind, and that of missed objects."""
        kinds = Counter(judgement.kind for judgement in self.judgements)
        return {**{kind: kinds[kind] for kind in KINDS}, "missed": len(self.missed)}

    def __repr__(self) -> str:
        """Return the counts in words."""
        return f"ErrorBreakdown(score_thresh={self.score_thresh}, counts={self.counts})"


def error_breakdown(
    results: list[Result], coco: Coco, iou_type: IouType = "bbox", score_thresh: float = 0.5
) -> ErrorBreakdown:
    """Return what each detection is: correct, or which kind of error.

    In each image, the best detection chooses first. It is *correct* if it overlaps (IoU ≥ 0.5) an object of its class
    that is still free, and *ignored* on a crowd of its class. Otherwise it is, what comes first: a *duplicate* if it
    overlaps an object of its class, a *confusion* if one of another class; a wrong *localisation* if it touches
    (IoU ≥ 0.1) an object of its class, *both* wrong if one of another class; and otherwise *background*.

    Args:
        results: in COCO's format.
        coco: the dataset that they are of.
        iou_type: whether boxes or masks overlap.
        score_thresh: detections that score less are left out.

    Raises:
        ValueError: for results that are not in COCO's format, or not of this dataset.

    Lesson: 09.
    """
    ground_truth = load_ground_truth(coco)
    return judge(load_results(results, ground_truth), ground_truth, iou_type, score_thresh)


def judge(detections: COCO, ground_truth: COCO, iou_type: IouType, score_thresh: float) -> ErrorBreakdown:
    """Return the breakdown of what pycocotools has loaded; see :func:`error_breakdown`."""
    shape = "bbox" if iou_type == "bbox" else "segmentation"
    judgements: list[Judgement] = []
    missed: list[int] = []
    for image_id in ground_truth.imgs:
        objects = ground_truth.loadAnns(ground_truth.getAnnIds(image_id))
        sure = [d for d in detections.loadAnns(detections.getAnnIds(image_id)) if d["score"] >= score_thresh]
        sure.sort(key=lambda detection: detection["score"], reverse=True)
        crowd = np.array([annotation["iscrowd"] for annotation in objects], dtype=bool)
        overlaps = iou([detection[shape] for detection in sure], [annotation[shape] for annotation in objects], crowd)
        overlaps = np.reshape(overlaps, (len(sure), len(objects)))  # pycocotools returns [] for none
        categories = np.array([annotation["category_id"] for annotation in objects])
        free = ~crowd
        for detection, overlap in zip(sure, overlaps, strict=True):
            kind, which = _judge_one(overlap, categories == detection["category_id"], crowd, free)
            if kind == "correct":
                free[which] = False
            judgements.append(Judgement(detection["id"] - 1, kind, None if which is None else objects[which]["id"] - 1))
        missed += [objects[which]["id"] - 1 for which in np.flatnonzero(free)]
    return ErrorBreakdown(score_thresh, judgements, missed)


def _judge_one(overlap: NDArray[np.float64], right: Bools, crowd: Bools, free: Bools) -> tuple[str, int | None]:
    """Return a detection's kind, and which of the image's annotations it is about.

    Args:
        overlap: of the detection with each annotation.
        right: whether this is of the detection's class,
        crowd: a crowd rather than an object,
        free: an object that no better detection has found.
    """
    questions = (
        ("correct", right & free, HIT),
        ("ignored", right & crowd, HIT),
        ("duplicate", right & ~crowd, HIT),
        ("confusion", ~right & ~crowd, HIT),
        ("localisation", right & ~crowd, TOUCH),
        ("both", ~right & ~crowd, TOUCH),
    )
    for kind, candidates, least in questions:
        hits = np.flatnonzero(candidates & (overlap >= least))[::-1]
        if len(hits):
            return kind, int(hits[overlap[hits].argmax()])  # of equals the last, as pycocotools has it
    return "background", None
