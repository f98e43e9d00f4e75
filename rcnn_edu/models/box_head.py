"""The second stage: features of each RoI, its class, and a better box; and which RoIs it learns from.

Shape shorthand: R RoIs of all images together, K classes without background, c = K or 1 (class-agnostic) box outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rcnn_edu.models.backbone import STRIDES
from rcnn_edu.models.fpn import Pyramid
from rcnn_edu.models.transform import Detection, Size, Target
from rcnn_edu.ops import (
    box_head_loss,
    box_iou,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    match_boxes,
    pyramid_roi_align,
    sample_rois,
    select_detections,
)
from rcnn_edu.ops.boxes import DeltaWeights

Pool = Callable[[Sequence[Tensor], Tensor], Tensor]  # (features, rois) -> (R, C, h, w)
Boxes = Sequence[Float[Tensor, "_ 4"]]  # one tensor for each image


def to_rois(boxes: Boxes) -> Float[Tensor, "R 5"]:
    """Return each image's boxes as RoIs, the image's index before each box."""
    return torch.cat([F.pad(image_boxes, (1, 0), value=index) for index, image_boxes in enumerate(boxes)])


@dataclass(frozen=True)
class PyramidRoIAlign:
    """RoIAlign on the level of each RoI's size: :func:`~rcnn_edu.ops.pyramid_roi_align` with its settings.

    A head takes any other callable of the same meaning in its place. RoI Pooling on a single map
    of stride 16 is ``lambda features, rois: roi_pool(features[0], rois, 7, 1 / 16)``.

    Lesson: 02.
    """

    output_size: int  # bins along a side: 7 for boxes, 14 for masks
    strides: tuple[int, ...] = STRIDES  # of the levels that RoIs are read from; P6 is the RPN's alone
    sampling_ratio: int = 2
    aligned: bool = True
    canonical_size: float = 224  # of a RoI that belongs on P4, in pixels

    def __call__(self, features: Pyramid, rois: Float[Tensor, "R 5"]) -> Float[Tensor, "R C h w"]:
        """Return the pooled features."""
        return pyramid_roi_align(
            features[: len(self.strides)],
            rois,
            self.strides,
            self.output_size,
            self.sampling_ratio,
            self.aligned,
            self.canonical_size,
        )


@dataclass(frozen=True)
class SampledRoIs:
    """The RoIs of all images that take part in a training step."""

    rois: Float[Tensor, "R 5"]
    labels: Int[Tensor, " R"]  # 0 to K
    gt_index: Int[Tensor, " R"]  # the matched ground truth within its image
    gt_boxes: Float[Tensor, "R 4"]  # its box: it means something where the label is above 0
    is_gt: Bool[Tensor, " R"]  # whether the RoI is a ground truth box itself


@dataclass(frozen=True)
class RoISampler:
    """Draws the proposals that a head learns from, the ground truths among them (Fast R-CNN, section 2.3).

    Lesson: 04.
    """

    iou_thresh: float = 0.5  # a proposal that overlaps a ground truth this much is positive, any other negative
    num_samples: int = 512  # from each image,
    pos_fraction: float = 0.25  # of which positive at most

    @torch.no_grad()
    def __call__(
        self,
        proposals: Boxes,
        targets: Sequence[Target],
        generator: torch.Generator | None = None,
    ) -> SampledRoIs:
        """Return the sample. Without the ground truths in it, there would be no positives at the start of training."""
        samples = []
        for image_index, (image_proposals, target) in enumerate(zip(proposals, targets, strict=True)):
            gt_boxes = target["boxes"].to(image_proposals)
            boxes = torch.cat([image_proposals, gt_boxes])
            match, positive = match_boxes(box_iou(boxes, gt_boxes), self.iou_thresh, self.iou_thresh, keep_best=False)
            drawn = sample_rois(positive, self.num_samples, self.pos_fraction, generator)
            match = match[drawn]
            # A last row of zeros stands in for the ground truth where an image has none.
            gt_boxes, gt_labels = F.pad(gt_boxes, (0, 0, 0, 1)), F.pad(target["labels"], (0, 1))
            rois = F.pad(boxes[drawn], (1, 0), value=image_index)
            samples.append(
                (rois, gt_labels[match] * positive[drawn], match, gt_boxes[match], drawn >= len(image_proposals))
            )
        return SampledRoIs(*(torch.cat(column) for column in zip(*samples, strict=True)))


@dataclass(frozen=True)
class DetectionSelector:
    """The last step: which of the scored boxes of an image are its detections. A RoI may answer for several classes.

    Lesson: 05, 07.
    """

    score_thresh: float = 0.05
    iou_thresh: float = 0.5
    max_detections: int = 100
    suppression: Literal["hard", "gaussian", "linear"] = "hard"  # NMS, or one of the two Soft-NMS
    sigma: float = 0.5  # of the Gaussian one

    def __call__(self, boxes: Float[Tensor, "r c 4"], probabilities: Float[Tensor, "r K_plus_1"]) -> Detection:
        """Return ``boxes``, ``labels`` and ``scores`` of the detections, best first."""
        scores = probabilities[:, 1:]
        rows, channels = (scores > self.score_thresh).nonzero(as_tuple=True)
        boxes, labels = boxes.expand(-1, scores.shape[1], 4)[rows, channels], channels + 1
        keep, kept_scores = select_detections(
            boxes,
            scores[rows, channels],
            labels,
            self.iou_thresh,
            min_size=1e-2,
            max_detections=self.max_detections,
            suppression=self.suppression,
            sigma=self.sigma,
        )
        return {"boxes": boxes[keep], "labels": labels[keep], "scores": kept_scores}


class BoxHead(nn.Module):
    """Two fully connected layers read a RoI's features: what is it, and how must the box move (Fast R-CNN, section 2)?

    Lesson: 04.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 256,
        *,
        pool: Pool | None = None,  # makes a RoI's features: by default RoIAlign on the pyramid
        pool_size: int = 7,  # its bins along a side
        hidden: int = 1024,  # width of the two layers
        class_agnostic: bool = False,  # one box for all classes instead of one for each
        delta_weights: DeltaWeights = (10.0, 10.0, 5.0, 5.0),
        sampler: RoISampler | None = None,
        loss_beta: float = 1 / 9,  # of smooth L1
    ) -> None:
        super().__init__()
        self.pool = pool if pool is not None else PyramidRoIAlign(pool_size)
        self.fc1 = nn.Linear(in_channels * pool_size**2, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.class_logits = nn.Linear(hidden, num_classes + 1)
        self.deltas = nn.Linear(hidden, 4 if class_agnostic else 4 * num_classes)
        self.sampler = sampler if sampler is not None else RoISampler()
        self.delta_weights = delta_weights
        self.loss_beta = loss_beta

    def forward(
        self, features: Pyramid, rois: Float[Tensor, "R 5"]
    ) -> tuple[Float[Tensor, "R K_plus_1"], Float[Tensor, "R c 4"]]:
        """Return the class logits, background first, and the deltas: a class's are channel label - 1."""
        pooled = self.pool(features, rois).permute(0, 2, 3, 1)  # bins before channels, as they lie in memory
        hidden = F.relu(self.fc1(pooled.flatten(1)))
        hidden = F.relu(self.fc2(hidden))
        return self.class_logits(hidden).to(rois.dtype), self.deltas(hidden).to(rois.dtype).unflatten(1, (-1, 4))

    def loss(
        self, class_logits: Float[Tensor, "R K_plus_1"], deltas: Float[Tensor, "R c 4"], sampled: SampledRoIs
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the class loss and the box loss."""
        positive = sampled.labels > 0
        targets = encode_boxes(sampled.gt_boxes[positive], sampled.rois[positive, 1:], self.delta_weights)
        return box_head_loss(class_logits, deltas, sampled.labels, targets, self.loss_beta)

    def decode(
        self, deltas: Float[Tensor, "R c 4"], boxes: Boxes, sizes: Sequence[Size]
    ) -> list[Float[Tensor, "_ c 4"]]:
        """Return what each RoI's deltas make of its box, image by image, clipped to the image."""
        moved = []
        for image_deltas, image_boxes, size in zip(
            torch.split(deltas, [len(b) for b in boxes]), boxes, sizes, strict=True
        ):
            repeated = image_boxes[:, None].expand_as(image_deltas).flatten(0, 1)
            decoded = decode_boxes(image_deltas.flatten(0, 1), repeated, self.delta_weights)
            moved.append(clip_boxes(decoded, size).view_as(image_deltas))
        return moved

    def losses(
        self,
        features: Pyramid,
        proposals: Boxes,
        targets: Sequence[Target],
        sizes: Sequence[Size],  # a cascade clips to them; a single head has no use for them
        generator: torch.Generator | None = None,
    ) -> tuple[dict[str, Tensor], SampledRoIs]:
        """Return ``loss_classifier`` and ``loss_box_reg`` of RoIs sampled in each image, and these RoIs."""
        sampled = self.sampler(proposals, targets, generator)
        class_logits, deltas = self(features, sampled.rois)
        class_loss, box_loss = self.loss(class_logits, deltas, sampled)
        return {"loss_classifier": class_loss, "loss_box_reg": box_loss}, sampled

    def predict(
        self,
        features: Pyramid,
        proposals: Boxes,
        sizes: Sequence[Size],
    ) -> list[tuple[Float[Tensor, "_ c 4"], Float[Tensor, "_ K_plus_1"]]]:
        """Return each image's boxes and their classes' probabilities, background first, nothing selected yet."""
        class_logits, deltas = self(features, to_rois(proposals))
        probabilities = torch.split(class_logits.softmax(dim=1), [len(boxes) for boxes in proposals])
        return list(zip(self.decode(deltas, proposals, sizes), probabilities, strict=True))
