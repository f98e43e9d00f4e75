"""Pictures by matplotlib: a scene without a browser, and the plots of the lessons."""

import ast
import base64
import inspect
import io
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image as Pixels
from PIL import ImageColor

from rcnn_edu.explore.scene import PALETTE, Box, Cells, Image, Item, Lines, Panel, Points, Scene, Text

DOTS_PER_INCH = 96
POINTS_PER_PIXEL = 72 / DOTS_PER_INCH


def draw_scene(scene: Scene, dark: bool = False) -> Figure:
    """Return the scene as a matplotlib figure of the same size and look as on the live canvas."""
    paper = PALETTE["paper"][dark]
    figure = Figure(
        figsize=(scene.width / DOTS_PER_INCH, scene.height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, facecolor=paper
    )
    for panel in scene.panels:
        axes = _panel_axes(figure, scene, panel, dark)
        for order, item in enumerate(panel.items):
            _draw(axes, item, order, dark)
    return figure


def _panel_axes(figure: Figure, scene: Scene, panel: Panel, dark: bool) -> Axes:
    left, top, width, height = panel.place
    x1, y1, x2, y2 = panel.view
    unit = min(width / (x2 - x1), height / (y2 - y1))  # pixels of the picture in one unit of the view
    shown = (unit * (x2 - x1), unit * (y2 - y1))
    left, top = left + (width - shown[0]) / 2, top + (height - shown[1]) / 2
    axes = figure.add_axes(
        (left / scene.width, 1 - (top + shown[1]) / scene.height, shown[0] / scene.width, shown[1] / scene.height)
    )
    axes.set(xlim=(x1, x2), ylim=(y2, y1), xticks=[], yticks=[], facecolor="none")
    for spine in axes.spines.values():
        spine.set(visible=panel.framed, color=PALETTE["faint"][dark])
    if panel.title:
        axes.set_title(
            panel.title, fontsize=13 * POINTS_PER_PIXEL, pad=5, color=PALETTE["ink"][dark], fontweight="bold"
        )
    return axes


def _draw(axes: Axes, item: Item, order: int, dark: bool) -> None:
    match item:
        case Image():
            x1, y1, x2, y2 = item.extent
            interpolation = "bilinear" if item.smooth else "nearest"
            axes.imshow(item.pixels, extent=(x1, x2, y2, y1), interpolation=interpolation, aspect="auto", zorder=order)
            axes.set_autoscale_on(False)
        case Cells():
            _draw_cells(axes, item, order)
        case Box():
            x1, y1, x2, y2 = item.xyxy
            color = PALETTE[item.color][dark]
            if item.fill:
                axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, color=color, alpha=item.fill, lw=0, zorder=order))
            for line_color, extra, style in _cased(color, item.dashed, dark):
                axes.add_patch(
                    Rectangle(
                        (x1, y1),
                        x2 - x1,
                        y2 - y1,
                        fill=False,
                        edgecolor=line_color,
                        linewidth=(item.width + extra) * POINTS_PER_PIXEL,
                        linestyle=style,
                        zorder=order,
                    )
                )
            if item.label:
                _draw(axes, Text(x1, y1, item.label, item.color, 12, bold=True), order, dark)
        case Points():
            radii = item.radius if isinstance(item.radius, Sequence) else [item.radius] * len(item.xy)
            areas = [(2 * radius * POINTS_PER_PIXEL) ** 2 for radius in radii]
            x, y = [x for x, _ in item.xy], [y for _, y in item.xy]
            axes.scatter(x, y, areas, PALETTE[item.color][dark], alpha=item.opacity, linewidths=0, zorder=order)
        case Lines():
            style = (0, (4, 3)) if item.dashed else "solid"
            for x1, y1, x2, y2 in item.segments:
                axes.plot(
                    (x1, x2),
                    (y1, y2),
                    color=PALETTE[item.color][dark],
                    linewidth=item.width * POINTS_PER_PIXEL,
                    linestyle=style,
                    zorder=order,
                )
        case Text():
            axes.text(
                item.x,
                item.y,
                item.text,
                color=PALETTE[item.color][dark],
                fontsize=item.size * POINTS_PER_PIXEL,
                fontweight="bold" if item.bold else "normal",
                horizontalalignment=item.align,
                verticalalignment="center",
                zorder=order,
                path_effects=[withStroke(linewidth=3 * POINTS_PER_PIXEL, foreground=PALETTE["paper"][dark])],
            )


def _cased(color: str, dashed: bool, dark: bool) -> list[tuple[str, float, str | tuple[float, tuple[float, float]]]]:
    """Return the strokes of an outline: a wider one in the colour of the paper sets it off from any photograph."""
    return [(PALETTE["paper"][dark], 2, "solid"), (color, 0, (0, (4, 2)) if dashed else "solid")]


def _draw_cells(axes: Axes, item: Cells, order: int) -> None:
    x1, y1, x2, y2 = item.extent
    rows, columns = len(item.shades), len(item.shades[0])
    axes.imshow(item.shades, cmap="gray", vmin=0, vmax=1, extent=(x1, x2, y2, y1), aspect="auto", zorder=order)
    axes.set_autoscale_on(False)
    for row, texts in enumerate(item.texts):
        for column, text in enumerate(texts):
            axes.text(
                x1 + (column + 0.5) * (x2 - x1) / columns,
                y1 + (row + 0.5) * (y2 - y1) / rows,
                text,
                color="white" if item.shades[row][column] < 0.5 else "black",
                fontsize=11 * POINTS_PER_PIXEL,
                ha="center",
                va="center",
                zorder=order,
            )


def png(figure: Figure, sharpness: int = 2) -> bytes:
    """Return the figure as a PNG file of 256 colours, with ``sharpness`` pixels to a pixel of its layout.

    That is a third of the size. Those of the course's palette stay as they are, however few pixels they have.
    """
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=figure.dpi * sharpness)
    pixels = Pixels.open(full).convert("RGB")
    kept = [ImageColor.getrgb(color) for shades in PALETTE.values() for color in shades]
    few = pixels.quantize(256 - len(kept))
    colors = [*np.reshape(few.getpalette() or [], (-1, 3)), *kept]
    index, exact = np.array(few), np.array(pixels)
    for number in range(len(colors) - len(kept), len(colors)):
        index[(exact == colors[number]).all(axis=2)] = number
    result = Pixels.fromarray(index, mode="P")
    result.putpalette(np.ravel(colors).tolist())
    result.save(small, format="png", optimize=True)
    return small.getvalue()


def picture(figure: Figure, alt: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Return what a notebook stores of a figure: the picture, its size, and a text for those who do not see it."""
    width, height = figure.get_size_inches() * figure.dpi
    data = {"image/png": base64.b64encode(png(figure)).decode(), "text/plain": alt}
    return data, {"image/png": {"width": round(width), "height": round(height), "alt": alt}}


def show(figure: Figure, alt: str) -> None:
    """Display the figure in a notebook, with ``alt`` as its text."""
    data, metadata = picture(figure, alt)
    display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]  # IPython's has no types


def plot_axes(*titles: str, height: int = 300) -> tuple[Figure, list[Axes]]:
    """Return a figure of 960 x ``height`` pixels with one plain pair of axes for each title, side by side."""
    figure = Figure(figsize=(960 / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, layout="constrained")
    all_axes = [figure.add_subplot(1, len(titles), place + 1) for place in range(len(titles))]
    for axes, title in zip(all_axes, titles, strict=True):
        axes.set_title(title, fontsize=11, fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    return figure, all_axes


def show_source(function: Callable[..., Any]) -> Markdown:
    """Return the function's code as the package has it now, to be read in a notebook; ``help`` shows its docstring."""
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()  # a method is indented
    (definition,) = ast.parse("\n".join(lines)).body
    if isinstance(definition, ast.FunctionDef) and ast.get_docstring(definition) is not None:
        docstring = definition.body[0]
        lines[docstring.lineno - 1 : docstring.end_lineno] = []
    code = "\n".join(lines)
    return Markdown(f"```python\n{code}\n```")  # type: ignore[no-untyped-call]
