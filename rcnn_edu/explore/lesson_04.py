"""Lesson 04, balanced sampling and the losses: its explorer, what it measures on real networks, and its plots."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, cast

import ipywidgets as widgets
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from rcnn_edu.datasets import SyntheticScenes
from rcnn_edu.explore.canvas import Explorer
from rcnn_edu.explore.figures import plot_axes
from rcnn_edu.explore.scene import PALETTE, XY, XYXY, Box, Image, Item, Panel, Points, Scene, Text
from rcnn_edu.models import BoxHead, MaskRCNN, RoISampler, tiny_mask_rcnn
from rcnn_edu.models.transform import Target
from rcnn_edu.ops import assign_anchors_to_gt, box_head_loss, encode_boxes, rpn_loss, sample_rois

SIDE = 192  # of a scene, in pixels
NUM_SCENES, SEED = 12, 1
HEADS = ("RPN", "box head")
NETWORKS = ("untrained", "trained")
ALL = 10_000  # samples: more than there are anchors
NUMBERS = (8, 16, 32, 64, 128, 256, 512, 1024, ALL)
HARD = 0.1  # a negative that the network gives this much for being an object is a hard one
UNIT = (1.0, 1.0, 1.0, 1.0)  # an RPN's deltas are not weighted
PARTS = {"positive": "blue", "box": "pink", "hard": "orange", "easy": "muted"}  # of a loss, and their colours
MOST_BOXES = 80  # beyond that they would hide the picture, and their centres alone are drawn

Losses = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # rpn_loss, box_head_loss


@cache
def load_network(name: str) -> MaskRCNN:
    """Return the small Mask R-CNN as it was born ("untrained"), or as it ships ("trained"), as it is in training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tiny_mask_rcnn(weights="scenes" if name == "trained" else None).train()


@dataclass(frozen=True)
class View:
    """What a network makes of a scene before anything is drawn from it."""

    target: Target
    features: list[Float[Tensor, "1 C _ _"]]
    anchors: Float[Tensor, "N 4"]
    labels: Int[Tensor, " N"]  # of the anchors
    gt_boxes: Float[Tensor, "N 4"]  # that the anchors are to learn
    proposals: Float[Tensor, "P 4"]


@cache
def look(network: str, scene: int) -> View:
    """Return the network's view of a scene."""
    model = load_network(network)
    image, target = SyntheticScenes(NUM_SCENES, SEED)[scene]
    with torch.no_grad():
        batch = model.transform([image], [target])
        features = model.backbone(batch.images)
        [proposals], _ = model.rpn(features, batch.sizes)
    anchors = torch.cat(model.rpn.anchors([(level.shape[2], level.shape[3]) for level in features]))
    labels, gt_boxes = assign_anchors_to_gt(anchors, target["boxes"])
    return View(target, features, anchors, labels, gt_boxes, proposals)


@cache
def load_pixels(scene: int) -> NDArray[np.uint8]:
    """Return a scene's picture, (192, 192, 3) of uint8."""
    image, _ = SyntheticScenes(NUM_SCENES, SEED)[scene]
    return (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


@dataclass(frozen=True)
class SampleState:
    """What the learner changes: who draws, from which network and scene, how many, and which of the random draws."""

    head: str = "RPN"
    network: str = "trained"
    num_samples: int = 256
    pos_fraction: float = 0.5
    scene: int = 2
    draw: int = 0


@dataclass(frozen=True)
class Sample:
    """Drawn anchors or proposals, and by how much each part of PARTS takes part in the loss and in its gradient."""

    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]
    hard: Bool[Tensor, " n"]  # negatives that look like objects to the network
    loss: dict[str, float]
    pull: dict[str, float]  # the norm of each part's gradient on the head's weights

    def counts(self) -> dict[str, float]:
        """Return how many of each kind there are; a box is no sample of its own."""
        positive = int((self.labels > 0).sum())
        hard = int(self.hard.sum())
        return {"positive": positive, "box": 0, "hard": hard, "easy": len(self.labels) - positive - hard}


@lru_cache(256)
def draw(state: SampleState) -> Sample:
    """Return the sample of a state, drawn and judged by the package's own functions."""
    generator = torch.Generator().manual_seed(state.draw)
    model, view = load_network(state.network), look(state.network, state.scene)
    if state.head == "RPN":
        drawn = sample_rois(view.labels, state.num_samples, state.pos_fraction, generator)
        scores, deltas = model.rpn.head_at(view.features, torch.zeros_like(drawn), drawn)
        labels, boxes = view.labels[drawn], view.anchors[drawn]
        positive = labels > 0
        targets = encode_boxes(view.gt_boxes[drawn][positive], boxes[positive], UNIT)
        return judge(rpn_loss, model.rpn, boxes, scores, deltas, labels, targets)
    sampler, head = RoISampler(0.5, state.num_samples, state.pos_fraction), cast(BoxHead, model.box_head)
    sampled = sampler([view.proposals], [view.target], generator)
    logits, deltas = head(view.features, sampled.rois)
    boxes, positive = sampled.rois[:, 1:], sampled.labels > 0
    targets = encode_boxes(sampled.gt_boxes[positive], boxes[positive], head.delta_weights)
    return judge(box_head_loss, head, boxes, logits, deltas, sampled.labels, targets)


def judge(
    losses: Losses,
    head: nn.Module,
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, "n ..."],
    deltas: Float[Tensor, "n ... 4"],
    labels: Int[Tensor, " n"],
    targets: Float[Tensor, "p 4"],
) -> Sample:
    """Return the sample with each part's share of the loss and of the gradient on the head's weights."""
    chance = scores.sigmoid() if scores.ndim == 1 else 1 - scores.softmax(dim=1)[:, 0]  # of being an object
    hard = (labels == 0) & (chance.detach() >= HARD)
    parts = split_loss(losses, scores, deltas, labels, targets, hard)
    weights = list(head.parameters())
    pull = {}
    for name, part in parts.items():
        gradients = torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
        pull[name] = float(sum(g.square().sum() for g in gradients if g is not None)) ** 0.5
    return Sample(boxes, labels, hard, {name: float(part.detach()) for name, part in parts.items()}, pull)


def split_loss(
    losses: Losses,
    scores: Float[Tensor, "n ..."],
    deltas: Float[Tensor, "n ... 4"],
    labels: Int[Tensor, " n"],
    targets: Float[Tensor, "p 4"],
    hard: Bool[Tensor, " n"],
) -> dict[str, Tensor]:
    """Return the parts of a loss: they sum up to what ``losses`` says of all rows, because it divides by their number.

    The positives have two, for their class and for their box; negatives have no box to learn.
    """
    parts = {}
    for name, rows in (("positive", labels > 0), ("hard", hard), ("easy", (labels == 0) & ~hard)):
        own_targets = targets if name == "positive" else targets[:0]
        class_loss, box_loss = losses(scores[rows], deltas[rows], labels[rows], own_targets)
        share = float(rows.sum()) / max(1, len(labels))
        parts[name] = share * class_loss
        if name == "positive":
            parts["box"] = share * box_loss
    return parts


def shares(amounts: Mapping[str, float]) -> dict[str, float]:
    """Return the amounts as shares of their sum, in PARTS' order."""
    total = sum(amounts.values()) or 1.0
    return {name: amounts[name] / total for name in PARTS}


def everything(state: SampleState) -> SampleState:
    """Return the state in which all that are labelled are drawn."""
    return SampleState(state.head, state.network, ALL, 1.0, state.scene)


def sample_scene(state: SampleState) -> Scene:
    """Return the explorer's picture of a state: who was drawn, and who dominates the loss and the gradient."""
    pool, sample = draw(everything(state)), draw(state)
    rows = (
        ("How many", pool.counts(), sample.counts()),
        ("Loss", pool.loss, sample.loss),
        ("Gradient", pool.pull, sample.pull),
    )
    counts = sample.counts()
    words = "; ".join(
        f"{title.lower()}, {who}: "
        + ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares(amounts).items() if (title, name) != SKIP)
        for title, *both in rows
        for who, amounts in zip(("all", "sample"), both, strict=True)
    )
    alt = (
        f"{state.head}, {state.network}, scene {state.scene}: {len(sample.labels)} of {len(pool.labels)} drawn, "
        f"{counts['positive']} positive, {counts['hard']} hard and {counts['easy']} easy negatives. Shares: {words}."
    )
    panels = [_image_panel(state, sample, len(pool.labels)), _bars_panel(state, rows), _legend()]
    return Scene(960, 484, panels, alt)


SKIP = ("How many", "box")  # a box is no sample of its own


def _centre(box: Sequence[float]) -> XY:
    return round((box[0] + box[2]) / 2, 1), round((box[1] + box[3]) / 2, 1)


def _centres(boxes: Float[Tensor, "n 4"]) -> list[XY]:
    """Return the boxes' centres, each place once."""
    return list(dict.fromkeys(_centre(box) for box in boxes.tolist()))


def _outlines(boxes: Float[Tensor, "n 4"], color: str, width: float) -> list[Item]:
    return [Box((x1, y1, x2, y2), color, width) for x1, y1, x2, y2 in boxes.tolist()]


def _image_panel(state: SampleState, sample: Sample, num_labelled: int) -> Panel:
    items: list[Item] = [Image(f"scene {state.scene}", load_pixels(state.scene), (0, 0, SIDE, SIDE), smooth=True)]
    positive = sample.boxes[sample.labels > 0]
    items.append(Points(_centres(sample.boxes[(sample.labels == 0) & ~sample.hard]), "paper", 2))
    items += _outlines(look(state.network, state.scene).target["boxes"], "green", 2.5)
    if len(positive) <= MOST_BOXES:
        items += _outlines(positive, "blue", 1.2)
    items.append(Points(_centres(sample.boxes[sample.hard]), "orange", 3.2))
    items.append(Points(_centres(positive), "blue", 3.8))
    title = f"Drawn: {len(sample.labels):,} of {num_labelled:,} labelled"
    return Panel((10, 28, 400, 400), (0, 0, SIDE, SIDE), items, title)


BAR = (74, 310)  # from where to where a bar reaches, in pixels of its panel
COLUMNS = {"positive": 366, "box": 416, "hard": 466, "easy": 516}  # right ends of the numbers


def _bars_panel(state: SampleState, rows: Iterable[tuple[str, Mapping[str, float], Mapping[str, float]]]) -> Panel:
    """Return for each quantity two bars, that of all that are labelled and that of the sample, and their numbers."""
    items: list[Item] = [Text(x, 8, name, PARTS[name], 12, "right", bold=True) for name, x in COLUMNS.items()]
    items.append(Text(BAR[0], 8, "shares, in %", "muted", 12))
    y = 34.0
    for title, *both in rows:
        items.append(Text(0, y, title, "ink", 14, bold=True))
        for who, amounts in zip(("all", "sample"), both, strict=True):
            y += 30
            items.append(Text(66, y, who, "ink", 12, "right"))
            items += _bar(shares(amounts), y, title)
        y += 46
    loss = draw(state).loss
    divisor = f"divided by the {len(draw(state).labels):,} drawn"
    class_loss = sum(part for name, part in loss.items() if name != "box")
    items.append(Text(0, y - 4, f"The sample's loss: class {class_loss:.3f} + box {loss['box']:.3f}, {divisor}"))
    return Panel((430, 28, 520, 400), (0, 0, 520, 400), items, framed=False)


def _bar(parts: Mapping[str, float], y: float, title: str) -> list[Item]:
    items: list[Item] = []
    x = float(BAR[0])
    for name, share in parts.items():
        end = x + share * (BAR[1] - BAR[0])
        if end - x > 0.4:
            items.append(Box((x, y - 9, end, y + 9), PARTS[name], 0.5, fill=0.85))
        if (title, name) != SKIP:
            items.append(Text(COLUMNS[name], y, f"{100 * share:.1f}", PARTS[name], 13, "right", bold=share > 0.5))
        x = end
    return items


def _legend() -> Panel:
    rows = (
        (0, 8, "green", "object"),
        (100, 8, "blue", "positive: its class"),
        (100, 30, "pink", "positive: its box"),
        (262, 8, "orange", f"hard negative: the network says {HARD} or more for “object”"),
        (262, 30, "muted", "easy negative (in the picture: the small dots)"),
    )
    items: list[Item] = []
    for x, y, color, text in rows:
        items += [Points([(x + 6, y)], color, 5), Text(x + 18, y, text, size=12)]
    return Panel((10, 438, 700, 40), (0, 0, 700, 40), items, framed=False)


def sample_explorer(state: SampleState | None = None) -> Explorer[SampleState]:
    """Return the explorer of lesson 04: draw a sample, and see who dominates the loss and the gradient."""
    state = state or SampleState()
    wide: dict[str, Any] = {"layout": {"width": "340px"}}
    numbers = [("all" if number == ALL else str(number), number) for number in NUMBERS]
    controls = {
        "head": widgets.ToggleButtons(options=HEADS, value=state.head, description="head", **wide),
        "network": widgets.ToggleButtons(options=NETWORKS, value=state.network, description="network", **wide),
        "num_samples": widgets.SelectionSlider(
            options=numbers, value=state.num_samples, description="num_samples", **wide
        ),
        "pos_fraction": widgets.FloatSlider(
            state.pos_fraction, min=0, max=1, step=0.01, description="pos_fraction", **wide
        ),
        "scene": widgets.IntSlider(state.scene, 0, NUM_SCENES - 1, description="scene", **wide),
        "draw": widgets.IntSlider(state.draw, 0, 19, description="draw", **wide),
    }
    for name, control in controls.items():
        control.style.description_width = "96px"
        if name in ("head", "network"):
            control.style.button_width = "92px"
    presets: dict[str, dict[str, Any]] = {
        "RPN: 256 at 1/2": {"head": "RPN", "num_samples": 256, "pos_fraction": 0.5},
        "box head: 64 at 1/4": {"head": "box head", "num_samples": 64, "pos_fraction": 0.25},
        "draw all": {"num_samples": ALL, "pos_fraction": 1.0},
    }
    return Explorer(sample_scene, state, controls, presets)


def problem_scene(scene: int, drawn: Int[Tensor, " n"]) -> Scene:
    """Return a scene's positive anchors, all its labelled anchors as a field of dots, and the drawn ones as another."""
    view = look("trained", scene)
    positive = view.labels > 0
    items: list[Item] = [Image(f"scene {scene}", load_pixels(scene), (0, 0, SIDE, SIDE), smooth=True)]
    items += [*_outlines(view.target["boxes"], "green", 2.5), *_outlines(view.anchors[positive], "blue", 1.5)]
    labelled = view.labels[view.labels >= 0]
    panels = [
        Panel((8, 26, 308, 308), (0, 0, SIDE, SIDE), items, f"The positive anchors: {int(positive.sum())}"),
        _field_panel((326, 26, 308, 308), labelled, f"All that are labelled: {len(labelled):,}"),
        _field_panel((644, 26, 308, 308), view.labels[drawn], f"Drawn for the loss: {len(drawn)}"),
    ]
    legend: list[Item] = []
    for x, color, text in ((8, "green", "object"), (100, "blue", "positive anchor"), (240, "muted", "negative anchor")):
        legend += [Points([(x, 10)], color, 5), Text(x + 12, 10, text, size=12)]
    panels.append(Panel((8, 340, 944, 20), (0, 0, 944, 20), legend, framed=False))
    alt = (
        f"A scene with its {int(positive.sum())} positive anchors; all {len(labelled)} labelled anchors as dots, where "
        f"the positives are hard to find; and {len(drawn)} drawn ones, {int((view.labels[drawn] > 0).sum())} of them "
        "positive."
    )
    return Scene(960, 362, panels, alt)


def _field_panel(place: XYXY, labels: Int[Tensor, " n"], title: str) -> Panel:
    """Return a square field with a dot for each label, in random order."""
    side = int(np.ceil(len(labels) ** 0.5))
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))].tolist()
    spots = [(index % side + 0.5, index // side + 0.5) for index in range(len(labels))]
    radius = 0.36 * place[2] / side
    items: list[Item] = []
    for color, dots, size in (
        ("muted", [spot for spot, label in zip(spots, shuffled, strict=True) if label == 0], radius),
        ("blue", [spot for spot, label in zip(spots, shuffled, strict=True) if label > 0], max(radius, 3.5)),
    ):
        items.append(Points(dots, color, size))
    return Panel(place, (0, 0, side, side), items, title)


LOOKS = (("blue", "-"), ("orange", "--"), ("muted", ":"))  # told apart without colour


def learning_figure(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Return a plot for each run, side by side: what each of its curves does over the steps, on the same scale."""
    figure, axes = plot_axes(*runs, height=320)
    for plot, curves in zip(axes, runs.values(), strict=True):
        for (name, values), (color, style) in zip(curves.items(), LOOKS, strict=False):
            plot.plot(values, color=PALETTE[color][0], linestyle=style, linewidth=2, label=name)
        plot.set(xlabel="step", ylim=(-0.02, 1.02))
    axes[0].set_ylabel("score, or loss")
    axes[0].legend(frameon=False, loc="center right")
    return figure


def shares_figure(rows: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Return a bar for each row, split into its parts of PARTS' kinds, with each part's percent beside or within it."""
    figure, (axes,) = plot_axes(title, height=56 * len(rows) + 90)
    hatches = {"positive": "", "box": "..", "hard": "//", "easy": ""}
    start = np.zeros(len(rows))
    for name, color in PARTS.items():
        widths = np.array([100 * row.get(name, 0.0) for row in rows.values()])
        if not widths.any():
            continue
        look: dict[str, Any] = {"color": PALETTE[color][0], "hatch": hatches[name], "edgecolor": "white"}
        bars = axes.barh(list(rows), widths, 0.62, left=start, linewidth=0, label=name, **look)
        texts = [f"{width:.0f}" if width >= 4 else "" for width in widths]
        box = {"facecolor": PALETTE[color][0], "edgecolor": "none", "pad": 1.5}
        axes.bar_label(bars, texts, label_type="center", color="white", fontsize=9, fontweight="bold", bbox=box)
        start += widths
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="share, in %")
    axes.grid(visible=False)
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=len(PARTS))
    return figure


def normaliser_figure(
    positives: Sequence[int], weights: Mapping[str, Sequence[float]], box_shares: Mapping[str, Sequence[float]]
) -> Figure:
    """Return two plots over an image's positives, a mark for each image: one positive's weight, the box loss's share.

    Both hold a series for each way to divide the box loss; the shares are in percent of the gradient.
    """
    figure, axes = plot_axes("What one positive weighs", "The box loss's part of the gradient, in %", height=320)
    for plot, series in zip(axes, (weights, box_shares), strict=True):
        for (name, values), (color, _), mark in zip(series.items(), LOOKS, "os^", strict=False):
            plot.scatter(positives, values, 36, PALETTE[color][0], marker=mark, alpha=0.75, label=name)
        plot.set(xlabel="positive anchors in the image", xlim=(0, None))
    axes[0].set(yscale="log", ylim=(1 / 400, 1 / 2.5), ylabel="factor of its box loss")
    axes[0].set_yticks([1 / 4, 1 / 16, 1 / 64, 1 / 256], ["1/4", "1/16", "1/64", "1/256"])
    axes[0].minorticks_off()
    axes[1].set(ylim=(0, 104))
    axes[0].legend(frameon=False, title="the box loss divided by", loc=(0.3, 0.2))
    return figure
