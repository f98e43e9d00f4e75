"""Lesson 02, feature pyramids: its explorers and its pictures."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, cast

import ipywidgets as widgets
import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from rcnn_edu.datasets import SyntheticScenes
from rcnn_edu.explore.canvas import Explorer
from rcnn_edu.explore.figures import plot_axes
from rcnn_edu.explore.lesson_00 import sample_scenes
from rcnn_edu.explore.scene import PALETTE, XYXY, Box, Image, Item, Lines, Panel, Points, Scene, Text
from rcnn_edu.models import FPN, BoxHead, FasterRCNN, MaskRCNN, tiny_mask_rcnn
from rcnn_edu.models.box_head import Pool
from rcnn_edu.models.transform import Batch, Detection
from rcnn_edu.ops import assign_fpn_levels, box_iou

SIDE = 192  # of the picture, in pixels
LEVELS = (2, 3, 4, 5)
BINS = 7  # along a side: what the box head wants of every RoI
SEED, NUMBER = 7, 5  # of the picture
WHOLE: XYXY = (0, 0, SIDE, SIDE)


@cache
def load_scene() -> tuple[NDArray[np.uint8], list[XYXY]]:
    """Return the picture, (192, 192, 3) of uint8, and the boxes of its four objects, large to small."""
    image, target = SyntheticScenes(NUMBER + 1, SEED)[NUMBER]
    boxes: list[XYXY] = [(box[0], box[1], box[2], box[3]) for box in target["boxes"].tolist()]
    boxes.sort(key=lambda box: (box[0] - box[2]) * (box[3] - box[1]))
    return _to_pixels(image), boxes


def _to_pixels(image: Float[Tensor, "3 H W"]) -> NDArray[np.uint8]:
    return (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


# On which level is a box read?


@dataclass(frozen=True)
class LevelState:
    """What the learner changes: a box in the picture, the size that the picture is resized to, and the rule."""

    box: XYXY = (59.0, 40.0, 139.6, 120.6)  # 336 px, once the picture has 800
    side: int = 800
    canonical_size: int = 224
    rule: str = "floor"  # or "round", the famous bug


@dataclass(frozen=True)
class LevelReading:
    """What the rule makes of the box in the resized picture."""

    width: float
    height: float
    size: float  # the square root of the area, in pixels
    exact: float  # the level before it becomes a whole number
    level: int

    def cells(self, level: int) -> tuple[float, float]:
        """Return how many cells wide and high the box is on a level."""
        return self.width / 2**level, self.height / 2**level


def rule_size(canonical_size: float, rule: str) -> float:
    """Return the size with which the package's rule, which takes the floor, does what ``rule`` says.

    To round is to add a half and take the floor; half a level is a factor of the square root of 2.
    """
    return canonical_size / math.sqrt(2) if rule == "round" else canonical_size


def read_level(state: LevelState) -> LevelReading:
    """Return the level of the state's box, by the package's own function."""
    boxes = torch.tensor([state.box], dtype=torch.float32) * (state.side / SIDE)  # as images are resized, so are boxes
    x1, y1, x2, y2 = boxes[0].tolist()
    size = math.sqrt((x2 - x1) * (y2 - y1))
    level = assign_fpn_levels(boxes, canonical_size=rule_size(state.canonical_size, state.rule))
    return LevelReading(x2 - x1, y2 - y1, size, 4 + math.log2(size / state.canonical_size), int(level))


@lru_cache(maxsize=32)
def _cell_pixels(side: int, level: int) -> NDArray[np.uint8]:
    """Return the resized picture's colours, averaged over each cell of a level: a feature that one can see."""
    image = torch.from_numpy(load_scene()[0]).permute(2, 0, 1)[None].float() / 255
    resized = F.interpolate(image, size=(side, side), mode="bilinear", antialias=True).clamp(0, 1)
    return _to_pixels(F.avg_pool2d(resized, 2**level)[0])


def level_scene(state: LevelState) -> Scene:
    """Return the first explorer's picture: a box, how each level sees it, and the rule as a number line."""
    reading = read_level(state)
    across, down = reading.cells(reading.level)
    alt = (
        f"A box of {_by(state.box[2] - state.box[0], state.box[3] - state.box[1])} px. The picture is resized from "
        f"{SIDE} to {state.side} px, the box to {_by(reading.width, reading.height)}. {_formula(state, reading)}, "
        f"{state.rule}: P{reading.level}, where it has {_by(across, down)} cells, "
        f"{_by(across / BINS, down / BINS)} for each of {BINS} × {BINS} bins."
    )
    image: list[Item] = [Image("scene", load_scene()[0], WHOLE, smooth=True), Box(state.box, "blue", 2.5, handle="box")]
    panels = [
        Panel((10, 28, 316, 316), WHOLE, image, "Drag the box, or a corner of it"),
        *(_crop_panel(state, reading, place) for place in range(len(LEVELS))),
        _line_panel(state, reading),
        _formula_panel(state, reading),
    ]
    return Scene(960, 392, panels, alt)


def _by(width: float, height: float) -> str:
    return f"{width:.1f} × {height:.1f}"


def _cells_text(width: float, height: float) -> str:
    digits = 0 if min(width, height) >= 10 else 1  # what there is room for
    return f"{width:.{digits}f} × {height:.{digits}f}"


def _formula(state: LevelState, reading: LevelReading) -> str:
    return f"4 + log2({reading.size:.1f} / {state.canonical_size}) = {reading.exact:.2f}"


def _crop_panel(state: LevelState, reading: LevelReading, place: int) -> Panel:
    """Return the box's surroundings in the cells of one level, with the bins that the box head wants."""
    level = LEVELS[place]
    x1, y1, x2, y2 = state.box
    half = 0.62 * max(x2 - x1, y2 - y1)
    middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
    view = (middle_x - half, middle_y - half, middle_x + half, middle_y + half)
    shares = [i / BINS for i in range(1, BINS)]
    bins = [(x1 + t * (x2 - x1), y1, x1 + t * (x2 - x1), y2) for t in shares]
    bins += [(x1, y1 + t * (y2 - y1), x2, y1 + t * (y2 - y1)) for t in shares]
    chosen = level == reading.level
    color = "green" if chosen else "muted"
    items: list[Item] = [
        Image(f"{state.side}/P{level}", _cell_pixels(state.side, level), WHOLE),
        Lines(bins, "paper", 0.7),
        Box(state.box, color, 2.5 if chosen else 1.5),
    ]
    if chosen:
        items.append(Box(view, "green", 7))
    across, down = reading.cells(level)
    title = f"P{level}: {_cells_text(across, down)} cells"
    return Panel((340 + 156 * place, 28, 146, 146), view, items, title)


def _line_panel(state: LevelState, reading: LevelReading) -> Panel:
    """Return the sizes from 8 to 2048 px, by octaves, and which level each belongs to."""
    low, high, width = 3.0, 11.0, 610.0

    def x(size: float) -> float:
        return width * min(1, max(0, (math.log2(size) - low) / (high - low)))

    first = rule_size(state.canonical_size, state.rule) / 2  # where P3 begins
    borders = [2**low, first, 2 * first, 4 * first, 2**high]
    items: list[Item] = [
        Text(0, 12, f"√(width · height) in the picture of {state.side} px: which level has which sizes", "muted", 12)
    ]
    for place, level in enumerate(LEVELS):
        chosen = level == reading.level
        start, end = x(borders[place]), x(borders[place + 1])
        color = "green" if chosen else "muted"
        items.append(Box((start, 44, end, 72), color, 2 if chosen else 1, fill=0.3 if chosen else 0.06))
        items.append(Text((start + end) / 2, 58, f"P{level}", color, 14, "center", bold=chosen))
    items += [Text(x(size), 86, f"{size:.0f}", "muted", 12, "center") for size in borders[1:-1]]
    items += [Text(0, 86, "8", "muted", 12), Text(width, 86, "2048 px", "muted", 12, "right")]
    here = min(max(x(reading.size), 4), width - 4)
    items += [Lines([(here, 32, here, 46)], "blue", 3), Points([(here, 32)], "blue", 5)]
    return Panel((340, 186, width, 98), (0, 0, width, 98), items, framed=False)


def _formula_panel(state: LevelState, reading: LevelReading) -> Panel:
    across, down = reading.cells(reading.level)
    bins = f"{BINS} × {BINS} bins of {_by(across / BINS, down / BINS)} cells"
    lines = [
        (f"{_by(reading.width, reading.height)} px: √(w · h) = {reading.size:.1f} px", "blue", False),
        (_formula(state, reading), "ink", False),
        (f"{state.rule}, within P2 to P5: read on P{reading.level}, as {bins}", "green", True),
    ]
    items: list[Item] = [
        Text(0, 12 + 25 * row, text, color, 14, bold=bold) for row, (text, color, bold) in enumerate(lines)
    ]
    return Panel((340, 302, 610, 80), (0, 0, 610, 80), items, framed=False)


def level_explorer(state: LevelState | None = None) -> Explorer[LevelState]:
    """Return lesson 02's explorer of the level rule: resize a box or the picture, and see where its features are read.

    The features are the picture's own colours, averaged over each cell.
    """
    state = state or LevelState()
    slim = {"width": "290px"}
    controls = {
        "side": widgets.SelectionSlider(
            options=[192, 384, 576, 800, 1152], value=state.side, description="resized to, px", layout=slim
        ),
        "canonical_size": widgets.SelectionSlider(
            options=[64, 128, 224, 448], value=state.canonical_size, description="canonical size", layout=slim
        ),
        "rule": widgets.Dropdown(options=["floor", "round"], value=state.rule, description="rule", layout=slim),
    }
    for control in controls.values():
        control.style.description_width = "110px"
    names = ("gear", "drop", "leaf", "flower")
    presets: dict[str, dict[str, Any]] = {
        "336 px at 800": {**vars(LevelState())},
        **{f"the {name}": {"box": box} for name, box in zip(names, load_scene()[1], strict=True)},
        "this course's detector": {"side": 192, "canonical_size": 224, "rule": "floor"},
        "the paper's": {"side": 800, "canonical_size": 224, "rule": "floor"},
    }
    return Explorer(level_scene, state, controls, presets)


# The pyramid's features, with one of its paths or the other

MERGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "as in the paper": torch.add,
    "no top-down path": lambda lateral, from_above: lateral,
    "no lateral connections": lambda lateral, from_above: from_above,
}
SHOWN = ("objectness", "strength", "one channel")
NUM_PROPOSALS = 20
FOUND_IOU = 0.5


@dataclass(frozen=True)
class PyramidState:
    """What the learner changes: the scene, what becomes of the merge, what is shown, and whose proposals count."""

    scene: int = 15
    variant: str = "no top-down path"
    show: str = "objectness"
    channel: int = 0
    proposals: str = "all levels"  # or one: "P2"


@dataclass(frozen=True)
class Look:
    """What a detector makes of a scene: the pyramid, and each level's objectness and proposals, best first."""

    features: list[Float[Tensor, "C _ _"]]
    objectness: list[Float[Tensor, "_ _"]]  # the highest probability of a cell's anchors
    proposals: dict[str, Float[Tensor, "_ 4"]]  # of "all levels" together, and of each alone


@cache
def detector() -> MaskRCNN:
    """Return the small Mask R-CNN that ships with the course, in evaluation mode."""
    return tiny_mask_rcnn(weights="scenes").eval()


def with_merge(fpn: FPN, merge: Callable[[Tensor, Tensor], Tensor]) -> FPN:
    """Return a pyramid of the same weights that joins its maps in another way."""
    in_channels = [cast(nn.Conv2d, conv).in_channels for conv in fpn.laterals]
    other = FPN(in_channels, cast(nn.Conv2d, fpn.outputs[0]).out_channels, fpn.p6, merge)
    other.load_state_dict(fpn.state_dict())
    return other.eval()


@torch.inference_mode()
def look_at(image: Float[Tensor, "3 H W"], variant: str, model: FasterRCNN | None = None) -> Look:
    """Return what the detector, by default the shipped one, makes of an image with a variant of its pyramid."""
    model = model or detector()
    batch = model.transform([image])
    neck = with_merge(cast(FPN, model.backbone.fpn), MERGES[variant])
    features = neck(cast(nn.Module, model.backbone.body)(batch.images))
    objectness, deltas = model.rpn.head(features)
    anchors = model.rpn.anchors([(level.shape[2], level.shape[3]) for level in features])
    groups = {"all levels": slice(None), **{f"P{level}": slice(i, i + 1) for i, level in enumerate(LEVELS)}}
    proposals = {
        name: model.rpn.propose(anchors[group], objectness[group], deltas[group], batch.sizes)[0]
        for name, group in groups.items()
    }
    cells = [
        logits[0].view(*level.shape[2:], -1).amax(dim=2).sigmoid()
        for logits, level in zip(objectness, features, strict=True)
    ]
    return Look([level[0] for level in features], cells, proposals)


@lru_cache(maxsize=96)
def look_at_sample(scene: int, variant: str) -> Look:
    """Return what the shipped detector makes of a sample scene with a variant of its pyramid."""
    return look_at(sample_scenes()[scene][0], variant)


def is_found(gt_boxes: Float[Tensor, "n 4"], proposals: Float[Tensor, "m 4"]) -> Bool[Tensor, " n"]:
    """Return which objects one of the 20 best proposals overlaps by an IoU of at least 0.5."""
    return box_iou(gt_boxes, proposals[:NUM_PROPOSALS]).ge(FOUND_IOU).any(dim=1)


def pyramid_scene(state: PyramidState) -> Scene:
    """Return the second explorer's picture: the pyramid as in the paper, and below it the chosen variant."""
    image, target = sample_scenes()[state.scene]
    variants = [next(iter(MERGES)), state.variant]
    looks = [look_at_sample(state.scene, variant) for variant in variants]
    panels: list[Panel] = []
    counts = []
    for row, (variant, look) in enumerate(zip(variants, looks, strict=True)):
        found = is_found(target["boxes"], look.proposals[state.proposals])
        counts.append(f"{variant}, {int(found.sum())} of {len(found)} objects found")
        top = 50 + 232 * row
        panels.append(_found_panel(state, image, target["boxes"], look, top))
        panels.append(_row_title(counts[-1], top - 42))
        panels += [_map_panel(state, looks, row, place, top) for place in range(len(LEVELS))]
    what = f"channel {state.channel}" if state.show == "one channel" else state.show
    alt = (
        f"Scene {state.scene}: {what} on P2 to P5. By the {NUM_PROPOSALS} best proposals of {state.proposals}: "
        f"{'; '.join(counts)}."
    )
    return Scene(960, 506, [*panels, _pyramid_legend(state, looks)], alt)


def _row_title(text: str, top: int) -> Panel:
    return Panel((10, top, 940, 18), (0, 0, 940, 18), [Text(0, 9, text, "ink", 14, bold=True)], framed=False)


def _found_panel(
    state: PyramidState, image: Float[Tensor, "3 H W"], gt_boxes: Float[Tensor, "n 4"], look: Look, top: int
) -> Panel:
    """Return the scene with its objects, found or missed, and the proposal that fits each found one best."""
    height, width = image.shape[1:]
    items: list[Item] = [Image(f"scene {state.scene}", _to_pixels(image), (0, 0, width, height), smooth=True)]
    proposals = look.proposals[state.proposals][:NUM_PROPOSALS]
    best = box_iou(gt_boxes, proposals).argmax(dim=1)
    for box, hit, proposal in zip(gt_boxes.tolist(), is_found(gt_boxes, proposals), proposals[best], strict=True):
        x1, y1, x2, y2 = box
        if hit:
            left, upper, right, lower = proposal.tolist()
            items.append(Box((left, upper, right, lower), "blue", 1))
        items.append(Box((x1, y1, x2, y2), "green" if hit else "orange", 1.5, dashed=not hit))
    return Panel((10, top, 176, 176), (0, 0, width, height), items, f"proposals of {state.proposals}")


def _values(state: PyramidState, look: Look, place: int) -> Float[Tensor, "H W"]:
    if state.show == "objectness":
        return look.objectness[place]
    features = look.features[place]
    return features[state.channel] if state.show == "one channel" else features.norm(dim=0)


def _scale(state: PyramidState, looks: Sequence[Look], place: int) -> tuple[float, float]:
    """Return the values of the darkest and of the brightest colour: the same for both rows."""
    if state.show == "objectness":
        return 0.0, 1.0
    most = max(float(_values(state, look, place).abs().max()) for look in looks)
    return (-most, most) if state.show == "one channel" else (0.0, most)


def _color_map(state: PyramidState) -> str:
    return "PuOr" if state.show == "one channel" else "viridis"  # told apart with any kind of colour vision


def _map_panel(state: PyramidState, looks: Sequence[Look], row: int, place: int, top: int) -> Panel:
    values = _values(state, looks[row], place)
    low, high = _scale(state, looks, place)
    shares = ((values - low) / max(high - low, 1e-6)).clamp(0, 1).numpy()
    pixels = (matplotlib.colormaps[_color_map(state)](shares)[:, :, :3] * 255).round().astype(np.uint8)
    height, width = values.shape
    name = f"{state.scene}/{row and state.variant}/{state.show}/{state.channel}/{low:.3f}/{high:.3f}/{place}"
    extent = (0, 0, width, height)
    title = f"P{LEVELS[place]}: {height} × {width} cells"
    return Panel((206 + 190 * place, top, 176, 176), extent, [Image(name, pixels, extent)], title)


def _pyramid_legend(state: PyramidState, looks: Sequence[Look]) -> Panel:
    items: list[Item] = []
    for x, color, text in ((6, "green", "object, found"), (124, "blue", "its proposal"), (234, "orange", "missed")):
        items += [Points([(x, 11)], color, 5), Text(x + 11, 11, text, size=12)]
    ramp = matplotlib.colormaps[_color_map(state)](np.linspace(0, 1, 64))[None, :, :3]
    pixels = (ramp * 255).round().astype(np.uint8)
    items.append(Image(_color_map(state), pixels, (370, 4, 490, 18)))
    if state.show == "objectness":
        low, high, note = "0", "1", "probability that there is an object, of a cell's best anchor"
    elif state.show == "strength":
        low, high, note = "0", "most", "length of the feature vector; each level has its own scale"
    else:
        low, high, note = "−most", "+most", "each level has its own scale, white is 0"
    items += [Text(362, 11, low, "muted", 12, "right"), Text(498, 11, f"{high}: {note}", "muted", 12)]
    return Panel((10, 478, 940, 22), (0, 0, 940, 22), items, framed=False)


def pyramid_explorer(state: PyramidState | None = None) -> Explorer[PyramidState]:
    """Return lesson 02's explorer of the pyramid: the shipped detector's features with and without one of its paths."""
    state = state or PyramidState()
    slim = {"width": "300px"}
    channels = detector().backbone.fpn.outputs[0].out_channels  # type: ignore[union-attr,index]
    controls = {
        "scene": widgets.IntSlider(state.scene, 0, len(sample_scenes()) - 1, description="scene", layout=slim),
        "variant": widgets.Dropdown(options=list(MERGES)[1:], value=state.variant, description="below", layout=slim),
        "show": widgets.Dropdown(options=SHOWN, value=state.show, description="show", layout=slim),
        "channel": widgets.IntSlider(state.channel, 0, channels - 1, description="channel", layout=slim),
        "proposals": widgets.Dropdown(
            options=["all levels", *(f"P{level}" for level in LEVELS)],
            value=state.proposals,
            description="proposals of",
            layout=slim,
        ),
    }
    return Explorer(pyramid_scene, state, controls)


# Reading the same proposals on other levels

Proposed = tuple[Sequence[Tensor], Batch, list[Tensor]]  # of an image: the pyramid, the batch, the proposals


@torch.inference_mode()
def propose_in_samples() -> list[Proposed]:
    """Return what the shipped detector's box head starts from, in each sample scene."""
    model, prepared = detector(), []
    for image, _ in (sample_scenes()[index] for index in range(len(sample_scenes()))):
        batch = model.transform([image])
        features = model.backbone(batch.images)
        prepared.append((features, batch, model.rpn(features, batch.sizes)[0]))
    return prepared


@torch.inference_mode()
def detect_with(pool: Pool, prepared: Sequence[Proposed]) -> list[Detection]:
    """Return each scene's detections if the shipped detector's box head reads its RoIs with ``pool``."""
    model, detections = detector(), []
    head = copy.copy(cast(BoxHead, model.box_head))
    head.pool = pool  # the copy's: the detector keeps its own
    for features, batch, proposals in prepared:
        [prediction] = head.predict(features, proposals, batch.sizes)
        detections += batch.restore([model.select(*prediction)])
    return detections


# Pictures


def cells_scene() -> Scene:
    """Return the picture once for each stride, with its cells and how many of them two of its objects cover."""
    pixels, boxes = load_scene()
    large, small = boxes[0], boxes[-1]
    panels = []
    for place, level in enumerate(LEVELS):
        stride = 2**level
        rows: list[XYXY] = [(0, y, SIDE, y) for y in range(0, SIDE, stride)]
        columns: list[XYXY] = [(x, 0, x, SIDE) for x in range(0, SIDE, stride)]
        items: list[Item] = [
            Image("scene", pixels, WHOLE, smooth=True),
            Lines(rows + columns, "paper", 0.3 + 0.1 * level),
            Box(large, "blue", 2.5, label="A"),
            Box(small, "orange", 2.5, label="B"),
        ]
        left = 10 + 238 * place
        panels.append(Panel((left, 28, 226, 226), WHOLE, items, f"C{level}: a cell every {stride} px"))
        notes: list[Item] = []
        for row, (name, box, color) in enumerate((("A", large, "blue"), ("B", small, "orange"))):
            cells = _by((box[2] - box[0]) / stride, (box[3] - box[1]) / stride)
            notes.append(Text(113, 12 + 22 * row, f"{name}: {cells} cells", color, 14, "center", bold=True))
        panels.append(Panel((left, 258, 226, 48), (0, 0, 226, 48), notes, framed=False))
    alt = (
        f"A scene four times, in cells of 4, 8, 16 and 32 px. A large object, A, is {_side(large):.0f} px wide, a "
        f"small one, B, {_side(small):.0f} px: at stride 32 B is a fraction of one cell."
    )
    return Scene(960, 312, panels, alt)


def _side(box: XYXY) -> float:
    return box[2] - box[0]


WAYS = (
    ("(a) an image pyramid", "strong on every level", "the network runs four times"),
    ("(b) one map", "strong", "and coarse"),
    ("(c) the body's own maps", "every size there is", "but weak where they are fine"),
    ("(d) a feature pyramid", "strong on every level", "the network runs once"),
)


def ways_scene() -> Scene:
    """Return four ways to detect objects of all sizes, after the FPN paper's figure 1: thick outlines are strong."""
    panels = []
    for way, (title, first, second) in enumerate(WAYS):
        items: list[Item] = [Text(113, 222, first, "ink", 13, "center"), Text(113, 242, second, "ink", 13, "center")]
        items += _way_items(way)
        panels.append(Panel((10 + 238 * way, 28, 226, 254), (0, 0, 226, 254), items, title))
    alt = (
        "Four designs. (a) An image at four sizes, each through the network. (b) One coarse map. (c) The body's four "
        "maps, weak at the bottom and strong at the top. (d) A second pyramid, from the top down, strong everywhere."
    )
    return Scene(960, 290, panels, alt)


def _way_items(way: int) -> list[Item]:
    """Return a stack of maps, the finest below, and a line with a dot from each in which objects are looked for."""
    left, right = (56, 160) if way in (0, 3) else (90, 90)
    heights = [176 - 44 * number for number in range(4)]
    halves = [42 - 9 * number for number in range(4)]
    items: list[Item] = []
    for number, (y, half) in enumerate(zip(heights, halves, strict=True)):

        def level(middle: float, strength: int, color: str = "blue", y: int = y, half: int = half) -> Item:
            width = (1, 1.8, 2.6, 4)[strength]
            return Box((middle - half, y - 9, middle + half, y + 9), color, width, fill=0.15 if strength > 1 else 0)

        items.append(level(left, 0, "muted") if way == 0 else level(left, number))
        if way in (0, 3):
            items += [level(right, 3), *_arrow(left + half, y, right - half - 2, y, "muted" if way == 0 else "green")]
        if way != 1 or number == 3:
            items += [Lines([(right + half, y, 214, y)], "pink", 2), Points([(214, y)], "pink", 4.5)]
    for below, above in pairwise(heights):
        if way != 0:
            items += _arrow(left, below - 10, left, above + 11, "muted")
        if way == 3:
            items += _arrow(right, above + 10, right, below - 12, "green")
    return items


def _arrow(x1: float, y1: float, x2: float, y2: float, color: str) -> list[Item]:
    """Return a horizontal or vertical arrow."""
    length = math.hypot(x2 - x1, y2 - y1)
    along = ((x2 - x1) / length, (y2 - y1) / length)
    back = (x2 - 6 * along[0], y2 - 6 * along[1])
    barbs = [(x2, y2, back[0] + side * along[1], back[1] + side * along[0]) for side in (-5, 5)]
    return [Lines([(x1, y1, x2, y2), *barbs], color, 2)]


LOOKS = (("blue", "-", ""), ("orange", "--", "//"), ("green", "-.", ".."))  # told apart without colour


def found_figure(groups: Sequence[str], percent: Mapping[str, Sequence[float]]) -> Figure:
    """Return bars of the objects that proposals find, in percent: by size, one bar for each variant."""
    figure, (axes,) = plot_axes(f"Objects that the {NUM_PROPOSALS} best proposals find (IoU of at least {FOUND_IOU})")
    width = 0.8 / len(percent)
    for place, ((name, values), (color, _, hatch)) in enumerate(zip(percent.items(), LOOKS, strict=False)):
        at = [group + (place - (len(percent) - 1) / 2) * width for group in range(len(groups))]
        look: dict[str, Any] = {"color": PALETTE[color][0], "hatch": hatch, "edgecolor": "white", "linewidth": 0}
        bars = axes.bar(at, values, 0.92 * width, label=name, **look)
        axes.bar_label(bars, [f"{value:.0f}" for value in values], fontsize=9)
    axes.set_axisbelow(True)
    axes.set(xlabel="size of the object, px", ylabel="objects found, %", xticks=range(len(groups)), ylim=(0, 112))
    axes.set_xticklabels(groups)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def cells_figure(sizes: Float[Tensor, " n"], curves: Mapping[str, Float[Tensor, " n"]]) -> Figure:
    """Return a plot of how many cells wide a square box is where it is read, over its size in pixels."""
    figure, (axes,) = plot_axes("How many cells wide a box is on the level where it is read", height=320)
    for (name, cells), (color, style, _) in zip(curves.items(), LOOKS, strict=False):
        axes.plot(sizes, cells, color=PALETTE[color][0], linestyle=style, label=name)
    axes.set(xlabel="size of the box, px", ylabel="cells", xscale="log", yscale="log")
    ticks = [14, 28, 56, 112, 224, 448, 896]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks([0.875, 1.75, 3.5, 7, 14, 28, 56], ["0.9", "1.8", "3.5", "7", "14", "28", "56"])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
