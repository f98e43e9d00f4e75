"""Plain functions on tensors, one file an idea: they know nothing of models, configurations or devices."""

from rcnn_edu.ops.boxes import box_area, box_iou, check_boxes, clip_boxes, decode_boxes, encode_boxes
from rcnn_edu.ops.roi import assign_fpn_levels, check_rois, pool_bins, pyramid_roi_align, roi_align, roi_pool

__all__ = [
    "assign_fpn_levels",
    "box_area",
    "box_iou",
    "check_boxes",
    "check_rois",
    "clip_boxes",
    "decode_boxes",
    "encode_boxes",
    "pool_bins",
    "pyramid_roi_align",
    "roi_align",
    "roi_pool",
]
