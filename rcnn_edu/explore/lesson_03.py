"""Lesson 03, anchors and their assignment to ground truth: its explorer and its plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from rcnn_edu.datasets import SceneSettings, SyntheticScenes
from rcnn_edu.explore.canvas import Explorer
from rcnn_edu.explore.figures import plot_axes
from rcnn_edu.explore.scene import PALETTE, XY, XYXY, Box, Image, Item, Lines, Panel, Points, Scene, Text
from rcnn_edu.ops import AnchorGenerator, box_iou, match_boxes

SIDE = 192  # of the picture, in pixels
PYRAMID = AnchorGenerator(sizes=((32,), (64,), (128,)), strides=(8, 16, 32))
LEVELS = tuple((SIDE // stride, SIDE // stride) for stride in PYRAMID.strides)
OBJECTS = ("a", "b", "c")  # the state's boxes
SEED, NUMBER = 3, 9  # of the picture
THREE_OBJECTS = SceneSettings(size=(SIDE, SIDE), num_objects=(3, 3), object_size=(14, 110))
KINDS = {"positive": "blue", "rescued": "pink", "ignored": "orange", "negative": "muted"}  # and their colours
MOST_BOXES = 150  # of a kind: beyond that they would hide the picture, and the centres alone are drawn
RADII = {"positive": 2.8, "rescued": 3.4, "ignored": 2.0, "negative": 0.9}


@cache
def load_scene() -> tuple[NDArray[np.uint8], list[XYXY]]:
    """Return the picture, (192, 192, 3) of uint8, and the boxes of its three objects, large to small."""
    image, target = SyntheticScenes(NUMBER + 1, SEED, THREE_OBJECTS)[NUMBER]
    boxes: list[XYXY] = [(box[0], box[1], box[2], box[3]) for box in target["boxes"].tolist()]
    return (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy(), boxes


@cache
def pyramid_anchors() -> Float[Tensor, "n 4"]:
    """Return the anchors of the small pyramid, level by level."""
    return torch.cat(PYRAMID(LEVELS))


@dataclass(frozen=True)
class AnchorState:
    """What the learner changes: the ground truth, the thresholds (negative below, positive from), and the rule."""

    a: XYXY = (26.0, 54.0, 106.0, 133.0)
    b: XYXY = (94.0, 18.0, 130.0, 53.0)
    c: XYXY = (57.0, 68.0, 76.0, 87.0)
    thresholds: tuple[float, float] = (0.3, 0.7)
    keep_best: bool = True


@dataclass(frozen=True)
class Assignment:
    """What each anchor is to learn, and why."""

    iou: Float[Tensor, "n m"]
    matched: Int[Tensor, " n"]  # the ground truth of a positive anchor
    kinds: dict[str, Bool[Tensor, " n"]]  # which anchors are of each kind: of KINDS, every anchor is of one

    def count(self, kind: str, gt: int | None = None) -> int:
        """Return how many anchors are of this kind; of those, how many are matched to one ground truth."""
        chosen = self.kinds[kind] if gt is None else self.kinds[kind] & (self.matched == gt)
        return int(chosen.sum())


def assign(state: AnchorState) -> Assignment:
    """Return what the package's matching makes of the state.

    An anchor is *rescued* if only the best-anchor rule makes it positive.
    """
    gt_boxes = torch.tensor([getattr(state, name) for name in OBJECTS], dtype=torch.float32)
    iou = box_iou(pyramid_anchors(), gt_boxes)
    low, high = sorted(round(threshold, 2) for threshold in state.thresholds)  # a slider's 0.7 is 0.7000000000000001
    matched, labels = match_boxes(iou, high, low, keep_best=state.keep_best)
    _, by_threshold = match_boxes(iou, high, low, keep_best=False)
    kinds = {
        "positive": by_threshold == 1,
        "rescued": (labels == 1) & (by_threshold != 1),
        "ignored": labels == -1,
        "negative": labels == 0,
    }
    return Assignment(iou, matched, kinds)


def anchor_scene(state: AnchorState) -> Scene:
    """Return the explorer's picture of a state: the image, each level's and shape's anchors, and the counts."""
    assigned = assign(state)
    counts = ", ".join(f"{assigned.count(kind)} {kind}" for kind in KINDS)
    objects = "; ".join(
        f"{name.upper()} {_size_text(getattr(state, name))} px: best IoU {assigned.iou[:, gt].max():.2f}, "
        f"{assigned.count('positive', gt)} positive, {assigned.count('rescued', gt)} rescued"
        for gt, name in enumerate(OBJECTS)
    )
    low, high = state.thresholds
    alt = (
        f"Negative below {low:.2f}, positive from {high:.2f}, best-anchor rule {'on' if state.keep_best else 'off'}. "
        f"Of {len(assigned.matched)} anchors: {counts}. {objects}."
    )
    panels = [_image_panel(state, assigned), _objects_panel(state, assigned), _counts_panel(assigned)]
    return Scene(960, 604, [*panels, *_shape_panels(state, assigned)], alt)


def _size_text(box: XYXY) -> str:
    return f"{box[2] - box[0]:.0f} × {box[3] - box[1]:.0f}"


def _centre(box: Sequence[float]) -> XY:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _image_panel(state: AnchorState, assigned: Assignment) -> Panel:
    """Return the picture with the anchors that learn, each tied to the centre of the object that it learns."""
    pixels, _ = load_scene()
    items: list[Item] = [Image("scene", pixels, (0, 0, SIDE, SIDE), smooth=True)]
    for kind in ("positive", "rescued"):
        learning = assigned.kinds[kind].nonzero()[:, 0]
        ties: list[XYXY] = []
        for anchor, gt in zip(pyramid_anchors()[learning].tolist(), assigned.matched[learning].tolist(), strict=True):
            ties.append((*_centre(anchor), *_centre(getattr(state, OBJECTS[gt]))))
            if len(learning) <= MOST_BOXES:
                items.append(Box((anchor[0], anchor[1], anchor[2], anchor[3]), KINDS[kind], 1.5))
        if len(learning) <= MOST_BOXES:
            items.append(Lines(ties, KINDS[kind], 2))
        items.append(Points([tie[:2] for tie in ties], KINDS[kind], 3))
    items += [Box(getattr(state, name), "green", 2.5, handle=name, label=name.upper()) for name in OBJECTS]
    return Panel((10, 28, 400, 400), (0, 0, SIDE, SIDE), items, "Drag the green boxes: the ground truth")


def _objects_panel(state: AnchorState, assigned: Assignment) -> Panel:
    names = ("size, px", "best IoU", "positive", "rescued")
    items: list[Item] = [Text(0, 10, "object", "muted")]
    items += [Text(130 + 90 * i, 10, name, "muted", align="right") for i, name in enumerate(names)]
    for gt, name in enumerate(OBJECTS):
        y = 32 + 22 * gt
        positive, rescued = assigned.count("positive", gt), assigned.count("rescued", gt)
        values = (_size_text(getattr(state, name)), f"{assigned.iou[:, gt].max():.2f}", str(positive), str(rescued))
        colors = ("ink", "ink", "blue", "pink") if positive + rescued else ("ink", "ink", "orange", "orange")
        items.append(Text(0, y, name.upper(), "green", bold=True))
        items += [
            Text(130 + 90 * i, y, value, color, align="right", bold=i > 1)
            for i, (value, color) in enumerate(zip(values, colors, strict=True))
        ]
        if positive + rescued == 0:
            items.append(Text(24, y, "unlearnt", "orange", 11))
    return Panel((10, 434, 400, 92), (0, 0, 400, 92), items, framed=False)


def _counts_panel(assigned: Assignment) -> Panel:
    meanings = {
        "positive": "from the upper threshold on",
        "rescued": "an object's best, below it",
        "ignored": "between the thresholds",
        "negative": "below the lower one: background",
    }
    items: list[Item] = []
    for line, (kind, meaning) in enumerate(meanings.items()):
        y = 9 + 18 * line
        items.append(Points([(6, y)], KINDS[kind], RADII[kind] + 1.5))
        items.append(Text(64, y, str(assigned.count(kind)), KINDS[kind], align="right", bold=True))
        items.append(Text(76, y, f"{kind}: {meaning}", "ink", 12))
    return Panel((10, 528, 400, 74), (0, 0, 400, 74), items, framed=False)


def _shape_panels(state: AnchorState, assigned: Assignment) -> list[Panel]:
    """Return a small map for each level (row) and ratio (column): a dot for each anchor, in its kind's colour."""
    ratios = len(PYRAMID.aspect_ratios)
    outlines = [Box(getattr(state, name), "green", 1) for name in OBJECTS]
    panels = []
    first = 0
    for level, (height, width) in enumerate(LEVELS):
        for shape in range(ratios):
            own = slice(first + shape, first + height * width * ratios, ratios)
            anchors = pyramid_anchors()[own]
            centres = [_centre(anchor) for anchor in anchors.tolist()]
            items: list[Item] = [*outlines]
            for kind in reversed(KINDS):  # the many negatives below, the few positives on top
                dots = [centres[i] for i in assigned.kinds[kind][own].nonzero()[:, 0].tolist()]
                items.append(Points(dots, KINDS[kind], RADII[kind]))
            left, top = 430 + 177 * shape, 28 + 194 * level
            size = _size_text(tuple(anchors[0].tolist()))
            title = f"P{level + 3}: {size} px"
            panels.append(Panel((left, top, 168, 168), (-6, -6, SIDE + 6, SIDE + 6), items, title))
        first += height * width * ratios
    return panels


def anchor_explorer(state: AnchorState | None = None) -> Explorer[AnchorState]:
    """Return the explorer of lesson 03: drag the ground truth, move the thresholds, and see what each anchor learns."""
    state = state or AnchorState()
    thresholds = widgets.FloatRangeSlider(
        value=state.thresholds, min=0, max=1, step=0.05, description="IoU thresholds", layout={"width": "440px"}
    )
    thresholds.style.description_width = "110px"
    controls = {
        "thresholds": thresholds,
        "keep_best": widgets.Checkbox(state.keep_best, description="best-anchor rule", indent=False),
    }
    own = {name: getattr(AnchorState, name) for name in OBJECTS}
    presets: dict[str, dict[str, Any]] = {
        "the scene's objects": {**own, "thresholds": AnchorState.thresholds, "keep_best": True},
        "A exactly an anchor": {**own, "a": (64.0, 64.0, 128.0, 128.0)},
        "A half a cell off": {**own, "a": (72.0, 72.0, 136.0, 136.0)},
        "A long and thin": {**own, "a": (20.0, 90.0, 172.0, 110.0)},
    }
    return Explorer(anchor_scene, state, controls, presets)


def windows_scene(cell: XY = (64, 96)) -> Scene:
    """Return the picture once a level: the places where its anchors are centred, and the three around one of them."""
    pixels, boxes = load_scene()
    panels = []
    for level, (anchors, stride) in enumerate(zip(PYRAMID(LEVELS), PYRAMID.strides, strict=True)):
        centre = tuple(stride * round(value / stride) for value in cell)
        places = [(x, y) for y in range(0, SIDE, stride) for x in range(0, SIDE, stride)]
        row = places.index((centre[0], centre[1])) * len(PYRAMID.aspect_ratios)
        around = anchors[row : row + len(PYRAMID.aspect_ratios)].tolist()
        items: list[Item] = [Image("scene", pixels, (0, 0, SIDE, SIDE), smooth=True)]
        items += [Box(box, "green", 1.5) for box in boxes]
        items += [Points(places, "paper", 1.6), Points([(centre[0], centre[1])], "blue", 4)]
        items += [Box((x1, y1, x2, y2), "blue", 2) for x1, y1, x2, y2 in around]
        title = f"P{level + 3}: a cell every {stride} px, anchors of {PYRAMID.sizes[level][0]} px"
        panels.append(Panel((8 + 318 * level, 26, 308, 308), (0, 0, SIDE, SIDE), items, title))
    legend: list[Item] = []
    for x, color, text in ((8, "green", "objects"), (118, "blue", "the three anchors of one cell")):
        legend += [Points([(x, 10)], color, 5), Text(x + 12, 10, text, size=12)]
    panels.append(Panel((8, 340, 944, 20), (0, 0, 944, 20), legend, framed=False))
    alt = "A scene three times: the centres of the anchors of P3, P4 and P5, and around one centre its three anchors."
    return Scene(960, 362, panels, alt)


LOOKS = (
    ("blue", "-", "o"),
    ("orange", "--", "s"),
    ("green", "-.", "D"),
    ("pink", ":", "^"),
)  # told apart without colour


def best_iou_figure(sizes: Float[Tensor, " s"], curves: Mapping[str, Float[Tensor, "s n"]]) -> Figure:
    """Return two plots over the object's size: the best IoU that an anchor has with it, at its middle and its worst.

    Each curve holds the best IoUs of n objects of each size, of one shape, anywhere in the image.
    """
    figure, axes = plot_axes("The median of a hundred objects", "The unluckiest of a hundred", height=320)
    for plot, share in zip(axes, (0.5, 0.01), strict=True):
        for (name, values), (color, style, _) in zip(curves.items(), LOOKS, strict=False):
            plot.plot(sizes, values.quantile(share, dim=1), color=PALETTE[color][0], linestyle=style, label=name)
        for threshold in (0.3, 0.7):
            plot.axhline(threshold, color=PALETTE["muted"][0], linewidth=1)
        plot.set(xscale="log", ylim=(0, 1), xlabel="size of the object, px", ylabel="best IoU with an anchor")
        plot.set_xticks([8, 16, 32, 64, 128], ["8", "16", "32", "64", "128"])
        plot.minorticks_off()
    axes[0].legend(frameon=False, loc="lower right", title="shape of the object")
    return figure


def unlearnt_figure(groups: Sequence[str], percent: Mapping[str, Sequence[float]]) -> Figure:
    """Return bars of the objects that no anchor learns, in percent: by size, one bar for each rule."""
    figure, (axes,) = plot_axes("Objects that no anchor learns", height=300)
    width = 0.8 / len(percent)
    for place, ((name, values), (color, _, _)) in enumerate(zip(percent.items(), LOOKS, strict=False)):
        at = [group + (place - (len(percent) - 1) / 2) * width for group in range(len(groups))]
        look: dict[str, Any] = {
            "color": PALETTE[color][0],
            "hatch": ("", "//", "..")[place % 3],
            "edgecolor": "white",
            "linewidth": 0,
        }
        bars = axes.bar(at, values, 0.92 * width, label=name, **look)
        axes.bar_label(bars, [f"{value:.0f}" for value in values], fontsize=9)
    axes.set_axisbelow(True)
    axes.set(xlabel="size of the object, px", ylabel="objects, %", xticks=range(len(groups)), ylim=(0, 112))
    axes.set_xticklabels(groups)
    axes.legend(frameon=False)
    return figure
