"""Lesson 08, multi-scale and flip testing: its explorer, its measurements on a detector's views, and its plots."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from statistics import median
from typing import Any, Literal, TypedDict

import ipywidgets as widgets
import torch
import traitlets
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from rcnn_edu.explore.canvas import Explorer
from rcnn_edu.explore.detections import match, to_pixels
from rcnn_edu.explore.figures import plot_axes
from rcnn_edu.explore.scene import PALETTE, Box, Cells, Image, Item, Lines, Panel, Points, Scene, Text, tenths
from rcnn_edu.models import DetectionSelector, FasterRCNN, MaskRCNN
from rcnn_edu.models.multi_scale import mirror
from rcnn_edu.models.transform import Detection, Size, Target, resize_boxes
from rcnn_edu.ops import box_iou, crop_masks, paste_masks, select_detections

SCALES = (0.5, 0.75, 1.0, 1.5, 2.0)  # of the explorer
METHODS = ("NMS", "Soft-NMS")
SUPPRESSIONS: dict[str, Literal["hard", "gaussian"]] = {"NMS": "hard", "Soft-NMS": "gaussian"}  # as the package says
MOST_DETECTIONS = 100  # of an image
COPIES_TOO = DetectionSelector(iou_thresh=1.0, max_detections=100_000)  # scores from 0.05 on; no IoU is above 1

View = tuple[float, bool]  # a scale, and whether the image is mirrored
Measure = Callable[[list[Detection]], dict[str, float]]  # detections of all scenes -> COCO's figures, from 0 to 100


class Look(TypedDict):
    """What a detector says of one view of an image, in the view's own pixels, copies and all."""

    scale: float
    flipped: bool
    boxes: Tensor  # (n, 4)
    labels: Tensor  # (n,)
    scores: Tensor  # (n,)


def views_of(scales: Sequence[float], flip: bool = False) -> tuple[View, ...]:
    """Return a view at each scale, with ``flip`` also mirrored."""
    return tuple((scale, flipped) for scale in scales for flipped in ((False, True) if flip else (False,)))


@torch.no_grad()
def look(model: FasterRCNN, image: Float[Tensor, "3 H W"], scale: float = 1.0, flipped: bool = False) -> Look:
    """Return the boxes that the model sees in one view, those that score more than 0.05, with nothing suppressed."""
    batch = model.transform([image.flip(2) if flipped else image], scale=scale)
    features = model.backbone(batch.images)
    proposals, _ = model.rpn(features, batch.sizes)
    [prediction] = model.box_head.predict(features, proposals, batch.sizes)
    seen = COPIES_TOO(*prediction)
    factor = batch.sizes[0][1] / image.shape[2]  # the scale itself for images of the size that the model works at
    return {
        "scale": factor,
        "flipped": flipped,
        "boxes": seen["boxes"],
        "labels": seen["labels"],
        "scores": seen["scores"],
    }


def take(
    model: FasterRCNN, images: Sequence[Float[Tensor, "3 H W"]], views: Sequence[View]
) -> tuple[dict[View, list[Look]], dict[View, float]]:
    """Return the looks at every image in each view, and each view's median time for an image, in seconds."""
    looks: dict[View, list[Look]] = {view: [] for view in views}
    seconds = {}
    for view, seen in looks.items():
        times = []
        for image in images:
            start = time.perf_counter()
            seen.append(look(model, image, *view))
            times.append(time.perf_counter() - start)
        seconds[view] = median(times)
    return looks, seconds


def restore(seen: Look, size: Size) -> Detection:
    """Return what was seen as boxes of the image itself, whose size is (H, W)."""
    boxes = seen["boxes"] / seen["scale"]
    boxes = mirror(boxes, size) if seen["flipped"] else boxes
    return {"boxes": boxes, "labels": seen["labels"], "scores": seen["scores"]}


def merge(looks: Sequence[Look], size: Size, iou_thresh: float = 0.5, method: str = "NMS") -> Detection:
    """Return one answer for the image, from what was seen in all its views: the package's own suppression decides."""
    together = gather([restore(seen, size) for seen in looks])
    keep, scores = select_detections(
        together["boxes"],
        together["scores"],
        together["labels"],
        iou_thresh,
        max_detections=MOST_DETECTIONS,
        suppression=SUPPRESSIONS[method],
    )
    return {"boxes": together["boxes"][keep], "labels": together["labels"][keep], "scores": scores}


def gather(detections: Sequence[Detection]) -> Detection:
    """Return all the detections as one, one after the other."""
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "scores": torch.zeros(0)}
    return {key: torch.cat([empty, *(found[key] for found in detections)]) for key, empty in nothing.items()}


def average_scores(looks: Sequence[Look], size: Size, iou_thresh: float = 0.5) -> Detection:
    """Return the merged boxes with other scores: a box's best in each view, 0 where a view has none, averaged."""
    merged = merge(looks, size, iou_thresh)
    by_view = []
    for seen in looks:
        found = gather([restore(seen, size)])
        votes = _same_object(merged, found, iou_thresh) * found["scores"]
        by_view.append(torch.cat([votes, votes.new_zeros(len(votes), 1)], dim=1).amax(dim=1))
    scores = torch.stack(by_view).mean(dim=0)
    order = scores.argsort(descending=True, stable=True)
    return {"boxes": merged["boxes"][order], "labels": merged["labels"][order], "scores": scores[order]}


def vote(looks: Sequence[Look], size: Size, iou_thresh: float = 0.5) -> Detection:
    """Return the merged detections, each box the mean of those that it stands for, weighted by their scores."""
    merged, found = merge(looks, size, iou_thresh), gather([restore(seen, size) for seen in looks])
    weights = _same_object(merged, found, iou_thresh) * found["scores"]
    return {**merged, "boxes": weights @ found["boxes"] / weights.sum(dim=1, keepdim=True)}


def _same_object(merged: Detection, found: Detection, iou_thresh: float) -> Bool[Tensor, "k n"]:
    same_class = merged["labels"][:, None] == found["labels"]
    return (box_iou(merged["boxes"], found["boxes"]) > iou_thresh) & same_class


def box_sizes(target: Target) -> Float[Tensor, " n"]:
    """Return each object's size: the side of a square with its box's area, in pixels."""
    x1, y1, x2, y2 = target["boxes"].unbind(dim=1)
    return ((x2 - x1) * (y2 - y1)).sqrt()


def recall_by_size(
    detections: Sequence[Detection],
    targets: Sequence[Target],
    groups: Sequence[tuple[float, float]],
    iou_thresh: float = 0.5,
) -> list[float]:
    """Return the share of the objects of each group of sizes (from, up to) that are found at this IoU, in %."""
    hits = []
    for detection, target in zip(detections, targets, strict=True):
        hit = torch.zeros(len(target["labels"]), dtype=torch.bool)
        found = match(detection, target, iou_thresh)
        hit[found[found >= 0]] = True
        hits.append(hit)
    hit, sizes = torch.cat(hits), torch.cat([box_sizes(target) for target in targets])
    return [100 * float(hit[(sizes >= low) & (sizes < high)].float().mean()) for low, high in groups]


class Album:
    """What a detector sees in many views of some scenes, looked at once, to be merged and measured again and again."""

    def __init__(
        self,
        images: Sequence[Float[Tensor, "3 H W"]],
        targets: Sequence[Target],
        looks: Mapping[View, Sequence[Look]],
        seconds: Mapping[View, float],
        measure: Measure,
    ) -> None:
        self.images, self.targets, self.looks, self.seconds = images, targets, looks, seconds
        self.measure = measure
        self.size: Size = (images[0].shape[1], images[0].shape[2])
        self.figures = cache(self._figures)  # an explorer asks for the same ones again and again

    def of_scene(self, scene: int, views: Sequence[View]) -> list[Look]:
        """Return the looks at one scene."""
        return [self.looks[view][scene] for view in views]

    def merged(self, views: Sequence[View], iou_thresh: float = 0.5, method: str = "NMS") -> list[Detection]:
        """Return every scene's detections, merged from the views."""
        return [merge(self.of_scene(scene, views), self.size, iou_thresh, method) for scene in range(len(self.images))]

    def _figures(self, views: tuple[View, ...], iou_thresh: float = 0.5, method: str = "NMS") -> dict[str, float]:
        return self.measure(self.merged(views, iou_thresh, method))

    def cost(self, views: Sequence[View]) -> tuple[float, float]:
        """Return how many times the image's own pixels the views have, and how long an image takes, in ms."""
        return sum(scale**2 for scale, _ in views), 1000 * sum(self.seconds[view] for view in views)


# The explorer


@dataclass(frozen=True)
class ScaleState:
    """What the learner changes: the views, how they are merged, and the scene and scores that the picture shows."""

    scales: tuple[float, ...] = (1.0, 2.0)
    flip: bool = False
    method: str = "NMS"
    iou_thresh: float = 0.5
    cut: float = 0.5
    scene: int = 0

    def views(self) -> tuple[View, ...]:
        """Return the views that are merged."""
        return views_of(self.scales, self.flip)


class ScaleField(widgets.HBox):  # type: ignore[misc]  # ipywidgets has no types
    """A tick box for each scale; the value is those that are ticked, in their order."""

    value = traitlets.Tuple(())

    def __init__(self, value: Sequence[float], scales: Sequence[float]) -> None:
        """Make the boxes for ``scales``, those of ``value`` ticked."""
        self._ticks = {
            scale: widgets.Checkbox(scale in value, description=f"{scale:g}×", indent=False, layout={"width": "64px"})
            for scale in scales
        }
        for tick in self._ticks.values():
            tick.observe(self._ticked, "value")
        super().__init__([widgets.Label("scales"), *self._ticks.values()], value=tuple(value))

    def _ticked(self, _change: object) -> None:
        self.value = tuple(scale for scale, tick in self._ticks.items() if tick.value)

    @traitlets.observe("value")
    def _set(self, change: dict[str, Any]) -> None:
        for scale, tick in self._ticks.items():
            tick.unobserve(self._ticked, "value")
            tick.value = scale in change["new"]
            tick.observe(self._ticked, "value")


def scale_scene(state: ScaleState, album: Album) -> Scene:
    """Return the explorer's picture: a scene's merged detections, which view finds what, AP and cost."""
    target = album.targets[state.scene]
    order = box_sizes(target).argsort(stable=True).tolist()
    detection = _above(merge(album.of_scene(state.scene, state.views()), album.size, *_how(state)), state.cut)
    found = match(detection, target)
    rows = {scale: _found_in(state, album, scale) for scale in SCALES}
    panels = [
        _image_panel(state, album, detection, found, order),
        _legend_panel(),
        _matrix_panel(state, target, order, rows, detection, found),
        _table_panel(state, album),
        _plane_panel(state, album),
    ]
    return Scene(960, 482, panels, _describe(state, album, order, rows, found))


def _how(state: ScaleState) -> tuple[float, str]:
    return state.iou_thresh, state.method


def _above(detection: Detection, cut: float) -> Detection:
    return {name: values[detection["scores"] >= cut] for name, values in detection.items()}


def _found_in(state: ScaleState, album: Album, scale: float) -> list[dict[int, float]]:
    """Return which objects the view finds by itself, and with what scores: as it is and, if wanted, mirrored."""
    found = []
    for view in views_of([scale], state.flip):
        alone = _above(merge(album.of_scene(state.scene, [view]), album.size, *_how(state)), state.cut)
        pairs = zip(match(alone, album.targets[state.scene]).tolist(), alone["scores"].tolist(), strict=True)
        found.append({index: score for index, score in pairs if index >= 0})
    return found


def _named(state: ScaleState) -> str:
    scales = ", ".join(f"{scale:g}×" for scale in state.scales) or "no view"
    return f"{scales} and mirrored" if state.flip and state.scales else scales


def _describe(
    state: ScaleState, album: Album, order: list[int], rows: dict[float, list[dict[int, float]]], found: Tensor
) -> str:
    """Return the explorer's text."""
    letters = {index: chr(65 + place) for place, index in enumerate(order)}
    pixels, _ = album.cost(state.views())
    figures, alone = album.figures(state.views(), *_how(state)), album.figures(views_of([1.0]), 0.5, "NMS")
    by_scale = "; ".join(
        f"{scale:g}× {' '.join(letters[index] for index in order if any(index in one for one in views)) or 'nothing'}"
        for scale, views in rows.items()
    )
    return (
        f"{_named(state)}, merged by {state.method} at N_t {state.iou_thresh:.2f}. AP on {len(album.images)} scenes "
        f"{figures['AP']:.1f}, at 1× alone {alone['AP']:.1f}, for {pixels:.2f} times the pixels. Scene {state.scene}, "
        f"scores from {state.cut:.2f}: {int((found >= 0).sum())} of {len(order)} objects found, "
        f"{int((found < 0).sum())} too many. Alone, the scales find: {by_scale}."
    )


def _image_panel(state: ScaleState, album: Album, detection: Detection, found: Tensor, order: list[int]) -> Panel:
    height, width = album.size
    target = album.targets[state.scene]
    pixels = to_pixels(album.images[state.scene])
    items: list[Item] = [Image(f"scene {state.scene}", pixels, (0, 0, width, height), smooth=True)]
    items += _answer_boxes(detection, target, found.tolist())
    for place, index in enumerate(order):
        x1, y1, _, _ = target["boxes"][index].tolist()
        items.append(Text(max(x1 - 1, 4), max(y1 - 4, 5), chr(65 + place), "ink", 13, "center", bold=True))
    title = f"Scene {state.scene}: the answer, scores from {state.cut:.2f}"
    return Panel((10, 28, 380, 380), (0, 0, width, height), items, title)


def _legend_panel() -> Panel:
    items: list[Item] = []
    for line, (color, text) in enumerate(LEGEND):
        y = 8 + 21 * line
        items += [Points([(8, y)], color, 5), Text(20, y, text, size=12)]
    return Panel((10, 416, 380, 62), (0, 0, 380, 62), items, framed=False)


def _matrix_panel(
    state: ScaleState,
    target: Target,
    order: list[int],
    rows: dict[float, list[dict[int, float]]],
    detection: Detection,
    found: Int[Tensor, " k"],
) -> Panel:
    """Return a row for each scale, a column for each object: a dot where the view, by itself, finds the object."""
    sizes = box_sizes(target).tolist()
    items: list[Item] = [Text(0, 28, "size, px", "muted", 11), Lines([(0, 164, 548, 164)], "faint", 1)]
    scores = dict(zip(found.tolist(), detection["scores"].tolist(), strict=True))
    for row, (scale, views) in enumerate(rows.items()):
        y, chosen = 52 + 24 * row, scale in state.scales
        items.append(Text(14, y, f"{scale:g}×", "ink" if chosen else "muted", 13, bold=chosen))
        items += [Text(0, y, "✓", "blue", 13, bold=True)] if chosen else []
        for place, index in enumerate(order):
            for side, one in zip((-8, 8) if state.flip else (0,), views, strict=True):
                items.append(_dot(110 + 52 * place + side, y, one.get(index), chosen))
    items.append(Text(0, 182, "merged", "ink", 13, bold=True))
    for place, index in enumerate(order):
        x = 110 + 52 * place
        items.append(Text(x, 10, chr(65 + place), "ink", 14, "center", bold=True))
        items.append(Text(x, 28, f"{sizes[index]:.0f}", "muted", 11, "center"))
        if index in scores:
            items.append(Text(x, 182, f"{scores[index]:.2f}", "green", 13, "center", bold=True))
        else:
            items.append(Text(x, 182, "missed", "orange", 11, "center"))
    title = "Which view finds which object" + (" (left dot: as it is, right: mirrored)" if state.flip else "")
    return Panel((402, 28, 550, 196), (0, 0, 550, 196), items, title, framed=False)


def _dot(x: float, y: float, score: float | None, chosen: bool) -> Points:
    """Return the mark of one view and one object: the surer, the larger; a speck where it is not found."""
    if score is None:
        return Points([(x, y)], "muted", 1.5)
    return Points([(x, y)], "green" if chosen else "muted", 2.5 + 4.5 * score, 1 if chosen else 0.6)


COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def _table_panel(state: ScaleState, album: Album) -> Panel:
    """Return COCO's figures of scale 1 alone and of the learner's choice, and what they cost."""
    places = [*range(160, 421, 52), 486, 548]
    head = [*COLUMNS, "pixels", "ms"]
    items: list[Item] = [Text(x, 8, name, "muted", 12, "right") for x, name in zip(places, head, strict=True)]
    rows = (("1× alone", views_of([1.0]), (0.5, "NMS")), ("your choice", state.views(), _how(state)))
    for line, (name, views, (iou_thresh, method)) in enumerate(rows):
        figures, (pixels, milliseconds) = album.figures(views, iou_thresh, method), album.cost(views)
        y = 32 + 24 * line
        items.append(Text(0, y, name, "blue" if line else "muted", 13, bold=bool(line)))
        values = [*(f"{figures[column]:.1f}" for column in COLUMNS), f"{pixels:.2f}×", f"{milliseconds:.0f}"]
        items += [Text(x, y, text, "ink", 13, "right") for x, text in zip(places, values, strict=True)]
    return Panel((402, 250, 550, 70), (0, 0, 550, 70), items, f"AP on {len(album.images)} scenes", framed=False)


def _plane_panel(state: ScaleState, album: Album) -> Panel:
    """Return AP over the number of pixels: each scale alone as a landmark, and the learner's choice."""
    alone = {scale: album.figures(views_of([scale]), 0.5, "NMS")["AP"] for scale in SCALES}
    everything = [album.figures(views_of(SCALES, flip), 0.5, "NMS")["AP"] for flip in (False, True)]
    known = [*alone.values(), *everything]
    low, high = math.floor(min(known)) - 1, math.ceil(max(known)) + 1

    def spot(pixels: float, ap: float) -> tuple[float, float]:
        return 60 + 64 * (math.log2(pixels) + 2.5), 120 - 108 * (min(max(ap, low), high) - low) / (high - low)

    items: list[Item] = []
    for ap in (low, (low + high) / 2, high):
        _, y = spot(1, ap)
        items += [Lines([(60, y, 510, y)], "faint", 1), Text(52, y, f"{ap:g}", "muted", 11, "right")]
    for pixels in (0.25, 1, 4, 16):
        x, _ = spot(pixels, low)
        items += [Lines([(x, 120, x, 125)], "muted", 1), Text(x, 134, f"{pixels:g}×", "muted", 11, "center")]
    items.append(Text(548, 134, "pixels", "muted", 11, "right"))
    for scale, ap in alone.items():
        x, y = spot(scale**2, ap)
        items += [Points([(x, y)], "muted", 4), Text(x + 8, y, f"{scale:g}×", "muted", 11)]
    if state.scales:
        pixels, _ = album.cost(state.views())
        ap = album.figures(state.views(), *_how(state))["AP"]
        x, y = spot(pixels, ap)
        items += [Points([(x, y)], "blue", 6), Text(x + 10, y, f"{ap:.1f}", "blue", 13, bold=True)]
    return Panel((402, 342, 550, 138), (0, 2, 550, 140), items, "AP, and the pixels it takes", framed=False)


def scale_explorer(album: Album, state: ScaleState | None = None) -> Explorer[ScaleState]:
    """Return the explorer of lesson 08: choose the views, and see who finds what, AP and the cost."""
    state = state or ScaleState()
    rest: dict[str, Any] = {"continuous_update": False, "layout": {"width": "300px"}}  # an evaluation takes a moment
    controls = {
        "scales": ScaleField(state.scales, SCALES),
        "flip": widgets.Checkbox(state.flip, description="and mirrored", indent=False, layout={"width": "120px"}),
        "method": widgets.ToggleButtons(options=METHODS, value=state.method, description="merge by"),
        "iou_thresh": widgets.FloatSlider(state.iou_thresh, min=0.1, max=0.9, step=0.05, description="N_t", **rest),
        "cut": widgets.FloatSlider(state.cut, min=0.05, max=0.95, step=0.05, description="score cut", **rest),
        "scene": widgets.IntSlider(state.scene, 0, len(album.images) - 1, description="scene", **rest),
    }
    controls["method"].style.button_width = "92px"
    presets: dict[str, dict[str, Any]] = {
        "1× alone": {"scales": (1.0,), "flip": False},
        "1×, mirrored too": {"scales": (1.0,), "flip": True},
        "the package's default": {"scales": (0.5, 1.0, 1.5), "flip": False},
        "everything": {"scales": SCALES, "flip": True},
    }
    return Explorer(partial(scale_scene, album=album), state, controls, presets)


# Pictures and plots

LEGEND = (
    ("green", "finds an object at IoU 0.5, its class right"),
    ("orange", "wrong, or one too many (dashed)"),
    ("ink", "shaded: an object that is missed"),
)


def answers_scene(
    image: Float[Tensor, "3 H W"],
    target: Target,
    answers: Mapping[str, Detection],
    shares: Sequence[float] = (1.0, 1.0, 1.0),
    cut: float = 0.5,
) -> Scene:
    """Return the image once for each of the answers, by title, drawn at its share of the picture's width."""
    pixels = to_pixels(image)
    height, width = pixels.shape[:2]
    unit = (944 - 10 * (len(answers) - 1)) / (width * sum(shares))  # pixels of the picture in one of the image
    panels, left, told = [], 8.0, []
    for (title, detection), share in zip(answers.items(), shares, strict=True):
        sure = _above(detection, cut)
        hits = match(sure, target).tolist()
        items: list[Item] = [Image("scene", pixels, (0, 0, width, height), smooth=True)]
        items += _answer_boxes(sure, target, hits)
        right = sum(index >= 0 for index in hits)
        side = (unit * share * width, unit * share * height)
        panels.append(Panel((left, 26, *side), (0, 0, width, height), items, f"{title}: {right} found"))
        told.append(f"{title}: {right} found, {len(hits) - right} too many")
        left += side[0] + 10
    bottom = 32 + unit * max(shares) * height
    panels.append(Panel((8, bottom, 944, 20), (0, 0, 944, 20), _legend(), framed=False))
    alt = f"A scene with {len(target['boxes'])} objects; {'; '.join(told)}."
    return Scene(960, math.ceil(bottom + 24), panels, alt)


def _answer_boxes(detection: Detection, target: Target, hits: Sequence[int]) -> list[Item]:
    """Return the missed objects, shaded, and the detections, the best on top."""
    missed = [box for index, box in enumerate(target["boxes"].tolist()) if index not in hits]
    rows = list(zip(hits, detection["boxes"].tolist(), strict=True))
    items: list[Item] = [Box(tenths(box), "ink", 1, fill=0.3) for box in missed]
    for index, box in reversed(rows):
        items.append(Box(tenths(box), "green" if index >= 0 else "orange", 2, dashed=index < 0))
    return items


def _legend() -> list[Item]:
    items: list[Item] = []
    for place, (color, text) in enumerate(LEGEND):
        items += [Points([(8 + 320 * place, 10)], color, 5), Text(20 + 320 * place, 10, text, size=12)]
    return items


@torch.no_grad()
def draw_masks(
    model: MaskRCNN, image: Float[Tensor, "3 H W"], target: Target, views: Sequence[View]
) -> Float[Tensor, "v n m m"]:
    """Return the masks that the model draws in the objects' own boxes, in each view, as it is in the image itself."""
    size = (image.shape[1], image.shape[2])
    masks = []
    for scale, flipped in views:
        batch = model.transform([image.flip(2) if flipped else image], scale=scale)
        boxes = mirror(target["boxes"], size) if flipped else target["boxes"]
        boxes = resize_boxes(boxes, size, batch.sizes[0])
        [drawn] = model.mask_head.predict(model.backbone(batch.images), [{**target, "boxes": boxes}])
        masks.append(drawn.flip(2) if flipped else drawn)
    return torch.stack(masks)


def mask_iou(probabilities: Float[Tensor, "n m m"], target: Target) -> Float[Tensor, " n"]:
    """Return the IoU of each mask, pasted into the image and cut at 0.5, with its object's."""
    truth = target["masks"].bool()
    drawn = paste_masks(probabilities, target["boxes"], (truth.shape[1], truth.shape[2])) > 0.5
    return (drawn & truth).sum(dim=(1, 2)) / (drawn | truth).sum(dim=(1, 2)).clamp(min=1)


def masks_scene(target: Target, masks: Float[Tensor, "v n m m"], names: Sequence[str], index: int) -> Scene:
    """Return one object's mask as each view draws it, their mean, and the truth, each with its IoU in the image."""
    mean = masks.mean(dim=0)
    drawn = [*masks, mean]
    ious = [float(mask_iou(each, target)[index]) for each in drawn]
    one = torch.tensor([index])
    [truth] = crop_masks(target["masks"], target["boxes"][index : index + 1], mean.shape[-1], one)
    titles = [f"{name}: IoU {iou:.2f}" for name, iou in zip([*names, "mean"], ious, strict=True)]
    side = (944 - 8 * len(drawn)) / (len(drawn) + 1)
    panels = []
    for place, (title, cells) in enumerate(zip([*titles, "truth"], [*(d[index] for d in drawn), truth], strict=True)):
        shades = [[round(value, 3) for value in row] for row in cells.tolist()]
        grid: list[Item] = [Cells((0, 0, 1, 1), shades)]
        panels.append(Panel((8 + (side + 8) * place, 26, side, side), (0, 0, 1, 1), grid, title))
    return Scene(
        960, math.ceil(34 + side), panels, f"An object's mask, from black (0) to white (1); {', '.join(titles)}."
    )


LOOKS = (("orange", "--", "s"), ("blue", "-", "o"), ("green", "-.", "D"), ("ink", ":", "^"))  # told apart in grey too


def recall_figure(groups: Sequence[str], curves: Mapping[float, Mapping[str, Sequence[float]]]) -> Figure:
    """Return a plot over groups of object sizes for each IoU: for each way of looking, the share found there in %."""
    figure, all_axes = plot_axes(*(f"Objects found at IoU {iou:g}" for iou in curves), height=320)
    for axes, by_way in zip(all_axes, curves.values(), strict=True):
        for (name, values), (color, style, marker) in zip(by_way.items(), LOOKS, strict=False):
            shade = PALETTE[color][0]
            axes.plot(range(len(groups)), values, color=shade, linestyle=style, marker=marker, label=name)
        axes.set(xlabel="size of the object, px", ylabel="share found, %", ylim=(0, 103), xticks=range(len(groups)))
        axes.set_xticklabels(groups)
    all_axes[0].legend(frameon=False, loc="lower right")
    return figure


def cost_figure(ways: Mapping[str, tuple[float, float]]) -> Figure:
    """Return AP over time: for each way of looking its (ms an image, AP), named by a letter, and the best for its time.

    The right half says what the letters mean.
    """
    figure, (axes, names) = plot_axes("AP, and the time it takes", "", height=360)
    by_time = sorted(ways.items(), key=lambda way: way[1])
    front: list[tuple[float, float]] = []
    for place, (name, (milliseconds, ap)) in enumerate(by_time):
        is_best = not front or ap > front[-1][1]
        front += [(milliseconds, ap)] if is_best else []
        letter, color = chr(97 + place), PALETTE["blue" if is_best else "muted"][0]
        axes.plot(milliseconds, ap, color=color, marker="o" if is_best else "s", linestyle="")
        axes.annotate(letter, (milliseconds, ap), (4, 5), textcoords="offset points", color=color)
        for x, text in ((0, letter), (0.05, f"{name}: {milliseconds:.0f} ms, AP {ap:.1f}")):
            names.text(x, 0.97 - place / len(by_time), text, color=color, verticalalignment="top", fontsize=10)
    longest = max(milliseconds for milliseconds, _ in ways.values())
    times, precisions = zip(*front, (longest, front[-1][1]), strict=True)
    axes.step(times, precisions, where="post", color=PALETTE["blue"][0], linewidth=1, label="the best for this time")
    axes.margins(y=0.1)
    axes.set(xlabel="ms an image", ylabel="AP", xlim=(0, None))
    axes.legend(frameon=False, loc="lower right")
    names.set_axis_off()
    return figure
