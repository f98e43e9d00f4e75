"""Lesson 06, Cascade R-CNN: its explorers, its measurements on a cascade's own RoIs, and its plots.

Stages count from 1. "Before stage k" are the boxes that stage k takes: before stage 1, the RPN's proposals.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, cast

import ipywidgets as widgets
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from rcnn_edu.datasets.scenes import CATEGORIES
from rcnn_edu.explore.canvas import BoxField, Explorer
from rcnn_edu.explore.figures import plot_axes
from rcnn_edu.explore.scene import PALETTE, XY, XYXY, Box, Image, Item, Lines, Panel, Points, Scene, Text, tenths
from rcnn_edu.models import CascadeRCNN
from rcnn_edu.models.box_head import BoxHead
from rcnn_edu.models.cascade import Cascade
from rcnn_edu.models.fpn import Pyramid
from rcnn_edu.models.presets import TINY
from rcnn_edu.models.transform import Size, Target
from rcnn_edu.ops import box_iou, clip_boxes, decode_boxes, encode_boxes

UNIT = (1.0, 1.0, 1.0, 1.0)  # deltas without weights: shifts in box sizes, logarithms of sizes
COLORS = ("blue", "orange", "pink")  # of stages 1, 2, 3
CHAINS = ("the cascade", "stage 1 again and again", "each stage alone")
_SAMPLER = TINY.box_head["sampler"]
WANTED = int(_SAMPLER.num_samples * _SAMPLER.pos_fraction)  # positives in an image's sample, where there are as many


def stages_of(model: CascadeRCNN) -> list[BoxHead]:
    """Return the cascade's box heads, first to last."""
    return list(cast(Cascade, model.box_head).stages)


@torch.no_grad()
def run_stages(
    heads: Iterable[BoxHead], features: Pyramid, boxes: Float[Tensor, "n 4"], size: Size
) -> tuple[list[Float[Tensor, "n 4"]], list[Float[Tensor, "n K_plus_1"]]]:
    """Return an image's boxes before and after each of the heads, and each head's class probabilities.

    Row i stays RoI i. The same head may come several times.
    """
    chain, probabilities = [boxes], []
    for head in heads:
        [(moved, stage_probabilities)] = head.predict(features, chain[-1:], [size])
        chain.append(moved[:, 0])
        probabilities.append(stage_probabilities)
    return chain, probabilities


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """What a cascade makes of an image's proposals, stage by stage, and what one needs to go on from there."""

    image: Float[Tensor, "3 H W"]
    target: Target  # in the frame of ``size``, as all boxes
    features: Pyramid
    size: Size
    boxes: list[Float[Tensor, "n 4"]]  # the proposals, then what each stage makes of them
    probabilities: list[Float[Tensor, "n K_plus_1"]]  # of each stage

    def iou(self, stage: int) -> Float[Tensor, " n"]:
        """Return each box's IoU with the object it overlaps most, before ``stage``; stage 4 is after the last."""
        return best_iou(self.boxes[stage - 1], self.target["boxes"])


def best_iou(boxes: Float[Tensor, "n 4"], gt_boxes: Float[Tensor, "m 4"]) -> Float[Tensor, " n"]:
    """Return each box's IoU with the object that it overlaps most, 0 without any."""
    return box_iou(boxes, gt_boxes).amax(dim=1) if len(gt_boxes) else boxes.new_zeros(len(boxes))


@torch.no_grad()
def trace(model: CascadeRCNN, image: Float[Tensor, "3 H W"], target: Target) -> Trace:
    """Return what the model, in evaluation mode, makes of an image stage by stage."""
    batch = model.transform([image], [target])
    features = model.backbone(batch.images)
    [proposals], _ = model.rpn(features, batch.sizes)
    boxes, probabilities = run_stages(stages_of(model), features, proposals, batch.sizes[0])
    [moved_target] = batch.targets or [target]
    return Trace(image, moved_target, features, batch.sizes[0], boxes, probabilities)


def all_ious(traces: Sequence[Trace], stage: int) -> Float[Tensor, " n"]:
    """Return the IoUs of the boxes before ``stage`` of all images."""
    return torch.cat([seen.iou(stage) for seen in traces])


def target_deltas(traces: Sequence[Trace], stage: int, iou_thresh: float) -> Float[Tensor, "p 4"]:
    """Return the unweighted deltas that the boxes before ``stage`` have to learn, as far as they are positive."""
    deltas = []
    for seen in traces:
        iou, matched = box_iou(seen.boxes[stage - 1], seen.target["boxes"]).max(dim=1)
        positive = iou >= iou_thresh
        deltas.append(encode_boxes(seen.target["boxes"][matched[positive]], seen.boxes[stage - 1][positive], UNIT))
    return torch.cat(deltas)


def to_pixels(image: Float[Tensor, "3 H W"]) -> NDArray[np.uint8]:
    """Return an image from 0 to 1 as pixels (H, W, 3)."""
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _xyxy(box: Tensor) -> XYXY:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2


@dataclass(frozen=True)
class _Plot:
    """Where numbers lie in a panel of its own pixels: ``frame`` (x1, y1, x2, y2) holds ``x`` and ``y`` from, to."""

    frame: XYXY
    x: XY
    y: XY

    def at(self, x: float, y: float) -> XY:
        """Return the place of a point."""
        left, top, right, bottom = self.frame
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    def lines(self, points: Iterable[XY], color: str, width: float = 2, *, dashed: bool = False) -> Lines:
        """Return the points joined in their order."""
        places = [self.at(*point) for point in points]
        return Lines([(*a, *b) for a, b in pairwise(places)], color, width, dashed)

    def axes(self, x_ticks: Mapping[float, str], y_ticks: Mapping[float, str]) -> list[Item]:
        """Return the grid, and the words at its ticks."""
        items: list[Item] = [self.lines([(x, self.y[0]), (x, self.y[1])], "faint", 1) for x in x_ticks]
        items += [self.lines([(self.x[0], y), (self.x[1], y)], "faint", 1) for y in y_ticks]
        for x, word in x_ticks.items():
            items.append(Text(self.at(x, 0)[0], self.frame[3] + 11, word, "muted", 11, "center"))
        for y, word in y_ticks.items():
            items.append(Text(self.frame[0] - 6, self.at(0, y)[1], word, "muted", 11, "right"))
        return items


# The first picture: what an IoU looks like


def quality_scene(
    image: Float[Tensor, "3 H W"], target: Target, index: int, ious: Sequence[float] = (0.5, 0.7, 0.9)
) -> Scene:
    """Return one object of an image, closer, with two boxes of each IoU: one to its side, one around it."""
    pixels, gt = to_pixels(image), target["boxes"][index]
    height, width = pixels.shape[:2]
    panels = []
    for place, iou in enumerate(ious):
        aside, around = boxes_of_iou(gt, iou)
        items: list[Item] = [
            Image("scene", pixels, (0, 0, width, height), smooth=True),
            Box(_xyxy(gt), "green", 2.5),
            Box(_xyxy(aside), "blue", 2),
            Box(_xyxy(around), "orange", 2, dashed=True),
        ]
        view = _view_around(gt, 0.8, (height, width))
        panels.append(Panel((8 + 318 * place, 26, 308, 308), view, items, f"IoU {iou}"))
    legend: list[Item] = []
    words = (("green", "the object"), ("blue", "a box to its side"), ("orange", "a box around it (dashed)"))
    for place, (color, text) in enumerate(words):
        legend += [Points([(8 + 190 * place, 10)], color, 5), Text(20 + 190 * place, 10, text, size=12)]
    panels.append(Panel((8, 340, 944, 20), (0, 0, 944, 20), legend, framed=False))
    alt = f"An object three times, each time with two boxes that overlap it by {', '.join(map(str, ious))}."
    return Scene(960, 364, panels, alt)


def boxes_of_iou(gt: Float[Tensor, "4"], iou: float) -> tuple[Float[Tensor, "4"], Float[Tensor, "4"]]:
    """Return two boxes of this IoU with ``gt``: one of its size, to its right, and one around it, larger."""
    size = gt[2:] - gt[:2]
    shift = size * torch.tensor([(1 - iou) / (1 + iou), 0])
    margin = size * (iou**-0.5 - 1) / 2
    return gt + shift.repeat(2), torch.cat([gt[:2] - margin, gt[2:] + margin])


def _view_around(gt: Float[Tensor, "4"], margin: float, size: Size) -> XYXY:
    """Return a square about a box within the image, ``margin`` of the box's longer side wider where there is room."""
    side = min((1 + margin) * float((gt[2:] - gt[:2]).max()), *size)
    x, y = ((gt[:2] + gt[2:] - side) / 2).tolist()
    x, y = min(max(x, 0), size[1] - side), min(max(y, 0), size[0] - side)
    return x, y, x + side, y + side


# Explorer: drag a proposal through the stages


@dataclass(frozen=True)
class ProposalState:
    """What the learner changes: the proposal, and through which heads it goes."""

    proposal: XYXY
    chain: str = CHAINS[0]


@dataclass(frozen=True, eq=False)
class Refined:
    """What each chain of three heads makes of one proposal."""

    target: int  # the object that the proposal overlaps most
    boxes: dict[str, Float[Tensor, "4 4"]]  # by chain: the proposal and the box after each head
    iou: dict[str, list[float]]  # of these boxes, with that object
    probabilities: Float[Tensor, "3 K_plus_1"]  # of the cascade's stages


def refine_proposal(heads: Sequence[BoxHead], seen: Trace, proposal: XYXY) -> Refined:
    """Return what the cascade, and its first stage applied again and again, make of a proposal."""
    start = torch.tensor([proposal], dtype=torch.float32)
    gt_boxes = seen.target["boxes"]
    target = int(box_iou(start, gt_boxes)[0].argmax())
    boxes, iou = {}, {}
    probabilities: list[Tensor] = []
    for name, chain in zip(CHAINS, (heads, [heads[0]] * len(heads)), strict=False):
        moved, chain_probabilities = run_stages(chain, seen.features, start, seen.size)
        boxes[name] = torch.cat(moved)
        iou[name] = box_iou(boxes[name], gt_boxes[target : target + 1])[:, 0].tolist()
        probabilities = probabilities or chain_probabilities
    return Refined(target, boxes, iou, torch.cat(probabilities))


def proposal_scene(state: ProposalState, heads: Sequence[BoxHead], seen: Trace) -> Scene:
    """Return the explorer's picture: the proposal and its boxes, IoU over the stages, and the stages' classes."""
    refined = refine_proposal(heads, seen, state.proposal)
    label = CATEGORIES[int(seen.target["labels"][refined.target]) - 1]
    mean = refined.probabilities.mean(dim=0)
    names = ("background", *CATEGORIES)
    alt = (
        f"The proposal overlaps the {label} by {refined.iou[CHAINS[0]][0]:.2f}. "
        + "; ".join(f"{name}: {' → '.join(f'{value:.2f}' for value in refined.iou[name][1:])}" for name in refined.iou)
        + f". Mean of the stages: {names[int(mean.argmax())]} {float(mean.max()):.2f}. Shown: {state.chain}."
    )
    panels = [
        _proposal_panel(state, refined, seen),
        _closer_panel(state, refined, seen, label),
        _chains_panel(refined),
        _classes_panel(refined.probabilities),
    ]
    return Scene(960, 462, panels, alt)


def _proposal_panel(state: ProposalState, refined: Refined, seen: Trace) -> Panel:
    height, width = seen.size
    items: list[Item] = [Image("scene", to_pixels(seen.image), (0, 0, width, height), smooth=True)]
    items += [Box(_xyxy(box), "green", 1.5) for box in seen.target["boxes"]]
    items += [Box(_xyxy(box), color, 2) for box, color in zip(refined.boxes[state.chain][1:], COLORS, strict=True)]
    items.append(Box(state.proposal, "ink", 2.5, handle="proposal"))
    return Panel((10, 28, 424, 424), (0, 0, width, height), items, "Drag the proposal (with corners)")


def _closer_panel(state: ProposalState, refined: Refined, seen: Trace, label: str) -> Panel:
    gt = seen.target["boxes"][refined.target]
    view = _view_around(gt, 0.6, seen.size)
    items: list[Item] = [
        Image("scene", to_pixels(seen.image), (0, 0, seen.size[1], seen.size[0]), smooth=True),
        Box(_xyxy(gt), "green", 4),
        Box(state.proposal, "ink", 1.5, dashed=True),
    ]
    moved = [_xyxy(box) for box in refined.boxes[state.chain][1:]]
    items += [Box(box, color, 2) for box, color in zip(moved, COLORS, strict=True)]
    edge = 8 * (view[3] - view[1]) / 250  # of the panel: a number stays within it
    for number, ((x1, y1, x2, y2), color) in enumerate(zip(moved, COLORS, strict=True), start=1):
        # Each number on another side: boxes often lie on each other.
        x, y = (((x1 + x2) / 2, y1), (x2, (y1 + y2) / 2), ((x1 + x2) / 2, y2))[number - 1]
        x = min(max(x, view[0] + edge), view[2] - edge)
        y = min(max(y, view[1] + edge), view[3] - edge)
        items.append(Text(x, y, str(number), color, 15, "center", bold=True))
    return Panel((446, 28, 250, 250), view, items, f"Closer: the {label}")


def _chains_panel(refined: Refined) -> Panel:
    """Return IoU over the boxes of both chains: the cascade's as dots of the stages' colours, the other one dashed."""
    plot = _Plot((34, 12, 234, 208), (-0.2, 3.3), (0, 1))
    items = plot.axes({0: "proposal", 1: "1", 2: "2", 3: "3"}, {y / 10: f"0.{y}" for y in (0, 2, 4, 6, 8)} | {1.0: "1"})
    cascade, again = (refined.iou[name] for name in CHAINS[:2])
    items.append(plot.lines(enumerate(again), "muted", 2, dashed=True))
    items.append(plot.lines(enumerate(cascade), "ink", 2))
    items.append(Points([plot.at(0, cascade[0])], "ink", 5))
    for number, color in enumerate(COLORS, start=1):
        items.append(Points([plot.at(number, cascade[number])], color, 6))
    items.append(Text(134, 239, "solid: the cascade; dashed: stage 1 again", "ink", 11, "center"))
    words = f"{cascade[0]:.2f}  →  {cascade[-1]:.2f}"
    bottom = min(cascade[0], again[-1]) > 0.35
    items.append(Text(134, plot.at(0, 0.12 if bottom else 0.9)[1], words, "ink", 16, "center", bold=True))
    return Panel((704, 28, 250, 250), (0, 0, 250, 250), items, "IoU with the object", framed=False)


def _classes_panel(probabilities: Float[Tensor, "3 K_plus_1"]) -> Panel:
    """Return a row for each stage and their mean, with a bar for each class's probability."""
    items: list[Item] = []
    names = ("background", *CATEGORIES)
    rows = torch.cat([probabilities, probabilities.mean(dim=0, keepdim=True)]).tolist()
    for column, name in enumerate(names):
        items.append(Text(74 + 88 * column, 8, name, "muted", 12))
    for row, values in enumerate(rows):
        y, color = 34 + 30 * row, (*COLORS, "ink")[row]
        items.append(Text(0, y, f"stage {row + 1}" if row < len(COLORS) else "mean", color, 13, bold=True))
        best = max(values)
        for column, value in enumerate(values):
            x = 74 + 88 * column
            items.append(Box((x, y - 9, x + 46, y + 9), "faint", 1))
            if value > 0.01:
                items.append(Box((x, y - 9, x + 46 * value, y + 9), color, 1, fill=0.8))
            items.append(Text(x + 80, y, f"{value:.2f}", "ink", 12, "right", bold=value == best))
    return Panel((446, 312, 508, 140), (0, 0, 508, 140), items, "What each stage says it is", framed=False)


def proposal_explorer(
    model: CascadeRCNN, image: Float[Tensor, "3 H W"], target: Target, index: int = 0
) -> Explorer[ProposalState]:
    """Return the explorer of lesson 06 to drag a proposal with, and see what the model's three stages make of it.

    Args:
        model: in evaluation mode, of three stages.
        image: with at least one object.
        target: of the image.
        index: of the object that the buttons put the proposal beside.
    """
    seen = trace(model, image, target)
    gt = seen.target["boxes"][index]
    starts = {name: tenths(clip_boxes(box[None], seen.size)[0].tolist()) for name, box in _bad_boxes(gt).items()}
    state = ProposalState(starts["to the side"])
    controls = {
        "chain": widgets.ToggleButtons(options=CHAINS[:2], value=state.chain, description="drawn"),
        "proposal": BoxField(state.proposal, (float(seen.size[0]), float(seen.size[1])), "proposal"),
    }
    controls["chain"].style.button_width = "190px"
    presets = {name: {"proposal": box} for name, box in starts.items()}
    return Explorer(partial(proposal_scene, heads=stages_of(model), seen=seen), state, controls, presets)


def _bad_boxes(gt: Float[Tensor, "4"]) -> dict[str, Float[Tensor, "4"]]:
    """Return proposals by what is wrong with them."""
    aside, around = boxes_of_iou(gt, 0.5)
    size = gt[2:] - gt[:2]
    return {
        "to the side": aside,
        "too large": around,
        "a corner only": torch.cat([gt[:2], gt[2:] - 0.4 * size]),
        "nearly right": boxes_of_iou(gt, 0.9)[0],
        "the object itself": gt,
    }


# Explorer: who is positive


@dataclass(frozen=True)
class ThresholdState:
    """What the learner changes: from which IoU on a RoI is positive, and which image is shown."""

    u: float = 0.5
    image: int = 0


BINS = [round(0.3 + 0.05 * step, 2) for step in range(15)]  # edges, up to 1; what is below is counted, not drawn


@dataclass(frozen=True)
class Positives:
    """The RoIs before a stage that are positive, of all images."""

    count: int
    total: int
    filled: int  # images that have as many positives as a sample wants
    mean_iou: float  # of the positives; NaN without any

    @property
    def share(self) -> float:
        """Return the positives' share, in percent."""
        return 100 * self.count / max(1, self.total)


def count_positives(traces: Sequence[Trace], stage: int, u: float) -> Positives:
    """Return how many of the RoIs before a stage overlap an object by at least ``u``."""
    ious = [seen.iou(stage) for seen in traces]
    iou = torch.cat(ious)
    positive = iou >= u
    filled = sum(int((image_iou >= u).sum()) >= WANTED for image_iou in ious)
    return Positives(int(positive.sum()), len(iou), filled, float(iou[positive].mean()))


def threshold_scene(state: ThresholdState, traces: Sequence[Trace]) -> Scene:
    """Return the explorer's picture: for each stage an image's positives, and the histogram of all images' IoUs."""
    u = round(state.u, 2)  # a slider's 0.7 is 0.7000000000000001
    histograms = [torch.histogram(all_ious(traces, stage), torch.tensor(BINS))[0].tolist() for stage in (1, 2, 3)]
    top = max(max(histogram) for histogram in histograms) * 1.08
    panels, words = [], []
    for stage, histogram in enumerate(histograms, start=1):
        positives = count_positives(traces, stage, u)
        words.append(f"before stage {stage} {positives.count} of {positives.total}, {positives.share:.1f} %")
        panels.append(_positives_panel(traces[state.image], stage, u, f"picture {state.image}"))
        panels.append(_histogram_panel(stage, histogram, u, top))
        panels.append(_count_panel(stage, positives, len(traces)))
    return Scene(960, 590, panels, f"Positive from an IoU of {u:.2f}: {'; '.join(words)}.")


def _positives_panel(seen: Trace, stage: int, u: float, name: str) -> Panel:
    height, width = seen.size
    items: list[Item] = [Image(name, to_pixels(seen.image), (0, 0, width, height), smooth=True)]
    items += [Box(_xyxy(box), "green", 2) for box in seen.target["boxes"]]
    positive = seen.iou(stage) >= u
    items += [Box(_xyxy(box), COLORS[stage - 1], 1) for box in seen.boxes[stage - 1][positive]]
    title = f"Before stage {stage}: {int(positive.sum())} of {len(positive)} positive"
    return Panel((8 + 318 * (stage - 1), 26, 308, 308), (0, 0, width, height), items, title)


def _histogram_panel(stage: int, histogram: Sequence[float], u: float, top: float) -> Panel:
    plot = _Plot((34, 8, 300, 132), (BINS[0], BINS[-1]), (0, top))
    step = next(step for step in (10, 20, 50, 100, 200, 500, 1000, 2000, 10_000) if top / step < 5)
    items = plot.axes(
        {x / 10: f"0.{x}" for x in range(3, 10)} | {1.0: "1"}, {y: str(y) for y in range(0, int(top) + 1, step)}
    )
    for low, count in zip(BINS, histogram, strict=False):
        (x1, y1), (x2, y2) = plot.at(low, count), plot.at(low + 0.05, 0)
        positive = low >= u - 1e-6
        if count:
            items.append(
                Box(
                    (x1 + 1, y1, x2 - 1, y2),
                    COLORS[stage - 1] if positive else "muted",
                    1,
                    fill=0.8 if positive else 0.15,
                )
            )
    items.append(plot.lines([(u, 0), (u, top)], "ink", 2, dashed=True))
    side, align = (5, "left") if u < 0.8 else (-5, "right")
    items.append(Text(plot.at(u, 0)[0] + side, 14, f"u = {u:.2f}", "ink", 12, align, bold=True))
    return Panel(
        (8 + 318 * (stage - 1), 354, 308, 150), (0, 0, 308, 150), items, "RoIs of all images, by IoU", framed=False
    )


def _count_panel(stage: int, positives: Positives, images: int) -> Panel:
    rows = (
        ("positive, all images", f"{positives.count} of {positives.total}", f"{positives.share:.1f} %"),
        ("their mean IoU", "", f"{positives.mean_iou:.2f}" if positives.count else "none"),
        (f"images with {WANTED} positives or more", "", f"{positives.filled} of {images}"),
    )
    items: list[Item] = []
    for line, (what, count, value) in enumerate(rows):
        y = 12 + 25 * line
        items.append(Text(4, y, what, "muted", 12))
        items.append(Text(234, y, count, "muted", 12, "right"))
        items.append(Text(300, y, value, COLORS[stage - 1] if line == 0 else "ink", 14, "right", bold=True))
    return Panel((8 + 318 * (stage - 1), 510, 308, 76), (0, 0, 308, 76), items, framed=False)


def threshold_explorer(traces: Sequence[Trace], shown: int = 6) -> Explorer[ThresholdState]:
    """Return the explorer of lesson 06 to move the threshold with: who is positive before each of the three stages.

    Args:
        traces: of the images that are counted.
        shown: of how many of these the picture can be looked at, the first ones.
    """
    state = ThresholdState()
    controls = {
        "u": widgets.FloatSlider(
            state.u, min=0.3, max=0.95, step=0.05, description="threshold u", layout={"width": "420px"}
        ),
        "image": widgets.ToggleButtons(options=list(range(min(shown, len(traces)))), description="picture"),
    }
    controls["image"].style.button_width = "40px"
    return Explorer(partial(threshold_scene, traces=traces), state, controls)


# Explorer: what a regressor makes of boxes of each quality


@dataclass(frozen=True, eq=False)
class Regression:
    """The IoU of disturbed objects' boxes, before and after: of the same n boxes for each chain."""

    before: Float[Tensor, " n"]
    after: dict[str, Float[Tensor, "3 n"]]  # by chain, and for each of its boxes


def jitter(
    gt_boxes: Float[Tensor, "m 4"], copies: int, size: Size, generator: torch.Generator
) -> tuple[Float[Tensor, "n 4"], Int[Tensor, " n"]]:
    """Return disturbed copies of boxes, from nearly right to hardly there, and the box that each is a copy of.

    Those that came to overlap another object more are left out.
    """
    owner = torch.arange(len(gt_boxes)).repeat(copies)
    strength = 0.35 * torch.rand(len(owner), 1, generator=generator)
    deltas = strength * torch.randn(len(owner), 4, generator=generator)
    boxes = clip_boxes(decode_boxes(deltas, gt_boxes[owner], UNIT), size)
    iou, nearest = box_iou(boxes, gt_boxes).max(dim=1)
    own = (nearest == owner) & (iou > 0)
    return boxes[own], owner[own]


def regress(model: CascadeRCNN, traces: Sequence[Trace], copies: int = 12, seed: int = 0) -> Regression:
    """Return how well the stages move disturbed ground truth, each alone and one after another."""
    generator = torch.Generator().manual_seed(seed)
    heads = stages_of(model)
    before: list[Tensor] = []
    after: dict[str, list[Tensor]] = {chain: [] for chain in CHAINS}
    for seen in traces:
        gt_boxes = seen.target["boxes"]
        boxes, owner = jitter(gt_boxes, copies, seen.size, generator)
        before.append(_pair_iou(boxes, gt_boxes[owner]))
        cascade, _ = run_stages(heads, seen.features, boxes, seen.size)
        again, _ = run_stages([heads[0]] * 2, seen.features, cascade[1], seen.size)  # all chains begin with stage 1
        alone = [run_stages([head], seen.features, boxes, seen.size)[0][1] for head in heads[1:]]
        for name, moved in zip(CHAINS, (cascade[1:], again, [cascade[1], *alone]), strict=True):
            after[name].append(torch.stack([_pair_iou(each, gt_boxes[owner]) for each in moved]))
    return Regression(torch.cat(before), {name: torch.cat(parts, dim=1) for name, parts in after.items()})


def _pair_iou(boxes: Float[Tensor, "n 4"], others: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Return the IoU of each box with the other one of its row."""
    return box_iou(boxes, others).diagonal()


QUALITIES = [round(0.3 + 0.05 * step, 2) for step in range(14)]  # the lower edges of the bins of the IoU before


def in_bin(before: Float[Tensor, " n"], low: float) -> Bool[Tensor, " n"]:
    """Return which boxes came in with an IoU from ``low`` to 0.05 more."""
    return (before >= low - 1e-6) & (before < low + 0.05 - 1e-6)


@dataclass(frozen=True)
class RegressorState:
    """What the learner changes: which chain is drawn, and which IoU is read off."""

    chain: str = CHAINS[2]
    iou: float = 0.5


WORDS = {
    CHAINS[0]: ("after stage 1", "after stage 2", "after stage 3"),
    CHAINS[1]: ("stage 1 once", "stage 1 twice", "stage 1 three times"),
    CHAINS[2]: ("stage 1 alone", "stage 2 alone", "stage 3 alone"),
}


def regressor_scene(state: RegressorState, data: Regression) -> Scene:
    """Return the explorer's picture: IoU after over IoU before, and what becomes of the boxes of one IoU."""
    low = round(state.iou, 2)
    chosen = in_bin(data.before, low)
    alt = f"{int(chosen.sum())} boxes that came in with an IoU from {low:.2f} to {low + 0.05:.2f}"
    panels = [_curves_panel(state, data, low)]
    if chosen.any():
        means = data.after[state.chain][:, chosen].mean(dim=1).tolist()
        words = [f"{word} {mean:.3f}" for word, mean in zip(WORDS[state.chain], means, strict=True)]
        alt += f", on average {float(data.before[chosen].mean()):.3f}: {', '.join(words)}"
        panels += _outcome_panels(state, data, chosen)
    return Scene(960, 470, panels, f"{alt}.")


def _curves_panel(state: RegressorState, data: Regression, low: float) -> Panel:
    plot = _Plot((44, 10, 454, 390), (0.3, 1), (0.3, 1))
    ticks = {x / 10: f"0.{x}" for x in range(3, 10)} | {1.0: "1"}
    (left, top), (right, bottom) = plot.at(low, 1), plot.at(low + 0.05, 0.3)
    items: list[Item] = [Box((left, top, right, bottom), "faint", 0.5, fill=0.6)]
    items += plot.axes(ticks, ticks)
    items.append(plot.lines([(0.3, 0.3), (1, 1)], "muted", 1.5, dashed=True))
    for number, (values, color) in enumerate(zip(data.after[state.chain], COLORS, strict=True)):
        points = []
        for quality in QUALITIES:
            inside = in_bin(data.before, quality)
            if inside.sum() >= 5:
                points.append((float(data.before[inside].mean()), float(values[inside].mean())))
        items.append(plot.lines(points, color, 2.5, dashed=number == 1))
        items.append(Points([plot.at(*point) for point in points], color, (3, 4, 5)[number]))
    items.append(Text(*plot.at(0.7, 0.65), "no better, no worse", "muted", 12))
    items.append(Text(250, 424, "IoU before", "ink", 13, "center"))
    items.append(Text(54, 20, "IoU after, on average", "ink", 13))
    return Panel((6, 28, 470, 436), (0, 0, 470, 436), items, f"IoU after over IoU before: {state.chain}", framed=False)


def _outcome_panels(state: RegressorState, data: Regression, chosen: Bool[Tensor, " n"]) -> list[Panel]:
    """Return the outcomes of the boxes of one IoU: a histogram for each box of the chain."""
    before = float(data.before[chosen].mean())
    after = data.after[state.chain][:, chosen]
    edges = torch.linspace(0.2, 1, 33)
    histograms = [torch.histogram(values.clamp(0.2, 1), edges)[0].tolist() for values in after]
    top = max(1.0, *(max(histogram) for histogram in histograms)) * 1.1
    panels = []
    for number, (histogram, values, color) in enumerate(zip(histograms, after, COLORS, strict=True)):
        plot = _Plot((14, 8, 286, 96), (0.2, 1), (0, top))
        items = plot.axes({x / 10: f"0.{x}" for x in range(2, 10)} | {1.0: "1"}, {})
        for place, count in enumerate(histogram):
            if count:
                (x1, y1), (x2, y2) = plot.at(float(edges[place]), count), plot.at(float(edges[place + 1]), 0)
                items.append(Box((x1, y1, x2, y2), color, 0.5, fill=0.8))
        items.append(plot.lines([(before, 0), (before, top)], "ink", 2, dashed=True))
        gain = 100 * (float(values.mean()) - before)
        items.append(Text(306, 22, WORDS[state.chain][number], color, 13, bold=True))
        items.append(Text(306, 46, f"{float(values.mean()):.3f} on average", "ink", 12))
        items.append(Text(306, 68, f"{'+' if gain >= 0 else '−'}{abs(gain):.1f} points", "ink", 15, bold=True))
        items.append(Text(306, 92, f"{100 * float((values < before).float().mean()):.0f} % got worse", "muted", 12))
        title = f"IoU after, of {int(chosen.sum())} boxes of IoU {before:.2f} (dashed)" if number == 0 else ""
        panels.append(Panel((490, 28 + 142 * number, 462, 122), (0, 0, 462, 122), items, title, framed=False))
    return panels


def regressor_explorer(data: Regression) -> Explorer[RegressorState]:
    """Return the explorer of lesson 06 to read regressors with: how good a box comes out, of how good a box went in."""
    state = RegressorState()
    controls = {
        "chain": widgets.ToggleButtons(options=CHAINS[::-1], value=state.chain, description="drawn"),
        "iou": widgets.FloatSlider(
            state.iou, min=0.3, max=0.95, step=0.05, description="IoU before, from", layout={"width": "420px"}
        ),
    }
    controls["chain"].style.button_width = "190px"
    controls["iou"].style.description_width = "110px"
    return Explorer(partial(regressor_scene, data=data), state, controls)


# Plots

MOST_DOTS = 300  # of a stage: more would hide each other


def delta_figure(deltas: Sequence[Float[Tensor, "_ 4"]]) -> Figure:
    """Return two plots of the deltas to learn before each stage: of the place (dx, dy), and of the size (dw, dh)."""
    figure, axes = plot_axes("Place: dx and dy", "Size: dw and dh", height=360)
    for plot, (x, y), names in zip(axes, ((0, 1), (2, 3)), (("dx", "dy"), ("dw", "dh")), strict=True):
        for number, (values, color) in enumerate(zip(deltas, COLORS, strict=True)):
            look: dict[str, Any] = {"color": PALETTE[color][0], "marker": "os^"[number], "alpha": 0.7}
            dots = values[:: max(1, len(values) // MOST_DOTS)]
            plot.scatter(dots[:, x], dots[:, y], 9, linewidths=0, label=f"before stage {number + 1}", **look)
        reach = float(torch.cat([d[:, [x, y]] for d in deltas]).abs().quantile(0.995))
        plot.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel=names[0], ylabel=names[1], aspect="equal")
    axes[1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1), markerscale=2)
    return figure


def share_figure(chains: Mapping[str, Sequence[Float[Tensor, " n"]]]) -> Figure:
    """Return a plot for each chain: the share of the RoIs that reach an IoU, before and after each of its heads."""
    figure, axes = plot_axes(*chains, height=320)
    thresholds = torch.linspace(0.3, 0.95, 27)
    for plot, ious in zip(axes, chains.values(), strict=True):
        for number, (values, color) in enumerate(zip(ious, ("muted", *COLORS), strict=False)):
            shares = [100 * float((values >= threshold).float().mean()) for threshold in thresholds]
            style = (":", "-", "--", "-.")[number]
            label = f"after {number}" if number else "the proposals"
            plot.plot(thresholds, shares, color=PALETTE[color][0], linestyle=style, linewidth=2, label=label)
        plot.set(xlabel="IoU with an object, at least", ylabel="RoIs, %", xlim=(0.3, 0.95), ylim=(0, None))
        plot.legend(frameon=False, loc="upper right")
    most = max(plot.get_ylim()[1] for plot in axes)
    for plot in axes:
        plot.set_ylim(0, 1.15 * most)  # room for the legend
    return figure
