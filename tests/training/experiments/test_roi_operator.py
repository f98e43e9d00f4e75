"""The comparison of RoI operators: each reads the level that its row names, and the heads differ in nothing else."""

from functools import partial

import pytest
import torch

from rcnn_edu.models import MaskRCNN
from rcnn_edu.ops import roi_align, roi_pool
from rcnn_edu.training.experiments.roi_operator import HEADS_ALONE, PAPER, WHOLE, Heads, OneMap, single_map_detector
from rcnn_edu.training.frozen_trunk import new_head


@pytest.mark.parametrize(("stride", "value"), [(4, 2), (8, 3), (16, 4), (32, 5)])
def test_every_roi_is_pooled_from_the_level_of_the_stride(stride: int, value: int) -> None:
    features = [torch.full((1, 64, 96 // s, 96 // s), float(level)) for level, s in enumerate((4, 8, 16, 32), start=2)]
    rois = torch.tensor([[0.0, 40, 40, 44, 44], [0, 8, 8, 72, 72]])  # small or large
    for operator in (roi_pool, roi_align):
        heads = Heads(operator, stride)
        for pool, side in ((heads.box.pool, 7), (heads.mask.pool, 14)):
            torch.testing.assert_close(pool(features, rois), torch.full((2, 64, side, side), float(value)))


def test_operator_and_scale_are_the_package_s(generator: torch.Generator) -> None:
    features = [torch.randn(1, 2, 96 // stride, 96 // stride, generator=generator) for stride in (4, 8, 16, 32)]
    rois = torch.tensor([[0.0, 10.3, 12.9, 60.7, 50.2]])
    operator, stride = HEADS_ALONE["stride 16, RoIAlign, not aligned"]
    pooled = OneMap(operator, 7, stride, 2)(features, rois)
    assert torch.equal(pooled, roi_align(features[2], rois, 7, 1 / 16, aligned=False))
    assert not torch.equal(pooled, roi_align(features[2], rois, 7, 1 / 16))


def test_all_rows_begin_with_the_same_weights() -> None:
    first, *others = (new_head(partial(Heads, *settings), seed=0).state_dict() for settings in HEADS_ALONE.values())
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("stride", [16, 32])
def test_whole_detectors_differ_in_their_operator_alone(stride: int) -> None:
    image = torch.rand(1, 3, 192, 192)
    weights = []
    for operator in (operator for operator, its_stride in WHOLE.values() if its_stride == stride):
        torch.manual_seed(0)
        detector = single_map_detector(operator, stride)
        assert isinstance(detector, MaskRCNN)
        [level] = detector.backbone(image)
        assert level.shape[2:] == (192 // stride, 192 // stride)
        assert detector.box_head.pool == OneMap(operator, 7, stride, 0)
        assert detector.mask_head.pool == OneMap(operator, 14, stride, 0)
        weights.append(detector.state_dict())
    assert len(weights) > 1
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0])


def test_the_paper_s_rows_are_ours() -> None:
    assert PAPER.keys() <= WHOLE.keys()
