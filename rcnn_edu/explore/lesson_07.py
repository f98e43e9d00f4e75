"""Lesson 07, NMS and Soft-NMS: its explorers, its measurements on a detector's raw boxes, and its plots."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import ipywidgets as widgets
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from rcnn_edu.datasets.scenes import CATEGORIES
from rcnn_edu.explore.canvas import BoxField, Explorer
from rcnn_edu.explore.detections import match, to_pixels
from rcnn_edu.explore.figures import plot_axes
from rcnn_edu.explore.scene import PALETTE, XYXY, Box, Image, Item, Lines, Panel, Points, Scene, Text, tenths
from rcnn_edu.models import DetectionSelector, FasterRCNN
from rcnn_edu.models.transform import Detection, Target
from rcnn_edu.ops import box_area, box_iou, nms, select_detections, soft_nms

SIZE = (192, 192)  # of the explorer's picture, and of the synthetic scenes
NAMES = "abcdef"
METHODS = ("NMS", "linear", "Gaussian")
SUPPRESSIONS: dict[str, Literal["hard", "linear", "gaussian"]] = {
    "NMS": "hard",
    "linear": "linear",
    "Gaussian": "gaussian",
}  # as the package calls them
CUTS = (0.001, 0.01, 0.05, 0.1, 0.3)
PITCH = 44  # from one row of the table to the next, in pixels


@dataclass(frozen=True)
class CrowdState:
    """What the learner changes: six scored boxes about some objects, and how they are suppressed.

    ``method`` is the one that the picture shows, ``step`` how many boxes have been taken.
    """

    a: XYXY = (21.0, 49.0, 85.0, 150.0)
    b: XYXY = (37.0, 57.0, 101.0, 157.0)
    c: XYXY = (2.0, 30.0, 74.0, 138.0)
    d: XYXY = (28.0, 53.0, 92.0, 153.0)
    e: XYXY = (127.0, 42.0, 179.0, 121.0)
    f: XYXY = (132.0, 56.0, 184.0, 138.0)
    scores: tuple[float, ...] = (0.95, 0.85, 0.75, 0.6, 0.7, 0.5)
    objects: tuple[XYXY, ...] = ((20, 50, 84, 150), (36, 56, 100, 156), (126, 40, 178, 120))
    method: str = "Gaussian"
    iou_thresh: float = 0.5
    sigma: float = 0.5
    cut: float = 0.001
    step: int = 6

    def boxes(self) -> Float[Tensor, "6 4"]:
        """Return the six boxes as a tensor."""
        return torch.tensor([getattr(self, name) for name in NAMES], dtype=torch.float32)


def factors(iou: Float[Tensor, " n"], method: str, iou_thresh: float, sigma: float) -> Float[Tensor, " n"]:
    """Return what scores are multiplied by for overlapping a taken box: all that the three methods differ in."""
    if method == "NMS":
        return (iou <= iou_thresh).to(iou)
    if method == "linear":
        return torch.where(iou > iou_thresh, 1 - iou, 1)
    return torch.exp(-(iou**2) / sigma)


@dataclass(frozen=True)
class Step:
    """A step of the walk: the box that is taken, and all scores after it; a taken box keeps the score it had then."""

    taken: int
    scores: list[float]


def walk(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], method: str, iou_thresh: float, sigma: float, cut: float
) -> list[Step]:
    """Return the suppression step by step, to be looked at: the best box is taken, the others lose score."""
    iou = box_iou(boxes, boxes)
    waiting = torch.ones(len(boxes), dtype=torch.bool)
    steps: list[Step] = []
    while waiting.any():
        best = int(torch.where(waiting, scores, -1).argmax())
        if scores[best] < cut:
            break
        waiting[best] = False
        scores = torch.where(waiting, scores * factors(iou[best], method, iou_thresh, sigma), scores)
        steps.append(Step(best, scores.tolist()))
    return steps


def suppress(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], method: str, iou_thresh: float, sigma: float, cut: float
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Return the indices and scores that the package's ``nms`` or ``soft_nms`` leaves, above the cut."""
    if method == "NMS":
        keep = nms(boxes, scores, iou_thresh)
        keep = keep[scores[keep] >= cut]
        return keep, scores[keep]
    return soft_nms(boxes, scores, iou_thresh, sigma, cut, "linear" if method == "linear" else "gaussian")


def suppress_all(state: CrowdState) -> dict[str, tuple[Int[Tensor, " k"], Float[Tensor, " k"]]]:
    """Return what each method leaves of the crowd: indices and scores, best first."""
    arguments = (state.iou_thresh, state.sigma, state.cut)
    boxes, scores = state.boxes(), torch.tensor(state.scores, dtype=torch.float32)
    return {method: suppress(boxes, scores, method, *arguments) for method in METHODS}


def crowd_ap(state: CrowdState) -> dict[str, float]:
    """Return the AP50 of what each method leaves of the crowd, as COCO computes it, from 0 to 1."""
    objects = torch.tensor(state.objects, dtype=torch.float32)
    target = {"boxes": objects, "labels": torch.ones(len(objects), dtype=torch.long)}
    precisions = {}
    for method, (keep, scores) in suppress_all(state).items():
        detection = {"boxes": state.boxes()[keep], "scores": scores, "labels": torch.ones_like(keep)}
        precisions[method] = average_precision(match(detection, target) >= 0, len(objects))
    return precisions


def average_precision(right: Bool[Tensor, " k"], num_objects: int) -> float:
    """Return the mean precision at 101 recalls of detections by falling score, where that recall is reached."""
    hits = right.cumsum(0).double()
    precision = hits / torch.arange(1, len(right) + 1)
    best_from_here = precision.flip(0).cummax(0).values.flip(0)
    place = torch.searchsorted(hits / num_objects, torch.linspace(0, 1, 101, dtype=torch.float64))
    reached = place[place < len(right)]
    return float(best_from_here[reached].sum() / 101)


def crowd_scene(state: CrowdState, pixels: NDArray[np.uint8] | None = None) -> Scene:
    """Return the explorer's picture of a state: the crowd, and each method's scores; ``pixels`` is a background."""
    boxes, scores = state.boxes(), torch.tensor(state.scores, dtype=torch.float32)
    walks = {
        method: walk(boxes, scores, method, state.iou_thresh, state.sigma, state.cut)[: state.step]
        for method in METHODS
    }
    ends, precisions = suppress_all(state), crowd_ap(state)
    taken = ", ".join(f"{NAMES[s.taken].upper()} {s.scores[s.taken]:.2f}" for s in walks[state.method])
    kept = "; ".join(f"{method} keeps {_letters(ends[method][0])}, AP50 {precisions[method]:.2f}" for method in METHODS)
    alt = (
        f"N_t {state.iou_thresh:.2f}, sigma {state.sigma:.2f}, cut {state.cut:g}. {state.method} after step "
        f"{state.step}: taken {taken or 'none'}. In the end {kept}."
    )
    panels = [_crowd_panel(state, walks[state.method], pixels), _names_panel(state, walks[state.method])]
    for place, method in enumerate(METHODS):
        panels.append(_scores_panel(state, walks[method], method, place))
        panels.append(_end_panel(len(ends[method][0]), precisions[method], place))
    return Scene(960, 462, [*panels, _crowd_legend()], alt)


def _letters(keep: Int[Tensor, " k"]) -> str:
    return " ".join(NAMES[i].upper() for i in keep.tolist()) or "none"


def _crowd_panel(state: CrowdState, steps: list[Step], pixels: NDArray[np.uint8] | None) -> Panel:
    height, width = SIZE
    items: list[Item] = []
    if pixels is not None:
        items.append(Image("crowd", pixels, (0, 0, width, height), smooth=True))
    items += [Box(xyxy, "muted", 1, fill=0.15) for xyxy in state.objects]
    labels: list[Item] = []
    now = steps[-1].scores if steps else state.scores
    for index in box_area(state.boxes()).argsort(descending=True).tolist():  # a small box on top can be grasped
        color, dashed = _look(index, steps, now[index] < state.cut)
        name = NAMES[index]
        items.append(Box(getattr(state, name), color, 1.5 + 2.5 * now[index], dashed, handle=name))
        labels.append(_label(name, getattr(state, name), now[index], color))
    items += labels
    return Panel((10, 28, 420, 420), (0, 0, width, height), items, f"The crowd after step {state.step}: {state.method}")


def _label(name: str, xyxy: XYXY, score: float, color: str) -> Text:
    """Return a box's letter and score, in a corner that differs from letter to letter: boxes lie close together."""
    x1, y1, x2, y2 = xyxy
    words = f"{name.upper()} {score:.2f}"
    if name in "bf":
        return Text(x2 - 3, y2 - 5, words, color, 12, "right", bold=True)
    if name == "c":
        return Text(x1 + 3, y2 - 5, words, color, 12, bold=True)
    if name == "d":
        return Text(x2 - 3, y1 + 6, words, color, 12, "right", bold=True)
    return Text(x1 + 3, y1 + 6, words, color, 12, bold=True)


def _look(index: int, steps: list[Step], dropped: bool) -> tuple[str, bool]:
    """Return a box's colour, and whether it is dashed."""
    order = [step.taken for step in steps]
    if index in order:
        return ("green" if index == order[-1] else "blue"), False
    return ("orange", True) if dropped else ("muted", False)


def _names_panel(state: CrowdState, steps: list[Step]) -> Panel:
    """Return the table's first column: the boxes, and how much they overlap the one taken last."""
    items: list[Item] = []
    last = steps[-1].taken if steps else None
    iou = box_iou(state.boxes(), state.boxes()).tolist()
    for row, name in enumerate(NAMES):
        y = 14 + PITCH * row
        items.append(Text(4, y, name.upper(), "ink", 15, bold=True))
        if last is not None and row != last:
            items.append(Text(82, y, f"{iou[last][row]:.2f}", "muted", 12, "right"))
    title = "IoU" if last is None else f"IoU with {NAMES[last].upper()}"
    return Panel((440, 28, 86, 264), (0, 0, 86, 264), items, title, framed=False)


def _scores_panel(state: CrowdState, steps: list[Step], method: str, place: int) -> Panel:
    """Return a column of the table: a bar for each score, the first one faint behind the one left now."""
    order = [step.taken for step in steps]
    now = steps[-1].scores if steps else state.scores
    items: list[Item] = []
    for row, (first, score) in enumerate(zip(state.scores, now, strict=True)):
        y = 6 + PITCH * row
        dropped = row not in order and score < state.cut
        color, _ = _look(row, steps, dropped)
        items.append(Box((4, y, 4 + 88 * first, y + 16), "faint", 1, fill=0.5))
        if score > 0.005:
            items.append(Box((4, y, 4 + 88 * score, y + 16), color, 1, fill=0.85))
        items.append(Text(132, y + 8, f"{score:.2f}" if score >= 0.005 else "0", "ink", 12, "right"))
        word = f"taken as no. {1 + order.index(row)}" if row in order else "dropped" if dropped else "waits"
        items.append(Text(4, y + 26, word, color if word != "waits" else "muted", 11))
    parameter = f"σ {state.sigma:.2f}" if method == "Gaussian" else f"N_t {state.iou_thresh:.2f}"
    if method == state.method:
        items.append(Box((0.75, 0.75, 135.25, 263.25), "blue", 1.5))
    return Panel((538 + 141 * place, 28, 136, 264), (0, 0, 136, 264), items, f"{method}, {parameter}")


def _end_panel(count: int, precision: float, place: int) -> Panel:
    items: list[Item] = [
        Text(4, 12, f"keeps {count} of {len(NAMES)}", "ink", 12),
        Text(4, 36, f"AP50 {precision:.2f}", "ink", 16, bold=True),
    ]
    return Panel((538 + 141 * place, 300, 136, 50), (0, 0, 136, 50), items, framed=False)


def _crowd_legend() -> Panel:
    rows = [
        ("green", "taken at this step"),
        ("blue", "taken before"),
        ("muted", "waits; filled grey: the objects"),
        ("orange", "dropped: score below the cut"),
    ]
    items: list[Item] = [Text(0, 8, "in the end", "muted", 12)]
    for line, (color, text) in enumerate(rows):
        x, y = 100 + 200 * (line // 2), 68 + 22 * (line % 2)
        items += [Points([(x, y)], color, 5), Text(x + 12, y, text, size=12)]
    return Panel((440, 304, 516, 110), (0, 0, 516, 110), items, framed=False)


ONE_OBJECT: dict[str, Any] = {
    "a": (60.0, 44.0, 132.0, 150.0),
    "b": (64.0, 50.0, 138.0, 152.0),
    "c": (52.0, 36.0, 126.0, 146.0),
    "d": (56.0, 58.0, 124.0, 160.0),
    "e": (70.0, 40.0, 142.0, 138.0),
    "f": (44.0, 48.0, 116.0, 156.0),
    "scores": (0.95, 0.9, 0.8, 0.7, 0.6, 0.5),
    "objects": ((60, 45, 132, 150),),
}
IN_A_ROW: dict[str, Any] = {
    "a": (56.0, 60.0, 104.0, 140.0),
    "b": (32.0, 58.0, 80.0, 138.0),
    "c": (80.0, 62.0, 128.0, 142.0),
    "d": (104.0, 60.0, 152.0, 140.0),
    "e": (8.0, 60.0, 56.0, 140.0),
    "f": (128.0, 58.0, 176.0, 138.0),
    "scores": (0.95, 0.9, 0.85, 0.8, 0.75, 0.7),
    "objects": tuple((float(x), 60.0, x + 48.0, 140.0) for x in range(8, 129, 24)),
}


def crowd_explorer(
    crowds: Mapping[str, Mapping[str, Any]] | None = None, pixels: NDArray[np.uint8] | None = None
) -> Explorer[CrowdState]:
    """Return the explorer of lesson 07: drag a crowd of scored boxes, and see what each method makes of it.

    Args:
        crowds: fields of the state under the names of their buttons, the first one shown; None: invented ones.
        pixels: a background of 192 x 192 pixels.
    """
    if crowds is None:
        start = {name: getattr(CrowdState, name) for name in (*NAMES, "scores", "objects")}
        crowds = {"two that stand close": start, "one object": ONE_OBJECT, "six in a row": IN_A_ROW}
    state = CrowdState(**next(iter(crowds.values())))
    slim = {"width": "300px"}
    controls = {
        "method": widgets.ToggleButtons(options=METHODS, value=state.method, description="picture"),
        "step": widgets.IntSlider(state.step, 0, len(NAMES), description="step", layout=slim),
        "iou_thresh": widgets.FloatSlider(state.iou_thresh, min=0, max=1, step=0.05, description="N_t", layout=slim),
        "sigma": widgets.FloatSlider(state.sigma, min=0.05, max=1, step=0.05, description="sigma", layout=slim),
        "cut": widgets.SelectionSlider(options=CUTS, value=state.cut, description="cut", layout=slim),
        "b": BoxField(state.b, SIZE, "box B"),
    }
    controls["method"].style.button_width = "92px"
    return Explorer(partial(crowd_scene, pixels=pixels), state, controls, crowds)


@torch.no_grad()
def raw_detections(model: FasterRCNN, images: Iterable[Float[Tensor, "3 H W"]]) -> list[Detection]:
    """Return each image's scored boxes before any suppression, in the image's own pixels."""
    everything = DetectionSelector(score_thresh=0.001, iou_thresh=1.0, max_detections=100_000)  # no IoU is above 1
    raw: list[Detection] = []
    for image in images:
        batch = model.transform([image])
        features = model.backbone(batch.images)
        proposals, _ = model.rpn(features, batch.sizes)
        predictions = model.box_head.predict(features, proposals, batch.sizes)
        raw += batch.restore([everything(*prediction) for prediction in predictions])
    return raw


def finish(
    raw: Iterable[Detection],
    method: str = "NMS",
    iou_thresh: float = 0.5,
    sigma: float = 0.5,
    *,
    first_cut: float = 0.05,
    last_cut: float = 0.001,
    by_class: bool = True,
) -> list[Detection]:
    """Return what is left of raw detections: cut by score, suppressed within each class, cut again, at most 100."""
    finished = []
    for detection in raw:
        labels = detection["labels"]
        keep, scores = select_detections(
            detection["boxes"],
            detection["scores"],
            labels if by_class else torch.zeros_like(labels),
            iou_thresh,
            score_thresh=first_cut,
            max_detections=100,
            suppression=SUPPRESSIONS[method],
            sigma=sigma,
        )
        keep, scores = keep[scores >= last_cut], scores[scores >= last_cut]
        finished.append({"boxes": detection["boxes"][keep], "labels": labels[keep], "scores": scores})
    return finished


def to_coco(targets: Sequence[Target]) -> dict[str, Any]:
    """Return the boxes of synthetic scenes in COCO's format: this lesson can do without their masks."""
    height, width = SIZE
    annotations = []
    for index, target in enumerate(targets):
        for label, (x1, y1, x2, y2) in zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True):
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            annotations.append({"image_id": index + 1, "category_id": label, **box})
    return {
        "images": [{"id": index + 1, "height": height, "width": width} for index in range(len(targets))],
        "categories": [{"id": label, "name": name} for label, name in enumerate(CATEGORIES, start=1)],
        "annotations": annotations,
    }


def crowded(target: Target, least_iou: float = 0.2) -> Bool[Tensor, " n"]:
    """Return which objects overlap another one of their own class this much: those that NMS may take for copies."""
    iou = box_iou(target["boxes"], target["boxes"])
    same = target["labels"][:, None] == target["labels"]
    return (iou * same).fill_diagonal_(0).amax(dim=1) >= least_iou if len(iou) else torch.zeros(0, dtype=torch.bool)


def recalls(detections: Sequence[Detection], targets: Sequence[Target]) -> tuple[float, float, float]:
    """Return how many of the crowded objects are found, how many of the others, both in %, and boxes an image."""
    hits = []
    for detection, target in zip(detections, targets, strict=True):
        hit = torch.zeros(len(target["labels"]), dtype=torch.bool)
        found = match(detection, target)
        hit[found[found >= 0]] = True
        hits.append(hit)
    hit, close = torch.cat(hits), torch.cat([crowded(target) for target in targets])
    count = sum(len(detection["scores"]) for detection in detections) / len(detections)
    return 100 * float(hit[close].float().mean()), 100 * float(hit[~close].float().mean()), count


def real_crowd(raw: Detection, target: Target) -> dict[str, Any]:
    """Return an explorer's crowd: the scene's closest two objects of a class, and the three best boxes about each.

    Raises:
        ValueError: for a scene without such a pair, or without as many boxes of their class near them.
    """
    iou = box_iou(target["boxes"], target["boxes"]) * (target["labels"][:, None] == target["labels"])
    first, second = divmod(int(iou.fill_diagonal_(0).argmax()), len(iou))
    label, objects = target["labels"][first], target["boxes"][[first, second]]
    overlap = box_iou(raw["boxes"], objects) * (raw["labels"] == label)[:, None]
    chosen = []
    for place in range(2):
        near = (overlap[:, place] > 0.4) & (overlap[:, place] >= overlap[:, 1 - place])
        chosen.append((raw["scores"] * near).argsort(descending=True, stable=True)[:3])
        if iou[first, second] == 0 or near.sum() < 3:
            raise ValueError("the scene has no two close objects with three boxes each; choose another one")
    index = torch.cat(chosen)
    index = index[raw["scores"][index].argsort(descending=True, stable=True)]
    boxes = [tenths(box) for box in raw["boxes"][index].tolist()]
    scores = tuple(round(score, 3) for score in raw["scores"][index].tolist())
    return {**dict(zip(NAMES, boxes, strict=True)), "scores": scores, "objects": tuple(map(tenths, objects.tolist()))}


def boxes_scene(image: Float[Tensor, "3 H W"], target: Target, detections: Mapping[str, Detection]) -> Scene:
    """Return the image once for each set of detections, by title: right ones solid, the others dashed."""
    pixels = to_pixels(image)
    height, width = pixels.shape[:2]
    panels = []
    for place, (title, detection) in enumerate(detections.items()):
        items: list[Item] = [Image("scene", pixels, (0, 0, width, height), smooth=True)]
        items += _found_boxes(detection, target, 1.5)
        title = f"{title}: {len(detection['scores'])} boxes"
        panels.append(Panel((8 + 318 * place, 26, 308, 308), (0, 0, width, height), items, title))
    legend: list[Item] = [
        Points([(8, 10)], "green", 5),
        Text(20, 10, "finds an object at IoU 0.5, its class right", size=12),
        Points([(318, 10)], "orange", 5),
        Text(330, 10, "one too many for its object, or wrong (dashed)", size=12),
    ]
    panels.append(Panel((8, 340, 944, 20), (0, 0, 944, 20), legend, framed=False))
    counts = ", ".join(f"{title.lower()} {len(detection['scores'])} boxes" for title, detection in detections.items())
    return Scene(960, 364, panels, f"A crowded scene with {len(target['boxes'])} objects: {counts}.")


def _found_boxes(detection: Detection, target: Target, width: float) -> list[Item]:
    """Return the detections' boxes, the best on top: green if right, dashed orange if not."""
    rows = zip(match(detection, target).tolist(), detection["boxes"].tolist(), strict=True)
    return [
        Box(tenths(box), "green" if index >= 0 else "orange", width, dashed=index < 0)
        for index, box in reversed(list(rows))
    ]


@dataclass(frozen=True)
class APState:
    """What the learner changes: how a detector's raw boxes are suppressed, and which scene the picture shows."""

    method: str = "Gaussian"
    iou_thresh: float = 0.5
    sigma: float = 0.5
    cut: float = 0.001
    scene: int = 0


FIGURES = ("AP", "AP50", "AP75", "AR100")
SHOWN_SCORE = 0.3  # less certain boxes would cover the picture
HALF_RANGE = 2.5  # points of AP to either side of plain NMS that the strip has room for


Measure = Callable[[list[Detection]], dict[str, float]]  # detections -> COCO's figures, from 0 to 100


class Outputs:
    """A detector's raw boxes in some scenes, to be finished and measured again and again."""

    def __init__(
        self,
        images: Sequence[Float[Tensor, "3 H W"]],
        targets: Sequence[Target],
        raw: Sequence[Detection],
        measure: Measure,
    ) -> None:
        self.images, self.targets, self.raw, self._measure = images, targets, raw, measure
        self.figures = cache(self._figures)  # a slider moves one method's figures, the others' are known
        self.baseline = self.figures("NMS", 0.5, 0.001)["AP"]

    def finish(self, method: str, parameter: float, cut: float) -> list[Detection]:
        """Return the detections; ``parameter`` is sigma for "Gaussian", N_t otherwise."""
        iou_thresh, sigma = (0.5, parameter) if method == "Gaussian" else (parameter, 0.5)
        return finish(self.raw, method, iou_thresh, sigma, last_cut=cut)

    def _figures(self, method: str, parameter: float, cut: float) -> dict[str, float]:
        detections = self.finish(method, parameter, cut)
        count = sum(len(detection["scores"]) for detection in detections) / len(detections)
        return {**self._measure(detections), "boxes": count}  # boxes an image


def ap_scene(state: APState, outputs: Outputs) -> Scene:
    """Return the second explorer's picture: one scene's detections, and each method's figures on all scenes."""
    parameters = {method: state.sigma if method == "Gaussian" else state.iou_thresh for method in METHODS}
    figures = {method: outputs.figures(method, parameter, state.cut) for method, parameter in parameters.items()}
    told = ", ".join(f"{method} {figures[method]['AP']:.1f}" for method in METHODS)
    alt = (
        f"AP on {len(outputs.images)} scenes at N_t {state.iou_thresh:.2f}, sigma {state.sigma:.2f}, cut "
        f"{state.cut:g}: {told}. The picture shows scene {state.scene} after {state.method}."
    )
    panels = [
        _scene_panel(state, outputs, parameters[state.method]),
        _strip_panel(figures, outputs.baseline),
        _figures_panel(figures, parameters),
        _scene_legend(),
    ]
    return Scene(960, 410, panels, alt)


def _scene_panel(state: APState, outputs: Outputs, parameter: float) -> Panel:
    detection = outputs.finish(state.method, parameter, state.cut)[state.scene]
    detection = {name: values[detection["scores"] >= SHOWN_SCORE] for name, values in detection.items()}
    image, target = outputs.images[state.scene], outputs.targets[state.scene]
    pixels = to_pixels(image)
    height, width = pixels.shape[:2]
    found = match(detection, target).tolist()
    items: list[Item] = [Image(f"scene {state.scene}", pixels, (0, 0, width, height), smooth=True)]
    missed = [box for index, box in enumerate(target["boxes"].tolist()) if index not in found]
    items += [Box(tenths(box), "ink", 1, fill=0.3) for box in missed]
    items += _found_boxes(detection, target, 2)
    title = f"Scene {state.scene} after {state.method}: scores from {SHOWN_SCORE}"
    return Panel((10, 28, 372, 372), (0, 0, width, height), items, title)


def _strip_panel(figures: dict[str, dict[str, float]], baseline: float) -> Panel:
    """Return AP on an axis of a few points, each method a row, and how far it is from plain NMS."""

    def x(ap: float) -> float:
        return 290 + 55 * min(max(ap - baseline, -HALF_RANGE), HALF_RANGE)

    items: list[Item] = [
        Text(x(baseline), 12, "0", "muted", 12, "center"),
        Lines([(x(baseline), 22, x(baseline), 150)], "muted", 1, dashed=True),
    ]
    for points in (-2, -1, 1, 2):
        items.append(Lines([(x(baseline + points), 26, x(baseline + points), 150)], "faint", 1))
        items.append(Text(x(baseline + points), 12, f"{points:+}".replace("-", "−"), "muted", 12, "center"))
    for row, method in enumerate(METHODS):
        y, ap = 48 + 38 * row, figures[method]["AP"]
        difference = f"{ap - baseline:+.1f}".replace("-", "−")
        items += [
            Text(4, y, method, "ink", 14, bold=True),
            Lines([(x(baseline), y, x(ap), y)], "blue", 4),
            Points([(x(ap), y)], "blue", 7),
            Text(556, y, f"{ap:.1f}  ({difference})", "ink", 14, "right", bold=True),
        ]
    return Panel(
        (394, 28, 560, 160), (0, 0, 560, 160), items, "AP over all scenes, in points from NMS at N_t 0.50", framed=False
    )


def _figures_panel(figures: dict[str, dict[str, float]], parameters: dict[str, float]) -> Panel:
    columns = [*FIGURES, "boxes"]
    items: list[Item] = [Text(230 + 81 * place, 10, name, "muted", 12, "right") for place, name in enumerate(columns)]
    for row, (method, parameter) in enumerate(parameters.items()):
        y = 38 + 28 * row
        items.append(Text(4, y, f"{method}, {'σ' if method == 'Gaussian' else 'N_t'} {parameter:.2f}", size=13))
        for place, name in enumerate(columns):
            items.append(Text(230 + 81 * place, y, f"{figures[method][name]:.1f}", "ink", 13, "right"))
    return Panel((394, 206, 560, 116), (0, 0, 560, 116), items, framed=False)


def _scene_legend() -> Panel:
    rows = [
        ("green", "right: finds an object at IoU 0.5"),
        ("orange", "wrong, or one too many (dashed)"),
        ("ink", "shaded: an object that is missed"),
    ]
    items: list[Item] = []
    for line, (color, text) in enumerate(rows):
        items += [Points([(8, 10 + 22 * line)], color, 5), Text(20, 10 + 22 * line, text, size=12)]
    return Panel((394, 334, 560, 66), (0, 0, 560, 66), items, framed=False)


def ap_explorer(outputs: Outputs, state: APState | None = None) -> Explorer[APState]:
    """Return the second explorer of lesson 07: move N_t, sigma and the cut, and AP on real outputs follows."""
    state = state or APState()
    slim = {"width": "300px"}
    rest: dict[str, Any] = {"continuous_update": False, "layout": slim}  # an evaluation takes a moment
    controls = {
        "method": widgets.ToggleButtons(options=METHODS, value=state.method, description="picture"),
        "scene": widgets.IntSlider(state.scene, 0, len(outputs.images) - 1, description="scene", **rest),
        "iou_thresh": widgets.FloatSlider(state.iou_thresh, min=0.1, max=0.9, step=0.05, description="N_t", **rest),
        "sigma": widgets.FloatSlider(state.sigma, min=0.1, max=1, step=0.1, description="sigma", **rest),
        "cut": widgets.SelectionSlider(options=CUTS, value=state.cut, description="cut", **rest),
    }
    controls["method"].style.button_width = "92px"
    return Explorer(partial(ap_scene, outputs=outputs), state, controls)


def neighbours_figure(
    thresholds: Sequence[float], found: Sequence[tuple[float, float, float]], soft: tuple[float, float, float]
) -> Figure:
    """Return two plots over NMS's threshold, Gaussian Soft-NMS a level line: recall, and boxes an image.

    Args:
        thresholds: N_t.
        found: for each, what :func:`recalls` returns.
        soft: what it returns for Soft-NMS.
    """
    figure, (left, right) = plot_axes("Objects found at IoU 0.5", "Boxes left in an image")
    looks = (("with a close neighbour", "orange", "o"), ("the others", "blue", "s"))
    for column, (name, color, marker) in enumerate(looks):
        shade = PALETTE[color][0]
        left.plot(thresholds, [row[column] for row in found], color=shade, marker=marker, label=f"{name}, NMS")
        left.axhline(soft[column], color=shade, linestyle="--", label=f"{name}, Soft-NMS")
    left.set(xlabel="N_t of NMS", ylabel="%", ylim=(0, 102))
    right.plot(thresholds, [row[2] for row in found], color=PALETTE["ink"][0], marker="D", label="NMS")
    right.axhline(soft[2], color=PALETTE["ink"][0], linestyle="--", label="Soft-NMS")
    right.set(xlabel="N_t of NMS", ylim=(0, 105))
    left.legend(frameon=False, fontsize=9, loc="lower right")
    right.legend(frameon=False, fontsize=9, loc="lower right")
    return figure
