"""The cascade by itself, on features that are a RoI's own coordinates: what passes between stages is plain to see."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from rcnn_edu.models import Cascade
from rcnn_edu.models.box_head import BoxHead, SampledRoIs
from rcnn_edu.ops import box_iou

SIZE = (100, 100)
FEATURES = [torch.zeros(1, 4, 1, 1)]  # not looked at


def coordinates(features: Sequence[Tensor], rois: Tensor) -> Tensor:
    """Pool a RoI's coordinates, one a channel: differentiable, so that a gradient through the boxes would show."""
    return rois[:, 1:, None, None] / 100


class WatchedHead(BoxHead):
    """A box head that keeps what it was given."""

    rois: Tensor
    sampled: SampledRoIs

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        self.rois = rois
        return super().forward(features, rois)

    def loss(self, class_logits: Tensor, deltas: Tensor, sampled: SampledRoIs) -> tuple[Tensor, Tensor]:
        self.sampled = sampled
        return super().loss(class_logits, deltas, sampled)


def watched_cascade(iou_thresholds: Sequence[float] = (0.5, 0.6, 0.7), **options: Any) -> Cascade:
    torch.manual_seed(0)
    head = partial(WatchedHead, pool=coordinates, pool_size=1, hidden=16)
    return Cascade(2, 4, iou_thresholds, head=head, **options)


def watched(cascade: Cascade) -> list[WatchedHead]:
    return [stage for stage in cascade.stages if isinstance(stage, WatchedHead)]


def fix_deltas(head: BoxHead, deltas: list[float]) -> None:
    """Let the head answer with the same deltas, before their weights, for every RoI."""
    with torch.no_grad():
        head.deltas.weight.zero_()
        head.deltas.bias.copy_(torch.tensor(deltas) * torch.tensor(head.delta_weights))


def proposals() -> list[Tensor]:
    return [torch.tensor([[10.0, 10, 30, 30], [40, 40, 90, 80], [60, 5, 95, 35], [0, 50, 20, 100]])]


def targets() -> list[dict[str, Tensor]]:
    boxes = torch.tensor([[12.0, 12, 34, 34], [40, 45, 90, 85]])
    return [{"boxes": boxes, "labels": torch.tensor([1, 2])}]


def gradients(loss: Tensor, head: BoxHead) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, list(head.parameters()), retain_graph=True, allow_unused=True))


# Detached.


def test_a_later_stage_s_loss_does_not_reach_an_earlier_stage() -> None:
    cascade = watched_cascade()
    losses, _ = cascade.losses(FEATURES, proposals(), targets(), [SIZE])
    for number, head in enumerate(cascade.stages, start=1):
        loss = losses[f"loss_classifier_{number}"] + losses[f"loss_box_reg_{number}"]
        assert all(gradient is not None and gradient.any() for gradient in gradients(loss, head))
        for earlier in watched(cascade)[: number - 1]:
            assert gradients(loss, earlier) == [None] * 8  # its delta layer's among them
    assert not any(head.rois.requires_grad for head in watched(cascade))


def test_in_evaluation_too_boxes_are_detached_between_stages() -> None:
    cascade = watched_cascade()
    cascade.predict(FEATURES, proposals(), [SIZE])
    assert not any(head.rois.requires_grad for head in watched(cascade))


# Clipped.


def test_boxes_are_clipped_to_the_image_between_stages() -> None:
    cascade = watched_cascade()
    for head in cascade.stages:
        fix_deltas(head, [0.3, -0.2, 1.0, 1.0])  # far out of the image
    cascade.predict(FEATURES, proposals(), [SIZE])
    cascade.losses(FEATURES, proposals(), targets(), [SIZE])
    for head in watched(cascade)[1:]:
        for rois in (head.rois, head.sampled.rois):
            assert (rois[:, 1:] >= 0).all()
            assert (rois[:, 1:] <= 100).all()
            assert (rois[:, 1:] == 100).any()


# Never dropped.


def test_no_box_is_dropped_between_stages_not_even_one_that_clips_to_nothing() -> None:
    """Row i is RoI i at every stage: were one left out, another's probabilities would be averaged with its own."""
    cascade = watched_cascade()
    fix_deltas(cascade.stages[0], [1.5, 0, 0, 0])  # the second and the third leave the image
    [(boxes, probabilities)] = cascade.predict(FEATURES, proposals(), [SIZE])
    second = watched(cascade)[1].rois[:, 1:]
    assert second.tolist() == [[40, 10, 60, 30], [100, 40, 100, 80], [100, 5, 100, 35], [30, 50, 50, 100]]
    assert boxes.shape == (4, 1, 4)
    for row, proposal in enumerate(proposals()[0]):
        [(box, alone)] = cascade.predict(FEATURES, [proposal[None]], [SIZE])
        torch.testing.assert_close(box[0], boxes[row])
        torch.testing.assert_close(alone[0], probabilities[row])


def test_images_do_not_mix_and_may_have_no_proposals() -> None:
    cascade = watched_cascade()
    [one] = proposals()
    sizes = [SIZE, (60, 200), SIZE]
    predictions = cascade.predict(FEATURES, [one[:3], one[:0], one[3:]], sizes)
    assert [len(boxes) for boxes, _ in predictions] == [3, 0, 1]
    [(boxes, probabilities)] = cascade.predict(FEATURES, [one[3:]], [SIZE])
    torch.testing.assert_close(predictions[2][0], boxes)
    torch.testing.assert_close(predictions[2][1], probabilities)


# In training, re-sampled.


def test_each_stage_samples_again_at_its_own_iou() -> None:
    """A box that overlaps its object by 0.65 is positive for the first two stages, and background for the third."""
    cascade = watched_cascade()
    for head in cascade.stages:
        fix_deltas(head, [0, 0, 0, 0])
    box = torch.tensor([[10.0, 10, 50, 50]])
    gt_boxes = torch.tensor([[10.0, 10, 50, 36]])
    assert box_iou(box, gt_boxes).item() == pytest.approx(0.65)
    cascade.losses(FEATURES, [box], [{"boxes": gt_boxes, "labels": torch.tensor([2])}], [SIZE])
    labels = [head.sampled.labels[~head.sampled.is_gt].tolist() for head in watched(cascade)]
    assert labels == [[2], [2], [0]]
    assert [int(head.sampled.is_gt.sum()) for head in watched(cascade)] == [1, 1, 1]  # added anew, never twice


def test_a_stage_learns_from_the_boxes_that_the_one_before_it_refined() -> None:
    cascade = watched_cascade((0.5, 0.6))
    fix_deltas(cascade.stages[0], [0.1, 0, 0, 0])  # a tenth of its width to the right
    cascade.losses(FEATURES, proposals(), targets(), [SIZE])
    _, second = watched(cascade)
    rois = second.sampled.rois[~second.sampled.is_gt, 1:]
    expected = torch.tensor([[2.0, 50, 22, 100], [12, 10, 32, 30], [45, 40, 95, 80], [63.5, 5, 98.5, 35]])
    torch.testing.assert_close(rois[rois[:, 0].argsort()], expected)


def test_in_training_what_clips_to_nothing_is_left_out() -> None:
    cascade = watched_cascade((0.5, 0.6))
    fix_deltas(cascade.stages[0], [1.5, 0, 0, 0])  # two of the four leave the image
    cascade.losses(FEATURES, proposals(), targets(), [SIZE])
    first, second = watched(cascade)
    assert len(first.sampled.rois) == 4 + 2
    assert len(second.sampled.rois) == 2 + 2


def test_without_objects_every_stage_still_learns_its_background() -> None:
    cascade = watched_cascade()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses, sampled = cascade.losses(FEATURES, proposals(), [nothing], [SIZE])
    assert all((loss == 0) == name.startswith("loss_box_reg") for name, loss in losses.items())
    assert not sampled.labels.any()
    total = torch.stack(list(losses.values())).sum()
    assert all(gradient is not None for gradient in torch.autograd.grad(total, list(cascade.parameters())))


# The stages.


def test_regression_is_class_agnostic_and_its_weights_grow_with_the_stage() -> None:
    cascade = Cascade(5)
    assert [head.deltas.out_features for head in cascade.stages] == [4, 4, 4]
    assert [head.delta_weights for head in cascade.stages] == [(10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15)]
    assert [head.sampler.iou_thresh for head in cascade.stages] == [0.5, 0.6, 0.7]


def test_probabilities_are_averaged_over_the_stages() -> None:
    cascade = watched_cascade()
    given = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25], [0.06, 0.9, 0.04]])
    for head, stage_probabilities in zip(cascade.stages, given, strict=True):
        with torch.no_grad():
            head.class_logits.weight.zero_()
            head.class_logits.bias.copy_(stage_probabilities.log())
    [(_, probabilities)] = cascade.predict(FEATURES, proposals(), [SIZE])
    torch.testing.assert_close(probabilities, torch.tensor([[0.42, 0.45, 0.13]]).expand(4, 3))  # not the logits' mean


@pytest.mark.parametrize("iou_thresholds", [(0.5,), (0.5, 0.6), (0.4, 0.5, 0.6, 0.7, 0.8)])
def test_any_number_of_stages(iou_thresholds: tuple[float, ...]) -> None:
    cascade = watched_cascade(iou_thresholds)
    losses, sampled = cascade.losses(FEATURES, proposals(), targets(), [SIZE])
    numbers = range(1, len(iou_thresholds) + 1)
    assert losses.keys() == {f"{kind}_{n}" for kind in ("loss_classifier", "loss_box_reg") for n in numbers}
    assert sampled is watched(cascade)[0].sampled  # the mask head learns from the first stage's
    [(boxes, probabilities)] = cascade.predict(FEATURES, proposals(), [SIZE])
    assert boxes.shape == (4, 1, 4)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(4))


def test_the_stages_losses_are_weighted() -> None:
    iou_thresholds = (0.5, 0.6, 0.7, 0.8)
    plain, weighted = (
        watched_cascade(iou_thresholds, **options).losses(
            FEATURES, proposals(), targets(), [SIZE], torch.Generator().manual_seed(0)
        )[0]
        for options in ({"loss_weights": (1.0,)}, {})
    )
    for number, weight in enumerate((1, 0.5, 0.25, 0.25), start=1):
        for kind in ("loss_classifier", "loss_box_reg"):
            torch.testing.assert_close(weighted[f"{kind}_{number}"], weight * plain[f"{kind}_{number}"])


def test_a_cascade_without_stages_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^iou_thresholds must name at least one stage, got \(\)"):
        Cascade(2, iou_thresholds=())
