"""Synthetic scenes: leaves, drops, flowers and gears on a cluttered ground, with the exact mask of what is visible.

A scene follows from its seed and its index alone, so nothing is stored, and there are as many as one likes. Leaves
resemble drops, flowers resemble gears; colour and texture say nothing about the class.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor
from torch.utils.data import Dataset

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Size = tuple[int, int]  # (H, W)

SUPERSAMPLING = 4  # shapes are drawn this much larger and shrunk, for smooth edges
MIN_VISIBLE = 12  # pixels of an object that no other may hide
MAX_SHARE = 0.9  # of the image's shorter side: the longer side of the largest objects
ATTEMPTS = 12  # places tried for an object before the scene does without it


@dataclass(frozen=True)
class SceneSettings:
    """The knobs of a scene.

    Attributes:
        size: of the image, (H, W).
        num_objects: the fewest and the most that are tried; where one finds no place, there are fewer.
        object_size: the smallest and the largest longer side in pixels; evenly spread between them on a logarithmic
            scale, so that every level of a pyramid has work.
        crowding: the share of an object that others may hide; at 0, none touch. The higher, the closer they gather.
        rotation: the largest angle in degrees, to either side, by which an object is turned.
    """

    size: Size = (192, 192)
    num_objects: tuple[int, int] = (3, 9)
    object_size: tuple[float, float] = (8, 160)
    crowding: float = 0.4
    rotation: float = 180

    def __post_init__(self) -> None:
        """Refuse settings that no scene could have."""
        few, many = self.num_objects
        small, large = self.object_size
        if min(self.size) < 16:
            raise ValueError(f"size must be at least 16 x 16 pixels, got {self.size}")
        if not 0 <= few <= many:
            raise ValueError(f"num_objects must be the fewest and the most, got {self.num_objects}")
        if not 4 <= small <= large:
            raise ValueError(f"object_size must be the smallest, from 4 px, and the largest, got {self.object_size}")
        if small > MAX_SHARE * min(self.size):
            raise ValueError(f"object_size must begin well below the image's size {self.size}, got {self.object_size}")
        if not 0 <= self.crowding <= 0.9:
            raise ValueError(f"crowding must be from 0 to 0.9, got {self.crowding}")


def leaf(rng: np.random.Generator) -> Floats:
    """Return the outline of a leaf, pointed at both ends, as points of shape (n, 2), x before y."""
    x = np.linspace(-1, 1, 24)
    width, bend = rng.uniform(0.28, 0.42), rng.uniform(-0.15, 0.15)
    upper, lower = width * (1 - x**2), -width * (1 - x**2)
    middle = bend * (1 - x**2)
    return np.stack([np.append(x, x[::-1]), np.append(upper + middle, (lower + middle)[::-1])], axis=1)


def drop(rng: np.random.Generator) -> Floats:
    """Return the outline of a drop, pointed at one end and round at the other."""
    t = np.linspace(0, 2 * np.pi, 48)
    width, point = rng.uniform(0.75, 0.95), rng.uniform(1.2, 2.0)
    return np.stack([np.cos(t), width * np.sin(t) * np.sin(t / 2) ** point], axis=1)


def flower(rng: np.random.Generator) -> Floats:
    """Return the outline of a flower with round petals."""
    t = np.linspace(0, 2 * np.pi, 96)
    petals, depth = rng.integers(5, 8), rng.uniform(0.4, 0.6)
    return _polar(t, 1 - depth * (1 - np.abs(np.cos(petals * t / 2))))


def gear(rng: np.random.Generator) -> Floats:
    """Return the outline of a gear with square teeth; it has a hole for its axle."""
    t = np.linspace(0, 2 * np.pi, 192)
    teeth, depth = rng.integers(6, 10), rng.uniform(0.2, 0.32)
    return _polar(t, 1 - depth / 2 + depth / 2 * np.tanh(6 * np.sin(teeth * t)))


def _polar(angle: Floats, radius: Floats) -> Floats:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


OUTLINES: dict[str, Callable[[np.random.Generator], Floats]] = {
    "leaf": leaf,
    "drop": drop,
    "flower": flower,
    "gear": gear,
}
HOLES = {"gear": 0.3}  # the radius of the hole in the middle: what is behind is seen through it
CATEGORIES = tuple(OUTLINES)  # that of label 1 first


class SyntheticScenes(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Scenes number 0 to ``length - 1`` of a seed.

    An item is an image of shape (3, H, W) from 0 to 1 and its target: ``boxes`` (n, 4) around what is visible,
    ``labels`` (n,) and ``masks`` (n, H, W), which exclude each other.

    Attributes:
        categories: the classes' names, that of label 1 first.

    Lesson: 00.
    """

    categories = CATEGORIES

    def __init__(self, length: int, seed: int = 0, settings: SceneSettings | None = None) -> None:
        if length < 0 or seed < 0:
            raise ValueError(f"length and seed must not be negative, got {length} and {seed}")
        self.length = length
        self.seed = seed
        self.settings = settings if settings is not None else SceneSettings()

    def __len__(self) -> int:
        """Return the number of scenes."""
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return scene ``index``, the same at every call."""
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} is not among scenes 0 to {self.length - 1}")
        image, labels, masks = make_scene(self.settings, np.random.default_rng([self.seed, index]))
        boxes = [_box_around(mask) for mask in masks]
        return torch.from_numpy(image).permute(2, 0, 1).float() / 255, {
            "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "masks": torch.from_numpy(masks),
        }


def _box_around(mask: Bools) -> tuple[int, int, int, int]:
    y, x = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1


def make_scene(settings: SceneSettings, rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[int], Bools]:
    """Return an image of shape (H, W, 3), its objects' labels, and their visible masks of shape (n, H, W)."""
    height, width = settings.size
    canvas = _ground(settings.size, rng)
    light = rng.uniform(0, 2 * np.pi)  # the direction that it comes from, for all objects alike
    labels: list[int] = []
    whole: list[int] = []  # each object's pixels before others hide some
    masks = np.zeros((settings.num_objects[1], height, width), dtype=bool)
    small, large = settings.object_size
    count = rng.integers(settings.num_objects[0], settings.num_objects[1] + 1)
    sizes = np.exp(rng.uniform(math.log(small), math.log(min(large, MAX_SHARE * min(settings.size))), count))
    for size in sorted(sizes.tolist(), reverse=True):  # the largest are the furthest back
        label = int(rng.integers(len(CATEGORIES))) + 1
        alpha = _silhouette(CATEGORIES[label - 1], size, settings.rotation, rng)
        solid = alpha >= 0.5
        place = _find_place(solid, masks[: len(labels)], np.array(whole, dtype=np.int_), settings.crowding, rng)
        if place is None or solid.sum() < MIN_VISIBLE:
            continue
        y, x = place
        here = slice(y, y + alpha.shape[0]), slice(x, x + alpha.shape[1])
        _paint(canvas[here], alpha, size, light, rng)
        masks[: len(labels), *here] &= ~solid
        masks[len(labels), *here] = solid
        labels.append(label)
        whole.append(int(solid.sum()))
    canvas += rng.normal(0, 0.015, canvas.shape)  # the camera's noise
    return (canvas.clip(0, 1) * 255).round().astype(np.uint8), labels, masks[: len(labels)]


def _silhouette(category: str, size: float, rotation: float, rng: np.random.Generator) -> Floats:
    """Return an object's coverage of each pixel, from 0 to 1, in the smallest array that holds it."""
    outline = OUTLINES[category](rng) * [1, rng.uniform(0.85, 1.15)]
    angle = np.deg2rad(rng.uniform(-rotation, rotation))
    outline = outline @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    scale = size / np.ptp(outline, axis=0).max()
    centre = rng.uniform(0, 1, 2) - scale * outline.min(axis=0)  # objects begin anywhere in a pixel
    outline = centre + scale * outline
    width, height = np.ceil(outline.max(axis=0)).astype(int)
    image = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(image)
    draw.polygon([(x, y) for x, y in outline * SUPERSAMPLING - 0.5], fill=255)
    if category in HOLES:
        around = centre + scale * HOLES[category] * np.array([[-1, -1], [1, 1]])
        draw.ellipse([(x, y) for x, y in around * SUPERSAMPLING - 0.5], fill=0)
    return np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float32) / 255


def _find_place(
    solid: Bools, masks: Bools, whole: NDArray[np.int_], crowding: float, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Return the corner (y, x) of a place where the object hides no other too much, or None if none was found."""
    height, width = masks.shape[1:]
    high, wide = height - solid.shape[0], width - solid.shape[1]
    if high < 0 or wide < 0:
        return None
    for _ in range(ATTEMPTS):
        y, x = int(rng.integers(high + 1)), int(rng.integers(wide + 1))
        if len(masks) and rng.uniform() < crowding:  # close to one that is there already
            rows, columns = np.nonzero(masks[rng.integers(len(masks))])
            pixel = rng.integers(len(rows))
            y = int(np.clip(rows[pixel] - solid.shape[0] * rng.uniform(-0.2, 1.2), 0, high))
            x = int(np.clip(columns[pixel] - solid.shape[1] * rng.uniform(-0.2, 1.2), 0, wide))
        rest = masks.sum(axis=(1, 2)) - (masks[:, y : y + solid.shape[0], x : x + solid.shape[1]] & solid).sum((1, 2))
        if (rest >= np.maximum((1 - crowding) * whole, MIN_VISIBLE)).all():
            return y, x
    return None


def _colour(rng: np.random.Generator) -> Floats:
    """Return a random colour, neither very dark nor very pale."""
    hue = rng.uniform(0, 2 * np.pi)
    wheel = 0.5 + 0.5 * np.cos(hue - np.array([0, 2, 4]) * np.pi / 3)
    return rng.uniform(0.4, 0.95) * (1 + rng.uniform(0.3, 0.9) * (wheel - 1))


def _paint(canvas: Floats, alpha: Floats, size: float, light: float, rng: np.random.Generator) -> None:
    """Paint an object onto its part of the canvas, in place: rounded by light and shade, and with a texture."""
    blurred = Image.fromarray((alpha * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.1 * size))
    height = np.pad(np.asarray(blurred, dtype=np.float32) / 255, 1)  # it rises from the edge inwards
    slope_y, slope_x = height[2:, 1:-1] - height[:-2, 1:-1], height[1:-1, 2:] - height[1:-1, :-2]
    relief = 0.12 * size * (math.sin(light) * slope_y + math.cos(light) * slope_x)
    y, x = np.mgrid[: alpha.shape[0], : alpha.shape[1]]
    angle, waves = rng.uniform(0, np.pi), rng.uniform(2, 6)
    stripes = np.sin(2 * np.pi * waves / size * (math.sin(angle) * y + math.cos(angle) * x))
    texture = rng.choice([0, 0.14]) * stripes + rng.uniform(0, 0.05) * rng.standard_normal(alpha.shape)
    brightness = (1 + relief.clip(-0.5, 0.5) + texture)[:, :, None]
    canvas += alpha[:, :, None] * (_colour(rng) * brightness - canvas)


def _ground(size: Size, rng: np.random.Generator) -> Floats:
    """Return a ground of shape (H, W, 3): patches of similar colours, strewn with bars, discs and triangles."""
    height, width = size
    colour = _colour(rng)
    base = colour + 0.5 * (colour.mean() - colour)  # half as vivid as an object
    patches = (base + rng.normal(0, 0.06, (7, 7, 1)) + rng.normal(0, 0.03, (7, 7, 3))).clip(0, 1)
    image = Image.fromarray((patches * 255).astype(np.uint8)).resize((2 * width, 2 * height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(6, 30)):
        red, green, blue = ((base + rng.normal(0, 0.15, 3)).clip(0, 1) * 255).astype(int)
        centre = rng.uniform(0, 2, 2) * [width, height]
        reach = np.exp(rng.uniform(math.log(3), math.log(0.3 * max(size)), 2))
        corners = centre + reach * [[-1, -1], [1, 1]]
        kind = rng.integers(4)
        if kind == 0:
            draw.line([tuple(corner) for corner in corners], (red, green, blue), width=int(rng.integers(2, 12)))
        elif kind == 1:
            draw.ellipse([tuple(corner) for corner in corners], (red, green, blue))
        elif kind == 2:
            draw.arc([tuple(corner) for corner in corners], 0, rng.uniform(90, 360), (red, green, blue), width=4)
        else:
            triangle = centre + reach.mean() * _polar(rng.uniform(0, 2 * np.pi, 3), np.ones(3))
            draw.polygon([(x, y) for x, y in triangle], (red, green, blue))
    return np.asarray(image.reduce(2), dtype=np.float32) / 255
