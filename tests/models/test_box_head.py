import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from rcnn_edu.models import BoxHead, DetectionSelector, PyramidRoIAlign, RoISampler
from rcnn_edu.models.box_head import SampledRoIs, to_rois
from rcnn_edu.ops import box_iou, roi_align, roi_pool

SIZE = (60, 80)


def boxes_of(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).view(-1, 4)


def target(boxes: Tensor, labels: list[int]) -> dict[str, Tensor]:
    return {"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64)}


def coordinates(features: Sequence[Tensor], rois: Tensor) -> Tensor:
    """Pool a RoI's coordinates, one a channel."""
    return rois[:, 1:, None, None] / 100


def small_head(num_classes: int = 3, **options: Any) -> BoxHead:
    torch.manual_seed(0)
    return BoxHead(num_classes, 4, pool=coordinates, pool_size=1, hidden=16, **options)


def random_boxes(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * torch.tensor([50.0, 35.0])
    return torch.cat([corner, corner + 5 + 20 * torch.rand(n, 2, generator=generator)], dim=1)


# Pooling.


def test_rois_are_boxes_with_their_image_s_index() -> None:
    rois = to_rois([boxes_of([1, 2, 3, 4]), boxes_of(), boxes_of([5, 6, 7, 8], [0, 0, 1, 1])])
    assert rois.tolist() == [[0, 1, 2, 3, 4], [2, 5, 6, 7, 8], [2, 0, 0, 1, 1]]


def test_scales_are_given_and_never_taken_from_the_first_batch() -> None:
    """torchvision reads the strides off the first batch it sees: of an image of 33 px, padded to 64, it makes 2."""
    ours = PyramidRoIAlign(2, strides=(4,))
    theirs = torchvision.ops.MultiScaleRoIAlign(["0"], 2, sampling_ratio=2)
    first, second = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 24, 40)
    boxes = boxes_of([4, 4, 20, 24])
    for features, size in ((first, (33, 33)), (second, (96, 160))):
        expected = roi_align(features, to_rois([boxes]), 2, 1 / 4)
        assert torch.equal(ours([features], to_rois([boxes])), expected)
        theirs({"0": features}, [boxes], [size])
    assert theirs.scales == [0.5]  # for good
    assert PyramidRoIAlign(2).strides == (4, 8, 16, 32)


def test_a_head_takes_any_pooling() -> None:
    head = BoxHead(2, 3, pool=lambda features, rois: roi_pool(features[0], rois, 7, 1 / 16), hidden=8)
    logits, deltas = head([torch.rand(1, 3, 6, 8)], to_rois([boxes_of([10, 10, 70, 60])]))
    assert logits.shape == (1, 3)
    assert deltas.shape == (1, 2, 4)


# Sampling.


def test_the_ground_truths_are_among_the_proposals() -> None:
    """Else there would be no positives at the start of training."""
    far = boxes_of([50, 40, 70, 55], [40, 2, 60, 12])
    gt_boxes = boxes_of([2, 3, 12, 13], [20, 20, 40, 45])
    sampled = RoISampler()([far], [target(gt_boxes, [2, 1])])
    assert sampled.labels.tolist()[:2] in ([2, 1], [1, 2])
    assert sampled.labels.tolist()[2:] == [0, 0]
    assert sampled.is_gt.tolist() == [True, True, False, False]
    assert torch.equal(sampled.rois[:2, 1:], sampled.gt_boxes[:2])
    assert torch.equal(gt_boxes[sampled.gt_index[:2]], sampled.gt_boxes[:2])


def test_an_image_without_objects_gives_background_alone() -> None:
    proposals = [random_boxes(5, 0), random_boxes(3, 1)]
    nothing = target(boxes_of(), [])
    sampled = RoISampler(num_samples=4)(proposals, [nothing, target(proposals[1][:1], [3])])
    assert sampled.rois[:, 0].tolist() == [0] * 4 + [1] * 3  # a quarter of the second's sample is positive, two are not
    assert sampled.labels.tolist() == [0] * 4 + [3, 0, 0]
    assert not sampled.is_gt[:4].any()


@given(st.integers(0, 12), st.integers(0, 4), st.integers(1, 16), st.sampled_from([0.5, 0.6, 0.7]), st.integers(0, 99))
def test_what_a_sample_promises(proposals: int, objects: int, number: int, iou_thresh: float, seed: int) -> None:
    gt_boxes, boxes = random_boxes(objects, seed), random_boxes(proposals, 1000 + seed)
    labels = [1 + i % 3 for i in range(objects)]
    sampler = RoISampler(iou_thresh, number, pos_fraction=0.25)
    sampled = sampler([boxes], [target(gt_boxes, labels)], torch.Generator().manual_seed(seed))
    positive = sampled.labels > 0
    assert len(sampled.rois) <= number
    assert positive.sum() <= number / 4
    assert (positive.int().diff() <= 0).all()  # positives first
    best = box_iou(sampled.rois[:, 1:], gt_boxes).amax(dim=1) if objects else torch.zeros(len(positive))
    assert torch.equal(positive, best >= iou_thresh)
    for index, gt_box, label in zip(
        sampled.gt_index[positive], sampled.gt_boxes[positive], sampled.labels[positive], strict=True
    ):
        assert torch.equal(gt_box, gt_boxes[index])
        assert label == labels[index]
    known = torch.cat([boxes, gt_boxes])
    assert all((known == roi).all(dim=1).any() for roi in sampled.rois[:, 1:])


# The head.


def test_softmax_is_over_the_classes_of_a_roi_and_never_over_rois() -> None:
    head = small_head()
    proposals = random_boxes(6, 0)
    [(_, together)] = head.predict([], [proposals], [SIZE])
    torch.testing.assert_close(together.sum(dim=1), torch.ones(6))
    for row in range(6):
        [(_, alone)] = head.predict([], [proposals[row, None]], [SIZE])
        torch.testing.assert_close(alone[0], together[row])


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_predictions_are_each_image_s_own_decoded_and_clipped(class_agnostic: bool) -> None:
    head = small_head(class_agnostic=class_agnostic)
    with torch.no_grad():
        head.deltas.weight.mul_(30)
    proposals = [random_boxes(3, 0), boxes_of(), random_boxes(2, 1)]
    sizes = [(60, 80), (60, 80), (30, 40)]
    predictions = head.predict([], proposals, sizes)
    deltas = head([], to_rois(proposals))[1].split([3, 0, 2])
    coder = BoxCoder(head.delta_weights)
    channels = 1 if class_agnostic else 3
    for (boxes, probabilities), image_deltas, image_boxes, size in zip(
        predictions, deltas, proposals, sizes, strict=True
    ):
        expected = coder.decode_single(image_deltas.flatten(1), image_boxes).view(-1, 4)
        expected = torchvision.ops.clip_boxes_to_image(expected, size)
        torch.testing.assert_close(boxes, expected.view(len(image_boxes), channels, 4))
        assert probabilities.shape == (len(image_boxes), 4)
    assert (predictions[0][0] == torch.tensor([0, 0, 80, 60])).any()  # something was there to clip


def test_targets_are_encoded_with_the_head_s_weights() -> None:
    head = small_head(delta_weights=(30.0, 30.0, 15.0, 15.0), loss_beta=0.0)
    sampled = SampledRoIs(
        rois=torch.tensor([[0.0, 0, 0, 10, 20], [0.0, 40, 20, 60, 30]]),
        labels=torch.tensor([2, 0]),
        gt_index=torch.tensor([0, 0]),
        gt_boxes=boxes_of([1, 4, 11, 24], [0, 0, 0, 0]),
        is_gt=torch.tensor([False, False]),
    )
    _, loss = head.loss(torch.zeros(2, 4), torch.zeros(2, 3, 4), sampled)
    assert loss.item() == pytest.approx((30 * 0.1 + 30 * 0.2) / 2)


# The selection.


def test_a_detection_has_its_own_class_s_box_and_label() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]], [[40, 40, 50, 50], [60, 40, 70, 50]]])
    probabilities = torch.tensor([[0.1, 0.3, 0.6], [0.01, 0.95, 0.04]])
    found = DetectionSelector()(boxes, probabilities)
    assert found["boxes"].tolist() == [[40, 40, 50, 50], [20, 20, 30, 30], [0, 0, 10, 10]]
    assert found["labels"].tolist() == [1, 2, 1]  # channel + 1; a RoI may answer for two classes; 0.04 is below 0.05
    torch.testing.assert_close(found["scores"], torch.tensor([0.95, 0.6, 0.3]))
    agnostic = DetectionSelector()(boxes[:, :1], probabilities)
    assert agnostic["boxes"].tolist() == [[40, 40, 50, 50], [0, 0, 10, 10], [0, 0, 10, 10]]
    assert agnostic["labels"].tolist() == [1, 2, 1]


def test_background_is_no_detection_and_classes_do_not_suppress_each_other() -> None:
    box = torch.tensor([[[0.0, 0, 10, 10]]])
    found = DetectionSelector()(box.expand(2, 1, 4), torch.tensor([[0.9, 0.06, 0.04], [0.2, 0.3, 0.5]]))
    assert found["labels"].tolist() == [2, 1]  # the two of class 1 lie on top of each other: the better one stays


def test_soft_nms_keeps_what_nms_drops_with_a_lower_score() -> None:
    boxes = torch.tensor([[[0.0, 0, 20, 60]], [[2, 0, 22, 60]]])
    probabilities = torch.tensor([[0.1, 0.9], [0.85, 0.15]])
    assert len(DetectionSelector()(boxes, probabilities)["scores"]) == 1
    for suppression in ("gaussian", "linear"):
        found = DetectionSelector(suppression=suppression)(boxes, probabilities)
        assert len(found["scores"]) == 2
        assert 0.001 < found["scores"][1] < 0.05  # not cut at score_thresh a second time
    wider = DetectionSelector(suppression="gaussian", sigma=2.0)(boxes, probabilities)
    iou = 1080 / 1320
    assert wider["scores"].tolist() == pytest.approx([0.9, 0.15 * math.exp(-(iou**2) / 2)])


def test_at_most_so_many_detections() -> None:
    boxes, probabilities = random_boxes(30, 0)[:, None], torch.rand(30, 4).softmax(dim=1)
    everything = DetectionSelector(iou_thresh=1.0, max_detections=1000)(boxes, probabilities)
    assert len(everything["scores"]) == 90
    best = DetectionSelector(iou_thresh=1.0, max_detections=7)(boxes, probabilities)
    assert all(torch.equal(values, everything[name][:7]) for name, values in best.items())


def test_nothing_is_changed_in_place() -> None:
    boxes, probabilities = random_boxes(5, 0)[:, None], torch.rand(5, 3).softmax(dim=1)
    before = copy.deepcopy((boxes, probabilities))
    DetectionSelector(suppression="gaussian")(boxes, probabilities)
    assert torch.equal(boxes, before[0])
    assert torch.equal(probabilities, before[1])
