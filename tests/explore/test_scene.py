import json

import numpy as np

from rcnn_edu.explore.scene import PALETTE, Box, Cells, Image, Item, Lines, Panel, Points, Scene, Text


def scene_of_everything() -> Scene:
    """A panel of 100 x 50 units, drawn at twice that size, with one item of each kind."""
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[0, 0] = (255, 0, 0)
    items: list[Item] = [
        Image("red corner", pixels, (0, 0, 40, 20)),
        Cells((50, 0, 70, 20), [[0.0, 1.0], [1.0, 0.0]], [["a", "b"], ["c", "d"]]),
        Box((10, 30, 30, 45), "blue", fill=0.5, handle="box", label="here"),
        Points([(80, 10)], "green", 6),
        Lines([(50, 30, 90, 30)], "orange", 3),
        Text(50, 40, "words", "ink"),
    ]
    return Scene(240, 140, [Panel((20, 30, 200, 100), (0, 0, 100, 50), items, "everything")], "one of each")


def test_a_scene_becomes_json_and_tells_pictures_by_name() -> None:
    scene = scene_of_everything()
    plain = json.loads(json.dumps(scene.to_dict()))
    (panel,) = plain["panels"]
    assert (plain["width"], plain["height"], plain["alt"]) == (240, 140, "one of each")
    assert panel["view"] == [0, 0, 100, 50]
    assert [item["kind"] for item in panel["items"]] == ["image", "cells", "box", "points", "lines", "text"]
    assert panel["items"][0] == {"kind": "image", "name": "red corner", "extent": [0, 0, 40, 20], "smooth": False}
    assert panel["items"][2]["handle"] == "box"


def test_a_scene_lists_its_pictures() -> None:
    assert [image.name for image in scene_of_everything().images()] == ["red corner"]


def contrast(color: str, other: str) -> float:
    """The contrast ratio of the web's accessibility guidelines, from 1 to 21."""

    def luminance(code: str) -> float:
        parts = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(color), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_colour_for_text_reads_well_on_its_paper() -> None:
    assert contrast("#000000", "#ffffff") == 21
    for theme in (0, 1):
        for name in ("blue", "orange", "green", "pink", "ink", "muted"):
            ratio = contrast(PALETTE[name][theme], PALETTE["paper"][theme])
            assert ratio >= (3.8 if name == "orange" else 4.5), (name, theme, ratio)
