import base64
import io

import numpy as np
import pytest
from IPython.display import Markdown
from numpy.typing import NDArray
from PIL import Image as Pixels

from rcnn_edu.explore.figures import draw_scene, picture, plot_axes, png, show, show_source
from rcnn_edu.explore.scene import PALETTE, Image, Item, Panel, Points, Scene, Text
from rcnn_edu.ops import AnchorGenerator, box_area
from tests.explore.test_scene import scene_of_everything


def rgb(name: str, dark: bool = False) -> tuple[int, ...]:
    code = PALETTE[name][dark]
    return tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))


def drawn(dark: bool = False) -> NDArray[np.uint8]:
    return np.asarray(Pixels.open(io.BytesIO(png(draw_scene(scene_of_everything(), dark), 1))).convert("RGB"))


def at(pixels: NDArray[np.uint8], x: float, y: float) -> tuple[int, ...]:
    """The colour at (x, y) of the panel's units: it lies at (20, 30) and doubles them."""
    return tuple(int(value) for value in pixels[round(30 + 2 * y), round(20 + 2 * x)])


@pytest.mark.parametrize("dark", [False, True])
def test_items_land_where_their_units_say(dark: bool) -> None:
    pixels = drawn(dark)
    assert pixels.shape == (140, 240, 3)
    assert at(pixels, 5, 5) == (255, 0, 0)  # the picture's first pixel covers (0, 0) to (10, 10)
    assert at(pixels, 15, 5) == (0, 0, 0)
    assert at(pixels, 58, 3) == (0, 0, 0)  # the first cell, beside its text
    assert at(pixels, 68, 3) == (255, 255, 255)
    assert np.abs(np.subtract(at(pixels, 80, 10), rgb("green", dark))).max() <= 8
    assert np.abs(np.subtract(at(pixels, 70, 30), rgb("orange", dark))).max() <= 8
    assert np.abs(np.subtract(at(pixels, 20, 45), rgb("blue", dark))).max() <= 8  # the box's lower edge
    inside = np.add(rgb("blue", dark), rgb("paper", dark)) / 2  # half covered
    assert np.abs(np.subtract(at(pixels, 20, 40), inside)).max() <= 8
    assert at(pixels, 105, 25) == rgb("paper", dark)


def test_units_stay_square_in_a_place_of_another_shape() -> None:
    scene = Scene(300, 100, [Panel((0, 0, 300, 100), (0, 0, 10, 10), [Text(5, 5, "middle")])], "")
    left, bottom, width, height = draw_scene(scene).axes[0].get_position().bounds
    assert (left, bottom, width, height) == pytest.approx((1 / 3, 0, 1 / 3, 1))


def test_a_notebook_stores_size_text_and_few_colours() -> None:
    data, metadata = picture(draw_scene(scene_of_everything()), "one of each")
    stored = Pixels.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert stored.size == (480, 280)
    assert stored.mode == "P"
    assert metadata["image/png"] == {"width": 240, "height": 140, "alt": "one of each"}
    assert data["text/plain"] == "one of each"


def test_show_displays_the_picture_with_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr("rcnn_edu.explore.figures.display", lambda data, **options: shown.append((data, options)))
    show(draw_scene(scene_of_everything()), "one of each")
    ((data, options),) = shown
    assert data["text/plain"] == "one of each"
    assert options["metadata"]["image/png"]["alt"] == "one of each"


def test_plot_axes_come_side_by_side_with_their_titles() -> None:
    figure, axes = plot_axes("left", "right", height=200)
    assert [one.get_title() for one in axes] == ["left", "right"]
    assert tuple(figure.get_size_inches() * figure.dpi) == pytest.approx((960, 200))


def test_show_source_shows_the_code_as_it_is_without_the_docstring() -> None:
    shown = show_source(box_area)
    assert isinstance(shown, Markdown)
    assert shown.data.startswith("```python\ndef box_area(")
    assert "    check_boxes(boxes)\n    return (boxes[:, 2] - boxes[:, 0])" in shown.data
    assert "square pixels" not in shown.data


def test_show_source_takes_a_function_without_a_docstring() -> None:
    assert show_source(rgb).data.startswith("```python\ndef rgb(name: str")


def test_show_source_takes_a_method() -> None:
    assert show_source(AnchorGenerator.__call__).data.startswith("```python\ndef __call__(\n    self,")


def test_a_colour_of_the_palette_stays_though_few_pixels_have_it() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    items: list[Item] = [Image("noise", noise, (0, 0, 300, 200)), Points([(150, 100)], "orange", 4)]
    scene = Scene(300, 200, [Panel((0, 0, 300, 200), (0, 0, 300, 200), items)], "")
    pixels = np.asarray(Pixels.open(io.BytesIO(png(draw_scene(scene), 1))).convert("RGB"))
    assert tuple(pixels[100, 150]) == rgb("orange")
