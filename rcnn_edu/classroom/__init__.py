"""Instant checks of a learner's own versions, with hints: ``check(exercise, function)``."""

from typing import Any

from rcnn_edu.classroom.checks import judge
from rcnn_edu.classroom.lesson_00_box_iou import BOX_IOU
from rcnn_edu.classroom.lesson_00_encode_boxes import DECODE_BOXES, ENCODE_BOXES
from rcnn_edu.classroom.lesson_01_bilinear_sample import BILINEAR_SAMPLE
from rcnn_edu.classroom.lesson_01_roi_align import ROI_ALIGN
from rcnn_edu.classroom.lesson_03_assign_anchors_to_gt import ASSIGN_ANCHORS_TO_GT
from rcnn_edu.classroom.lesson_07_soft_nms import SOFT_NMS
from rcnn_edu.classroom.lesson_09_match_detections import MATCH_DETECTIONS
from rcnn_edu.classroom.lesson_09_precision_at_recalls import PRECISION_AT_RECALLS
from rcnn_edu.classroom.verdict import Verdict

__all__ = ["EXERCISES", "Verdict", "check"]

EXERCISES = {  # by their names
    exercise.name: exercise
    for exercise in (
        *(BOX_IOU, ENCODE_BOXES, DECODE_BOXES),
        *(BILINEAR_SAMPLE, ROI_ALIGN),
        *(ASSIGN_ANCHORS_TO_GT,),
        *(SOFT_NMS,),
        *(MATCH_DETECTIONS, PRECISION_AT_RECALLS),
    )
}


def check(exercise: str, function: Any) -> Verdict:
    """Return the verdict on a learner's ``function`` for the exercise of this name.

    Its ``function`` is the learner's where it passed, else the reference, so that later cells can go on.

    Raises:
        ValueError: for an exercise that there is none of.
    """
    if exercise not in EXERCISES:
        raise ValueError(f"there is no exercise {exercise!r}; choose one of: {', '.join(EXERCISES)}")
    return judge(EXERCISES[exercise], function)
