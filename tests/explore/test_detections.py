"""Detections: their picture, looked at pixel by pixel where one can say what must be there, and their objects."""

import pytest
import torch
from PIL import ImageColor
from torch import Tensor

from rcnn_edu.explore.detections import PALETTE, draw_detections, match

NAMES = ("leaf", "drop")


def detection(boxes: list[list[float]], labels: list[int], scores: list[float], **more: Tensor) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores),
        **more,
    }


def colour(label: int) -> tuple[int, ...]:
    return ImageColor.getrgb(PALETTE[label - 1])


def test_a_small_picture_is_enlarged_and_nothing_found_is_nothing_drawn() -> None:
    picture = draw_detections(torch.full((3, 20, 40), 0.5), detection([], [], []), NAMES)
    assert picture.size == (1280, 640)
    assert picture.getcolors() == [(1280 * 640, (128, 128, 128))]


def test_a_large_picture_keeps_its_size() -> None:
    assert draw_detections(torch.rand(3, 700, 900), detection([], [], []), NAMES).size == (900, 700)


def test_a_box_is_drawn_where_it_is_in_its_class_s_colour() -> None:
    found = detection([[10, 40, 60, 90]], [2], [0.9])
    picture = draw_detections(torch.zeros(3, 100, 100), found, NAMES, min_side=100)
    for pixel in ((10, 60), (60, 60), (30, 40), (30, 90)):
        assert picture.getpixel(pixel) == colour(2), pixel
    assert picture.getpixel((35, 65)) == (0, 0, 0)
    assert picture.getpixel((11, 32)) == colour(2)  # the label stands on the box


def test_a_mask_tints_its_pixels() -> None:
    masks = torch.zeros(1, 1, 100, 100)
    masks[:, :, 50:80, 20:50] = 0.9
    found = detection([[20, 50, 50, 80]], [1], [0.9], masks=masks)
    picture = draw_detections(torch.zeros(3, 100, 100), found, NAMES, min_side=100)
    tinted = picture.getpixel((35, 65))
    assert isinstance(tinted, tuple)
    assert tinted == pytest.approx([0.45 * channel for channel in colour(1)], abs=2)
    assert picture.getpixel((60, 65)) == (0, 0, 0)


def test_uncertain_ones_are_left_out() -> None:
    found = detection([[10, 40, 60, 90]], [1], [0.4])
    assert draw_detections(torch.zeros(3, 100, 100), found, NAMES, min_side=100).getcolors() == [(10000, (0, 0, 0))]
    assert len(draw_detections(torch.zeros(3, 100, 100), found, NAMES, score_thresh=0.3).getcolors(9999) or []) > 1


def test_a_target_is_drawn_without_scores() -> None:
    target = {"boxes": torch.tensor([[10.0, 40, 60, 90]]), "labels": torch.tensor([1])}
    assert draw_detections(torch.zeros(3, 100, 100), target, NAMES, min_side=100).getpixel((10, 60)) == colour(1)


def test_labels_stay_within_the_picture() -> None:
    found = detection([[95, 0, 100, 5]], [1], [0.9])
    picture = draw_detections(torch.zeros(3, 100, 100), found, ("a rather long name", "drop"), min_side=640)
    inside = [x for x in range(640) if picture.getpixel((x, 8)) == colour(1)]
    assert inside[0] > 300  # the label begins further left than its box, so that it ends in the picture


def test_each_object_is_found_once_and_by_the_best() -> None:
    a, b, c = [0.0, 0, 10, 10], [2.0, 0, 12, 10], [0.0, 5, 10, 15]  # b overlaps a by 2/3
    target = {"boxes": torch.tensor([a, c]), "labels": torch.tensor([1, 1])}
    found = detection([a, b, c, c], [1, 1, 1, 2], [0.5, 0.9, 0.7, 0.8])
    assert match(found, target).tolist() == [-1, 0, 1, -1]
    assert match(found, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}).tolist() == [-1] * 4
