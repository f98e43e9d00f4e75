"""Whole detectors: a known body, all else new, and a short training that is the same every time."""

from functools import partial

import torch

from rcnn_edu.datasets import SyntheticScenes
from rcnn_edu.models import FPN, MaskRCNN, PyramidRoIAlign, SingleMap, tiny_mask_rcnn
from rcnn_edu.models.backbone import Body
from rcnn_edu.training.whole_detector import CANDIDATES, DrawnScenes, new_detector, train_whole

PYRAMID = (4, 8, 16, 32)
make_pyramid = partial(new_detector, partial(FPN, p6=None), PYRAMID)
make_c4 = partial(new_detector, SingleMap, (16,))


def test_the_drawn_scenes_are_the_scenes() -> None:
    scenes = SyntheticScenes(2, seed=5)
    drawn = DrawnScenes(scenes)
    assert len(drawn) == 2
    assert drawn.categories == scenes.categories
    for index in range(2):
        torch.testing.assert_close(drawn[index], scenes[index])


def test_a_single_map_has_as_many_candidates_as_the_levels() -> None:
    anchors = [3 * side**2 for side in (48, 24, 12, 6)]
    assert sum(min(400, count) for count in anchors) == CANDIDATES
    assert make_c4().rpn.pre_nms_top_n == (CANDIDATES, CANDIDATES)
    assert make_pyramid().rpn.pre_nms_top_n == tiny_mask_rcnn().rpn.pre_nms_top_n


def test_the_body_is_the_shipped_one_and_learns_from_c3_on() -> None:
    body, shipped = (model.backbone.body for model in (make_pyramid(), tiny_mask_rcnn(weights="scenes")))
    assert isinstance(body, Body)
    assert isinstance(shipped, Body)
    torch.testing.assert_close(body.state_dict(), shipped.state_dict())
    assert [next(stage.parameters()).requires_grad for stage in body.stages] == [False, True, True, True]


def test_heads_pool_as_they_are_told() -> None:
    assert make_pyramid().box_head.pool == PyramidRoIAlign(7, PYRAMID)
    assert not isinstance(make_pyramid(), MaskRCNN)
    box_pool, mask_pool = PyramidRoIAlign(7, (16,), aligned=False), PyramidRoIAlign(14, (16,), aligned=False)
    model = make_c4(box_pool, mask_pool)
    assert isinstance(model, MaskRCNN)
    assert model.box_head.pool is box_pool
    assert model.mask_head.pool is mask_pool


def test_a_seed_gives_the_same_training_and_leaves_the_global_one() -> None:
    scenes = DrawnScenes(SyntheticScenes(4, seed=5))
    train = partial(train_whole, make_c4, scenes, steps=2)
    before = torch.get_rng_state()
    first, again, other = (train(seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert any(not torch.equal(first[name], other[name]) for name in first)
