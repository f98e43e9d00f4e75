import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pixels

from rcnn_edu.datasets import CocoDataset, as_coco
from rcnn_edu.explore.lesson_09 import (
    IOU_THRESHOLDS,
    RECALLS,
    PrecisionState,
    Ranking,
    Results,
    SortingLine,
    curves_figure,
    find_nuclei,
    precision_explorer,
    precision_scene,
    sheet_figure,
    write_example,
)
from rcnn_edu.explore.scene import Box, Points, Scene, Text
from rcnn_edu.training import evaluate_results
from rcnn_edu.training.evaluate import IOU_THRESHOLDS as COCO_THRESHOLDS


class Line(SortingLine):
    """A few images, the third without a single smooth object."""

    def __getitem__(self, index: int) -> Any:
        image, target = super().__getitem__(index)
        return image, {**target, "labels": torch.full_like(target["labels"], 2)} if index == 2 else target


LINE = Line(6, seed=3)


@cache
def found() -> list[dict[str, Any]]:
    """What a mediocre detector might find: objects a little off, some twice, some of the wrong class, some nowhere."""
    generator = torch.Generator().manual_seed(0)
    results = []
    for annotation in as_coco(LINE)["annotations"]:
        x, y, width, height = annotation["bbox"]
        for _ in range(int(torch.randint(4, (1,), generator=generator))):
            shift = 0.12 * torch.randn(2, generator=generator)
            box = [x + width * float(shift[0]), y + height * float(shift[1]), width, height]
            wrong = float(torch.rand(1, generator=generator)) < 0.2
            score = float(torch.rand(1, generator=generator)) * 0.5 + 0.5 * float(shift.abs().max() < 0.1)
            category = 3 - annotation["category_id"] if wrong else annotation["category_id"]
            results.append(
                {"image_id": annotation["image_id"], "category_id": category, "bbox": box, "score": round(score, 4)}
            )
    return results


@cache
def results() -> Results:
    return Results(LINE, found())


def texts(scene: Scene) -> list[str]:
    return [item.text for panel in scene.panels for item in panel.items if isinstance(item, Text)]


# The example


def test_the_example_is_read_back_as_it_is_drawn(tmp_path: Path) -> None:
    folder = write_example(tmp_path / "example", 2, 1)
    assert sorted(path.name for path in folder.iterdir()) == [
        "instances_train.json",
        "instances_val.json",
        "train",
        "val",
    ]
    dataset = CocoDataset(folder / "train", folder / "instances_train.json")
    assert dataset.categories == ("smooth", "notched")
    assert len(dataset) == 2
    image, target = dataset[1]
    drawn, expected = SortingLine(2, seed=70)[1]
    assert (image - drawn).abs().max() < 1 / 255
    assert all(torch.equal(target[name], expected[name]) for name in ("boxes", "labels", "masks"))
    assert len(CocoDataset(folder / "val", folder / "instances_val.json")) == 1
    with pytest.raises(FileExistsError, match="not empty"):
        write_example(folder, 2, 1)


def test_the_classes_go_by_the_outline() -> None:
    line = SortingLine(3, seed=1)
    for index in range(len(line)):
        labels, own = line[index][1]["labels"], line.scenes[index][1]["labels"]
        assert labels.tolist() == [{1: 1, 2: 1, 3: 2, 4: 2}[label] for label in own.tolist()]


def test_the_nuclei_are_found_where_they_were_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCNN_EDU_NUCLEI", str(tmp_path))
    assert find_nuclei() is None
    (tmp_path / "instances_train.json").touch()
    assert find_nuclei() == tmp_path
    monkeypatch.delenv("RCNN_EDU_NUCLEI")
    monkeypatch.setattr("rcnn_edu.explore.lesson_09.CHECKPOINTS", tmp_path / "checkpoints")
    assert find_nuclei() is None
    (tmp_path / "nuclei").mkdir()
    (tmp_path / "nuclei" / "instances_train.json").touch()
    assert find_nuclei() == tmp_path / "nuclei"


# Precision and recall


def test_a_ranking_by_hand() -> None:
    ranking = Ranking(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([True, False, True]), 3)
    assert ranking.curve() == [pytest.approx(point) for point in [(1 / 3, 1), (1 / 3, 1 / 2), (2 / 3, 2 / 3)]]
    assert ranking.average_precision() == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert [ranking.shown(score) for score in (0.95, 0.8, 0.1)] == [0, 2, 3]


def test_a_ranking_without_detections_or_without_objects() -> None:
    nothing, none = torch.zeros(0), torch.zeros(0, dtype=torch.bool)
    assert Ranking(nothing, none, 3).average_precision() == 0
    assert np.isnan(Ranking(nothing, none, 0).average_precision())
    assert np.isnan(Ranking(torch.tensor([0.5]), torch.tensor([False]), 0).average_precision())
    assert Ranking(nothing, none, 3).curve() == []


def test_it_is_what_pycocotools_computes() -> None:
    accuracy = evaluate_results(found(), as_coco(LINE))["bbox"]
    assert IOU_THRESHOLDS == COCO_THRESHOLDS
    assert RECALLS.tolist() == np.linspace(0, 1, 101).tolist()
    for row, iou in enumerate(IOU_THRESHOLDS):
        for label in (1, 2):
            sampled = results().ranking(label, iou).sampled()
            np.testing.assert_allclose(sampled.numpy(), accuracy.precision[row, label - 1], atol=1e-12)
    assert results().mean_average_precision() == pytest.approx(accuracy.figures["AP"])


def test_results_are_sorted_by_image_with_corners_and_labels() -> None:
    coco = {**as_coco(LINE), "categories": [{"id": 3, "name": "smooth"}, {"id": 7, "name": "notched"}]}
    coco["annotations"] = [{**each, "category_id": 3} for each in coco["annotations"]]

    class Gapped(Line):
        def __init__(self) -> None:
            super().__init__(6, seed=3)
            self.coco = coco

    one = {"image_id": 2, "category_id": 7, "bbox": [10, 20, 30, 40], "score": 0.5}
    sorted_ = Results(Gapped(), [one])
    assert [len(detection["scores"]) for detection in sorted_.detections] == [0, 1, 0, 0, 0, 0]
    assert sorted_.detections[1]["boxes"].tolist() == [[10, 20, 40, 60]]
    assert sorted_.detections[1]["labels"].tolist() == [2]


# The explorer


def test_every_state_that_can_be_reached_has_a_picture() -> None:
    ious = (0.5, 0.7000000000000001, 0.95)  # as a slider has them
    for label, iou, score, image in itertools.product((1, 2), ious, (0.05, 0.5, 1.0), (0, 2, 5)):
        state = PrecisionState(label, iou, score, image)
        scene = precision_scene(state, results())
        assert len(json.dumps(scene.to_dict(), allow_nan=False)) < 60_000
        assert scene == precision_scene(state, results())


def test_the_picture_says_what_it_counts() -> None:
    state = PrecisionState(label=2, iou=0.6, score=0.4, image=1)
    scene = precision_scene(state, results())
    ranking = results().ranking(2, 0.6)
    shown, right = ranking.shown(0.4), int(ranking.right[: ranking.shown(0.4)].sum())
    assert f"{shown} shown, {right} right" in scene.alt
    assert f"{right} right of {shown} shown = {right / shown:.2f}" in texts(scene)
    assert f"{right} right of {ranking.num_objects} objects = {right / ranking.num_objects:.2f}" in texts(scene)
    assert f"AP at IoU 0.60 {ranking.average_precision():.2f}" in scene.alt
    assert f"and of all classes {results().mean_average_precision():.2f}" in scene.alt


def test_a_stricter_match_turns_boxes_orange_and_never_raises_ap() -> None:
    for label in (1, 2):
        every = results().average_precisions(label)
        assert every == sorted(every, reverse=True)
        assert every[0] > 0.3 > every[-1]
    green = []
    for iou in (0.5, 0.95):
        scene = precision_scene(PrecisionState(label=2, iou=iou, score=0.05, image=1), results())
        green.append(sum(isinstance(item, Box) and item.color == "green" for item in scene.panels[0].items))
    assert green[1] < green[0]


def test_the_score_moves_the_dot_and_nothing_else_of_the_curve() -> None:
    def curve(score: float) -> tuple[list[Any], list[Any]]:
        items = precision_scene(PrecisionState(score=score), results()).panels[2].items
        dot = [item.xy for item in items if isinstance(item, Points) and item.color == "pink"]
        return dot, [item for item in items if not (isinstance(item, Points) and item.color == "pink")]

    (few, rest), (many, same) = curve(0.8), curve(0.05)
    assert rest == same
    assert few != many
    assert curve(1.0)[0] == []  # nothing scores so much


def test_a_class_without_objects_has_a_picture() -> None:
    class Empty(Line):
        categories = ("smooth", "notched", "hollow")  # type: ignore[assignment]

    scene = precision_scene(PrecisionState(label=3), Results(Empty(6, seed=3), found()))
    assert "0 of 0 objects missed. AP at IoU 0.50 nan" in scene.alt
    assert "there is no object" in texts(scene)
    json.dumps(scene.to_dict(), allow_nan=False)


def test_explorer_controls_reach_the_picture() -> None:
    explorer = precision_explorer(results())
    label, image, score, iou = explorer.children[0].children
    label.value, image.value, score.value, iou.value = 2, 4, 0.7, 0.75
    assert explorer.state == PrecisionState(label=2, image=4, score=0.7, iou=0.75)
    assert "notched, a match from an IoU of 0.75, scores from 0.70" in explorer.canvas.scene["alt"]
    assert "The picture shows image 4." in explorer.canvas.scene["alt"]
    assert image.max == 5
    assert "image 4" in explorer.canvas.images


# Pictures


def test_a_sheet_has_a_place_for_each_picture() -> None:
    picture = Pixels.new("RGB", (40, 30))
    figure = sheet_figure([(f"number {place}", picture) for place in range(5)], columns=3)
    assert [axes.get_title() for axes in figure.axes] == [f"number {place}" for place in range(5)]
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    assert boxes[3].y1 < boxes[0].y0  # the second row


def test_curves_carry_their_data_and_labels() -> None:
    ranking = Ranking(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([True, False, True]), 3)
    nothing = Ranking(torch.zeros(0), torch.zeros(0, dtype=torch.bool), 3)
    curves = {"smooth": ranking.sampled().tolist(), "notched": nothing.sampled().tolist()}
    left, right = curves_figure(curves, {"smooth": ranking, "notched": nothing}).axes
    assert [line.get_label() for line in left.lines] == ["smooth: AP 0.55", "notched: AP 0.00"]
    assert np.asarray(left.lines[0].get_ydata()).tolist() == curves["smooth"]
    assert [line.get_label() for line in right.lines][:2] == ["smooth: precision", "smooth: recall"]
    assert np.asarray(right.lines[0].get_xdata()).tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert np.asarray(right.lines[1].get_ydata()).tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
