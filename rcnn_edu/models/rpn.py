"""The region proposal network: a small convolution slides over the pyramid and says where something might be.

Shape shorthand: B images; A anchors a cell; N_l = H · W · A anchors on level l, N on all; n ground truths of an image.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rcnn_edu.models.fpn import Pyramid
from rcnn_edu.models.transform import Size, Target
from rcnn_edu.ops import (
    AnchorGenerator,
    assign_anchors_to_gt,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    rpn_loss,
    sample_rois,
    select_detections,
)

UNIT = (1.0, 1.0, 1.0, 1.0)  # an RPN's deltas are not weighted


class RPN(nn.Module):
    """Scores and refines anchors into proposals; the same head reads every level (Faster R-CNN, section 3.1).

    Args:
        in_channels: channels of every level.
        anchors: the anchors, one set of sizes and one stride for each level.
        pre_nms_top_n: how many of a level's best boxes go into NMS, in training and in evaluation.
        post_nms_top_n: how many proposals an image gets, in training and in evaluation.
        nms_thresh: IoU above which the worse of two proposals of a level is dropped.
        pos_iou_thresh: anchors that overlap a ground truth this much are positive,
        neg_iou_thresh: below this much negative.
        num_samples: anchors of an image that count in the loss,
        pos_fraction: of which positive at most.
        loss_beta: of the smooth L1 loss.

    Lesson: 03.
    """

    def __init__(
        self,
        in_channels: int = 256,
        anchors: AnchorGenerator | None = None,
        *,
        pre_nms_top_n: tuple[int, int] = (2000, 1000),
        post_nms_top_n: tuple[int, int] = (2000, 1000),
        nms_thresh: float = 0.7,
        pos_iou_thresh: float = 0.7,
        neg_iou_thresh: float = 0.3,
        num_samples: int = 256,
        pos_fraction: float = 0.5,
        loss_beta: float = 1 / 9,
    ) -> None:
        super().__init__()
        self.anchors = anchors if anchors is not None else AnchorGenerator()
        per_cell = self.anchors.num_anchors_per_cell
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.objectness = nn.Conv2d(in_channels, per_cell, 1)
        self.deltas = nn.Conv2d(in_channels, 4 * per_cell, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(cast(Tensor, layer.bias))
        self.pre_nms_top_n, self.post_nms_top_n, self.nms_thresh = pre_nms_top_n, post_nms_top_n, nms_thresh
        self.pos_iou_thresh, self.neg_iou_thresh = pos_iou_thresh, neg_iou_thresh
        self.num_samples, self.pos_fraction, self.loss_beta = num_samples, pos_fraction, loss_beta

    def forward(
        self,
        features: Pyramid,
        sizes: Sequence[Size],
        targets: Sequence[Target] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[list[Float[Tensor, "_ 4"]], dict[str, Tensor]]:
        """Return each image's proposals, best first, and the losses: none without ``targets``."""
        objectness, deltas = self.head(features)
        feature_sizes = [(level.shape[2], level.shape[3]) for level in features]
        anchors = self.anchors(feature_sizes, features[0].device, objectness[0].dtype)
        with torch.no_grad():
            proposals = self.propose(anchors, objectness, deltas, sizes)
        if targets is None:
            return proposals, {}
        return proposals, self.losses(torch.cat(anchors), objectness, deltas, targets, generator)

    def head(self, features: Pyramid) -> tuple[list[Float[Tensor, "B _"]], list[Float[Tensor, "B _ 4"]]]:
        """Return each level's objectness logits, shape (B, N_l), and deltas, shape (B, N_l, 4)."""
        dtype = torch.promote_types(features[0].dtype, torch.float32)  # half precision is too coarse for coordinates
        hidden = [F.relu(self.conv(level), inplace=True) for level in features]
        objectness = [self.objectness(h).permute(0, 2, 3, 1).flatten(1).to(dtype) for h in hidden]
        deltas = [self.deltas(h).permute(0, 2, 3, 1).reshape(len(h), -1, 4).to(dtype) for h in hidden]
        return objectness, deltas

    def propose(
        self,
        anchors: Sequence[Float[Tensor, "_ 4"]],
        objectness: Sequence[Float[Tensor, "B _"]],
        deltas: Sequence[Float[Tensor, "B _ 4"]],
        sizes: Sequence[Size],
    ) -> list[Float[Tensor, "_ 4"]]:
        """Return each image's proposals: every level's best anchors, refined, clipped, and NMS level by level."""
        mode = 0 if self.training else 1
        boxes, scores, levels = [], [], []
        for level, (level_anchors, level_scores, level_deltas) in enumerate(
            zip(anchors, objectness, deltas, strict=True)
        ):
            count = min(self.pre_nms_top_n[mode], len(level_anchors))
            best_scores, best = level_scores.topk(count, dim=1)  # each (B, count)
            best_deltas = level_deltas.gather(1, best[:, :, None].expand(-1, -1, 4))
            best_boxes = decode_boxes(best_deltas.flatten(0, 1), level_anchors[best.flatten()], UNIT)
            boxes.append(best_boxes.view(-1, count, 4))
            scores.append(best_scores.sigmoid())
            levels.append(torch.full_like(best[0], level))
        proposals = []
        for image_boxes, image_scores, size in zip(torch.cat(boxes, 1), torch.cat(scores, 1), sizes, strict=True):
            clipped = clip_boxes(image_boxes, size)
            keep, _ = select_detections(
                clipped,
                image_scores,
                torch.cat(levels),
                self.nms_thresh,
                min_size=1e-3,  # an empty box has no features to look at
                max_detections=self.post_nms_top_n[mode],
            )
            proposals.append(clipped[keep])
        return proposals

    def losses(
        self,
        anchors: Float[Tensor, "N 4"],
        objectness: Sequence[Float[Tensor, "B _"]],
        deltas: Sequence[Float[Tensor, "B _ 4"]],
        targets: Sequence[Target],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return ``loss_objectness`` and ``loss_rpn_box_reg`` of anchors sampled in each image."""
        sampled_objectness, sampled_deltas, sampled_labels, target_deltas = [], [], [], []
        for image_objectness, image_deltas, target in zip(
            torch.cat(list(objectness), 1), torch.cat(list(deltas), 1), targets, strict=True
        ):
            labels, gt_boxes = assign_anchors_to_gt(anchors, target["boxes"], self.pos_iou_thresh, self.neg_iou_thresh)
            sampled = sample_rois(labels, self.num_samples, self.pos_fraction, generator)
            positive = sampled[labels[sampled] > 0]
            sampled_objectness.append(image_objectness[sampled])
            sampled_deltas.append(image_deltas[sampled])
            sampled_labels.append(labels[sampled])
            target_deltas.append(encode_boxes(gt_boxes[positive], anchors[positive], UNIT))
        objectness_loss, box_loss = rpn_loss(
            torch.cat(sampled_objectness),
            torch.cat(sampled_deltas),
            torch.cat(sampled_labels),
            torch.cat(target_deltas),
            self.loss_beta,
        )
        return {"loss_objectness": objectness_loss, "loss_rpn_box_reg": box_loss}
