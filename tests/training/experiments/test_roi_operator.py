"""The comparison of RoI operators: each reads the level that its row names, and the heads differ in nothing else."""

from functools import partial

import pytest
import torch

from rcnn_edu.ops import roi_align, roi_pool
from rcnn_edu.training.experiments.roi_operator import PAPER, ROWS, Heads, OneLevel
from rcnn_edu.training.frozen_trunk import new_head


@pytest.mark.parametrize(("stride", "value"), [(4, 2), (8, 3), (16, 4), (32, 5)])
def test_every_roi_is_pooled_from_the_level_of_the_stride(stride: int, value: int) -> None:
    features = [torch.full((1, 1, 96 // s, 96 // s), float(level)) for level, s in enumerate((4, 8, 16, 32), start=2)]
    rois = torch.tensor([[0.0, 40, 40, 44, 44], [0, 8, 8, 88, 88]])  # small or large
    for operator in (roi_pool, roi_align):
        pooled = OneLevel(operator, 3, stride)(features, rois)
        torch.testing.assert_close(pooled, torch.full((2, 1, 3, 3), float(value)))


def test_operator_and_scale_are_the_package_s(generator: torch.Generator) -> None:
    features = [torch.randn(1, 2, 96 // stride, 96 // stride, generator=generator) for stride in (4, 8, 16, 32)]
    rois = torch.tensor([[0.0, 10.3, 12.9, 60.7, 50.2]])
    operator, stride = ROWS["stride 16, RoIAlign, not aligned"]
    pooled = OneLevel(operator, 7, stride)(features, rois)
    assert torch.equal(pooled, roi_align(features[2], rois, 7, 1 / 16, aligned=False))
    assert not torch.equal(pooled, roi_align(features[2], rois, 7, 1 / 16))


def test_all_rows_begin_with_the_same_weights() -> None:
    first, *others = (new_head(partial(Heads, *settings), seed=0).state_dict() for settings in ROWS.values())
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_the_paper_s_rows_are_ours() -> None:
    assert PAPER.keys() <= ROWS.keys()
