"""The draggable canvas, and the explorer: controls and a picture that follow one state."""

import io
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

import anywidget
import ipywidgets as widgets
import traitlets
from PIL import Image as Pixels

from rcnn_edu.explore.figures import draw_scene, picture
from rcnn_edu.explore.scene import PALETTE, Scene

State = TypeVar("State")  # a frozen dataclass: the fields are what the learner can change


class Canvas(anywidget.AnyWidget):
    """The live picture of a scene; it sends ``{handle, box, seq}`` while the learner moves a box."""

    _esm = pathlib.Path(__file__).parent / "canvas.js"
    scene = traitlets.Dict().tag(sync=True)
    images = traitlets.Dict().tag(sync=True)  # name -> PNG file; a scene tells its pictures by name
    palette = traitlets.Dict(PALETTE).tag(sync=True)

    def show(self, scene: Scene, seq: int = 0, error: str = "") -> None:
        """Draw the scene; ``seq`` tells the browser which of its messages this answers, ``error`` what went wrong."""
        new = {image.name: _encode(image.pixels) for image in scene.images() if image.name not in self.images}
        with self.hold_sync():
            if new:
                self.images = {**self.images, **new}
            self.scene = {**scene.to_dict(), "seq": seq, "error": error}


def _encode(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Pixels.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


class BoxField(widgets.HBox):  # type: ignore[misc]  # ipywidgets has no types
    """Four number fields for a box (x1, y1, x2, y2): what a drag does, typed."""

    value = traitlets.Tuple((0.0, 0.0, 1.0, 1.0))

    def __init__(self, value: tuple[float, float, float, float], size: tuple[float, float], description: str) -> None:
        """Make the fields for a box in a picture of ``size`` (H, W)."""
        limits = (size[1], size[0], size[1], size[0])
        self._fields = [
            widgets.BoundedFloatText(
                value=start, min=0, max=most, step=0.1, description=name, layout={"width": "112px"}
            )
            for name, start, most in zip(("x1", "y1", "x2", "y2"), value, limits, strict=True)
        ]
        for entry in self._fields:
            entry.style.description_width = "22px"
            entry.observe(self._typed, "value")
        super().__init__([widgets.Label(description), *self._fields], value=value)

    def _typed(self, _change: object) -> None:
        x1, y1, x2, y2 = (entry.value for entry in self._fields)
        if x1 < x2 and y1 < y2:  # while a number is being typed, the box may be inside out
            self.value = (x1, y1, x2, y2)

    @traitlets.observe("value")
    def _set(self, change: dict[str, Any]) -> None:
        for entry, number in zip(self._fields, change["new"], strict=True):
            entry.unobserve(self._typed, "value")
            entry.value = number
            entry.observe(self._typed, "value")


class Explorer(widgets.VBox, Generic[State]):  # type: ignore[misc]  # ipywidgets has no types
    """Controls and a live picture of ``compute(state)``, a pure function that calls the package's real operations.

    ``state`` is a frozen dataclass. A control under a field's name follows that field and sets it; a box in the scene
    whose ``handle`` is a field's name does so too. Without a kernel, the picture of the first state remains.
    """

    def __init__(
        self,
        compute: Callable[[State], Scene],
        state: State,
        controls: Mapping[str, widgets.Widget],
        presets: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Lay out the controls, a button for each preset (the fields that it sets), and the canvas."""
        self._compute = compute
        self._controls = controls
        self._following = False  # while the controls follow the state, they must not set it
        self.state = state
        self.canvas = Canvas()
        self.canvas.on_msg(self._dragged)
        for name, control in controls.items():
            control.observe(partial(self._control_changed, name), "value")
        buttons = [self._preset_button(label, fields) for label, fields in (presets or {}).items()]
        rows = [_row(controls.values()), _row(buttons)] if buttons else [_row(controls.values())]
        super().__init__([*rows, self.canvas])
        self.set()

    def set(self, *, seq: int = 0, **fields: Any) -> None:
        """Change fields of the state, then the picture and the controls; ``seq`` is the browser's own count."""
        state = replace(self.state, **fields)  # type: ignore[type-var]
        self.canvas.show(self._compute(state), seq)
        self.state = state  # only now: a state that cannot be shown is not taken
        self._following = True
        for name, control in self._controls.items():
            control.value = getattr(self.state, name)
        self._following = False

    def _control_changed(self, name: str, change: Mapping[str, Any]) -> None:
        if not self._following:
            self.set(**{name: change["new"]})

    def _preset_button(self, label: str, fields: Mapping[str, Any]) -> widgets.Button:
        button = widgets.Button(description=label, layout={"width": "auto"})
        button.on_click(lambda _button: self.set(**fields))
        return button

    def _dragged(self, _canvas: Canvas, message: dict[str, Any], _buffers: object) -> None:
        try:
            self.set(seq=message["seq"], **{message["handle"]: tuple(message["box"])})
        except Exception as error:  # tell the learner, who sees no traceback of a message; then let it through
            self.canvas.scene = {
                **self.canvas.scene,
                "seq": message["seq"],
                "error": f"{type(error).__name__}: {error}",
            }
            raise

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the live widget and, for readers without a kernel, the picture and its text."""
        scene = self._compute(self.state)
        data, metadata = picture(draw_scene(scene), scene.alt)
        return {**super()._repr_mimebundle_(**kwargs), **data}, metadata


def _row(children: Any) -> widgets.HBox:
    return widgets.HBox(list(children), layout={"flex_flow": "row wrap", "grid_gap": "2px 14px"})
