import copy
import io
import json
import math
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn

from rcnn_edu.datasets.coco import as_coco
from rcnn_edu.datasets.scenes import SceneSettings, SyntheticScenes
from rcnn_edu.models import tiny_cascade_rcnn, tiny_faster_rcnn
from rcnn_edu.training.errors import IouType
from rcnn_edu.training.evaluate import FIGURES, IOU_THRESHOLDS, RECALLS, detect_all, evaluate, evaluate_results
from rcnn_edu.training.results import Coco, Result
from tests.training.cases import SIDE, dataset_of, found, polygon_of, thing

IOU_TYPES: list[IouType] = ["bbox", "segm"]


class Recites(nn.Module):
    """A detector that knows the answers, and recites them in the order of the dataset."""

    def __init__(self, dataset: SyntheticScenes) -> None:
        super().__init__()
        self.targets = iter(target for _, target in (dataset[index] for index in range(len(dataset))))

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        target = next(self.targets)
        return [{**target, "scores": torch.ones(len(target["labels"])), "masks": target["masks"][:, None].float()}]


@pytest.fixture(scope="module")
def scenes() -> SyntheticScenes:
    return SyntheticScenes(6, seed=3, settings=SceneSettings(size=(96, 128), num_objects=(2, 7)))


@pytest.fixture(scope="module")
def guesses(scenes: SyntheticScenes) -> list[Result]:
    """Detections of every sort: most objects moved a little, some twice, some of another class, some nowhere."""
    rng = np.random.default_rng(0)
    results: list[Result] = []
    for index in range(len(scenes)):
        target = {name: values.numpy() for name, values in scenes[index][1].items()}
        for label, box, mask in zip(target["labels"], target["boxes"], target["masks"], strict=True):
            for _ in range(rng.choice([0, 1, 1, 2])):
                moved = np.roll(mask, rng.integers(-1, 2, 2), axis=(0, 1))
                x1, y1, x2, y2 = box + rng.normal(0, 2, 4)
                rle = coco_mask.encode(np.asfortranarray(moved, dtype=np.uint8))
                result = {
                    "image_id": index + 1,
                    "category_id": int(label) if rng.uniform() < 0.8 else int(rng.integers(1, 5)),
                    "score": round(rng.uniform(), 1),  # so that some are equal
                    "bbox": [float(x1), float(y1), float(max(x2 - x1, 1)), float(max(y2 - y1, 1))],
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                }
                results.append(result)
    return results


def test_what_is_recited_is_perfect(scenes: SyntheticScenes) -> None:
    evaluation = evaluate(Recites(scenes), scenes)
    objects = len(as_coco(scenes)["annotations"])
    assert (evaluation.images, evaluation.objects, evaluation.detections) == (6, objects, objects)
    for iou_type in IOU_TYPES:
        accuracy = evaluation[iou_type]
        figures = {name: figure for name, figure in accuracy.figures.items() if name not in ("AR1", "APl", "ARl")}
        assert figures == pytest.approx(dict.fromkeys(figures, 1.0))
        assert 0 < accuracy.figures["AR1"] < 1  # some images have two of a class
        assert accuracy.errors.counts["correct"] == objects
        assert accuracy.errors.missed == []


def figures_of_files(coco: Coco, results: list[Result], iou_type: str, folder: Path) -> tuple[list[float], Any]:
    """Return pycocotools' twelve figures and its precision, by the way that its own demonstration goes."""
    (folder / "dataset.json").write_text(json.dumps(coco), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    with redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(folder / "dataset.json"))
        evaluator = COCOeval(ground_truth, ground_truth.loadRes(str(folder / "results.json")), iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats.tolist(), evaluator.eval["precision"]


@pytest.mark.parametrize("iou_type", IOU_TYPES)
@pytest.mark.parametrize("fields", [("bbox", "segmentation"), ("segmentation",)])
def test_the_figures_are_those_of_pycocotools_on_the_files(
    iou_type: IouType, fields: tuple[str, ...], scenes: SyntheticScenes, guesses: list[Result], tmp_path: Path
) -> None:
    coco = as_coco(scenes)
    kept = ("image_id", "category_id", "score", *fields)
    results = [{name: result[name] for name in kept} for result in guesses]
    accuracy = evaluate_results(results, coco)[iou_type]
    stats, precision = figures_of_files(coco, results, iou_type, tmp_path)
    assert [-1 if math.isnan(figure) else figure for figure in accuracy.figures.values()] == stats
    assert 0.2 < accuracy.figures["AP"] < 0.8
    np.testing.assert_array_equal(np.nan_to_num(accuracy.precision, nan=-1), precision[:, :, :, 0, 2].swapaxes(1, 2))


def test_shuffled_images_are_judged_as_pycocotools_does(scenes: SyntheticScenes, tmp_path: Path) -> None:
    coco = as_coco(scenes)
    shift = {image["id"]: other["id"] for image, other in zip(coco["images"], np.roll(coco["images"], 1), strict=True)}
    results = [
        {
            **{name: a[name] for name in ("category_id", "bbox", "segmentation")},
            "image_id": shift[a["image_id"]],
            "score": 1,
        }
        for a in coco["annotations"]
    ]
    evaluation = evaluate_results(results, coco)
    for iou_type in IOU_TYPES:
        stats, _ = figures_of_files(coco, results, iou_type, tmp_path)
        assert [-1 if math.isnan(figure) else figure for figure in evaluation[iou_type].figures.values()] == stats
        assert evaluation[iou_type].figures["AP"] < 0.1


def test_no_results_are_worth_nothing() -> None:
    evaluation = evaluate_results([], dataset_of([thing(1, [10, 10, 50, 50])]))
    for iou_type in IOU_TYPES:
        figures = evaluation[iou_type].figures
        of_other_sizes = {"APs", "APl", "ARs", "ARl"}
        assert {name: figures[name] for name in FIGURES if name not in of_other_sizes} == dict.fromkeys(
            (name for name in FIGURES if name not in of_other_sizes), 0
        )
        assert all(math.isnan(figures[name]) for name in of_other_sizes)
        assert evaluation[iou_type].errors.counts["missed"] == 1


@pytest.mark.parametrize("results", [[], [found(1, [10, 10, 50, 50], 0.9)]])
def test_without_objects_there_is_no_figure(results: list[Result]) -> None:
    evaluation = evaluate_results(results, dataset_of([]))
    accuracy = evaluation["segm"]
    for figures in (accuracy.figures, accuracy.per_class, accuracy.per_threshold):
        assert all(math.isnan(figure) for figure in figures.values())
    assert np.isnan(accuracy.precision).all()
    assert "nan" not in str(evaluation)
    restored = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert restored["segm"]["figures"]["AP"] is None
    assert restored["seconds_per_image"] is None


def test_a_dataset_without_images_or_categories_has_no_figure() -> None:
    evaluation = evaluate_results([], {"images": [], "categories": [], "annotations": []})
    assert math.isnan(evaluation["bbox"].figures["AP"])
    assert evaluation["bbox"].per_class == {}
    assert "0 images" in evaluation.table()


def test_precision_and_recall_of_three_detections() -> None:
    # Two objects; the first and the third detection are right. Up to a recall of 1/2 the precision is 1, beyond it 2/3.
    coco = dataset_of([thing(1, [0, 0, 50, 50]), thing(1, [100, 0, 50, 50])], {1: "a"})
    results = [
        found(1, [0, 0, 50, 50], 0.9),
        found(1, [200, 200, 50, 50], 0.8),
        found(1, [100, 0, 50, 50], 0.7),
    ]
    for iou_type in IOU_TYPES:
        accuracy = evaluate_results(results, coco)[iou_type]
        assert accuracy.precision.shape == accuracy.scores.shape == (len(IOU_THRESHOLDS), 1, len(RECALLS))
        assert accuracy.precision[0, 0] == pytest.approx(np.where(RECALLS <= 0.5, 1, 2 / 3))
        assert accuracy.scores[0, 0] == pytest.approx(np.where(RECALLS <= 0.5, 0.9, 0.7))
        assert accuracy.figures["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)
        assert (accuracy.figures["AR1"], accuracy.figures["AR10"]) == (0.5, 1)


def test_a_detection_on_a_crowd_is_neither_right_nor_wrong() -> None:
    one, many = [0, 0, 50, 50], [100, 100, 150, 150]
    results = [found(1, [120, 120, 40, 40], 0.9), found(1, [200, 200, 40, 40], 0.8), found(1, one, 0.7)]

    def ap(*annotations: dict[str, Any]) -> list[float]:
        evaluation = evaluate_results(results, dataset_of(list(annotations), {1: "a"}))
        return [evaluation[iou_type].figures["AP"] for iou_type in IOU_TYPES]

    assert ap(thing(1, one), thing(1, many, crowd=True)) == pytest.approx([1, 1])
    # Without the crowd, two wrong ones come first; as an object, the crowd is missed, and recall ends at 1/2.
    assert ap(thing(1, one)) == pytest.approx([1 / 3, 1 / 3])
    assert ap(thing(1, one), thing(1, many)) == pytest.approx([51 / 101 / 3] * 2)
    # A crowd of another class excuses nothing.
    assert ap(thing(1, one), {**thing(2, many, crowd=True)}) == pytest.approx([1 / 3, 1 / 3])


def test_a_crowd_is_no_object_to_be_found() -> None:
    evaluation = evaluate_results([], dataset_of([thing(1, [0, 0, 50, 50], crowd=True)]))
    assert evaluation.objects == 0
    assert math.isnan(evaluation["bbox"].figures["AR100"])
    assert evaluation["bbox"].errors.missed == []


def test_small_medium_and_large_objects_have_figures_of_their_own() -> None:
    coco = dataset_of([thing(1, [0, 0, 20, 20]), thing(2, [50, 0, 50, 50]), thing(3, [150, 150, 120, 120])])
    results = [
        found(1, [100, 100, 150, 150], 0.9),  # wrong, but large: it does not count against the small ones
        found(1, [0, 0, 20, 20], 0.8),
        found(2, [50, 0, 50, 31], 0.7),  # IoU 0.62: found at 3 of 10 thresholds
    ]
    for iou_type in IOU_TYPES:
        accuracy = evaluate_results(results, coco)[iou_type]
        figures = {name: accuracy.figures[name] for name in ("APs", "APm", "APl", "ARs", "ARm", "ARl")}
        assert figures == pytest.approx({"APs": 1, "APm": 0.3, "APl": 0, "ARs": 1, "ARm": 0.3, "ARl": 0})
        assert accuracy.per_class == pytest.approx({"a": 0.5, "b": 0.3, "c": 0})
        assert accuracy.figures["AP"] == pytest.approx(0.8 / 3)
        assert accuracy.per_threshold == pytest.approx({t: 1.5 / 3 if t < 0.62 else 0.5 / 3 for t in IOU_THRESHOLDS})


def test_an_object_of_32_or_96_pixels_is_of_both_sizes() -> None:
    # pycocotools' ranges include both their ends.
    for side, names in ((31, "s"), (32, "sm"), (33, "m"), (95, "m"), (96, "ml"), (97, "l")):
        figures = evaluate_results([], dataset_of([thing(1, [0, 0, side, side])]))["bbox"].figures
        assert [size for size in "sml" if figures[f"AP{size}"] == 0] == list(names)


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_ap_is_the_mean_over_thresholds_and_over_classes(
    iou_type: IouType, scenes: SyntheticScenes, guesses: list[Result]
) -> None:
    accuracy = evaluate_results(guesses, as_coco(scenes))[iou_type]
    ap = accuracy.figures["AP"]
    assert np.mean(list(accuracy.per_threshold.values())) == pytest.approx(ap)
    assert np.nanmean(list(accuracy.per_class.values())) == pytest.approx(ap)
    assert np.nanmean(accuracy.precision) == pytest.approx(ap)
    assert accuracy.per_threshold[0.5] == pytest.approx(accuracy.figures["AP50"])
    assert accuracy.per_threshold[0.75] == pytest.approx(accuracy.figures["AP75"])


def test_classes_keep_their_names_whatever_their_ids() -> None:
    coco = dataset_of([thing(90, [0, 0, 50, 50]), thing(7, [100, 0, 50, 50])], {90: "last", 30: "absent", 7: "first"})
    accuracy = evaluate_results([found(90, [0, 0, 50, 50], 0.9)], coco)["bbox"]
    assert list(accuracy.per_class) == ["last", "absent", "first"]
    assert accuracy.per_class["last"] == pytest.approx(1)
    assert math.isnan(accuracy.per_class["absent"])
    assert accuracy.per_class["first"] == 0
    assert accuracy.figures["AP"] == pytest.approx(0.5)  # of the two that there are
    assert accuracy.per_threshold == pytest.approx(dict.fromkeys(IOU_THRESHOLDS, 0.5))


def test_two_classes_of_one_name_are_told_apart() -> None:
    coco = dataset_of([thing(1, [0, 0, 50, 50]), thing(2, [100, 0, 50, 50])], {1: "cell", 2: "cell"})
    accuracy = evaluate_results([found(2, [100, 0, 50, 50], 0.9)], coco)["bbox"]
    assert accuracy.per_class == pytest.approx({"cell (1)": 0, "cell (2)": 1})


def test_an_annotation_may_be_number_0_and_say_nothing_of_crowds() -> None:
    annotation = {**thing(1, [0, 0, 50, 50]), "id": 0}
    del annotation["iscrowd"]
    evaluation = evaluate_results([found(1, [0, 0, 50, 50], 0.9)], dataset_of([annotation]))
    assert evaluation["segm"].figures["AP"] == pytest.approx(1)  # pycocotools alone gives 0: to it, 0 is no match


def test_polygons_and_uncompressed_run_lengths_are_masks_too() -> None:
    box = [10, 20, 50, 60]
    columns = [60, SIDE - 60] * 49 + [60]  # of 50 columns, 60 pixels inside and those to the next one
    start = 10 * SIDE + 20
    uncompressed = {"size": [SIDE, SIDE], "counts": [start, *columns, SIDE**2 - start - sum(columns)]}
    for segmentation in ([polygon_of(box)], uncompressed):
        annotation, result = ({**each, "segmentation": segmentation} for each in (thing(1, box), found(1, box, 0.9)))
        assert evaluate_results([found(1, box, 0.9)], dataset_of([annotation]))["segm"].figures["AP"] == pytest.approx(
            1
        )
        assert evaluate_results([result], dataset_of([thing(1, box)]))["segm"].figures["AP"] == pytest.approx(1)


def test_only_what_is_there_is_measured() -> None:
    box, boxed = [10, 20, 50, 60], thing(1, [10, 20, 50, 60])
    result = found(1, box, 0.9)
    without_mask = {name: value for name, value in result.items() if name != "segmentation"}
    without_box = {name: value for name, value in result.items() if name != "bbox"}
    annotation_without_mask = {name: value for name, value in boxed.items() if name != "segmentation"}
    assert list(evaluate_results([without_mask], dataset_of([boxed])).accuracy) == ["bbox"]
    assert list(evaluate_results([result], dataset_of([annotation_without_mask])).accuracy) == ["bbox"]
    assert list(evaluate_results([result], dataset_of([{**boxed, "segmentation": []}])).accuracy) == ["bbox"]
    evaluation = evaluate_results([without_box], dataset_of([boxed]))
    assert [evaluation[iou_type].figures["AP"] for iou_type in IOU_TYPES] == pytest.approx([1, 1])


def test_nothing_that_is_given_is_changed(scenes: SyntheticScenes, guesses: list[Result]) -> None:
    coco = as_coco(scenes)
    before = copy.deepcopy((coco, guesses))
    evaluate_results(guesses, coco)
    assert (coco, guesses) == before


def test_results_survive_a_file() -> None:
    torch.manual_seed(0)
    dataset = SyntheticScenes(1)
    results, _ = detect_all(tiny_cascade_rcnn(mask=True), dataset)
    coco = as_coco(dataset)
    again = evaluate_results(json.loads(json.dumps(results)), json.loads(json.dumps(coco)))
    assert again.to_json() == evaluate_results(results, coco).to_json()


@pytest.mark.parametrize("training", [True, False])
def test_an_untrained_model_is_measured_and_left_as_it_is(training: bool, device: torch.device) -> None:
    torch.manual_seed(0)
    dataset = SyntheticScenes(2)
    model = tiny_cascade_rcnn(mask=True).train(training)
    evaluation = evaluate(model, dataset, device=device, score_thresh=0.1)
    assert model.training == training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert evaluation.detections > 0
    assert evaluation.seconds_per_image > 0
    for iou_type in IOU_TYPES:
        assert 0 <= evaluation[iou_type].figures["AP"] < 0.1
        assert list(evaluation[iou_type].per_class) == ["leaf", "drop", "flower", "gear"]


def test_a_model_without_masks_is_measured_on_boxes() -> None:
    torch.manual_seed(0)
    assert list(evaluate(tiny_faster_rcnn(), SyntheticScenes(1)).accuracy) == ["bbox"]


def test_a_model_of_more_classes_is_refused() -> None:
    class Answers(nn.Module):
        def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
            return [{"boxes": torch.ones(1, 4), "labels": torch.tensor([5]), "scores": torch.ones(1)}]

    with pytest.raises(ValueError, match="found label 5, but the dataset has 4 categories"):
        evaluate(Answers(), SyntheticScenes(1))


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        evaluate(tiny_faster_rcnn(), SyntheticScenes(0))


GOOD = found(1, [0, 0, 50, 50], 0.9)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"annotations": []}, "results must be a list of detections, got dict"),
        ([GOOD, 3], r"results\[1\] must be a dict .* got int"),
        ([GOOD, {**GOOD, "image_id": 2}], r"results\[1\] is of image 2, which the dataset has not"),
        ([{**GOOD, "image_id": [1]}], r"results\[0\] is of image \[1\]"),
        ([{**GOOD, "category_id": 9}], r"results\[0\] is of category 9, but the dataset has \[1, 2, 3\]"),
        ([{"image_id": 1, "category_id": 1, "score": 0.5}], r"results\[0\] must have .* add \['bbox'\]"),
        ([GOOD, {"image_id": 1, "bbox": [0, 0, 1, 1]}], r"add \['category_id', 'score', 'segmentation'\]"),
        ([{**GOOD, "score": math.nan}], r"results\[0\] must have a finite number as its score, got nan"),
        ([{**GOOD, "score": "high"}], "finite number as its score, got 'high'"),
        ([{**GOOD, "bbox": [0, 0, math.nan, 5]}], r"results\[0\] must have a finite bbox .* got \[0, 0, nan, 5\]"),
        ([{**GOOD, "bbox": [0, 0, -1, 5]}], "must have a finite bbox"),
        ([{**GOOD, "bbox": [0, 0, 5]}], "must have a finite bbox"),
        (
            [{**GOOD, "segmentation": {"size": [SIDE, 200], "counts": "x"}}],
            r"results\[0\] has a segmentation that is of size \[300, 200\] on an image of size \[300, 300\]",
        ),
        ([{**GOOD, "segmentation": {"size": [SIDE, SIDE], "counts": "PY2"}}], "a segmentation that is damaged"),
        ([{**GOOD, "segmentation": "a mask"}], "a segmentation that is neither polygons nor RLE"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_damaged_results_get_one_clear_line(results: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        evaluate_results(results, dataset_of([thing(1, [0, 0, 50, 50])]))
    assert "\n" not in str(refusal.value)


def test_the_table_shows_what_there_is() -> None:
    coco = dataset_of([thing(1, [0, 0, 50, 50])], {1: "a", **{n: f"long name {n}" for n in range(2, 30)}})
    evaluation = evaluate_results([found(1, [0, 0, 50, 50], 0.9)], coco)
    table = evaluation.table()
    assert str(evaluation) == table
    assert "1 images, 1 objects, 1 detections\n" in table
    assert "boxes" in table
    assert "masks" in table
    assert all(name in table for name in (*FIGURES, "long name 29", "background", "missed"))
    assert max(map(len, table.splitlines())) <= 100
    assert "–" in table
