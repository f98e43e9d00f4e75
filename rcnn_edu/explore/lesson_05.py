"""Lesson 05, Mask R-CNN: every tensor of a forward pass, its explorers, its measurements and its plots."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import ipywidgets as widgets
import matplotlib
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from rcnn_edu.datasets.scenes import CATEGORIES
from rcnn_edu.explore.canvas import Explorer
from rcnn_edu.explore.detections import match, to_pixels
from rcnn_edu.explore.figures import plot_axes
from rcnn_edu.explore.lesson_00 import sample_scenes
from rcnn_edu.explore.scene import PALETTE, XYXY, Box, Cells, Image, Item, Lines, Panel, Points, Scene, Text
from rcnn_edu.models import MaskRCNN, PyramidRoIAlign, tiny_mask_rcnn
from rcnn_edu.models.transform import Detection, Target
from rcnn_edu.ops import assign_fpn_levels, crop_masks, paste_masks

SIDE = 192  # of the sample scenes, in pixels
SCENES = (14, 8, 22, 4)  # those to choose from, few objects first
COLORS = ("orange", "blue", "green", "pink")  # of the classes, that of label 1 first
STEPS = ("pyramid", "objectness", "proposals", "classes", "masks", "paste")
SURE = 0.5  # the score from which a detection is shown
MOST_SHOWN = 5  # detections whose masks are shown
MOST_ROWS = 9  # of its table
MOST_BOXES = 24  # of anchors or proposals: more would hide the picture
MOST_CELLS = 64  # along a side of the pasted probabilities, seen from near


@cache
def detector() -> MaskRCNN:
    """Return the small Mask R-CNN that ships with the course, in evaluation mode."""
    return tiny_mask_rcnn(weights="scenes").eval()


@cache
def load_scene(number: int) -> tuple[Float[Tensor, "3 H W"], Target]:
    """Return a sample scene and what is on it."""
    return sample_scenes()[number]


@dataclass(frozen=True)
class Trace:
    """What a Mask R-CNN makes of one image, step by step: D detections, K classes, R proposals."""

    features: list[Float[Tensor, "1 C _ _"]]
    objectness: list[Float[Tensor, "A _ _"]]  # probabilities, a map for each level and each of A anchors around a cell
    anchors: Float[Tensor, "N 4"]  # those of all levels, best first
    candidates: Float[Tensor, "M 4"]  # what the RPN makes of each level's best, before NMS; best first
    proposals: Float[Tensor, "R 4"]  # what NMS leaves of them
    probabilities: Float[Tensor, "R K_plus_1"]  # of each proposal's class, background first
    boxes: Float[Tensor, "R K 4"]  # where each class would move each proposal
    detections: Detection  # boxes, labels, scores
    source: Int[Tensor, " D"]  # the proposal that each detection comes from
    pooled: Float[Tensor, "D C 14 14"]  # the features in each detection's box
    mask_logits: Float[Tensor, "D K m m"]
    masks: Float[Tensor, "D H W"]  # probabilities, pasted


@torch.no_grad()
def trace(model: MaskRCNN, image: Float[Tensor, "3 H W"]) -> Trace:
    """Return every step of ``model``'s forward pass on an image that it does not resize."""
    batch = model.transform([image])
    if batch.sizes != batch.original_sizes:
        raise ValueError(f"image must be of the size that the model works at, {batch.sizes[0]}; got {image.shape[1:]}")
    features = model.backbone(batch.images)
    objectness, deltas = model.rpn.head(features)
    anchors = model.rpn.anchors([(level.shape[2], level.shape[3]) for level in features])
    without_nms = copy.copy(model.rpn)
    without_nms.nms_thresh, without_nms.post_nms_top_n = 1.0, (len(torch.cat(anchors)),) * 2
    (candidates,) = without_nms.propose(anchors, objectness, deltas, batch.sizes)
    (proposals,) = model.rpn.propose(anchors, objectness, deltas, batch.sizes)
    ((boxes, probabilities),) = model.box_head.predict(features, [proposals], batch.sizes)
    detections = model.select(boxes, probabilities)
    rois = torch.nn.functional.pad(detections["boxes"], (1, 0))
    mask_logits = model.mask_head(features, rois)
    probs = model.mask_head.probabilities(mask_logits, detections["labels"])
    per_cell = model.rpn.anchors.num_anchors_per_cell
    return Trace(
        features=list(features),
        objectness=[
            level.sigmoid().view(*map_.shape[2:], per_cell).permute(2, 0, 1)
            for level, map_ in zip(objectness, features, strict=True)
        ],
        anchors=torch.cat(anchors)[torch.cat(objectness, dim=1)[0].argsort(descending=True)],
        candidates=candidates,
        proposals=proposals,
        probabilities=probabilities,
        boxes=boxes,
        detections=detections,
        source=(boxes[:, detections["labels"] - 1] == detections["boxes"]).all(dim=2).int().argmax(dim=0),
        pooled=model.mask_head.pool(features, rois),
        mask_logits=mask_logits,
        masks=model.paste(probs, detections["boxes"], batch.sizes[0]),
    )


@cache
def _traced(number: int) -> Trace:
    return trace(detector(), load_scene(number)[0])


def found_objects(traced: Trace, target: Target) -> tuple[Int[Tensor, " f"], Int[Tensor, " f"]]:
    """Return which sure detections have found an object, at a box IoU of 0.5, and which one."""
    gt = match(traced.detections, target)
    found = (gt >= 0) & (traced.detections["scores"] >= SURE)
    return found.nonzero()[:, 0], gt[found]


def mask_iou(
    masks1: Bool[Tensor, "n H W"], masks2: Bool[Tensor, "m H W"], width: int | None = None
) -> Float[Tensor, "n m"]:
    """Return the IoU of all pairs of masks; with ``width``, of their borders alone: the pixels so close to their edge.

    The latter is the Boundary IoU (Cheng et al. 2021), which is blind to an object's inside, where all is easy.
    """
    if width is not None:
        masks1, masks2 = _border(masks1, width), _border(masks2, width)
    flat1, flat2 = masks1.flatten(1).float(), masks2.flatten(1).float()
    both = flat1 @ flat2.T
    either = flat1.sum(dim=1)[:, None] + flat2.sum(dim=1) - both
    return both / either.clamp(min=1)


def _border(masks: Bool[Tensor, "n H W"], width: int) -> Bool[Tensor, "n H W"]:
    outside = torch.nn.functional.pad(~masks, (width,) * 4, value=True).float()
    return masks & (torch.nn.functional.max_pool2d(outside[:, None], 2 * width + 1, stride=1)[:, 0] > 0)


def outline(mask: Bool[Tensor, "H W"]) -> list[XYXY]:
    """Return the sides between a mask's pixels and all others, as straight segments in pixels."""
    inside = np.pad(mask.numpy(), 1)
    upright: list[XYXY] = [(x, y1, x, y2) for x, y1, y2 in _runs(inside[:, 1:] != inside[:, :-1])]
    return upright + [(x1, y, x2, y) for y, x1, x2 in _runs((inside[1:] != inside[:-1]).T)]


def _runs(marked: NDArray[np.bool_]) -> list[list[int]]:
    """Return the runs of marked cells in each column: the column, and the rows where it starts and ends."""
    columns, rows = np.nonzero((marked[1:] != marked[:-1]).T)  # column by column, starts and ends by turns
    runs: list[list[int]] = np.stack([columns[::2], rows[::2], rows[1::2]], axis=1).tolist()
    return runs


@cache
def _pixels(number: int) -> NDArray[np.uint8]:
    return to_pixels(load_scene(number)[0])


def _picture(number: int) -> Image:
    return Image(f"scene {number}", _pixels(number), (0, 0, SIDE, SIDE), smooth=True)


def _heat(name: str, values: Float[Tensor, "h w"]) -> Image:
    """Return a map as a picture over the whole scene, from its smallest value (dark blue) to its largest (yellow)."""
    low, high = values.min(), values.max()
    colors = matplotlib.colormaps["cividis"](((values - low) / (high - low).clamp(min=1e-6)).numpy())
    return Image(name, (colors[:, :, :3] * 255).round().astype(np.uint8), (0, 0, SIDE, SIDE))


def _shades(values: Float[Tensor, "h w"]) -> list[list[float]]:
    """Return values from 0 to 1 as the greys of cells, with as few digits as the eye needs."""
    shades: list[list[float]] = values.double().clamp(0, 1).round(decimals=2).tolist()
    return shades


def _strength(features: Float[Tensor, "C h w"]) -> Float[Tensor, "h w"]:
    """Return how strong the features of each cell are, over all channels, from 0 to 1."""
    strength = features.square().mean(dim=0).sqrt()
    return strength / strength.max().clamp(min=1e-6)


def _xyxy(box: Tensor) -> XYXY:
    x1, y1, x2, y2 = (round(value, 2) for value in box.tolist())
    return x1, y1, x2, y2


# Step by step


@dataclass(frozen=True)
class PipelineState:
    """What the learner changes: the scene, the step of the forward pass, and the threshold of the masks."""

    scene: int = SCENES[0]
    step: int = 1  # from 1, among STEPS
    mask_thresh: float = 0.5


def pipeline_scene(state: PipelineState) -> Scene:
    """Return the explorer's picture of a state: where the forward pass is, the scene, and this step's tensors."""
    traced = _traced(state.scene)
    left, right, text = _STEP_PICTURES[state.step - 1](state, traced)
    caption = Panel((10, 532, 940, 22), (0, 0, 940, 22), [Text(0, 10, text)], framed=False)
    alt = f"Scene {state.scene}, step {state.step}, {STEPS[state.step - 1]}: {text}"
    return Scene(960, 556, [_strip(state, traced), left, *right, caption], alt)


def _strip(state: PipelineState, traced: Trace) -> Panel:
    """Return the way of the image through the network, with how much there is of everything."""
    found = int((traced.detections["scores"] >= SURE).sum())
    counts = (
        f"{len(traced.features)} maps",
        f"{len(traced.anchors):,} anchors",
        f"{len(traced.candidates):,} → {len(traced.proposals)}",
        f"{len(traced.detections['labels'])} found, {found} sure",
        f"{len(traced.detections['labels'])} × {traced.mask_logits.shape[1]} small masks",
        f"{len(traced.masks)} in the image",
    )
    items: list[Item] = []
    for place, (name, count) in enumerate(zip(STEPS, counts, strict=True)):
        x = 157 * place
        here = place + 1 == state.step
        items.append(Text(x, 10, f"{place + 1} {name}", "blue" if here else "ink", 14, bold=here))
        items.append(Text(x, 29, count, "blue" if here else "muted", 12))
        if place:
            items.append(Text(x - 18, 10, "→", "muted", 14))
    return Panel((10, 4, 940, 40), (0, 0, 940, 40), items, framed=False)


_LEFT = (10.0, 72.0, 450.0, 450.0)
_RIGHT = (500.0, 72.0, 450.0, 450.0)
_VIEW = (0.0, 0.0, float(SIDE), float(SIDE))

_StepPicture = tuple[Panel, list[Panel], str]


def _quarters(maps: Sequence[tuple[str, Image]]) -> list[Panel]:
    places = [(500, 72), (732, 72), (500, 312), (732, 312)]
    return [Panel((x, y, 210, 210), _VIEW, [image], title) for (x, y), (title, image) in zip(places, maps, strict=True)]


def _pyramid_step(state: PipelineState, traced: Trace) -> _StepPicture:
    maps = []
    for level, features in enumerate(traced.features):
        name = f"P{level + 2}"
        _, channels, height, width = features.shape
        image = _heat(f"scene {state.scene}, {name}", _strength(features[0]))
        maps.append((f"{name}: {channels} × {height} × {width}", image))
    text = "The backbone turns the image into four maps; yellow: cells with strong features, over all channels."
    return Panel(_LEFT, _VIEW, [_picture(state.scene)], f"The image: 3 × {SIDE} × {SIDE}"), _quarters(maps), text


def _objectness_step(state: PipelineState, traced: Trace) -> _StepPicture:
    maps = []
    for level, probs in enumerate(traced.objectness):
        best = probs.amax(dim=0)
        image = _heat(f"scene {state.scene}, objectness {level}", best)
        maps.append((f"P{level + 2}: the surest {best.max():.2f}", image))
    boxes = [Box(_xyxy(anchor), "blue", 1) for anchor in traced.anchors[:MOST_BOXES]]
    left = Panel(_LEFT, _VIEW, [_picture(state.scene), *boxes], f"The {len(boxes)} best anchors, not yet moved")
    text = "The RPN asks each anchor: object or not? Right: the surest of the three anchors around each cell."
    return left, _quarters(maps), text


def _proposals_step(state: PipelineState, traced: Trace) -> _StepPicture:
    panels = []
    for place, name, boxes in ((_LEFT, "before", traced.candidates), (_RIGHT, "after", traced.proposals)):
        drawn = [Box(_xyxy(box), "blue", 1.5) for box in boxes[:MOST_BOXES]]
        title = f"{name.title()} NMS: the best {len(drawn)} of {len(boxes):,}"
        panels.append(Panel(place, _VIEW, [_picture(state.scene), *drawn], title))
    text = "Each level's best anchors, moved by their deltas. NMS drops what overlaps a better one of its level by 0.7."
    return panels[0], panels[1:], text


def _classes_step(state: PipelineState, traced: Trace) -> _StepPicture:
    best, label = traced.probabilities.max(dim=1)
    sure = ((label > 0) & (best >= SURE)).nonzero()[:, 0].tolist()
    moved = [Box(_xyxy(traced.boxes[i, label[i] - 1]), COLORS[int(label[i]) - 1], 1.5) for i in reversed(sure)]
    title = f"{len(sure)} of {len(label)} proposals are sure of a class"
    left = Panel(_LEFT, _VIEW, [_picture(state.scene), *moved], title)
    shown = _shown(traced)
    items = [_picture(state.scene), *_labelled(traced, shown)]
    right = Panel(_RIGHT, _VIEW, items, f"After NMS of each class: {len(shown)} detections from {SURE}")
    text = "The box head reads each proposal's 7 × 7 bins: a class, and a better box. Colours and names say the class."
    return left, [right], text


def _shown(traced: Trace) -> list[int]:
    """Return the detections that are sure enough to be shown, best first."""
    return (traced.detections["scores"] >= SURE).nonzero()[:, 0].tolist()


def _labelled(traced: Trace, shown: Sequence[int]) -> list[Item]:
    """Return the boxes of these detections, best on top, and above each its class and its score."""
    boxes: list[Item] = []
    texts: list[Item] = []
    for i in reversed(shown):
        label, score = int(traced.detections["labels"][i]), traced.detections["scores"][i]
        x1, y1, x2, y2 = _xyxy(traced.detections["boxes"][i])
        boxes.append(Box((x1, y1, x2, y2), COLORS[label - 1], 2))
        above = y1 - 4 if y1 > 8 else y1 + 6
        texts.append(Text(x1 + 1, above, f"{CATEGORIES[label - 1]} {score:.2f}", COLORS[label - 1], 12, bold=True))
    return [*boxes, *texts]


def _masks_step(state: PipelineState, traced: Trace) -> _StepPicture:
    shown = _shown(traced)[:MOST_SHOWN]
    m = traced.mask_logits.shape[-1]
    panels = []
    for row, i in enumerate(shown):
        label, y = int(traced.detections["labels"][i]), 72 + 91 * row
        name = [Text(0, 28, CATEGORIES[label - 1], COLORS[label - 1], bold=True)]
        name.append(Text(0, 46, f"{traced.detections['scores'][i]:.2f}", "muted", 12))
        panels.append(Panel((490, y, 54, 80), (0, 0, 54, 80), name, framed=False))
        bins = traced.pooled.shape[-1]
        cells = Cells((0, 0, bins, bins), _shades(_strength(traced.pooled[i])))
        panels.append(Panel((550, y, 76, 80), (0, 0, bins, bins), [cells], "features" if row == 0 else ""))
        for channel, probs in enumerate(traced.mask_logits[i].sigmoid()):
            items: list[Item] = [Cells((0, 0, m, m), _shades(probs))]
            if channel == label - 1:
                items.append(Box((0.6, 0.6, m - 0.6, m - 0.6), COLORS[channel], 3))
            title = CATEGORIES[channel] if row == 0 else ""
            panels.append(Panel((634 + 82 * channel, y, 76, 80), (0, 0, m, m), items, title))
    items = [_picture(state.scene), *_labelled(traced, shown)]
    left = Panel(_LEFT, _VIEW, items, "The surest detections, from the top")
    text = f"The mask head draws {m} × {m} cells for every class; the box head's class picks one, which is framed."
    return left, panels, text


def _paste_step(state: PipelineState, traced: Trace) -> _StepPicture:
    _, target = load_scene(state.scene)
    masks, truth = traced.masks >= state.mask_thresh, target["masks"].bool()
    shown = _shown(traced)
    outlines = [Lines(outline(masks[i]), _color(traced.detections, i), 2.5) for i in shown]
    title = f"Pixels with a probability from {state.mask_thresh:.2f}"
    left = Panel(_LEFT, _VIEW, [_picture(state.scene), *outlines], title)
    probs = torch.cat([torch.zeros(1, SIDE, SIDE), traced.masks[shown]]).amax(dim=0)
    heat = _heat(f"scene {state.scene}, probabilities", probs)
    true_outlines = [Lines(outline(mask), _color(target, i), 2) for i, mask in enumerate(truth)]
    right = [
        Panel((500, 72, 215, 215), _VIEW, [heat], "Probabilities, pasted"),
        Panel((735, 72, 215, 215), _VIEW, [_picture(state.scene), *true_outlines], "The truth"),
        _paste_table(traced, masks, mask_iou(masks, truth), shown[:MOST_ROWS]),
    ]
    text = f"Each chosen small mask is stretched over its box and cut at {state.mask_thresh:.2f}: pixels in the image."
    return left, right, text


def _color(labelled: Detection | Target, i: int) -> str:
    return COLORS[int(labelled["labels"][i]) - 1]


def _paste_table(traced: Trace, masks: Bool[Tensor, "D H W"], iou: Float[Tensor, "D n"], shown: list[int]) -> Panel:
    columns = (190, 280, 446)
    items: list[Item] = [Text(0, 10, "detection", "muted")]
    names = ("score", "pixels", "IoU, best fitting object")
    items += [Text(x, 10, name, "muted", align="right") for x, name in zip(columns, names, strict=True)]
    for row, i in enumerate(shown):
        y = 33 + 22 * row
        items.append(Text(0, y, CATEGORIES[int(traced.detections["labels"][i]) - 1], _color(traced.detections, i)))
        values = (f"{traced.detections['scores'][i]:.2f}", f"{int(masks[i].sum()):,}", f"{iou[i].max():.2f}")
        items += [Text(x, y, value, align="right") for x, value in zip(columns, values, strict=True)]
    return Panel((500, 306, 450, 216), (0, 0, 450, 216), items, framed=False)


_STEP_PICTURES: tuple[Callable[[PipelineState, Trace], _StepPicture], ...] = (
    _pyramid_step,
    _objectness_step,
    _proposals_step,
    _classes_step,
    _masks_step,
    _paste_step,
)


def pipeline_explorer(state: PipelineState | None = None) -> Explorer[PipelineState]:
    """Return the explorer of lesson 05's first half: an image's way through Mask R-CNN, step by step."""
    state = state or PipelineState()
    steps = [(f"{number + 1} {name}", number + 1) for number, name in enumerate(STEPS)]
    controls = {
        "step": widgets.SelectionSlider(options=steps, value=state.step, description="step", layout={"width": "360px"}),
        "scene": _scene_choice(state.scene),
        "mask_thresh": _threshold(state.mask_thresh),
    }
    return Explorer(pipeline_scene, state, controls)


def _scene_choice(number: int) -> widgets.Dropdown:
    options = [(f"number {scene}", scene) for scene in SCENES]
    return widgets.Dropdown(options=options, value=number, description="scene", layout={"width": "200px"})


def _threshold(value: float) -> widgets.FloatSlider:
    slider = widgets.FloatSlider(
        value=value, min=0.05, max=0.95, step=0.05, description="mask threshold", layout={"width": "330px"}
    )
    slider.style.description_width = "104px"
    return slider


# One RoI, by hand


@dataclass(frozen=True)
class MaskState:
    """What the learner changes: the RoI, whose mask is pasted, from which probability on, and into which box."""

    roi: XYXY = (40.0, 30.0, 106.0, 92.0)
    scene: int = SCENES[0]
    mask_of: str = "the box head's class"  # or one of CATEGORIES
    mask_thresh: float = 0.5
    refine: bool = True  # first move the box by its deltas, as a detector does at test time


@dataclass(frozen=True)
class Answer:
    """What the heads say of one RoI."""

    probabilities: Float[Tensor, " K_plus_1"]  # background first
    label: int  # the class whose mask is pasted
    final_box: Float[Tensor, " 4"]  # the box that the masks belong to
    level: int  # of the pyramid, where the mask head reads the box
    pooled: Float[Tensor, "C 14 14"]
    masks: Float[Tensor, "K m m"]  # probabilities
    pasted: Float[Tensor, "H W"]  # those of the class
    iou: Float[Tensor, " objects"]  # of the pasted mask from the threshold on, with each object


@torch.no_grad()
def answer(state: MaskState) -> Answer:
    """Return what the shipped model's own heads say of the state's RoI."""
    model, features = detector(), _traced(state.scene).features
    roi = torch.tensor([[0.0, *state.roi]])
    ((boxes, probabilities),) = model.box_head.predict(features, [roi[:, 1:]], [(SIDE, SIDE)])
    best = int(probabilities[0, 1:].argmax()) + 1
    label = CATEGORIES.index(state.mask_of) + 1 if state.mask_of in CATEGORIES else best
    final = boxes[:, label - 1] if state.refine else roi[:, 1:]
    rois = torch.nn.functional.pad(final, (1, 0))
    masks = model.mask_head(features, rois)[0].sigmoid()
    pasted = model.paste(masks[None, label - 1], final, (SIDE, SIDE))
    truth = load_scene(state.scene)[1]["masks"].bool()
    pool = cast(PyramidRoIAlign, model.mask_head.pool)
    return Answer(
        probabilities=probabilities[0],
        label=label,
        final_box=final[0],
        level=int(assign_fpn_levels(final, 2, 5, pool.canonical_size)),
        pooled=model.mask_head.pool(features, rois)[0],
        masks=masks,
        pasted=pasted[0],
        iou=mask_iou(pasted >= state.mask_thresh, truth)[0],
    )


def mask_scene(state: MaskState) -> Scene:
    """Return the explorer's picture of a state: the RoI in the image, what the heads say of it, and the paste."""
    found = answer(state)
    best = int(found.probabilities.argmax())
    name = "background" if best == 0 else CATEGORIES[best - 1]
    pixels = int((found.pasted >= state.mask_thresh).sum())
    alt = (
        f"Scene {state.scene}, RoI {_numbers(state.roi)}. The box head: {name} {found.probabilities[best]:.2f}. "
        f"The mask of {CATEGORIES[found.label - 1]} in the box {_numbers(_xyxy(found.final_box))}, level "
        f"P{found.level}, from {state.mask_thresh:.2f} on: {pixels} pixels, IoU {found.iou.max():.2f} with the object "
        "that fits best."
    )
    panels = [
        _roi_panel(state, found),
        _legend_panel(state, found, pixels),
        _features_panel(found),
        _classes_panel(found),
        *_class_mask_panels(found),
        *_paste_panels(state, found),
    ]
    return Scene(960, 562, panels, alt)


def _numbers(box: XYXY) -> str:
    return "[" + ", ".join(f"{value:.1f}" for value in box) + "]"


def _roi_panel(state: MaskState, found: Answer) -> Panel:
    mask = found.pasted >= state.mask_thresh
    items: list[Item] = [_picture(state.scene), Lines(outline(mask), "orange", 2.5)]
    if state.refine:
        items.append(Box(_xyxy(found.final_box), "green", 2, dashed=True))
    items.append(Box(state.roi, "blue", 2.5, handle="roi"))
    return Panel((10, 28, 450, 450), _VIEW, items, "Drag the blue RoI")


def _legend_panel(state: MaskState, found: Answer, pixels: int) -> Panel:
    width, height = (found.final_box[2:] - found.final_box[:2]).tolist()
    m = found.masks.shape[-1]
    size = f"{width:.1f} × {height:.1f} px, a cell {width / m:.1f} × {height / m:.1f} px"
    lines = [
        ("orange", f"mask of {CATEGORIES[found.label - 1]} from {state.mask_thresh:.2f} on: {pixels:,} px"),
        ("pink", f"the object it fits best: IoU {found.iou.max():.2f}"),
        ("green" if state.refine else "blue", f"the masks' box{', dashed' if state.refine else ''}: {size}"),
    ]
    items: list[Item] = []
    for row, (color, text) in enumerate(lines):
        items += [Points([(6, 12 + 23 * row)], color, 5), Text(18, 12 + 23 * row, text)]
    return Panel((10, 486, 450, 72), (0, 0, 450, 72), items, framed=False)


def _features_panel(found: Answer) -> Panel:
    bins = found.pooled.shape[-1]
    cells = Cells((0, 0, bins, bins), _shades(_strength(found.pooled)))
    return Panel((484, 28, 124, 124), (0, 0, bins, bins), [cells], f"P{found.level}: {bins} × {bins} bins")


def _classes_panel(found: Answer) -> Panel:
    names, colors = ("background", *CATEGORIES), ("muted", *COLORS)
    best = int(found.probabilities.argmax())
    items: list[Item] = []
    for row, (name, color, prob) in enumerate(zip(names, colors, found.probabilities.tolist(), strict=True)):
        y = 12 + 25 * row
        items.append(Text(78, y, name, align="right", bold=row == best))
        items.append(Box((88, y - 7, 88 + max(1, 172 * prob), y + 7), color, 1, fill=0.6))
        items.append(Text(312, y, f"{prob:.2f}", align="right", bold=row == best))
    return Panel((634, 28, 316, 124), (0, 0, 316, 124), items, "Box head: class probabilities", framed=False)


def _class_mask_panels(found: Answer) -> list[Panel]:
    panels = []
    m = found.masks.shape[-1]
    for channel, probs in enumerate(found.masks):
        items: list[Item] = [Cells((0, 0, m, m), _shades(probs))]
        if channel == found.label - 1:
            items.append(Box((0.5, 0.5, m - 0.5, m - 0.5), "orange", 3))
        title = f"mask of {CATEGORIES[channel]}"
        panels.append(Panel((484 + 118 * channel, 184, 110, 110), (0, 0, m, m), items, title))
    return panels


def _paste_panels(state: MaskState, found: Answer) -> list[Panel]:
    """Return the surroundings of the final box twice: each pixel's probability, and what is cut out of the image."""
    x1, y1, x2, y2 = found.final_box.tolist()
    half = 0.6 * max(x2 - x1, y2 - y1) + 3
    left, top = int((x1 + x2) / 2 - half), int((y1 + y2) / 2 - half)
    side = int(2 * half) + 1
    view = (float(left), float(top), float(left + side), float(top + side))
    step = -(-side // MOST_CELLS)  # of a large box, every second or third pixel
    rows, columns = (slice(max(0, start), min(SIDE, start + side), step) for start in (top, left))
    probs = found.pasted[rows, columns]
    extent = (columns.start, rows.start, columns.start + step * probs.shape[1], rows.start + step * probs.shape[0])
    cut: list[Item] = [_picture(state.scene)]
    if found.iou.max() > 0:
        truth = load_scene(state.scene)[1]["masks"][int(found.iou.argmax())].bool()
        cut.append(Lines(outline(truth), "pink", 2))
    cut.append(Lines(outline(found.pasted >= state.mask_thresh), "orange", 2))
    return [
        Panel((484, 326, 224, 224), view, [Cells(extent, _shades(probs))], "Pasted: each pixel's probability"),
        Panel((726, 326, 224, 224), view, cut, f"Cut at {state.mask_thresh:.2f}"),
    ]


def mask_explorer(state: MaskState | None = None) -> Explorer[MaskState]:
    """Return the explorer of lesson 05's second half: a RoI to drag, its class, its masks, and the paste."""
    state = state or MaskState()
    mask_of = widgets.Dropdown(
        options=[MaskState.mask_of, *CATEGORIES], value=state.mask_of, description="mask of", layout={"width": "270px"}
    )
    controls = {
        "scene": _scene_choice(state.scene),
        "mask_of": mask_of,
        "mask_thresh": _threshold(state.mask_thresh),
        "refine": widgets.Checkbox(state.refine, description="move the box first", indent=False),
    }
    start = {"scene": SCENES[0], "mask_of": MaskState.mask_of, "mask_thresh": 0.5, "refine": True}
    presets: dict[str, dict[str, Any]] = {
        "an object": {**start, "roi": MaskState.roi},
        "half of it": {**start, "roi": (40.0, 30.0, 73.0, 92.0), "refine": False},
        "two objects": {**start, "roi": (36.0, 14.0, 116.0, 98.0)},
        "nothing": {**start, "roi": (100.0, 110.0, 170.0, 180.0)},
    }
    return Explorer(mask_scene, state, controls, presets)


# The lesson's pictures


def instances_scene(image: Float[Tensor, "3 H W"], target: Target) -> Scene:
    """Return an image three times, with what three tasks ask for: boxes, each pixel's class, each object's pixels."""
    height, width = image.shape[1:]
    labels, masks = target["labels"].tolist(), target["masks"].bool()
    boxes: list[Item] = []
    for label, box in zip(labels, target["boxes"], strict=True):
        x1, y1, x2, y2 = _xyxy(box)
        boxes.append(Box((x1, y1, x2, y2), COLORS[label - 1], 2.5))
        boxes.append(Text(x1 + 3, y1 + 8, CATEGORIES[label - 1], COLORS[label - 1], 12, bold=True))
    each = [COLORS[number % len(COLORS)] for number in range(len(labels))]
    classes = _tinted(image, masks, [COLORS[label - 1] for label in labels])
    whole = masks.any(dim=0)[None]
    views: dict[str, list[Item]] = {
        "Detection: a box and a class": [Image("image", to_pixels(image), (0, 0, width, height), smooth=True), *boxes],
        "Semantic: each pixel's class": [Image("classes", classes, (0, 0, width, height)), *_outlines(whole)],
        "Instances: each object's pixels": [
            Image("instances", _tinted(image, masks, each), (0, 0, width, height)),
            *_outlines(masks),
        ],
    }
    panels = [
        Panel((8 + 318 * place, 26, 308, 308), (0, 0, width, height), items, title)
        for place, (title, items) in enumerate(views.items())
    ]
    alt = (
        f"A scene with {len(labels)} objects three times: with their boxes; with one colour for each class, where "
        "objects of a class that touch run into each other; and with one colour for each object."
    )
    return Scene(960, 340, panels, alt)


def _tinted(image: Float[Tensor, "3 H W"], masks: Bool[Tensor, "n H W"], colors: Sequence[str]) -> NDArray[np.uint8]:
    tinted = image.clone()
    for mask, color in zip(masks, colors, strict=True):
        rgb = torch.tensor([int(PALETTE[color][1][i : i + 2], 16) / 255 for i in (1, 3, 5)])
        tinted[:, mask] = 0.3 * tinted[:, mask] + 0.7 * rgb[:, None]
    return to_pixels(tinted)


def _outlines(masks: Bool[Tensor, "n H W"]) -> list[Item]:
    return [Lines(outline(mask), "ink", 1.5) for mask in masks]


def round_trip(
    masks: Bool[Tensor, "n H W"],
    boxes: Float[Tensor, "n 4"],
    size: int,
    paste: Callable[..., Tensor] = paste_masks,
    crop: Callable[..., Tensor] = crop_masks,
) -> Bool[Tensor, "n H W"]:
    """Return true masks cropped to size x size cells and pasted back, at 0.5: the best that a perfect head could do."""
    return paste(crop(masks, boxes, size), boxes, (masks.shape[1], masks.shape[2])) >= 0.5


def resolution_scene(
    mask: Bool[Tensor, "H W"], box: Float[Tensor, " 4"], sizes: Sequence[int] = (7, 14, 28, 56)
) -> Scene:
    """Return an object's true mask cropped to some resolutions, and below each what becomes of it in the image."""
    x1, y1, x2, y2 = _xyxy(box)
    view = (x1 - 4, y1 - 4, x2 + 4, y2 + 4)
    panels, told = [], []
    for place, size in enumerate(sizes):
        crop = crop_masks(mask[None], box[None], size)[0]
        back = round_trip(mask[None], box[None], size)
        iou = float(mask_iou(back, mask[None]))
        told.append(f"{iou:.3f} at {size} × {size}")
        x = 8 + 238 * place
        cells = Cells((0, 0, size, size), _shades(crop))
        panels.append(Panel((x, 26, 226, 226), (0, 0, size, size), [cells], f"{size} × {size} cells"))
        truth = Cells((0, 0, mask.shape[1], mask.shape[0]), (0.55 + 0.35 * mask.double()).tolist())
        panels.append(
            Panel((x, 282, 226, 226), view, [truth, Lines(outline(back[0]), "orange", 2.5)], f"pasted: IoU {iou:.3f}")
        )
    alt = f"A mask at several resolutions and pasted back into the image; IoU with the truth {', '.join(told)}."
    return Scene(960, 516, panels, alt)


def ceiling_figure(groups: Sequence[str], iou: Mapping[str, Sequence[float]]) -> Figure:
    """Return the IoU of masks that went through a small picture and back: over object size, a line a resolution."""
    figure, (axes,) = plot_axes("The best that a perfect mask head could do", height=320)
    for (name, values), color, style in zip(iou.items(), COLORS, ("o:", "s--", "D-", "^-."), strict=False):
        axes.plot(range(len(groups)), values, style, color=PALETTE[color][0], label=name)
    axes.set(xlabel="longer side of the object, px", ylabel="IoU with the truth", xticks=range(len(groups)))
    axes.set_xticklabels(groups)
    axes.legend(frameon=False, title="cells of the mask", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def profile_figure(sides: tuple[float, float], profiles: Mapping[str, Float[Tensor, " W"]]) -> Figure:
    """Return rows of pasted probabilities over the pixels' centres, with the sides of the box that they belong to."""
    figure, (axes,) = plot_axes("A mask full of ones, pasted: one row of pixels", height=300)
    for (name, values), color, style in zip(profiles.items(), ("blue", "orange"), ("o-", "s--"), strict=False):
        axes.plot(np.arange(len(values)) + 0.5, values, style, color=PALETTE[color][0], label=name)
    for place, side in enumerate(sides):
        axes.axvline(side, color=PALETTE["green"][0], linewidth=2, label="" if place else "sides of the box")
    axes.axhline(0.5, color=PALETTE["muted"][0], linewidth=1)
    longest = max(len(values) for values in profiles.values())
    axes.set(xlabel="x, px", ylabel="probability", xticks=range(longest + 1), xlim=(0, longest))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def threshold_figure(thresholds: Sequence[float], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Return curves over the threshold at which masks are cut."""
    figure, (axes,) = plot_axes("Masks of detections, cut at…", height=290)
    for (name, values), color, style in zip(curves.items(), COLORS, ("o-", "s--", "D-.", "^:"), strict=False):
        axes.plot(thresholds, values, style, color=PALETTE[color][0], label=name)
    axes.axvline(0.5, color=PALETTE["muted"][0], linewidth=1)
    axes.set(xlabel="mask threshold", ylabel="mean IoU with the truth", xticks=thresholds)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
