"""What to draw: a display list that the live canvas and matplotlib both read.

A :class:`Scene` is a picture of some panels, each with its own coordinates; a panel holds items, drawn in order.
Colours are names in :data:`PALETTE`, so that each renderer can pick the shade that its background needs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

XYXY = tuple[float, float, float, float]
XY = tuple[float, float]

# Okabe and Ito's colours, told apart by people with any kind of colour vision: (on white, on black).
PALETTE = {
    "blue": ("#0072b2", "#56b4e9"),
    "orange": ("#d55e00", "#ff9d4d"),
    "green": ("#00795a", "#2fd3a4"),
    "pink": ("#b0528a", "#e79ac8"),
    "ink": ("#1f2328", "#e6e8ea"),
    "muted": ("#5b6470", "#a2abb6"),
    "faint": ("#d4d9df", "#454c55"),
    "paper": ("#ffffff", "#111418"),
}


@dataclass(frozen=True)
class Image:
    """Pixels (H, W, 3) of uint8 stretched over ``extent``, with hard cell edges unless ``smooth``.

    ``name`` tells the pictures of an explorer apart: under one name, always the same pixels.
    """

    name: str
    pixels: NDArray[np.uint8]
    extent: XYXY
    smooth: bool = False


@dataclass(frozen=True)
class Cells:
    """A small grid over ``extent``: for each cell a grey from 0 (black) to 1 (white), and a text if wanted."""

    extent: XYXY
    shades: Sequence[Sequence[float]]
    texts: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Box:
    """A rectangle; with a ``handle``, the learner can move it, and the explorer's state of that name follows."""

    xyxy: XYXY
    color: str = "ink"
    width: float = 2
    dashed: bool = False
    fill: float = 0  # opacity of the inside
    handle: str = ""
    label: str = ""


@dataclass(frozen=True)
class Points:
    """Round dots; ``radius`` in pixels of the picture, one for all or one for each."""

    xy: Sequence[XY]
    color: str = "ink"
    radius: float | Sequence[float] = 3
    opacity: float = 1


@dataclass(frozen=True)
class Lines:
    """Straight segments, each (x1, y1, x2, y2)."""

    segments: Sequence[XYXY]
    color: str = "ink"
    width: float = 1
    dashed: bool = False


@dataclass(frozen=True)
class Text:
    """A line of text at (x, y), its vertical middle; ``size`` in pixels of the picture."""

    x: float
    y: float
    text: str
    color: str = "ink"
    size: float = 13
    align: str = "left"  # or "center", "right"
    bold: bool = False


Item = Image | Cells | Box | Points | Lines | Text


@dataclass(frozen=True)
class Panel:
    """A part of the picture with coordinates of its own.

    ``place`` (x, y, width, height) is where it lies in the picture, in pixels; ``view`` is what it shows, in the units
    of its items, y downwards. A square unit stays square: the view is centred in its place.
    """

    place: XYXY
    view: XYXY
    items: Sequence[Item]
    title: str = ""
    framed: bool = True


@dataclass(frozen=True)
class Scene:
    """A picture of ``width`` x ``height`` pixels, and in ``alt`` what it says, for those who do not see it."""

    width: int
    height: int
    panels: Sequence[Panel]
    alt: str = field(default="")

    def images(self) -> Iterator[Image]:
        """Yield the pictures within the picture."""
        for panel in self.panels:
            yield from (item for item in panel.items if isinstance(item, Image))

    def to_dict(self) -> dict[str, Any]:
        """Return the scene as plain lists, numbers and texts; a picture is told by its name alone."""
        panels = [
            {**_plain(panel, without="items"), "items": [_plain(item, without="pixels") for item in panel.items]}
            for panel in self.panels
        ]
        return {"width": self.width, "height": self.height, "panels": panels, "alt": self.alt}


def _plain(part: Item | Panel, without: str) -> dict[str, Any]:
    values = {entry.name: getattr(part, entry.name) for entry in fields(part) if entry.name != without}
    return {"kind": type(part).__name__.lower(), **values}


def tenths(box: Sequence[float]) -> XYXY:
    """Return a box in tenths of a pixel: what a picture shows and a message to the browser carries."""
    x1, y1, x2, y2 = (round(value, 1) for value in box)
    return x1, y1, x2, y2
