import io
from contextlib import redirect_stdout
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pycocotools.cocoeval import COCOeval

from rcnn_edu.training.errors import KINDS, IouType, Judgement, error_breakdown
from rcnn_edu.training.results import Result, load_ground_truth, load_results
from tests.training.cases import dataset_of, found, thing

A, B = 1, 2
BOX = [100, 100, 100, 100]
IOU_TYPES: list[IouType] = ["bbox", "segm"]


def judged(annotations: list[dict[str, Any]], results: list[Result], iou_type: IouType = "bbox") -> list[str]:
    breakdown = error_breakdown(results, dataset_of(annotations), iou_type)
    return [judgement.kind for judgement in sorted(breakdown.judgements, key=lambda judgement: judgement.result)]


@pytest.mark.parametrize("iou_type", IOU_TYPES)
@pytest.mark.parametrize(
    ("category", "box", "kind"),
    [
        (A, BOX, "correct"),
        (A, [100, 100, 50, 100], "correct"),  # IoU 0.5 is enough
        (A, [100, 100, 49, 100], "localisation"),
        (A, [100, 100, 10, 100], "localisation"),  # 0.1 is enough to be about it
        (A, [100, 100, 9, 100], "background"),
        (A, [0, 0, 50, 50], "background"),
        (B, BOX, "confusion"),
        (B, [100, 100, 49, 100], "both"),
        (B, [100, 100, 9, 100], "background"),
    ],
)
def test_one_object_and_one_detection(category: int, box: list[int], kind: str, iou_type: IouType) -> None:
    breakdown = error_breakdown([found(category, box, 0.9)], dataset_of([thing(A, BOX)]), iou_type)
    assert breakdown.judgements == [Judgement(0, kind, None if kind == "background" else 0)]
    assert breakdown.missed == ([] if kind == "correct" else [0])
    assert breakdown.counts == {**dict.fromkeys(KINDS, 0), kind: 1, "missed": int(kind != "correct")}


def test_the_better_detection_finds_the_object_and_the_other_is_its_duplicate() -> None:
    assert judged([thing(A, BOX)], [found(A, BOX, 0.6), found(A, [100, 100, 80, 100], 0.9)]) == ["duplicate", "correct"]


def test_an_object_may_be_found_and_mistaken_as_well() -> None:
    results = [found(A, BOX, 0.9), found(B, BOX, 0.8), found(A, [100, 100, 30, 100], 0.7)]
    assert judged([thing(A, BOX)], results) == ["correct", "confusion", "localisation"]


def test_of_equal_detections_the_first_finds_the_object() -> None:
    assert judged([thing(A, BOX)], [found(A, BOX, 0.9), found(A, BOX, 0.9)]) == ["correct", "duplicate"]


def test_a_detection_takes_the_free_object_that_it_overlaps_most() -> None:
    near, nearer = [100, 100, 100, 100], [110, 100, 100, 100]
    results = [found(A, nearer, 0.9), found(A, [112, 100, 100, 100], 0.8), found(A, nearer, 0.7)]
    breakdown = error_breakdown(results, dataset_of([thing(A, near), thing(A, nearer)]))
    assert breakdown.judgements == [
        Judgement(0, "correct", 1),
        Judgement(1, "correct", 0),
        Judgement(2, "duplicate", 1),
    ]


def test_the_right_class_goes_before_a_larger_overlap() -> None:
    assert judged([thing(A, [100, 100, 60, 100]), thing(B, BOX)], [found(A, BOX, 0.9)]) == ["correct"]


def test_an_overlap_goes_before_a_touch_of_the_right_class() -> None:
    assert judged([thing(A, [100, 100, 30, 100]), thing(B, BOX)], [found(A, BOX, 0.9)]) == ["confusion"]


def test_a_crowd_excuses_detections_of_its_class_alone() -> None:
    crowd = thing(A, [0, 0, 300, 300], crowd=True)
    results = [found(A, [10, 10, 30, 30], 0.9), found(A, [50, 50, 30, 30], 0.8), found(B, [10, 10, 30, 30], 0.7)]
    breakdown = error_breakdown(results, dataset_of([crowd]))
    assert [judgement.kind for judgement in breakdown.judgements] == ["ignored", "ignored", "background"]
    assert breakdown.missed == []


def test_an_object_in_a_crowd_is_found_first_and_its_duplicate_excused() -> None:
    results = [found(A, BOX, 0.9), found(A, BOX, 0.8)]
    assert judged([thing(A, [0, 0, 300, 300], crowd=True), thing(A, BOX)], results) == ["correct", "ignored"]


def test_images_do_not_mix() -> None:
    coco = dataset_of([thing(A, BOX, image=2)], images=2)
    breakdown = error_breakdown([found(A, BOX, 0.9, image=1)], coco)
    assert breakdown.judgements == [Judgement(0, "background", None)]
    assert breakdown.missed == [0]


def test_detections_below_the_threshold_are_left_out() -> None:
    coco, results = dataset_of([thing(A, BOX)]), [found(A, BOX, 0.49), found(B, BOX, 0.5)]
    assert [judgement.result for judgement in error_breakdown(results, coco).judgements] == [1]
    assert [judgement.result for judgement in error_breakdown(results, coco, score_thresh=0.4).judgements] == [1, 0]


def test_without_detections_all_objects_are_missed() -> None:
    breakdown = error_breakdown([], dataset_of([thing(A, BOX), thing(B, BOX, crowd=True), thing(B, BOX)]))
    assert breakdown.missed == [0, 2]
    assert "'missed': 2" in repr(breakdown)


boxes = st.tuples(*[st.integers(0, 20).map(float)] * 2, *[st.integers(1, 20).map(float)] * 2).map(list)
images = st.integers(1, 2)
things = st.builds(
    lambda category, box, image, crowd: thing(category, box, image=image, crowd=crowd),
    st.integers(1, 3),
    boxes,
    images,
    st.booleans(),
)
detections = st.builds(
    lambda category, box, score, image: found(category, box, score, image=image),
    st.integers(1, 3),
    boxes,
    st.sampled_from([0.25, 0.5, 0.75, 1.0]),
    images,
)


@pytest.mark.parametrize("iou_type", IOU_TYPES)
@given(annotations=st.lists(things, max_size=8), results=st.lists(detections, max_size=8))
def test_every_detection_and_every_object_counts_once(
    iou_type: IouType, annotations: list[dict[str, Any]], results: list[Result]
) -> None:
    coco = dataset_of(annotations, images=2)
    breakdown = error_breakdown(results, coco, iou_type)
    sure = [number for number, result in enumerate(results) if result["score"] >= 0.5]
    assert sorted(judgement.result for judgement in breakdown.judgements) == sure
    assert sum(breakdown.counts[kind] for kind in KINDS) == len(sure)
    hit = [j.annotation for j in breakdown.judgements if j.kind == "correct" and j.annotation is not None]
    objects = [number for number, annotation in enumerate(annotations) if not annotation["iscrowd"]]
    assert sorted([*hit, *breakdown.missed]) == objects
    for first, second in pairwise(breakdown.judgements):  # the best first, image by image
        one, two = results[first.result], results[second.result]
        assert (one["image_id"], -one["score"]) <= (two["image_id"], -two["score"])


# The first detection overlaps both objects equally; the second is correct only if that leaves it the right-hand one.
BETWEEN = [found(A, [10, 0, 100, 100], 0.9), found(A, [45, 0, 100, 100], 0.8)]


@pytest.mark.parametrize("iou_type", IOU_TYPES)
@given(annotations=st.lists(things, max_size=8), results=st.lists(detections, max_size=8))
@example(annotations=[thing(A, [0, 0, 100, 100]), thing(A, [20, 0, 100, 100])], results=BETWEEN)
@example(annotations=[thing(A, [20, 0, 100, 100]), thing(A, [0, 0, 100, 100])], results=BETWEEN)
def test_what_is_correct_or_ignored_is_so_to_pycocotools(
    iou_type: IouType, annotations: list[dict[str, Any]], results: list[Result]
) -> None:
    ground_truth = load_ground_truth(dataset_of(annotations, images=2))
    evaluator = COCOeval(ground_truth, load_results(results, ground_truth), iou_type)
    with redirect_stdout(io.StringIO()):
        evaluator.evaluate()
    of_all_sizes = [image for image in evaluator.evalImgs if image is not None and image["aRng"] == [0, 1e10]]
    matched = {
        detection - 1: "ignored" if ignored else "correct"
        for image in of_all_sizes
        for detection, match, ignored in zip(image["dtIds"], image["dtMatches"][0], image["dtIgnore"][0], strict=True)
        if match
    }
    breakdown = error_breakdown(results, dataset_of(annotations, images=2), iou_type, score_thresh=0)
    assert matched == {j.result: j.kind for j in breakdown.judgements if j.kind in ("correct", "ignored")}
