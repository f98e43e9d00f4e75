import io
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
import numpy as np
import pytest
from PIL import Image as Pixels

from rcnn_edu.explore.canvas import BoxField, Canvas, Explorer
from rcnn_edu.explore.scene import XYXY, Box, Image, Item, Panel, Scene, Text
from tests.explore.test_scene import scene_of_everything


@dataclass(frozen=True)
class Held:
    box: XYXY = (1.0, 2.0, 3.0, 4.0)
    times: int = 2


def area_scene(state: Held) -> Scene:
    """A box and so many times its area; a box that starts beyond 50 is an error."""
    x1, y1, x2, y2 = state.box
    if x1 > 50:
        raise ValueError("too far right")
    items: list[Item] = [Box(state.box, handle="box"), Text(0, 0, f"{state.times * (x2 - x1) * (y2 - y1):g}")]
    return Scene(100, 100, [Panel((0, 0, 100, 100), (0, 0, 100, 100), items)], f"{state.times} times")


def area_explorer() -> Explorer[Held]:
    controls = {"times": widgets.IntSlider(2, 1, 9), "box": BoxField((1.0, 2.0, 3.0, 4.0), (100, 100), "box")}
    return Explorer(area_scene, Held(), controls, {"ten": {"box": (0.0, 0.0, 10.0, 1.0), "times": 1}})


def shown(explorer: Explorer[Held]) -> str:
    text: str = explorer.canvas.scene["panels"][0]["items"][1]["text"]
    return text


def drag(explorer: Explorer[Held], box: list[float], seq: int) -> None:
    """What the browser sends while the learner drags."""
    explorer.canvas._handle_custom_msg({"handle": "box", "box": box, "seq": seq}, [])


def test_the_canvas_sends_each_picture_once() -> None:
    canvas = Canvas()
    canvas.show(scene_of_everything(), seq=3)
    sent = canvas.images["red corner"]
    assert Pixels.open(io.BytesIO(sent)).getpixel((0, 0)) == (255, 0, 0)
    assert canvas.scene["seq"] == 3
    changes: list[Any] = []
    canvas.observe(changes.append, "images")
    canvas.show(scene_of_everything(), seq=4)
    assert changes == []
    blue = Image("blue", np.full((1, 1, 3), (0, 0, 255), np.uint8), (0, 0, 1, 1))
    canvas.show(Scene(10, 10, [Panel((0, 0, 10, 10), (0, 0, 1, 1), [blue])], ""))
    assert set(canvas.images) == {"red corner", "blue"}


def test_a_drag_changes_state_picture_and_controls() -> None:
    explorer = area_explorer()
    assert shown(explorer) == "8"
    drag(explorer, [0.0, 0.0, 5.0, 5.0], seq=7)
    assert explorer.state == Held((0.0, 0.0, 5.0, 5.0))
    assert shown(explorer) == "50"
    assert explorer.canvas.scene["seq"] == 7
    assert explorer.children[0].children[1].value == (0.0, 0.0, 5.0, 5.0)


def test_a_control_changes_state_and_picture_once() -> None:
    explorer = area_explorer()
    scenes: list[Any] = []
    explorer.canvas.observe(scenes.append, "scene")
    explorer.children[0].children[0].value = 3
    assert explorer.state.times == 3
    assert shown(explorer) == "12"
    assert len(scenes) == 1


def test_a_preset_sets_its_fields() -> None:
    explorer = area_explorer()
    explorer.children[1].children[0].click()
    assert explorer.state == Held((0.0, 0.0, 10.0, 1.0), 1)
    assert shown(explorer) == "10"
    assert explorer.children[0].children[0].value == 1


def test_code_can_set_the_state_too() -> None:
    explorer = area_explorer()
    explorer.set(times=5, box=(0.0, 0.0, 1.0, 1.0))
    assert shown(explorer) == "5"
    with pytest.raises(TypeError, match="colour"):
        explorer.set(colour="red")


def test_an_error_while_dragging_is_shown_and_raised_and_the_explorer_goes_on() -> None:
    explorer = area_explorer()
    with pytest.raises(ValueError, match="too far right"):
        explorer._dragged(explorer.canvas, {"handle": "box", "box": [60.0, 0.0, 70.0, 5.0], "seq": 1}, [])
    assert explorer.canvas.scene["error"] == "ValueError: too far right"
    assert explorer.canvas.scene["seq"] == 1  # answered: the browser waits for nothing
    assert explorer.state == Held()  # the last state that could be shown
    drag(explorer, [0.0, 0.0, 5.0, 5.0], seq=2)
    assert explorer.canvas.scene["error"] == ""
    assert shown(explorer) == "50"


def test_without_a_kernel_the_picture_of_the_state_remains() -> None:
    explorer = area_explorer()
    data, metadata = explorer._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    assert data["image/png"]
    assert data["text/plain"] == "2 times"
    assert metadata["image/png"]["alt"] == "2 times"


def test_box_field_reports_a_typed_box_and_waits_while_it_is_inside_out() -> None:
    field = BoxField((1.0, 2.0, 3.0, 4.0), (100, 200), "box")
    label, x1, _y1, x2, y2 = field.children
    assert label.value == "box"
    assert (x2.max, y2.max) == (200, 100)
    x1.value = 5.0  # beyond x2
    assert field.value == (1.0, 2.0, 3.0, 4.0)
    x2.value = 8.0
    assert field.value == (5.0, 2.0, 8.0, 4.0)


def test_box_field_shows_what_is_set_without_reporting_halves_of_it() -> None:
    field = BoxField((1.0, 2.0, 3.0, 4.0), (100, 100), "box")
    values: list[Any] = []
    field.observe(lambda change: values.append(change["new"]), "value")
    field.value = (10.0, 20.0, 30.0, 40.0)
    assert values == [(10.0, 20.0, 30.0, 40.0)]
    assert [entry.value for entry in field.children[1:]] == [10.0, 20.0, 30.0, 40.0]
