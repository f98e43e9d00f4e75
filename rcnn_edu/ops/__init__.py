"""Plain functions on tensors, one file an idea: they know nothing of models, configurations or devices."""

from rcnn_edu.ops.anchors import AnchorGenerator
from rcnn_edu.ops.assignment import assign_anchors_to_gt, match_boxes
from rcnn_edu.ops.boxes import box_area, box_iou, check_boxes, clip_boxes, decode_boxes, encode_boxes
from rcnn_edu.ops.losses import box_head_loss, mask_loss, rpn_loss
from rcnn_edu.ops.masks import crop_masks, paste_masks
from rcnn_edu.ops.nms import batched_nms, batched_soft_nms, nms, select_detections, soft_nms
from rcnn_edu.ops.roi import assign_fpn_levels, check_rois, pool_bins, pyramid_roi_align, roi_align, roi_pool
from rcnn_edu.ops.sampling import sample_rois

__all__ = [
    "AnchorGenerator",
    "assign_anchors_to_gt",
    "assign_fpn_levels",
    "batched_nms",
    "batched_soft_nms",
    "box_area",
    "box_head_loss",
    "box_iou",
    "check_boxes",
    "check_rois",
    "clip_boxes",
    "crop_masks",
    "decode_boxes",
    "encode_boxes",
    "mask_loss",
    "match_boxes",
    "nms",
    "paste_masks",
    "pool_bins",
    "pyramid_roi_align",
    "roi_align",
    "roi_pool",
    "rpn_loss",
    "sample_rois",
    "select_detections",
    "soft_nms",
]
