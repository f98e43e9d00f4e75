import io
import math
from contextlib import redirect_stdout

import pytest
import torch
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from rcnn_edu.datasets import SceneSettings, SyntheticScenes, as_coco
from rcnn_edu.training.recall import average_recall
from rcnn_edu.training.results import load_ground_truth, load_results
from tests.training.cases import dataset_of, thing

SMALL, MEDIUM = [0, 0, 10, 10], [100, 100, 40, 40]  # x, y, width, height
FOUND, NEARLY = [0.0, 0, 10, 10], [100.0, 100, 140, 124.8]  # the second with IoU 0.62, more than 3 of the 10 thresholds


def test_a_case_to_check_by_hand() -> None:
    coco = dataset_of([thing(1, SMALL), thing(2, MEDIUM)])
    recall = average_recall([torch.tensor([FOUND, NEARLY])], coco, (1, 2))
    assert math.isnan(recall.pop("ARl"))
    assert recall == pytest.approx({"AR1": 10 / 20, "AR2": (10 + 3) / 20, "ARs": 10 / 10, "ARm": 3 / 10})


def test_only_the_first_proposals_count() -> None:
    coco = dataset_of([thing(1, SMALL)])
    recall = average_recall([torch.tensor([NEARLY, NEARLY, FOUND])], coco, (2, 3))
    assert (recall["AR2"], recall["AR3"]) == (0, 1)


def test_a_proposal_finds_one_object_at_most() -> None:
    coco = dataset_of([thing(1, SMALL), thing(2, SMALL)])
    assert average_recall([torch.tensor([FOUND])], coco)["AR100"] == 0.5
    assert average_recall([torch.tensor([FOUND, FOUND])], coco)["AR100"] == 1


def test_each_image_has_its_own_proposals() -> None:
    coco = dataset_of([thing(1, SMALL), thing(1, SMALL, image=2), thing(1, MEDIUM, image=2)], images=2)
    proposals = [torch.tensor([FOUND]), torch.empty(0, 4)]
    assert average_recall(proposals, coco)["AR100"] == pytest.approx(1 / 3)
    assert average_recall([torch.empty(0, 4)] * 2, coco)["AR100"] == 0


def test_pycocotools_summary_has_the_same_figures() -> None:
    scenes = SyntheticScenes(4, seed=3, settings=SceneSettings(size=(160, 160), num_objects=(4, 8)))
    coco = as_coco(scenes)
    generator = torch.Generator().manual_seed(0)
    proposals = [_proposals(scenes[index][1]["boxes"], generator) for index in range(len(scenes))]
    results = [
        {"image_id": image["id"], "category_id": 1, "score": 1 - rank / 100, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for image, boxes in zip(coco["images"], proposals, strict=True)
        for rank, (x1, y1, x2, y2) in enumerate(boxes.tolist())
    ]
    ground_truth = load_ground_truth(coco)
    oracle = COCOeval(ground_truth, load_results(results, ground_truth), "bbox")
    oracle.params.useCats = 0
    with redirect_stdout(io.StringIO()):
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    expected = dict(zip(("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"), oracle.stats[6:], strict=True))
    ours = average_recall(proposals, coco, (1, 10, 100))
    assert ours == pytest.approx(
        {name: math.nan if value < 0 else value for name, value in expected.items()}, nan_ok=True
    )
    assert 0 < ours["AR1"] < ours["AR10"] < ours["AR100"] < 1


def _proposals(gt_boxes: Tensor, generator: torch.Generator) -> Tensor:
    """Return five boxes around each object, the better and the worse ones mixed."""
    around = gt_boxes.repeat(5, 1)
    size = (around[:, 2:] - around[:, :2]).repeat(1, 2)
    moved = around + 0.15 * size * torch.randn(around.shape, generator=generator).clamp(-2, 2)
    return moved[torch.randperm(len(moved), generator=generator)]


def test_an_image_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="one tensor for each of 2 images, got 1"):
        average_recall([torch.empty(0, 4)], dataset_of([thing(1, SMALL)], images=2))
