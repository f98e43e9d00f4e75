"""COCO's format: a folder of images, and a JSON file that says what is on them. Read, and written.

Every dataset of the course, whatever it comes from, can be described in it, which is what evaluation works on.
"""

import errno
import json
import math
import os
import reprlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as mask_api
from torch import Tensor
from torch.utils.data import Dataset

Target = dict[str, Tensor]  # boxes (n, 4), labels (n,)[, masks (n, H, W)] of one image
Sample = tuple[Tensor, Target]
Json = dict[str, Any]
Size = tuple[int, int]  # (H, W)

FIELDS: dict[str, dict[str, type]] = {  # what a file must have; the rest is optional
    "images": {"id": int, "file_name": str, "height": int, "width": int},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": int, "category_id": int, "bbox": list},
}
MAX_SIDE = 65535  # of an image: COCO's runs of pixels are counted with 32 bits


@runtime_checkable
class DetectionDataset(Protocol):
    """Images with targets: ``SyntheticScenes``, ``CocoDataset``, or a class of one's own with these three."""

    @property
    def categories(self) -> Sequence[str]:
        """Return the classes' names, that of label 1 first."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int, /) -> Sample:
        """Return an image of shape (3, H, W) from 0 to 1, and its target."""


class CocoDataset(Dataset[Sample]):
    """The images of a folder, with what a file in COCO's format says about them.

    An item is an image of shape (3, H, W) from 0 to 1 and its target: ``boxes`` (n, 4) cut off at the image's edges,
    ``labels`` (n,) from 1 in the order of the categories' ids, and ``masks`` (n, H, W) if the file has any. Crowd
    regions are in no target. An image is taken as its pixels are stored, which is what annotations refer to: a camera's
    note of how to turn it (EXIF) is not followed.

    Args:
        images_folder: where the images are.
        annotations_file: the JSON file; all of it is checked at once, the images when they are read.

    Attributes:
        categories: the classes' names, that of label 1 first.
        coco: the file's content, ``images`` in the order of the items, ``categories`` in that of the labels; without
            what was skipped, with an area for every object. Evaluation uses it.
        skipped: how many objects were left out: with a box or a mask that is empty, or without a mask though others
            have one.

    Raises:
        FileNotFoundError: if there is no such folder or file, or no image that the file lists.
        ValueError: for a file that is damaged or contradicts itself, or an image that is damaged or of another size.

    Lesson: 09.
    """

    def __init__(self, images_folder: str | os.PathLike[str], annotations_file: str | os.PathLike[str]) -> None:
        self.folder, self.file = Path(images_folder), Path(annotations_file)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {self.folder}; check the path")
        self.coco = _read(self.file)
        images, categories = self._by_id("images"), self._by_id("categories")
        self.coco["categories"] = [categories[number] for number in sorted(categories)]
        self.categories = tuple(category["name"] for category in self.coco["categories"])
        self.labels = {number: label for label, number in enumerate(sorted(categories), start=1)}
        annotations = self.coco["annotations"]
        self.has_masks = any(each.get("segmentation") and not each.get("iscrowd") for each in annotations)
        self.coco["annotations"] = [
            annotation for place, annotation in enumerate(annotations) if self._is_sound(place, annotation, images)
        ]
        self.skipped = len(annotations) - len(self.coco["annotations"])
        if 0 in self._by_id("annotations"):  # COCOeval takes a match with an object of id 0 for none
            for number, annotation in enumerate(self.coco["annotations"], start=1):
                annotation["id"] = number
        self.objects: dict[int, list[Json]] = {number: [] for number in images}  # those of each image
        for annotation in self.coco["annotations"]:
            if not annotation["iscrowd"]:
                self.objects[annotation["image_id"]].append(annotation)

    def _by_id(self, part: str) -> dict[int, Json]:
        entries = self.coco[part]
        counts = Counter(entry["id"] for entry in entries)
        if len(counts) < len(entries):
            number, count = counts.most_common(1)[0]
            raise ValueError(f"{self.file}: {count} {part} have the id {number}; give each an id of its own")
        return {entry["id"]: entry for entry in entries}

    def _is_sound(self, place: int, annotation: Json, images: dict[int, Json]) -> bool:
        """Return whether there is something to see of an object; refuse one that makes no sense, complete the rest."""
        where = f"{self.file}: annotations[{place}]"
        image_id, category_id = annotation["image_id"], annotation["category_id"]
        if image_id not in images:
            raise ValueError(f"{where} is on the image {image_id}, which is not among the images; add or remove it")
        if category_id not in self.labels:
            raise ValueError(
                f"{where} is of the category {category_id}, which is not among the categories {list(self.labels)}; "
                "add it there, or correct the annotation"
            )
        size = images[image_id]["height"], images[image_id]["width"]
        bbox = annotation["bbox"]
        if len(bbox) != 4 or not all(isinstance(side, int | float) and math.isfinite(side) for side in bbox):
            raise ValueError(
                f"{where} must have a bbox of four numbers, x, y, width and height, got {bbox}; correct it"
            )
        x, y, width, height = bbox
        if min(width, height) <= 0 or (self.has_masks and not annotation.get("segmentation")):
            return False
        if not (0 <= x + width / 2 <= size[1] and 0 <= y + height / 2 <= size[0]):
            raise ValueError(
                f"{where} has the bbox {bbox}, whose centre is outside its image of {size[0]} x {size[1]} pixels "
                "(H x W); a bbox is x, y, width and height: are these two corners, or fractions of another size?"
            )
        x1, y1, x2, y2 = np.array(_corners(bbox, size), dtype=np.float32)  # as an item has them
        if x1 >= x2 or y1 >= y2:
            return False
        area: float = width * height
        if self.has_masks:
            try:
                area = int(mask_api.area(to_rle(annotation["segmentation"], size)))
            except ValueError as error:
                raise ValueError(f"{where} has a segmentation that {error}; correct or remove it") from error
        annotation["iscrowd"] = int(bool(annotation.get("iscrowd")))
        if not isinstance(annotation.get("area"), int | float):
            annotation["area"] = area
        return area > 0

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.coco["images"])

    def __getitem__(self, index: int) -> Sample:
        """Return image ``index`` and its target."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} is not among images 0 to {len(self) - 1}")
        entry = self.coco["images"][index]
        path, size = self.folder / entry["file_name"], (entry["height"], entry["width"])
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, and {self.file} lists it; is {self.folder} the right folder?")
        image = read_image(path)
        if tuple(image.shape[1:]) != size:
            raise ValueError(
                f"{path} has {image.shape[1]} x {image.shape[2]} pixels (H x W), and {self.file} says {size[0]} x "
                f"{size[1]}; was it resized or turned? annotate it anew, or put the original there"
            )
        objects = self.objects[entry["id"]]
        target = {
            "boxes": torch.tensor([_corners(each["bbox"], size) for each in objects], dtype=torch.float32).view(-1, 4),
            "labels": torch.tensor([self.labels[each["category_id"]] for each in objects], dtype=torch.int64),
        }
        if self.has_masks:
            masks = np.zeros((len(objects), *size), dtype=bool)
            for mask, each in zip(masks, objects, strict=True):
                mask[:] = from_rle(to_rle(each["segmentation"], size))
            target["masks"] = torch.from_numpy(masks)
        return image, target


def _read(file: Path) -> Json:
    """Return the content of a file in COCO's format, if all that is needed is there."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}; check the path")
    try:
        coco = json.loads(file.read_bytes())
    except ValueError as error:  # not JSON, or not text
        raise ValueError(f"{file} is not whole JSON ({error}); copy or export it again") from error
    for part, fields in FIELDS.items():
        entries = coco.get(part) if isinstance(coco, dict) else None
        if not isinstance(entries, list):
            raise ValueError(f"{file} has no list of {part}; a file in COCO's format has {', '.join(FIELDS)}")
        for place, entry in enumerate(entries):
            for name, kind in fields.items():
                if not isinstance(entry, dict) or not isinstance(entry.get(name), kind):
                    raise ValueError(
                        f"{file}: {part}[{place}] must have {name!r}, of type {kind.__name__}, got "
                        f"{reprlib.repr(entry)}; correct it, or export the file again"
                    )
            if part == "images" and not all(0 < entry[side] <= MAX_SIDE for side in ("height", "width")):
                raise ValueError(
                    f"{file}: {part}[{place}] must have sides from 1 to {MAX_SIDE} pixels, got {reprlib.repr(entry)}; "
                    "correct it"
                )
    return {"info": {}, **coco}


def _corners(bbox: Sequence[float], size: Size) -> tuple[float, float, float, float]:
    """Return the corners of a box of x, y, width and height, cut off at the image's edges."""
    x, y, width, height = bbox
    return max(0, x), max(0, y), min(x + width, size[1]), min(y + height, size[0])


def to_rle(segmentation: object, size: Size) -> Json:
    """Return an object's mask as compressed RLE: runs of pixels outside and inside by turns, column by column.

    Raises:
        ValueError: if it is none; it goes on with "has a segmentation that …". pycocotools alone would read on behind
            the end of a run too few, or hand out memory as it finds it.
    """
    if isinstance(segmentation, list):
        return _polygons_to_rle(segmentation, size)
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), list | str):
        raise ValueError(f"is neither polygons nor RLE: {reprlib.repr(segmentation)}")
    if segmentation.get("size") != list(size):
        raise ValueError(f"is of size {segmentation.get('size')} on an image of size {list(size)} (H, W)")
    counts = segmentation["counts"]
    runs = counts if isinstance(counts, list) else _run_lengths(counts)
    if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise ValueError(f"is damaged: its runs do not add up to the image's {size[0] * size[1]} pixels")
    if isinstance(counts, list):
        return cast(Json, mask_api.frPyObjects(segmentation, *size))
    return segmentation


def _polygons_to_rle(polygons: list[Any], size: Size) -> Json:
    """Return the union of polygons, each a list of x, y, x, y, …; those of fewer than three corners hold nothing."""
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(isinstance(value, int | float) for value in polygon):
            raise ValueError(
                f"must be a list of polygons, each a list of numbers x, y, x, y, got {reprlib.repr(polygon)}"
            )
        if len(polygon) % 2 or not all(-max(size) <= value <= 2 * max(size) for value in polygon):
            raise ValueError(
                f"has a polygon of half a corner, or of one far outside the image: {reprlib.repr(polygon)}"
            )
    whole = [polygon for polygon in polygons if len(polygon) >= 6]
    if not whole:
        return cast(Json, mask_api.encode(np.zeros(size, dtype=np.uint8, order="F")))
    return cast(Json, mask_api.merge(mask_api.frPyObjects(whole, *size)))


def from_rle(rle: Json) -> NDArray[np.bool_]:
    """Return the mask, of shape (H, W), of a sound compressed RLE, such as :func:`to_rle` gives.

    As ``pycocotools.mask.decode`` does, which numpy 2 warns of.
    """
    height, width = rle["size"]
    counts = rle["counts"]
    runs = _run_lengths(counts if isinstance(counts, str) else counts.decode("ascii"))
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def _run_lengths(text: str) -> list[int]:
    """Return the runs of a compressed RLE: five bits a character, and from the fourth on less the last but one."""
    runs: list[int] = []
    value = shift = 0
    for code in text.encode():
        digit = code - 48
        if not 0 <= digit < 64:
            raise ValueError(f"is damaged: {chr(code)!r} is no character of a compressed RLE")
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & 0x20:  # there is more of this number
            continue
        if digit & 0x10:  # it is negative
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("is damaged: its compressed RLE breaks off")
    return runs


def read_image(path: str | os.PathLike[str]) -> Float[Tensor, "3 H W"]:
    """Return an image file's pixels from 0 to 1, as they are stored.

    Grey ones become three equal channels, 16 bits keep their depth, transparency is dropped.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, cut short or no image, or of floating-point numbers, whose range nobody knows.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no image {path}; check the path")
    try:
        with Image.open(path) as image:
            if image.mode == "F":
                raise ValueError("it holds floating-point numbers")
            if image.mode.startswith("I"):  # Pillow itself would cut these off at 255
                pixels = np.asarray(image).astype(np.float32) / 65535
                if pixels.min() < 0 or pixels.max() > 1:
                    raise ValueError("it holds numbers of more than 16 bits")
                return torch.from_numpy(pixels).repeat(3, 1, 1)
            # By way of RGBA, because a palette may be transparent in parts.
            opaque = image.convert("RGBA").convert("RGB") if image.mode in ("P", "PA") else image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all of these are Pillow's
        raise ValueError(f"cannot read the image {path} ({error}); replace it, or save it as 8-bit PNG") from error
    return torch.from_numpy(np.array(opaque)).permute(2, 0, 1).float() / 255


def as_coco(dataset: DetectionDataset) -> Json:
    """Return what COCO's format says of a dataset: its own ``coco`` if it has one, else what follows from its items.

    The caller may change the annotations, as pycocotools does.
    """
    coco: Json | None = getattr(dataset, "coco", None)
    if coco is not None:
        return {**coco, "annotations": [dict(annotation) for annotation in coco["annotations"]]}
    images: list[Json] = []
    annotations: list[Json] = []
    for index in range(len(dataset)):
        image, target = dataset[index]
        height, width = image.shape[1:]
        images.append({"id": index + 1, "file_name": f"{index:06}.png", "height": height, "width": width})
        for annotation in _annotations(target):
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **annotation})
    categories = [{"id": label, "name": name} for label, name in enumerate(dataset.categories, start=1)]
    return {"info": {}, "images": images, "categories": categories, "annotations": annotations}


def _annotations(target: Target) -> Iterator[Json]:
    for row, (label, (x1, y1, x2, y2)) in enumerate(
        zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True)
    ):
        annotation = {"category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        if "masks" in target:
            rle = mask_api.encode(np.asfortranarray(target["masks"][row].numpy(), dtype=np.uint8))
            area = int(mask_api.area(rle))
            yield {**annotation, "area": area, "segmentation": {**rle, "counts": rle["counts"].decode("ascii")}}
        else:
            yield {**annotation, "area": (x2 - x1) * (y2 - y1)}


def write_coco(dataset: DetectionDataset, folder: str | os.PathLike[str]) -> None:
    """Write a dataset's images as PNG and its ``annotations.json`` into a new folder: all of them or nothing.

    ``CocoDataset(folder, folder / "annotations.json")`` then has the same items.

    Raises:
        FileExistsError: if the folder is not empty.
        OSError: if there is no space left.
    """
    coco = as_coco(dataset)
    names = [f"{index:06}.png" for index in range(len(dataset))]
    coco["images"] = [{**image, "file_name": name} for image, name in zip(coco["images"], names, strict=True)]
    with whole_folder(Path(folder)) as partial:
        for index, name in enumerate(names):
            image, _ = dataset[index]
            pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0)
            Image.fromarray(pixels.numpy()).save(partial / name)
        (partial / "annotations.json").write_text(json.dumps(coco), encoding="utf-8")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill, which becomes ``folder`` when it is full: an interruption leaves nothing behind.

    Raises:
        FileExistsError: if there is something in ``folder`` already.
        OSError: if there is no space left.
    """
    folder = Path(os.path.abspath(folder))
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; choose another folder, or remove what is in it")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(f"cannot write {folder} ({error}); make space on the disk, then run this again") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
