"""Instant checks of a learner's own versions, with hints: ``check(exercise, function)``."""

from typing import Any

from rcnn_edu.classroom.checks import judge
from rcnn_edu.classroom.lesson_00_box_iou import BOX_IOU
from rcnn_edu.classroom.lesson_00_encode_boxes import DECODE_BOXES, ENCODE_BOXES
from rcnn_edu.classroom.lesson_01_bilinear_sample import BILINEAR_SAMPLE
from rcnn_edu.classroom.lesson_01_roi_align import ROI_ALIGN
from rcnn_edu.classroom.lesson_02_assign_fpn_levels import ASSIGN_FPN_LEVELS
from rcnn_edu.classroom.lesson_02_merge_top_down import MERGE_TOP_DOWN
from rcnn_edu.classroom.lesson_03_assign_anchors_to_gt import ASSIGN_ANCHORS_TO_GT
from rcnn_edu.classroom.lesson_04_box_head_loss import BOX_HEAD_LOSS
from rcnn_edu.classroom.lesson_04_sample_rois import SAMPLE_ROIS
from rcnn_edu.classroom.lesson_05_mask_loss import MASK_LOSS
from rcnn_edu.classroom.lesson_05_paste_masks import PASTE_MASKS
from rcnn_edu.classroom.lesson_06_refine_boxes import REFINE_BOXES
from rcnn_edu.classroom.lesson_06_relabel_boxes import RELABEL_BOXES
from rcnn_edu.classroom.lesson_07_soft_nms import SOFT_NMS
from rcnn_edu.classroom.lesson_08_merge import MERGE
from rcnn_edu.classroom.lesson_09_match_detections import MATCH_DETECTIONS
from rcnn_edu.classroom.lesson_09_precision_at_recalls import PRECISION_AT_RECALLS
from rcnn_edu.classroom.verdict import Verdict

__all__ = ["EXERCISES", "Verdict", "check"]

EXERCISES = {  # by their names
    exercise.name: exercise
    for exercise in (
        *(BOX_IOU, ENCODE_BOXES, DECODE_BOXES),
        *(BILINEAR_SAMPLE, ROI_ALIGN),
        *(MERGE_TOP_DOWN, ASSIGN_FPN_LEVELS),
        *(ASSIGN_ANCHORS_TO_GT,),
        *(SAMPLE_ROIS, BOX_HEAD_LOSS),
        *(MASK_LOSS, PASTE_MASKS),
        *(REFINE_BOXES, RELABEL_BOXES),
        *(SOFT_NMS,),
        *(MERGE,),
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
