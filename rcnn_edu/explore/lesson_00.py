"""Lesson 00, boxes, overlap and a first detection: its explorers and its pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import ipywidgets as widgets
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from rcnn_edu.datasets import CocoDataset
from rcnn_edu.datasets.coco import Target
from rcnn_edu.explore.canvas import Explorer
from rcnn_edu.explore.detections import draw_detections, match
from rcnn_edu.explore.figures import DOTS_PER_INCH, plot_axes
from rcnn_edu.explore.scene import PALETTE, XYXY, Box, Image, Item, Lines, Panel, Points, Scene, Text
from rcnn_edu.models.presets import CHECKPOINTS
from rcnn_edu.models.transform import Detection
from rcnn_edu.ops import box_area, box_iou, decode_boxes, encode_boxes

SIDE = 192  # of the field that boxes are dragged on, in pixels, as of the sample scenes
GRID = 16  # pixels from one line of its paper to the next
LOOKS = (("blue", "-"), ("orange", "--"), ("green", "-."), ("pink", ":"))  # told apart without colour


def sample_scenes() -> CocoDataset:
    """Return the 24 sample images that ship with the course, with what is on them."""
    folder = CHECKPOINTS.parent / "scenes"
    return CocoDataset(folder, folder / "annotations.json")


# Two boxes


@dataclass(frozen=True)
class PairState:
    """What the learner changes: the object's box, a guess at it, and the IoU from which the guess counts."""

    truth: XYXY = (48.0, 64.0, 112.0, 128.0)
    guess: XYXY = (80.0, 80.0, 144.0, 144.0)
    threshold: float = 0.5


@dataclass(frozen=True)
class Overlap:
    """What two boxes share, in pixels and square pixels."""

    shared: XYXY | None
    intersection: float
    union: float
    iou: float
    legacy_iou: float  # with widths of x2 - x1 + 1


def overlap(truth: XYXY, guess: XYXY) -> Overlap:
    """Return the overlap of two boxes, by the package's own functions."""
    both = torch.tensor([truth, guess], dtype=torch.float32)  # the browser sends 16.0 as 16
    x1, y1 = both[:, :2].amax(dim=0).tolist()
    x2, y2 = both[:, 2:].amin(dim=0).tolist()
    shared = (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
    intersection = float(box_area(both.new_tensor([shared]))) if shared else 0.0
    grown = both + torch.tensor([0, 0, 1, 1])  # boxes that include their last pixel, in our way of writing
    return Overlap(
        shared,
        intersection,
        float(box_area(both).sum()) - intersection,
        float(box_iou(both[:1], both[1:])),
        float(box_iou(grown[:1], grown[1:])),
    )


def pair_scene(state: PairState) -> Scene:
    """Return the first explorer's picture: two boxes on squared paper, and what their overlap comes to."""
    found = overlap(state.truth, state.guess)
    threshold = round(state.threshold, 2)  # a slider's 0.7 is 0.7000000000000001
    is_match = found.iou >= threshold
    alt = (
        f"The object's box {_corners(state.truth)} and a guess {_corners(state.guess)}: intersection "
        f"{found.intersection:.1f}, union {found.union:.1f} px², IoU {found.iou:.3f}, "
        f"{'a match' if is_match else 'no match'} at {threshold:.2f}."
    )
    items: list[Item] = _paper()
    if found.shared:
        items.append(Box(found.shared, "pink", 0.5, fill=0.45))
    items += [
        Box(state.truth, "green", 2.5, handle="truth", label="object"),
        Box(state.guess, "blue", 2.5, handle="guess", label="guess"),
    ]
    panels = [
        Panel(
            (10, 28, 400, 400), (0, 0, SIDE, SIDE), items, f"Drag the boxes. A square of the paper is {GRID} px wide"
        ),
        _areas_panel(state, found),
        _verdict_panel(found, threshold, is_match),
    ]
    return Scene(960, 440, panels, alt)


def _paper() -> list[Item]:
    lines: list[XYXY] = []
    for place in range(GRID, SIDE, GRID):
        lines += [(place, 0, place, SIDE), (0, place, SIDE, place)]
    return [Lines(lines, "faint", 1)]


def _corners(box: XYXY) -> str:
    return "[" + ", ".join(f"{value:.1f}" for value in box) + "]"


def _size(box: XYXY) -> str:
    return f"{box[2] - box[0]:.1f} × {box[3] - box[1]:.1f}"


def _signed(value: float, digits: int = 1) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _areas_panel(state: PairState, found: Overlap) -> Panel:
    """Return the areas as numbers and as bars of one scale."""
    areas = {
        "object": (state.truth, "green", (state.truth[2] - state.truth[0]) * (state.truth[3] - state.truth[1])),
        "guess": (state.guess, "blue", (state.guess[2] - state.guess[0]) * (state.guess[3] - state.guess[1])),
        "intersection": (found.shared, "pink", found.intersection),
        "union": (None, "ink", found.union),
    }
    items: list[Item] = [
        Text(210, 10, "width × height, px", "muted", 12, "right"),
        Text(310, 10, "area, px²", "muted", 12, "right"),
    ]
    for row, (name, (box, color, area)) in enumerate(areas.items()):
        y = 34 + 26 * row
        items += [
            Text(0, y, name, color, 14, bold=True),
            Text(210, y, _size(box) if box else "", size=14, align="right"),
            Text(310, y, f"{area:,.1f}", size=14, align="right"),
            Lines([(326, y, 326 + 194 * area / found.union, y)], color, 8),
        ]
    return Panel((430, 28, 520, 128), (0, 0, 520, 128), items, "Areas", framed=False)


def _verdict_panel(found: Overlap, threshold: float, is_match: bool) -> Panel:
    def x(iou: float) -> float:
        return 10 + 490 * iou

    color = "blue" if is_match else "orange"
    items: list[Item] = [
        Text(10, 12, f"IoU = {found.intersection:,.1f} / {found.union:,.1f} = {found.iou:.3f}", size=17, bold=True),
        Lines([(x(0), 66, x(1), 66)], "muted", 2),
        Lines([(x(0), 66, x(found.iou), 66)], color, 8),
        Points([(x(found.iou), 66)], color, 7),
        Lines([(x(threshold), 48, x(threshold), 84)], "ink", 2.5),
        Text(x(threshold), 38, f"threshold {threshold:.2f}", size=12, align="center"),
        *(Text(x(tick / 4), 96, f"{tick / 4:g}", "muted", 12, "center") for tick in range(5)),
        Text(10, 132, "a match" if is_match else "no match", color, 20, bold=True),
        Text(10, 164, f"IoU in old code, with widths of x2 − x1 + 1: {found.legacy_iou:.3f}", "muted", 13),
    ]
    return Panel((430, 196, 520, 180), (0, 0, 520, 180), items, framed=False)


def iou_explorer(state: PairState | None = None) -> Explorer[PairState]:
    """Return the first explorer of lesson 00: drag two boxes, and see areas, IoU, and whether that is a match."""
    state = state or PairState()
    threshold = widgets.FloatSlider(
        state.threshold, min=0.05, max=0.95, step=0.05, description="IoU threshold", layout={"width": "360px"}
    )
    threshold.style.description_width = "100px"
    small, large = (80.0, 80.0, 96.0, 96.0), (0.0, 16.0, 160.0, 176.0)
    presets: dict[str, dict[str, Any]] = {
        "two of 16 px": {"truth": small, "guess": small},
        "two of 160 px": {"truth": large, "guess": large},
        "a quarter inside": {"truth": (32.0, 32.0, 160.0, 160.0), "guess": (64.0, 64.0, 128.0, 128.0)},
        "as at the start": {"truth": PairState.truth, "guess": PairState.guess, "threshold": 0.5},
    }
    return Explorer(pair_scene, state, {"threshold": threshold}, presets)


# The codec


@dataclass(frozen=True)
class CodecState:
    """What the learner changes: the object's box, the box to begin with, and what a head would say of it."""

    truth: XYXY = (30.0, 24.0, 86.0, 80.0)
    box: XYXY = (16.0, 32.0, 56.0, 72.0)
    dx: float = 0
    dy: float = 0
    dw: float = 0
    dh: float = 0
    tell: bool = False


DELTAS = ("dx", "dy", "dw", "dh")


def codec_scene(state: CodecState) -> Scene:
    """Return the second explorer's picture: a box, where the deltas take it, and the object it should get to."""
    box, truth = torch.tensor([[state.box], [state.truth]], dtype=torch.float32)
    deltas = torch.tensor([[float(getattr(state, name)) for name in DELTAS]])
    moved = decode_boxes(deltas, box)
    wanted = encode_boxes(truth, box)[0].tolist()
    before, after = float(box_iou(box, truth)), float(box_iou(moved, truth))
    x1, y1, x2, y2 = moved[0].tolist()
    told = ", ".join(_signed(value) for value in deltas[0].tolist())
    alt = (
        f"Deltas [{told}] take the box {_corners(state.box)} to {_corners((x1, y1, x2, y2))}; its IoU with the object "
        f"{_corners(state.truth)} goes from {before:.2f} to {after:.2f}."
    )
    items: list[Item] = [
        *_paper(),
        Box((x1, y1, x2, y2), "orange", 2.5, dashed=True, fill=0.15),
        Box(state.truth, "green", 2.5, handle="truth", label="object"),
        Box(state.box, "blue", 2.5, handle="box", label="box"),
    ]
    rows: list[Item] = [
        Text(0, 10, "delta", "muted", 12),
        Text(150, 10, "yours", "muted", 12, "right"),
        Text(250, 10, "encode_boxes", "muted", 12, "right"),
        Text(290, 10, "what yours does", "muted", 12),
    ]
    meanings = (
        f"{_signed(state.dx / 10, 2)} widths to the right",
        f"{_signed(state.dy / 10, 2)} heights down",
        f"width × {torch.tensor(state.dw / 5).exp():.2f}",
        f"height × {torch.tensor(state.dh / 5).exp():.2f}",
    )
    for row, (name, meaning) in enumerate(zip(DELTAS, meanings, strict=True)):
        y = 36 + 28 * row
        rows += [
            Text(0, y, name, size=14, bold=True),
            Text(150, y, _signed(getattr(state, name)), "orange", 14, "right", bold=True),
            Text(250, y, _signed(wanted[row], 2) if state.tell else "?", "green", 14, "right"),
            Text(290, y, meaning, size=13),
        ]
    good = "blue" if after >= 0.9 else "ink"
    rows += [
        Text(0, 168, f"IoU with the object: {before:.2f} before, {after:.2f} after", good, 17, bold=True),
        Text(0, 200, "The box has arrived." if after >= 0.9 else "Try for 0.90.", good, 14),
    ]
    panels = [
        Panel((10, 28, 400, 400), (0, 0, SIDE, SIDE), items, "The box (blue), where the deltas take it (dashed)"),
        Panel((430, 60, 520, 220), (0, 0, 520, 220), rows, framed=False),
    ]
    return Scene(960, 440, panels, alt)


def codec_explorer(state: CodecState | None = None) -> Explorer[CodecState]:
    """Return the second explorer of lesson 00: be the head that corrects a box, with four sliders."""
    state = state or CodecState()
    controls: dict[str, widgets.Widget] = {
        name: widgets.FloatSlider(
            getattr(state, name), min=-10, max=10, step=0.1, description=name, layout={"width": "300px"}
        )
        for name in DELTAS
    }
    for control in controls.values():
        control.style.description_width = "30px"
    controls["tell"] = widgets.Checkbox(state.tell, description="tell me encode_boxes' answer", indent=False)
    twice: dict[str, Any] = {name: tuple(2 * value for value in getattr(CodecState, name)) for name in ("truth", "box")}
    presets: dict[str, dict[str, Any]] = {
        "at the start": {"truth": CodecState.truth, "box": CodecState.box},
        "all twice as large": twice,
        "deltas to 0": dict.fromkeys(DELTAS, 0.0),
    }
    return Explorer(codec_scene, state, controls, presets)


# What a model finds


@dataclass(frozen=True)
class ScoreState:
    """What the learner changes: which scene, the score from which a detection is shown, the IoU of a match."""

    scene: int = 0
    score: float = 0.5
    iou: float = 0.5


@dataclass(frozen=True)
class Outputs:
    """Images, what is on them, and what a model found there, whatever its score."""

    images: Sequence[Float[Tensor, "3 H W"]]
    targets: Sequence[Target]
    detections: Sequence[Detection]
    categories: Sequence[str]


def cut(detection: Detection, score: float) -> Detection:
    """Return the detections that score at least this."""
    sure = detection["scores"] >= score
    return {name: values[sure] for name, values in detection.items()}


def precision_recall(right: Sequence[bool], num_objects: int) -> list[tuple[float, float]]:
    """Return (recall, precision) after the first, the first two, … of the detections, the most certain first."""
    points = []
    hits = 0
    for place, is_right in enumerate(right, start=1):
        hits += is_right
        points.append((hits / max(1, num_objects), hits / place))
    return points


def score_scene(state: ScoreState, outputs: Outputs) -> Scene:
    """Return the third explorer's picture: what is shown of a model's output, what of it is right, and the curve."""
    image, target = outputs.images[state.scene], outputs.targets[state.scene]
    detection = outputs.detections[state.scene]
    score, iou = round(state.score, 2), round(state.iou, 2)
    shown = cut(detection, score)
    found = match(shown, target, iou).tolist()
    right, objects = sum(index >= 0 for index in found), len(target["labels"])
    counts = {"shown": len(found), "right": right, "wrong": len(found) - right, "missed": objects - right}
    precision = right / len(found) if found else 1.0
    recall = right / objects if objects else 1.0
    told = ", ".join(f"{number} {name}" for name, number in counts.items())
    alt = (
        f"Scene {state.scene}, {objects} objects, detections from a score of {score:.2f}, a match from an IoU of "
        f"{iou:.2f}: {told}; precision {precision:.2f}, recall {recall:.2f}."
    )
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    height, width = pixels.shape[:2]
    items: list[Item] = [Image(f"scene {state.scene}", pixels, (0, 0, width, height), smooth=True)]
    for index, (x1, y1, x2, y2) in enumerate(target["boxes"].tolist()):
        if index not in found:
            items.append(Box((x1, y1, x2, y2), "ink", 1, fill=0.35))
    names: list[Item] = []
    rows = list(zip(found, shown["boxes"].tolist(), shown["labels"].tolist(), shown["scores"].tolist(), strict=True))
    for index, (x1, y1, x2, y2), label, value in reversed(rows):
        color = "green" if index >= 0 else "orange"
        name = f"{outputs.categories[label - 1]} {value:.2f}"
        items.append(Box((x1, y1, x2, y2), color, 2, dashed=index < 0))
        names.append(Text(min(x1, width - 34), max(y1 - 3, 4), name, color, 11, bold=True))
    items += names  # on top of all boxes
    order = detection["scores"].argsort(descending=True, stable=True)
    ranked = match({name: values[order] for name, values in detection.items()}, target, iou)
    curve = precision_recall([index >= 0 for index in ranked.tolist()], objects)
    panels = [
        Panel((10, 28, 400, 400), (0, 0, width, height), items, f"Scene {state.scene}: scores from {score:.2f}"),
        _counts_panel(counts, precision, recall, objects),
        _curve_panel(curve, (recall, precision)),
        _legend_panel(),
    ]
    return Scene(960, 440, panels, alt)


def _counts_panel(counts: Mapping[str, int], precision: float, recall: float, objects: int) -> Panel:
    items: list[Item] = []
    colors = {"shown": "ink", "right": "green", "wrong": "orange", "missed": "ink"}
    for row, (name, number) in enumerate(counts.items()):
        items += [
            Text(0, 12 + 26 * row, name, colors[name], 14, bold=True),
            Text(100, 12 + 26 * row, str(number), colors[name], 14, "right", bold=True),
        ]
    right, shown = counts["right"], counts["shown"]
    items += [
        Text(0, 130, "precision", size=13),
        Text(0, 150, f"{right} of {shown} shown = {precision:.2f}" if shown else "nothing shown", size=14, bold=True),
        Text(0, 180, "recall", size=13),
        Text(0, 200, f"{right} of {objects} objects = {recall:.2f}", size=14, bold=True),
    ]
    return Panel((436, 40, 200, 220), (0, 0, 200, 220), items, framed=False)


def _curve_panel(curve: Sequence[tuple[float, float]], here: tuple[float, float]) -> Panel:
    def at(point: tuple[float, float]) -> tuple[float, float]:
        return 50 + 230 * point[0], 250 - 230 * point[1]

    ticks = [tick / 4 for tick in range(5)]
    items: list[Item] = [
        Lines([(*at((0, tick)), *at((1, tick))) for tick in ticks], "faint", 1),
        Lines([(*at((tick, 0)), *at((tick, 1))) for tick in ticks], "faint", 1),
        *(Text(at((tick, 0))[0], 266, f"{tick:g}", "muted", 12, "center") for tick in ticks),
        *(Text(42, at((0, tick))[1], f"{tick:g}", "muted", 12, "right") for tick in ticks),
        Text(at((0.5, 0))[0], 286, "recall", "ink", 12, "center"),
        Text(50, 8, "precision", "ink", 12, "center"),
        Lines([(*at(a), *at(b)) for a, b in pairwise(curve)], "blue", 2),
        Points([at(point) for point in curve], "blue", 2.5),
        Points([at(here)], "orange", 7),
    ]
    return Panel((652, 28, 300, 300), (0, 0, 300, 300), items, "Every threshold, and yours (dot)", framed=False)


def _legend_panel() -> Panel:
    rows = [
        ("green", "right: its class, and a box that matches"),
        ("orange", "wrong, or one too many (dashed)"),
        ("ink", "shaded: an object that is missed"),
    ]
    items: list[Item] = []
    for line, (color, text) in enumerate(rows):
        items += [Points([(8, 10 + 22 * line)], color, 5), Text(20, 10 + 22 * line, text, size=12)]
    return Panel((436, 352, 500, 70), (0, 0, 500, 70), items, framed=False)


def score_explorer(outputs: Outputs, state: ScoreState | None = None) -> Explorer[ScoreState]:
    """Return the third explorer of lesson 00: move the score's threshold over a model's real output."""
    state = state or ScoreState()
    slim: dict[str, Any] = {"layout": {"width": "300px"}}
    controls = {
        "scene": widgets.IntSlider(state.scene, 0, len(outputs.images) - 1, description="scene", **slim),
        "score": widgets.FloatSlider(state.score, min=0.05, max=0.95, step=0.05, description="score ≥", **slim),
        "iou": widgets.FloatSlider(state.iou, min=0.5, max=0.95, step=0.05, description="IoU ≥", **slim),
    }
    return Explorer(partial(score_scene, outputs=outputs), state, controls)


# Pictures


def beside_truth_figure(
    image: Float[Tensor, "3 H W"],
    target: Target,
    detection: Detection,
    categories: Sequence[str],
    score_thresh: float = 0.5,
) -> Figure:
    """Return what is on an image beside what a model found there, each with masks, boxes and classes."""
    pictures = {
        "What is there": draw_detections(image, target, categories, min_side=470),
        f"What the model finds, scores from {score_thresh}": draw_detections(
            image, detection, categories, score_thresh=score_thresh, min_side=470
        ),
    }
    figure = Figure(figsize=(860 / DOTS_PER_INCH, 454 / DOTS_PER_INCH), dpi=DOTS_PER_INCH)
    for place, (title, drawn) in enumerate(pictures.items()):
        axes = figure.add_axes((0.003 + 0.5 * place, 0.005, 0.494, 0.93))
        axes.imshow(drawn)
        axes.set_title(title, fontsize=11, fontweight="bold")
        axes.set_axis_off()
    return figure


def shift_figure(shifts: Float[Tensor, " s"], curves: Mapping[str, Float[Tensor, " s"]]) -> Figure:
    """Return IoU over how far a square was moved, in pixels and in its own widths, a line for each square."""
    figure, (pixels, widths) = plot_axes("Moved by so many pixels", "Moved by so much of its width")
    for (name, values), (color, style) in zip(curves.items(), LOOKS, strict=False):
        size = float(name.split()[0])
        pixels.plot(shifts, values, color=PALETTE[color][0], linestyle=style, label=name)
        widths.plot(shifts / size, values, color=PALETTE[color][0], linestyle=style, label=name)
    pixels.set(xlabel="shift, px", ylabel="IoU", xlim=(0, 40), ylim=(0, 1))
    widths.set(xlabel="shift / width", ylabel="IoU", xlim=(0, 1), ylim=(0, 1))
    for axes in (pixels, widths):
        for threshold in (0.5, 0.75):
            axes.axhline(threshold, color=PALETTE["muted"][0], linewidth=1)
    widths.legend(title="a square of", framealpha=1, edgecolor="none", loc="upper right")
    return figure


def precision_recall_figure(recalls: Sequence[float], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Return precision over recall, a line for each IoU that a match needs, with the area under it: its AP."""
    figure, (axes, bars) = plot_axes("Precision over recall", "The area below: AP")
    for place, ((name, values), (color, style)) in enumerate(zip(curves.items(), LOOKS, strict=False)):
        axes.plot(recalls, values, color=PALETTE[color][0], linestyle=style, label=name, linewidth=2)
        bar = bars.bar(place, 100 * sum(values) / len(values), 0.6, color=PALETTE[color][0])
        bars.bar_label(bar, fmt="%.0f")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.05))
    bars.legend(*axes.get_legend_handles_labels(), framealpha=1, edgecolor="none", loc="upper right")
    bars.set(ylabel="AP, of 100", ylim=(0, 100), xticks=range(len(curves)))
    bars.set_xticklabels(curves)
    return figure
