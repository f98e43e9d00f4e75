import math
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from rcnn_edu.datasets import SyntheticScenes
from rcnn_edu.models import Cascade
from rcnn_edu.training.experiments.cascade import (
    FEWEST,
    PAPER,
    Scored,
    by_bin,
    figures,
    matched,
    new_cascade,
    refinement,
    regression,
    sigmas,
    stage_by_stage,
)
from rcnn_edu.training.frozen_trunk import (
    SeenScenes,
    box_losses,
    detect_boxes,
    evaluate_boxes,
    frozen_trunk,
    new_head,
    see,
    train_head,
)

OBJECT = [0.0, 0, 100, 100]
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def seen(proposals: Sequence[Tensor], objects: Sequence[Tensor]) -> SeenScenes:
    """Return scenes with given proposals and objects, and no features."""
    targets = [{"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64)} for boxes in objects]
    return SeenScenes([], list(proposals), targets, (200, 200), SyntheticScenes(len(targets)))


def scored(boxes: Sequence[Tensor]) -> list[Scored]:
    return [(of_scene[:, None], torch.zeros(len(of_scene), 5)) for of_scene in boxes]


def columns(share: float, count: int = 1) -> Tensor:
    """Return boxes that cover this share of the object, its left part."""
    return torch.tensor([[0.0, 0, 100 * share, 100]] * count)


def test_the_best_object_of_each_roi() -> None:
    boxes = torch.tensor([[0.0, 0, 100, 50], [150, 0, 160, 50], [170, 0, 180, 50]])
    scenes = seen([boxes, boxes[:1]], [torch.tensor([OBJECT, [150.0, 0, 160, 100]]), torch.empty(0, 4)])
    iou, objects = matched(scenes.proposals, scenes)
    assert iou.tolist() == [0.5, 0.5, 0, 0]  # the last one in a scene without objects
    assert objects[:2].tolist() == [OBJECT, [150, 0, 160, 100]]


def test_the_shares_of_good_rois_rise_as_the_stages_move_them() -> None:
    first, second, third = (torch.cat([columns(a), columns(b)]) for a, b in ((0.5, 0.4), (0.65, 0.5), (0.75, 0.65)))
    scenes = seen([first], [torch.tensor([OBJECT])])
    rows = refinement([scored([second]), scored([third]), scored([third])], scenes)
    assert [list(rows[f"RoIs into stage {number}"].values()) for number in (1, 2, 3)] == [
        [0.5, 0, 0],
        [1, 0.5, 0],
        [1, 1, 0.5],
    ]


def test_the_spread_of_the_deltas() -> None:
    gt_boxes = torch.tensor([OBJECT, OBJECT])
    boxes = torch.tensor([[10.0, 0, 110, 100], [-10, 0, 90, 100]])  # a tenth of the width to either side
    expected = {"sigma x": 0.1 * math.sqrt(2), "sigma y": 0, "sigma w": 0, "sigma h": 0}
    assert sigmas(boxes, gt_boxes) == pytest.approx(expected)
    assert sigmas(boxes[:1], gt_boxes[:1]) == {}


def test_a_stage_s_deltas_are_those_of_its_own_positives() -> None:
    entering = torch.cat([columns(0.5), columns(0.55), columns(1.0)])
    scenes = seen([entering], [torch.tensor([OBJECT])])
    rows = refinement([scored([entering])] * 3, scenes)
    assert rows["deltas of stage 1"]["sigma w"] == pytest.approx(torch.tensor([0.5, 0.55, 1.0]).log().std().item())
    assert rows["deltas of stage 2"] == {}  # of 0.6 or more there is only one


def test_iou_before_and_after() -> None:
    """A head that makes any box three quarters of the object is good for those below, bad for those above."""
    before = torch.cat([columns(0.52, FEWEST), columns(0.91, FEWEST), columns(0.7, FEWEST - 1), columns(0.2, FEWEST)])
    scenes = seen([before], [torch.tensor([OBJECT])])
    rows = regression({0.5: [scored([columns(0.75, len(before))])]}, scenes)
    assert rows["IoU before"] == pytest.approx({"from 0.50": 0.52, "from 0.90": 0.91})
    assert rows["IoU after, u = 0.5"] == pytest.approx({"from 0.50": 0.75, "from 0.90": 0.75})


def test_a_moved_box_is_compared_with_the_object_that_it_came_from() -> None:
    other = [100.0, 0, 200, 100]
    before = torch.tensor([[0.0, 0, 100, 60]] * FEWEST)
    scenes = seen([before], [torch.tensor([OBJECT, other])])
    away = torch.tensor([other] * FEWEST)
    assert regression({0.5: [scored([away])]}, scenes)["IoU after, u = 0.5"] == {"from 0.60": 0}


@pytest.mark.parametrize(
    ("iou", "bin_"), [(0.5, "from 0.50"), (0.5499, "from 0.50"), (0.55, "from 0.55"), (1.0, "from 0.95")]
)
def test_a_bin_begins_with_its_edge(iou: float, bin_: str) -> None:
    values = torch.full((FEWEST,), iou)
    assert list(by_bin(values, values)) == [bin_]


def test_the_cascade_without_statistics_weighs_all_deltas_alike() -> None:
    assert [stage.delta_weights for stage in new_cascade((0.5, 0.6), statistics=False).stages] == [WEIGHTS, WEIGHTS]
    raised = new_cascade((0.5, 0.6)).stages[1]
    assert raised.delta_weights == tuple(2 * weight for weight in WEIGHTS)
    assert raised.sampler.iou_thresh == 0.6


def test_the_paper_s_rows() -> None:
    assert PAPER["3 stages"] == {"AP": 38.9, "AP50": 57.8, "AP60": 53.4, "AP70": 46.9, "AP80": 35.8, "AP90": 15.8}
    assert PAPER["4 stages"] == {"AP": 38.6}
    assert PAPER["deltas of stage 3"]["sigma h"] == 0.077


@pytest.fixture(scope="module")
def two_scenes() -> SeenScenes:
    return see(frozen_trunk(), SyntheticScenes(2, seed=5))


@pytest.fixture(scope="module")
def trained(two_scenes: SeenScenes) -> dict[int, Cascade]:
    """Return cascades of one and of three stages, each after two steps."""
    cascades = {}
    for count in (1, 3):
        cascade = new_head(partial(new_cascade, (0.5, 0.6, 0.7)[:count]), seed=0)
        train_head(cascade, box_losses(cascade), two_scenes, steps=2, seed=0)
        cascades[count] = cascade.eval()
    return cascades


def test_a_shorter_cascade_is_the_longer_one_without_its_last_stages(trained: dict[int, Cascade]) -> None:
    short, long = (trained[count].stages[0].state_dict() for count in (1, 3))
    assert short.keys() == long.keys()
    for name in short:
        torch.testing.assert_close(short[name], long[name])


def test_the_figures_are_those_of_the_cascade_s_own_detections(
    trained: dict[int, Cascade], two_scenes: SeenScenes
) -> None:
    cascade = trained[3]
    ours = figures(stage_by_stage(list(cascade.stages), two_scenes, "cpu"), two_scenes)
    theirs = evaluate_boxes(detect_boxes(cascade, two_scenes), two_scenes)["bbox"]
    assert ours["AP"] == theirs.figures["AP"]
    assert ours["AP90"] == theirs.per_threshold[0.9]
