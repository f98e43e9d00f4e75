import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher

from rcnn_edu.models import RPN
from rcnn_edu.ops import AnchorGenerator, box_iou, nms

ANCHORS = AnchorGenerator(sizes=((16,), (32,), (64,)), strides=(8, 16, 32))
SIZE = (60, 80)


def pyramid(images: int = 2, channels: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Random features of 64 x 96 px at strides 8, 16 and 32."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, channels, 64 // s, 96 // s, generator=generator, dtype=dtype) for s in (8, 16, 32)]


def small_rpn(**options: object) -> RPN:
    """An RPN with weights large enough for its proposals to differ."""
    torch.manual_seed(0)
    rpn = RPN(4, ANCHORS, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in rpn.parameters():
            parameter.normal_(std=0.3)
    return rpn


def target(*rows: list[float]) -> dict[str, Tensor]:
    return {"boxes": torch.tensor(rows, dtype=torch.float32).view(-1, 4)}


TARGETS = [target([3.0, 5, 30, 29], [40, 10, 75, 55]), target()]


# The head.


def test_the_head_says_of_a_few_anchors_what_it_says_of_all() -> None:
    """The loss's way, by the cells around each sampled anchor, gives the convolutions' results and gradients."""
    rpn, features = small_rpn(), [level.requires_grad_() for level in pyramid()]
    everything = [torch.cat(levels, dim=1) for levels in rpn.head(features)]
    count = everything[0].shape[1]
    images = torch.arange(2).repeat_interleave(count)
    anchors = torch.randperm(2 * count, generator=torch.Generator().manual_seed(0)) % count
    few = rpn.head_at(features, images, anchors)
    inputs = [*features, *rpn.parameters()]
    for sampled, complete in zip(few, everything, strict=True):
        expected = complete[images, anchors]
        torch.testing.assert_close(sampled, expected)
        weights = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        own, theirs = (
            torch.autograd.grad((output * weights).sum(), inputs, retain_graph=True, allow_unused=True)
            for output in (sampled, expected)
        )
        for name, gradient, other in zip(range(len(inputs)), own, theirs, strict=True):
            assert (gradient is None) == (other is None), name
            if gradient is not None:
                torch.testing.assert_close(gradient, other)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=3, max_size=3),
    st.integers(0, 12),
    st.integers(0, 99),
)
def test_the_head_at_any_anchors_of_maps_of_any_size(sizes: list[tuple[int, int]], number: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rpn = small_rpn()
    features = [torch.randn(3, 4, *size, generator=generator, dtype=torch.float64) for size in sizes]
    objectness, deltas = (torch.cat(levels, dim=1) for levels in rpn.head(features))
    images = torch.randint(3, (number,), generator=generator)
    anchors = torch.randint(objectness.shape[1], (number,), generator=generator)
    few_objectness, few_deltas = rpn.head_at(features, images, anchors)
    torch.testing.assert_close(few_objectness, objectness[images, anchors])
    torch.testing.assert_close(few_deltas, deltas[images, anchors])


@pytest.mark.parametrize("wild", [math.inf, math.nan])
def test_what_lies_elsewhere_cannot_spoil_an_anchor_at_the_border(wild: float) -> None:
    """Beyond the border are zeros, and not some cell's features times zero: infinity times zero is not zero."""
    rpn, features = small_rpn(), pyramid(images=1)
    before = rpn.head_at(features, torch.tensor([0]), torch.tensor([8 * 12 * 3 - 1]))  # the lower right cell's last
    features[0][0, :, 0, 0] = wild
    features[0].requires_grad_()
    after = rpn.head_at(features, torch.tensor([0]), torch.tensor([8 * 12 * 3 - 1]))
    assert torch.equal(torch.cat([after[0][:, None], after[1]], 1), torch.cat([before[0][:, None], before[1]], 1))
    assert torch.autograd.grad(after[0].sum(), features[0])[0].isfinite().all()


# Proposals.


def test_proposals_lie_in_their_image_and_have_an_area() -> None:
    sizes = [(60, 80), (33, 96)]
    proposals, losses = small_rpn()(pyramid(), sizes)
    assert losses == {}
    for boxes, (height, width) in zip(proposals, sizes, strict=True):
        assert len(boxes) > 10
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 1e-3).all()
        assert not boxes.requires_grad


def test_proposals_are_suppressed_hard_level_by_level_and_never_softly() -> None:
    """Soft-NMS is for detections: proposals with decayed scores would only crowd out others."""
    rpn = small_rpn(pre_nms_top_n=(1000, 1000), post_nms_top_n=(1000, 1000), nms_thresh=0.5).eval()
    [proposals], _ = rpn(pyramid(images=1), [SIZE])
    objectness, deltas = rpn.head(pyramid(images=1))
    anchors = ANCHORS([(8, 12), (4, 6), (2, 3)], dtype=torch.float64)
    expected, scores = [], []
    for level_anchors, level_scores, level_deltas in zip(anchors, objectness, deltas, strict=True):
        boxes = BoxCoder((1, 1, 1, 1)).decode_single(level_deltas[0], level_anchors)
        boxes = boxes.clamp(min=0).minimum(torch.tensor([SIZE[1], SIZE[0], SIZE[1], SIZE[0]]))
        large = (boxes[:, 2:] - boxes[:, :2] >= 1e-3).all(dim=1)
        boxes, level_scores = boxes[large], level_scores[0, large]
        keep = nms(boxes, level_scores, 0.5)
        assert len(keep) < len(boxes)
        expected.append(boxes[keep])
        scores.append(level_scores[keep])
    order = torch.cat(scores).argsort(descending=True)
    torch.testing.assert_close(proposals, torch.cat(expected)[order])


def test_so_many_boxes_into_nms_from_a_level_and_so_many_proposals_from_an_image() -> None:
    rpn = small_rpn(pre_nms_top_n=(5, 3), post_nms_top_n=(7, 4), nms_thresh=1.0)
    for parameter in rpn.deltas.parameters():
        torch.nn.init.zeros_(parameter)  # every anchor stays: it has an area within the image
    assert [len(boxes) for boxes in rpn(pyramid(), [(64, 96), (64, 96)])[0]] == [7, 7]
    assert [len(boxes) for boxes in rpn.eval()(pyramid(), [(64, 96), (64, 96)])[0]] == [4, 4]
    rpn.post_nms_top_n = (100, 100)
    assert [len(boxes) for boxes in rpn(pyramid(), [(64, 96), (64, 96)])[0]] == [9, 9]  # three levels, three each


# Losses.


def test_losses_are_torchvision_s_recipe() -> None:
    """Every anchor sampled: its label by IoU, its cross-entropy by a sigmoid of its own, its target unweighted."""
    rpn = small_rpn(num_samples=10**6, pos_fraction=1.0, loss_beta=1 / 9)
    features = pyramid()
    losses = rpn(features, [SIZE, SIZE], TARGETS)[1]
    objectness, deltas = (torch.cat(levels, dim=1) for levels in rpn.head(features))
    anchors = torch.cat(ANCHORS([(8, 12), (4, 6), (2, 3)], dtype=torch.float64))
    entropy, distance, count = 0.0, 0.0, 0
    for image, its_target in enumerate(TARGETS):
        gt_boxes = its_target["boxes"].double()
        if len(gt_boxes):
            iou = box_iou(gt_boxes, anchors)
            found = Matcher(0.7, 0.3, allow_low_quality_matches=True)(iou)
        else:
            found = torch.full((len(anchors),), -1)
        for anchor, match in enumerate(found.tolist()):
            if match == Matcher.BETWEEN_THRESHOLDS:
                continue
            count += 1
            logit = objectness[image, anchor].item()
            entropy += math.log1p(math.exp(-logit if match >= 0 else logit))
            if match >= 0:
                learnt = BoxCoder((1, 1, 1, 1)).encode_single(gt_boxes[match, None], anchors[anchor, None])[0]
                for difference in (deltas[image, anchor] - learnt).abs().tolist():
                    distance += difference**2 * 4.5 if difference < 1 / 9 else difference - 1 / 18
    assert losses["loss_objectness"].item() == pytest.approx(entropy / count)
    assert losses["loss_rpn_box_reg"].item() == pytest.approx(distance / count)


def test_without_objects_the_box_loss_is_zero_with_its_graph() -> None:
    rpn = small_rpn()
    losses = rpn(pyramid(), [SIZE, SIZE], [target(), target()])[1]
    assert losses["loss_objectness"] > 0
    assert losses["loss_rpn_box_reg"] == 0
    total = losses["loss_objectness"] + losses["loss_rpn_box_reg"]
    assert all(gradient is not None for gradient in torch.autograd.grad(total, list(rpn.parameters())))


def test_the_losses_are_of_the_anchors_that_the_generator_draws() -> None:
    rpn = small_rpn(num_samples=8)
    draws = [
        rpn(pyramid(), [SIZE, SIZE], TARGETS, torch.Generator().manual_seed(seed))[1]["loss_objectness"].item()
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_another_assignment_may_take_the_place_of_ours() -> None:
    """As lessons do: here all anchors are ignored, and no anchor at all is sampled."""
    rpn = small_rpn(assign=lambda anchors, gt_boxes: (torch.full((len(anchors),), -1), torch.zeros_like(anchors)))
    losses = rpn(pyramid(), [SIZE, SIZE], copy.deepcopy(TARGETS))[1]
    assert [loss.item() for loss in losses.values()] == [0, 0]
    assert all(loss.requires_grad for loss in losses.values())


def test_any_anchors_that_fit_the_levels() -> None:
    rpn = RPN(4, replace(ANCHORS, sizes=((8, 11), (16, 23), (32, 45)), aspect_ratios=(1.0,)))
    objectness, deltas = rpn.head(pyramid(dtype=torch.float32))
    assert [level.shape for level in objectness] == [(2, 8 * 12 * 2), (2, 4 * 6 * 2), (2, 2 * 3 * 2)]
    assert [level.shape for level in deltas] == [(2, 8 * 12 * 2, 4), (2, 4 * 6 * 2, 4), (2, 2 * 3 * 2, 4)]
