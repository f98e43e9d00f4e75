"""Pictures that answer: explorers for notebooks, one file a lesson, on a canvas and a matplotlib twin."""

from rcnn_edu.explore.detections import draw_detections
from rcnn_edu.explore.figures import draw_scene, show, show_source
from rcnn_edu.explore.lesson_00 import codec_explorer, iou_explorer, score_explorer
from rcnn_edu.explore.lesson_01 import roi_explorer
from rcnn_edu.explore.lesson_02 import level_explorer, pyramid_explorer
from rcnn_edu.explore.lesson_03 import anchor_explorer
from rcnn_edu.explore.lesson_04 import sample_explorer
from rcnn_edu.explore.lesson_05 import mask_explorer, pipeline_explorer
from rcnn_edu.explore.lesson_06 import proposal_explorer, regressor_explorer, threshold_explorer
from rcnn_edu.explore.lesson_07 import ap_explorer, crowd_explorer
from rcnn_edu.explore.lesson_08 import scale_explorer
from rcnn_edu.explore.lesson_09 import precision_explorer
from rcnn_edu.explore.losses import LivePlot, draw_losses

__all__ = [
    "LivePlot",
    "anchor_explorer",
    "ap_explorer",
    "codec_explorer",
    "crowd_explorer",
    "draw_detections",
    "draw_losses",
    "draw_scene",
    "iou_explorer",
    "level_explorer",
    "mask_explorer",
    "pipeline_explorer",
    "precision_explorer",
    "proposal_explorer",
    "pyramid_explorer",
    "regressor_explorer",
    "roi_explorer",
    "sample_explorer",
    "scale_explorer",
    "score_explorer",
    "show",
    "show_source",
    "threshold_explorer",
]
