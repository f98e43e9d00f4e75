"""Lesson 09, your own data: the example to train on, the explorer of precision and recall, and the pictures."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from PIL.Image import Image as Picture
from torch import Tensor
from torch.utils.data import Dataset

from rcnn_edu.datasets import DetectionDataset, SceneSettings, SyntheticScenes, as_coco, write_coco
from rcnn_edu.datasets.coco import Sample, Target
from rcnn_edu.explore.canvas import Explorer
from rcnn_edu.explore.detections import match, to_pixels
from rcnn_edu.explore.figures import DOTS_PER_INCH, plot_axes
from rcnn_edu.explore.scene import PALETTE, XY, XYXY, Box, Image, Item, Lines, Panel, Points, Scene, Text
from rcnn_edu.models.presets import CHECKPOINTS
from rcnn_edu.models.transform import Detection

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RECALLS = 0.01 * torch.arange(101, dtype=torch.float64)  # as pycocotools has them, to the last bit
LOOKS = (("blue", "-"), ("orange", "--"), ("green", "-."), ("pink", ":"))  # told apart without colour
MOST_NAMED = 20  # boxes in a picture: beyond that, their scores would hide it


# The example


class SortingLine(Dataset[Sample]):
    """Synthetic scenes as somebody else would label them: by their outline, "smooth" or "notched"."""

    categories = ("smooth", "notched")
    settings = SceneSettings(size=(160, 208), num_objects=(2, 6), object_size=(20, 110), crowding=0.3)

    def __init__(self, length: int, seed: int) -> None:
        self.scenes = SyntheticScenes(length, seed, self.settings)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        """Return image ``index`` and its target: leaves and drops are smooth, flowers and gears are notched."""
        image, target = self.scenes[index]
        return image, {**target, "labels": (target["labels"] + 1) // 2}


def write_example(folder: str | os.PathLike[str], num_train: int = 24, num_val: int = 48) -> Path:
    """Return the folder, after writing the example into it, laid out as ``fetch_nuclei`` lays out the nuclei.

    Raises:
        FileExistsError: if the folder holds one already.
    """
    folder = Path(folder)
    for split, length, seed in (("train", num_train, 70), ("val", num_val, 71)):
        write_coco(SortingLine(length, seed), folder / split)
        (folder / split / "annotations.json").rename(folder / f"instances_{split}.json")
    return folder


def find_nuclei() -> Path | None:
    """Return the folder of the nuclei where they have been fetched, else None.

    Looked for are the folder that ``RCNN_EDU_NUCLEI`` names and ``data/nuclei`` in the course's own.
    """
    named = os.environ.get("RCNN_EDU_NUCLEI")
    folders = [Path(named)] if named else [CHECKPOINTS.parent / "nuclei"]
    return next((folder for folder in folders if (folder / "instances_train.json").is_file()), None)


# Precision and recall


@dataclass(frozen=True)
class Ranking:
    """The detections of one class in all images, the most certain first: what average precision is made of.

    Attributes:
        scores: of the detections.
        right: whether each has found an object that no better one has found.
        num_objects: of the class, in all images.
    """

    scores: Float[Tensor, " k"]
    right: Bool[Tensor, " k"]
    num_objects: int

    def curve(self) -> list[XY]:
        """Return (recall, precision) after the first, the first two, … of the detections."""
        hits = self.right.cumsum(0)
        precision = hits / torch.arange(1, len(hits) + 1)
        return list(zip((hits / max(1, self.num_objects)).tolist(), precision.tolist(), strict=True))

    def sampled(self) -> Float[Tensor, "101"]:
        """Return the best precision at each of 101 recalls or beyond it; 0 where so much is never found."""
        hits = self.right.double().cumsum(0)
        precision = torch.cat([hits / torch.arange(1, len(hits) + 1), torch.zeros(1, dtype=torch.float64)])
        place = torch.searchsorted(hits / max(1, self.num_objects), RECALLS)
        return precision.flip(0).cummax(0).values.flip(0)[place]

    def average_precision(self) -> float:
        """Return the mean over the 101 recalls; NaN for a class without objects."""
        return float(self.sampled().mean()) if self.num_objects else float("nan")

    def shown(self, score: float) -> int:
        """Return how many score at least this."""
        return int((self.scores >= score).sum())


class Results:
    """A detector's results on a dataset, to be looked at and measured again and again.

    Crowd regions are in no target: a detection on one of them counts as wrong here, where COCO would pass over it.

    Attributes:
        categories: the classes' names, that of label 1 first.
        pixels: of each image, (H, W, 3).
        targets: what is on them.
        detections: what was found there, whatever its score.
    """

    def __init__(self, dataset: DetectionDataset, results: Sequence[dict[str, Any]]) -> None:
        """Sort results in COCO's format, a box each, by image."""
        coco = as_coco(dataset)
        labels = {category["id"]: label for label, category in enumerate(coco["categories"], start=1)}
        by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
        for result in results:
            by_image[result["image_id"]].append(result)
        self.categories = tuple(dataset.categories)
        samples = [dataset[index] for index in range(len(dataset))]
        self.pixels = [to_pixels(image) for image, _ in samples]
        self.targets: list[Target] = [target for _, target in samples]
        self.detections = [_to_detection(found, labels) for found in by_image.values()]
        self.ranking = cache(self._ranking)  # a slider goes back and forth

    def of_class(self, index: int, label: int, score: float = 0) -> tuple[Detection, Target]:
        """Return an image's detections of a class that score at least so much, and its objects of this class."""
        detection, target = self.detections[index], self.targets[index]
        sure = (detection["labels"] == label) & (detection["scores"] >= score)
        own = target["labels"] == label
        objects = {"boxes": target["boxes"][own], "labels": target["labels"][own]}
        return {name: values[sure] for name, values in detection.items()}, objects

    def _ranking(self, label: int, iou: float) -> Ranking:
        pairs = [self.of_class(index, label) for index in range(len(self.targets))]
        scores = torch.cat([detection["scores"] for detection, _ in pairs])
        right = torch.cat([match(detection, target, iou) >= 0 for detection, target in pairs])
        order = scores.argsort(descending=True, stable=True)
        return Ranking(scores[order], right[order], sum(len(target["labels"]) for _, target in pairs))

    def average_precisions(self, label: int) -> list[float]:
        """Return the AP of a class at each of the ten IoU thresholds."""
        return [self.ranking(label, iou).average_precision() for iou in IOU_THRESHOLDS]

    def mean_average_precision(self) -> float:
        """Return COCO's AP: the mean over the thresholds, and over the classes that have objects."""
        every = torch.tensor([self.average_precisions(label + 1) for label in range(len(self.categories))])
        return float(every.nanmean())


def _to_detection(found: Sequence[dict[str, Any]], labels: dict[int, int]) -> Detection:
    boxes = torch.tensor([result["bbox"] for result in found]).view(-1, 4)
    return {
        "boxes": torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1),
        "labels": torch.tensor([labels[result["category_id"]] for result in found], dtype=torch.long),
        "scores": torch.tensor([result["score"] for result in found]),
    }


# The explorer


@dataclass(frozen=True)
class PrecisionState:
    """What the learner changes: the class, what a match needs, what is shown, and the image in the picture."""

    label: int = 1
    iou: float = 0.5
    score: float = 0.5
    image: int = 0


def precision_scene(state: PrecisionState, results: Results) -> Scene:
    """Return the explorer's picture: one image, the class's curve at this IoU, and its AP at all ten of them."""
    iou, score = round(state.iou, 2), round(state.score, 2)  # a slider's 0.7 is 0.7000000000000001
    name = results.categories[state.label - 1]
    ranking = results.ranking(state.label, iou)
    shown = ranking.shown(score)
    right = int(ranking.right[:shown].sum())
    every = results.average_precisions(state.label)
    figures = {
        f"AP at IoU {iou:.2f}": ranking.average_precision(),
        "mean of the ten": sum(every) / len(every),
        "and of all classes": results.mean_average_precision(),
    }
    told = ", ".join(f"{what} {value:.2f}" for what, value in figures.items())
    alt = (
        f"{name}, a match from an IoU of {iou:.2f}, scores from {score:.2f}, in all {len(results.targets)} images: "
        f"{shown} shown, {right} right, {ranking.num_objects - right} of {ranking.num_objects} objects missed. "
        f"{told}. The picture shows image {state.image}."
    )
    panels = [
        _image_panel(state.image, state.label, iou, score, results),
        _legend_panel(),
        _curve_panel(ranking, shown, f"{name}: the curve at IoU {iou:.2f}"),
        _thresholds_panel(every, IOU_THRESHOLDS.index(iou), f"{name}: AP at all ten IoUs"),
        _counts_panel(shown, right, ranking.num_objects, figures),
    ]
    return Scene(960, 450, panels, alt)


def _image_panel(index: int, label: int, iou: float, score: float, results: Results) -> Panel:
    pixels = results.pixels[index]
    height, width = pixels.shape[:2]
    shown, objects = results.of_class(index, label, score)
    found = match(shown, objects, iou).tolist()
    items: list[Item] = [Image(f"image {index}", pixels, (0, 0, width, height), smooth=True)]
    missed = [box for place, box in enumerate(objects["boxes"].tolist()) if place not in found]
    items += [Box((x1, y1, x2, y2), "ink", 1, fill=0.35) for x1, y1, x2, y2 in missed]
    scores: list[Item] = []
    rows = list(zip(found, shown["boxes"].tolist(), shown["scores"].tolist(), strict=True))
    for place, (x1, y1, x2, y2), value in reversed(rows):  # the most certain on top
        color = "green" if place >= 0 else "orange"
        items.append(Box((x1, y1, x2, y2), color, 2, dashed=place < 0))
        where = min(x1, 0.9 * width), max(y1 - 0.02 * height, 0.03 * height)
        scores.append(Text(*where, f"{value:.2f}", color, 12, bold=True))
    items += scores if len(rows) <= MOST_NAMED else []
    title = f"Image {index}, {results.categories[label - 1]}: scores from {score:.2f}"
    return Panel((10, 28, 364, 300), (0, 0, width, height), items, title)


def _legend_panel() -> Panel:
    rows = [
        ("green", "right: finds an object that is still free"),
        ("orange", "wrong, or one too many (dashed)"),
        ("ink", "shaded: an object that is missed"),
    ]
    items: list[Item] = []
    for line, (color, text) in enumerate(rows):
        items += [Points([(8, 10 + 22 * line)], color, 5), Text(20, 10 + 22 * line, text, size=12)]
    return Panel((10, 360, 364, 70), (0, 0, 364, 70), items, framed=False)


def _axes_items(x_name: str, y_name: str, x_ticks: Sequence[tuple[float, str]]) -> list[Item]:
    """Return the axes of a plot that fills (34, 20, 264, 250): 230 px are 1."""
    ticks = [tick / 4 for tick in range(5)]
    return [
        Lines([(34, 250 - 230 * tick, 264, 250 - 230 * tick) for tick in ticks], "faint", 1),
        *(Text(28, 250 - 230 * tick, f"{tick:g}", "muted", 11, "right") for tick in ticks),
        *(Text(34 + 230 * x, 263, name, "muted", 11, "center") for x, name in x_ticks),
        Text(149, 283, x_name, "ink", 12, "center"),
        Text(34, 6, y_name, "ink", 12, "center"),
    ]


def _curve_panel(ranking: Ranking, shown: int, title: str) -> Panel:
    """Return the curve: as it is, made monotone at 101 recalls, and a dot for the scores that are shown."""

    def at(point: XY) -> XY:
        return 34 + 230 * point[0], 250 - 230 * point[1]

    curve = ranking.curve()
    samples = list(zip(RECALLS.tolist(), ranking.sampled().tolist(), strict=True))
    items = _axes_items("recall", "precision", [(tick / 4, f"{tick / 4:g}") for tick in range(5)])
    items += [
        Lines([(*at((recall, 0)), *at((recall, value))) for recall, value in samples if value], "faint", 1),
        Lines([(*at(a), *at(b)) for a, b in pairwise(curve)], "muted", 1.5),
        Points([at(sample) for sample in samples], "blue", 2.2),
    ]
    if shown:
        items.append(Points([at(curve[shown - 1])], "pink", 7))
    return Panel((384, 28, 280, 300), (0, 0, 280, 300), items, title, framed=False)


def _thresholds_panel(every: Sequence[float], chosen: int, title: str) -> Panel:
    """Return a bar for the AP at each IoU threshold, the chosen one full, and a line at their mean."""
    ticks = [((place + 0.5) / 10, f"{IOU_THRESHOLDS[place]:.2f}"[1:]) for place in range(0, 10, 2)]
    items = _axes_items("IoU that a match needs", "AP", ticks)
    mean = sum(every) / len(every)
    if mean != mean:  # a class without objects has no AP
        every = ()
    for place, value in enumerate(every):
        box: XYXY = (36.5 + 23 * place, 250 - 230 * value, 54.5 + 23 * place, 250)
        if value > 0:
            items.append(Box(box, "blue", 1, fill=0.9 if place == chosen else 0.25))
        if place == chosen:
            items.append(Text(box[0] + 9, box[1] - 9, f"{value:.2f}", "blue", 12, "center", bold=True))
    if every:
        items.append(Lines([(34, 250 - 230 * mean, 264, 250 - 230 * mean)], "pink", 1.5, dashed=True))
        items.append(Text(262, 241 - 230 * mean, f"mean {mean:.2f}", "pink", 12, "right", bold=True))
    return Panel((676, 28, 280, 300), (0, 0, 280, 300), items, title, framed=False)


def _counts_panel(shown: int, right: int, objects: int, figures: dict[str, float]) -> Panel:
    precision = f"{right} right of {shown} shown = {right / shown:.2f}" if shown else "nothing is shown"
    recall = f"{right} right of {objects} objects = {right / objects:.2f}" if objects else "there is no object"
    items: list[Item] = [
        Points([(12, 14)], "pink", 6),
        Text(26, 14, "at the score you chose, in all images", size=12),
        Text(4, 40, "precision", size=13),
        Text(72, 40, precision, size=13, bold=True),
        Text(4, 64, "recall", size=13),
        Text(72, 64, recall, size=13, bold=True),
    ]
    for line, (name, value) in enumerate(figures.items()):
        items += [
            Text(310, 14 + 25 * line, name, size=13),
            Text(520, 14 + 25 * line, f"{value:.2f}" if value == value else "–", "blue", 14, "right", bold=True),
        ]
    return Panel((390, 346, 560, 90), (0, 0, 560, 90), items, framed=False)


def precision_explorer(results: Results, state: PrecisionState | None = None) -> Explorer[PrecisionState]:
    """Return the explorer of lesson 09: what a match needs and what is shown, on a detector's own results."""
    state = state or PrecisionState()
    slim: dict[str, Any] = {"layout": {"width": "300px"}}
    rest = {"continuous_update": False, **slim}  # the first time, a threshold has to be matched in all images
    options = [(name, label) for label, name in enumerate(results.categories, start=1)]
    last = len(results.targets) - 1
    controls = {
        "label": widgets.Dropdown(options=options, value=state.label, description="class", layout={"width": "220px"}),
        "image": widgets.IntSlider(state.image, 0, last, description="image", **slim),
        "score": widgets.FloatSlider(state.score, min=0.05, max=1, step=0.05, description="score ≥", **slim),
        "iou": widgets.FloatSlider(state.iou, min=0.5, max=0.95, step=0.05, description="IoU ≥", **rest),
    }
    return Explorer(partial(precision_scene, results=results), state, controls)


# Pictures


def sheet_figure(pictures: Sequence[tuple[str, Picture]], columns: int) -> Figure:
    """Return pictures of one size, each with a title, in rows of so many."""
    rows = -(-len(pictures) // columns)
    width = 960 / columns
    cell = max(picture.height / picture.width for _, picture in pictures) * (width - 8) + 26
    size = (960 / DOTS_PER_INCH, rows * cell / DOTS_PER_INCH)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH)
    for place, (title, picture) in enumerate(pictures):
        row, column = divmod(place, columns)
        left, bottom = (column * width + 4) / 960, 1 - (row + 1) / rows + 2 / (rows * cell)
        axes = figure.add_axes((left, bottom, (width - 8) / 960, (cell - 26) / (rows * cell)))
        axes.imshow(picture, interpolation="nearest")  # a smooth one makes the file twice as large
        axes.set_title(title, fontsize=9, pad=4)
        axes.set_axis_off()
    return figure


def curves_figure(curves: Mapping[str, Sequence[float]], rankings: Mapping[str, Ranking]) -> Figure:
    """Return two plots, a line for each class, of at most four: precision over recall, and both over the score.

    Args:
        curves: by class, the precision at 101 recalls.
        rankings: by class, the detections that it is made of.
    """
    figure, (left, right) = plot_axes("Precision over recall", "What a threshold on the score buys", height=320)
    for (name, values), ranking, (color, style) in zip(curves.items(), rankings.values(), LOOKS, strict=False):
        look: dict[str, Any] = {"color": PALETTE[color][0], "linestyle": style}
        left.plot(RECALLS, values, label=f"{name}: AP {sum(values) / len(values):.2f}", linewidth=2, **look)
        recall, precision = zip(*(ranking.curve() or [(0.0, 0.0)]), strict=True)
        scores = ranking.scores.tolist() or [0.0]
        right.plot(scores, precision, label=f"{name}: precision", linewidth=2.2, **look)
        right.plot(scores, recall, label=f"{name}: recall", linewidth=1, **look)
    left.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.04))
    right.set(xlabel="score threshold", xlim=(0, 1), ylim=(0, 1.04))
    for axes in (left, right):
        axes.legend(framealpha=0.9, edgecolor="none", fontsize=9, loc="best")
    return figure
