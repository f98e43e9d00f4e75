"""The region proposal network: a small convolution slides over the pyramid and says where something might be.

Shape shorthand: B images; A anchors a cell; N_l = H · W · A anchors on level l, N on all; n of them sampled.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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

    Lesson: 03.
    """

    def __init__(
        self,
        in_channels: int = 256,
        anchors: AnchorGenerator | None = None,
        *,
        pre_nms_top_n: tuple[int, int] = (2000, 1000),  # a level's boxes into NMS, in training and in evaluation
        post_nms_top_n: tuple[int, int] = (2000, 1000),  # an image's proposals, in training and in evaluation
        nms_thresh: float = 0.7,
        assign: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = assign_anchors_to_gt,
        num_samples: int = 256,  # anchors of an image that count in the loss,
        pos_fraction: float = 0.5,  # of which positive at most
        loss_beta: float = 1 / 9,  # of smooth L1
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
        self.assign, self.num_samples, self.pos_fraction, self.loss_beta = assign, num_samples, pos_fraction, loss_beta

    def forward(
        self,
        features: Pyramid,
        sizes: Sequence[Size],
        targets: Sequence[Target] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[list[Float[Tensor, "_ 4"]], dict[str, Tensor]]:
        """Return each image's proposals, best first, and the losses: none without ``targets``."""
        with torch.no_grad():  # to the second stage, proposals are given
            objectness, deltas = self.head(features)
            feature_sizes = [(level.shape[2], level.shape[3]) for level in features]
            anchors = self.anchors(feature_sizes, features[0].device, objectness[0].dtype)
            proposals = self.propose(anchors, objectness, deltas, sizes)
        torch.clear_autocast_cache()  # of biases cast without a graph: older versions give them to the losses
        return proposals, {} if targets is None else self.losses(features, torch.cat(anchors), targets, generator)

    def head(self, features: Pyramid) -> tuple[list[Float[Tensor, "B _"]], list[Float[Tensor, "B _ 4"]]]:
        """Return each level's objectness logits, shape (B, N_l), and deltas, shape (B, N_l, 4)."""
        dtype = torch.promote_types(features[0].dtype, torch.float32)  # half precision is too coarse for coordinates
        hidden = [F.relu(self.conv(level), inplace=True) for level in features]
        objectness = [self.objectness(h).permute(0, 2, 3, 1).flatten(1).to(dtype) for h in hidden]
        deltas = [self.deltas(h).permute(0, 2, 3, 1).reshape(len(h), -1, 4).to(dtype) for h in hidden]
        return objectness, deltas

    def head_at(
        self, features: Pyramid, images: Int[Tensor, " n"], anchors: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 4"]]:
        """Return the logits and deltas of a few anchors, each by its image and its place among the image's anchors.

        That is what :meth:`head` says of them, from the 3 x 3 cells around each alone. The loss looks at 256 of 200,000
        anchors: with a graph of these only, a training step is spared most of the RPN's backward pass.
        """
        per_cell = self.anchors.num_anchors_per_cell
        cells, kinds = anchors // per_cell, anchors % per_cell
        steps = torch.arange(-1, 2, device=anchors.device)
        down, across = steps.repeat_interleave(3), steps.repeat(3)
        order, patches = [], []
        for level in features:
            height, width = level.shape[2:]
            chosen = ((cells >= 0) & (cells < height * width)).nonzero()[:, 0]
            y, x = cells[chosen, None] // width + down, cells[chosen, None] % width + across  # each (chosen, 9)
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            rows = ((images[chosen, None] * height + y) * width + x).where(inside, 0)
            table = level.permute(0, 2, 3, 1).flatten(0, 2)  # one row a cell
            patches.append(F.embedding(rows, table).where(inside[:, :, None], 0))
            order.append(chosen)
            cells = cells - height * width
        ordered = torch.cat(patches)[torch.cat(order).argsort()].flatten(1)  # (n, 9 C)
        hidden = F.relu(F.linear(ordered, self.conv.weight.permute(0, 2, 3, 1).flatten(1), self.conv.bias))
        objectness = F.linear(hidden, self.objectness.weight.flatten(1), self.objectness.bias)
        deltas = F.linear(hidden, self.deltas.weight.flatten(1), self.deltas.bias).view(len(anchors), per_cell, 4)
        each = torch.arange(len(anchors), device=anchors.device)
        return objectness[each, kinds], deltas[each, kinds]

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
        features: Pyramid,
        anchors: Float[Tensor, "N 4"],
        targets: Sequence[Target],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return ``loss_objectness`` and ``loss_rpn_box_reg`` of anchors sampled in each image."""
        images, sampled, labels, target_deltas = [], [], [], []
        for index, target in enumerate(targets):
            image_labels, gt_boxes = self.assign(anchors, target["boxes"])
            drawn = sample_rois(image_labels, self.num_samples, self.pos_fraction, generator)
            positive = drawn[image_labels[drawn] > 0]
            images.append(torch.full_like(drawn, index))
            sampled.append(drawn)
            labels.append(image_labels[drawn])
            target_deltas.append(encode_boxes(gt_boxes[positive], anchors[positive], UNIT))
        objectness, deltas = self.head_at(features, torch.cat(images), torch.cat(sampled))
        objectness_loss, box_loss = rpn_loss(
            objectness, deltas, torch.cat(labels), torch.cat(target_deltas), self.loss_beta
        )
        return {"loss_objectness": objectness_loss, "loss_rpn_box_reg": box_loss}
