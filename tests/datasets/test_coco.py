"""COCO's format: a folder that one can check by hand, pycocotools as the oracle, then everything that may be wrong."""

import copy
import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from torch import Tensor

from rcnn_edu.datasets import CocoDataset, SceneSettings, SyntheticScenes, as_coco, read_image, write_coco
from rcnn_edu.datasets.coco import DetectionDataset, Json, _run_lengths, from_rle, to_rle
from rcnn_edu.models.transform import check_targets

# What pycocotools' decode() warns of with numpy 2, which is why the package has one of its own.
oracle_warns = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

HEIGHT, WIDTH = 4, 6
# One image of 4 x 6 pixels, with a cat of 3 x 2 pixels at (1, 1) and a dog of two pixels at the left edge.
RECTANGLE = [[1, 1, 4, 1, 4, 3, 1, 3]]  # a polygon
TWO_PIXELS = {"size": [HEIGHT, WIDTH], "counts": [2, 2, 20]}  # columns from the left, each from top to bottom
EXAMPLE: Json = {
    "images": [{"id": 11, "file_name": "pets.png", "height": HEIGHT, "width": WIDTH}],
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 11, "category_id": 3, "bbox": [1, 1, 3, 2], "segmentation": RECTANGLE},
        {"id": 2, "image_id": 11, "category_id": 7, "bbox": [0, 2, 1, 2], "segmentation": TWO_PIXELS},
    ],
}


def gradient(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    return (np.arange(height * width * 3) % 256).astype(np.uint8).reshape(height, width, 3)


def opened(folder: Path, coco: object = EXAMPLE) -> CocoDataset:
    """Return the dataset of a file that says ``coco``, beside the example's image."""
    Image.fromarray(gradient()).save(folder / "pets.png")
    (folder / "pets.json").write_text(json.dumps(coco))
    return CocoDataset(folder, folder / "pets.json")


def changed(part: str, place: int, **fields: Any) -> Json:
    """Return the example with other fields in one entry; None takes a field away."""
    coco = copy.deepcopy(EXAMPLE)
    entry = {**coco[part][place], **fields}
    coco[part][place] = {name: value for name, value in entry.items() if value is not None}
    return coco


def with_another(**fields: Any) -> Json:
    """Return the example with a third object, a cat."""
    coco = copy.deepcopy(EXAMPLE)
    coco["annotations"].append({**EXAMPLE["annotations"][0], "id": 3, **fields})
    return coco


def mask_of(*rows: str) -> Tensor:
    return torch.tensor([[character == "#" for character in row] for row in rows])


def result_or_error(call: Callable[[], Any]) -> Any:
    """Return what the call does, or what it says is wrong."""
    try:
        return call()
    except ValueError as error:
        return str(error)


def equal(first: tuple[Tensor, dict[str, Tensor]], second: tuple[Tensor, dict[str, Tensor]]) -> bool:
    same = torch.equal(first[0], second[0]) and first[1].keys() == second[1].keys()
    return same and all(torch.equal(first[1][name], second[1][name]) for name in first[1])


# By hand.


def test_an_item_by_hand(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    assert len(dataset) == 1
    assert dataset.categories == ("cat", "dog")  # in the order of the ids, which have gaps
    assert dataset.skipped == 0
    image, target = dataset[0]
    assert image.dtype == torch.float32
    assert torch.equal((image * 255).round().byte().permute(1, 2, 0), torch.from_numpy(gradient()))
    assert target["boxes"].tolist() == [[1, 1, 4, 3], [0, 2, 1, 4]]
    assert target["labels"].tolist() == [1, 2]
    assert target["masks"].dtype == torch.bool
    assert torch.equal(target["masks"][0], mask_of("......", ".###..", ".###..", "......"))
    assert torch.equal(target["masks"][1], mask_of("......", "......", "#.....", "#....."))
    check_targets([image], [target], num_classes=2, with_masks=True)


def test_crowds_are_for_evaluation_only(tmp_path: Path) -> None:
    dataset = opened(tmp_path, with_another(iscrowd=1, segmentation=TWO_PIXELS, area=2.5))
    assert dataset[0][1]["labels"].tolist() == [1, 2]
    assert [annotation["iscrowd"] for annotation in dataset.coco["annotations"]] == [0, 0, 1]
    assert dataset.skipped == 0


def test_an_image_may_be_empty(tmp_path: Path) -> None:
    coco = copy.deepcopy(EXAMPLE)
    coco["images"].insert(0, {**EXAMPLE["images"][0], "id": 2})
    image, target = opened(tmp_path, coco)[0]
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].dtype == torch.int64
    assert target["masks"].shape == (0, HEIGHT, WIDTH)
    check_targets([image], [target], num_classes=2, with_masks=True)


@pytest.mark.parametrize("nothing", [None, []])
def test_without_segmentations_there_are_no_masks(tmp_path: Path, nothing: object) -> None:
    coco = changed("annotations", 0, segmentation=nothing)
    coco["annotations"][1]["segmentation"] = nothing
    dataset = opened(tmp_path, coco)
    assert dataset[0][1].keys() == {"boxes", "labels"}
    assert [annotation["area"] for annotation in dataset.coco["annotations"]] == [6, 2]


@pytest.mark.parametrize(
    ("bbox", "corners"),
    [
        ([-1.5, 1, 4, 2], [0, 1, 2.5, 3]),
        ([2, 2, 8, 3.25], [2, 2, WIDTH, HEIGHT]),
        ([0, -1e-3, 6.001, 4], [0, 0, WIDTH, HEIGHT]),
    ],
)
def test_boxes_end_where_the_image_does(tmp_path: Path, bbox: list[float], corners: list[float]) -> None:
    image, target = opened(tmp_path, changed("annotations", 0, bbox=bbox))[0]
    assert target["boxes"][0].tolist() == pytest.approx(corners, abs=1e-3)
    check_targets([image], [target], num_classes=2, with_masks=True)


@pytest.mark.parametrize(
    "empty",
    [
        {"bbox": [1, 1, 0, 2]},
        {"bbox": [1, 1, 3, 0.0]},
        {"bbox": [1, 1, -3, 2]},
        {"bbox": [3, 1, 1e-9, 2]},  # nothing is left of it in single precision
        {"segmentation": []},
        {"segmentation": None},
        {"segmentation": [[1, 1, 4, 1]]},  # a line; pycocotools would take it for a box
        {"segmentation": [[1, 1, 1, 1, 1, 1]]},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [24]}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "h0"}},
    ],
)
def test_what_is_empty_is_left_out_and_counted(tmp_path: Path, empty: Json) -> None:
    dataset = opened(tmp_path, with_another(**empty))
    assert dataset.skipped == 1
    assert dataset[0][1]["labels"].tolist() == [1, 2]
    assert [annotation["id"] for annotation in dataset.coco["annotations"]] == [1, 2]


def test_the_file_is_completed_for_evaluation(tmp_path: Path) -> None:
    coco = changed("annotations", 0, id=0, area=5.5, iscrowd=0)
    dataset = opened(tmp_path, {**coco, "licenses": ["CC0"]})
    assert dataset.coco["images"] == EXAMPLE["images"]
    assert [category["id"] for category in dataset.coco["categories"]] == [3, 7]
    assert [annotation["id"] for annotation in dataset.coco["annotations"]] == [1, 2]  # COCOeval overlooks id 0
    assert [annotation["area"] for annotation in dataset.coco["annotations"]] == [5.5, 2]
    assert [annotation["iscrowd"] for annotation in dataset.coco["annotations"]] == [0, 0]
    assert dataset.coco["info"] == {}
    assert dataset.coco["licenses"] == ["CC0"]


def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "marked.json").write_text(json.dumps(EXAMPLE), encoding="utf-8-sig")
    assert CocoDataset(tmp_path, tmp_path / "marked.json").categories == ("cat", "dog")


def test_a_dataset_goes_to_other_processes(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    assert equal(pickle.loads(pickle.dumps(dataset))[0], dataset[0])


# Masks, against pycocotools.


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.uint8]:
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return (rng.uniform(size=shape) < draw(st.floats(0, 1))).astype(np.uint8)


@given(masks())
@example(np.zeros((3, 5), dtype=np.uint8))
@example(np.ones((40, 40), dtype=np.uint8))
def test_compressed_and_plain_runs_are_the_mask(mask: NDArray[np.uint8]) -> None:
    size = mask.shape[0], mask.shape[1]
    rle = mask_api.encode(np.asfortranarray(mask))
    compressed = {"size": list(size), "counts": rle["counts"].decode()}
    runs = _run_lengths(compressed["counts"])
    ends = np.cumsum(runs)
    column_by_column = sum(np.arange(mask.size) >= end for end in ends) % 2  # each run's end turns the pixels over
    assert np.array_equal(np.reshape(column_by_column, size[::-1]).T, mask)
    for segmentation in (compressed, {"size": list(size), "counts": runs}):
        assert np.array_equal(from_rle(to_rle(segmentation, size)), mask)


@st.composite
def stars(draw: st.DrawFn) -> list[float]:
    """Polygons around a place in an image of 30 x 40 pixels, partly beyond its edges."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    angle = np.sort(rng.uniform(0, 2 * np.pi, draw(st.integers(3, 12))))
    points = rng.uniform(0, [40, 30], 2) + rng.uniform(1, 20, (len(angle), 1)) * np.stack(
        [np.cos(angle), np.sin(angle)], 1
    )
    return [float(value) for value in points.ravel()]


@oracle_warns
@given(st.lists(stars(), min_size=1, max_size=3))
def test_polygons_are_pycocotools_masks(polygons: list[list[float]]) -> None:
    oracle = COCO()
    oracle.imgs = {1: {"id": 1, "height": 30, "width": 40}}
    expected = oracle.annToMask({"image_id": 1, "segmentation": polygons})
    assert np.array_equal(from_rle(to_rle(polygons, (30, 40))), expected)


@given(masks(), st.data())
def test_damaged_runs_are_refused_or_another_mask_of_the_same_size(
    mask: NDArray[np.uint8], data: st.DataObject
) -> None:
    """Never a crash, never memory as it happens to be: what is decoded are the pixels that the runs count."""
    size = mask.shape[0], mask.shape[1]
    counts = bytearray(mask_api.encode(np.asfortranarray(mask))["counts"])
    counts[data.draw(st.integers(0, len(counts) - 1))] = data.draw(st.integers(1, 127))
    text = counts[: data.draw(st.integers(0, len(counts)))].decode("ascii")
    rle = result_or_error(lambda: to_rle({"size": list(size), "counts": text}, size))
    if isinstance(rle, str):
        assert "is damaged" in rle
    else:
        decoded = from_rle(rle)
        assert decoded.shape == size
        assert decoded.sum() == mask_api.area(rle)


# What a file may have wrong.


@pytest.mark.parametrize(
    ("coco", "message"),
    [
        ([], r"has no list of images; a file in COCO's format has images, categories, annotations"),
        ({"images": []}, r"has no list of categories"),
        ({**EXAMPLE, "annotations": {}}, r"has no list of annotations"),
        ({**EXAMPLE, "images": ["pets.png"]}, r"images\[0\] must have 'id', of type int, got 'pets\.png'"),
        (changed("images", 0, id=None), r"images\[0\] must have 'id', of type int, got \{.*export the file again"),
        (changed("images", 0, file_name=None), r"images\[0\] must have 'file_name', of type str"),
        (changed("images", 0, height=None), r"images\[0\] must have 'height', of type int"),
        (changed("images", 0, width="6"), r"images\[0\] must have 'width', of type int"),
        (changed("images", 0, width=0), r"images\[0\] must have sides from 1 to 65535 pixels, got \{.*; correct it"),
        (changed("images", 0, height=10**30), r"images\[0\] must have sides from 1 to 65535 pixels"),
        (changed("categories", 1, name=None), r"categories\[1\] must have 'name', of type str"),
        (changed("annotations", 1, id=None), r"annotations\[1\] must have 'id', of type int"),
        (changed("annotations", 1, image_id=None), r"annotations\[1\] must have 'image_id', of type int"),
        (changed("annotations", 1, category_id=None), r"annotations\[1\] must have 'category_id', of type int"),
        (changed("annotations", 1, bbox=None), r"annotations\[1\] must have 'bbox', of type list"),
        (changed("annotations", 1, image_id=12), r"annotations\[1\] is on the image 12, which is not among the images"),
        (changed("annotations", 1, category_id=1), r"annotations\[1\] is of the category 1, .* categories \[3, 7\]"),
        (changed("categories", 1, id=7), r"2 categories have the id 7; give each an id of its own"),
        (changed("annotations", 1, id=1), r"2 annotations have the id 1"),
        ({**EXAMPLE, "images": EXAMPLE["images"] * 3}, r"3 images have the id 11"),
        (changed("annotations", 1, bbox=[1, 2, 3]), r"annotations\[1\] must have a bbox of four numbers.*\[1, 2, 3\]"),
        (changed("annotations", 1, bbox=[1, 2, 3, "4"]), r"must have a bbox of four numbers"),
        (changed("annotations", 1, bbox=[1, 2, 3, float("nan")]), r"must have a bbox of four numbers.*nan"),
        (
            changed("annotations", 1, bbox=[-1e308, 1, 1, 1]),
            r"annotations\[1\] has the bbox \[-1e\+308, 1, 1, 1\], whose centre is outside its image of 4 x 6 pixels",
        ),
        (
            changed("annotations", 1, bbox=[5, 1, 6, 3]),
            r"annotations\[1\] has the bbox \[5, 1, 6, 3\], whose centre .* two corners",
        ),
        (changed("annotations", 1, segmentation="h0"), r"a segmentation that is neither polygons nor RLE: 'h0'"),
        (changed("annotations", 1, segmentation={"size": [4, 6]}), r"is neither polygons nor RLE"),
        (changed("annotations", 1, segmentation=[1, 1, 4, 1, 4, 3]), r"must be a list of polygons, .* got 1"),
        (changed("annotations", 1, segmentation=[[1, 1, 4, 1, 4, "3"]]), r"must be a list of polygons"),
        (changed("annotations", 1, segmentation=[[1, 1, 4, 1, 4, 3, 1]]), r"has a polygon of half a corner"),
        (changed("annotations", 1, segmentation=[[1, 1, 4, 1, 4, 1e9]]), r"or of one far outside the image"),
        (changed("annotations", 1, segmentation=[[1, 1, 4, 1, 4, float("inf")]]), r"or of one far outside the image"),
        (
            changed("annotations", 1, segmentation={"size": [6, 4], "counts": [24]}),
            r"is of size \[6, 4\] on an image of size \[4, 6\]",
        ),
        (
            changed("annotations", 1, segmentation={"size": [4, 6], "counts": [2, 2, 12]}),
            r"runs do not add up to the image's 24",
        ),
        (changed("annotations", 1, segmentation={"size": [4, 6], "counts": [2, 25, -3]}), r"runs do not add up"),
        (changed("annotations", 1, segmentation={"size": [4, 6], "counts": [2, 21.5, 0.5]}), r"runs do not add up"),
        (changed("annotations", 1, segmentation={"size": [4, 6], "counts": "22"}), r"runs do not add up"),
        (
            changed("annotations", 1, segmentation={"size": [4, 6], "counts": "2~"}),
            r"'~' is no character of a compressed RLE",
        ),
        (changed("annotations", 1, segmentation={"size": [4, 6], "counts": "X"}), r"its compressed RLE breaks off"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, coco: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        opened(tmp_path, coco)
    assert str(caught.value).startswith(str(tmp_path / "pets.json"))
    assert "\n" not in str(caught.value)


def places(content: object, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to everything in a JSON file: keys and indices."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [above, *(place for key, value in inner for place in places(value, (*above, key)))]


NUMBERS = st.sampled_from([-1e308, -1, 0, 0.5, 1, 2, 7, 10**30, float("inf"), float("nan")])
VALUES = st.recursive(
    NUMBERS | st.none() | st.booleans() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=8) | st.fixed_dictionaries({"size": st.just([4, 6]), "counts": inner}),
    max_leaves=8,
)


@settings(max_examples=150)
@given(place=st.sampled_from(places(EXAMPLE)[1:]), value=VALUES)
def test_whatever_stands_wherever_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], value: object
) -> None:
    coco = copy.deepcopy(EXAMPLE)
    inner: Any = coco
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    folder = tmp_path_factory.getbasetemp()
    try:
        dataset = opened(folder, coco)
        samples = [dataset[index] for index in range(len(dataset))]
    except (ValueError, FileNotFoundError) as error:
        text = str(error)
        assert str(folder) in text
        assert "\n" not in text
    else:
        targets = [target for _, target in samples]
        check_targets([image for image, _ in samples], targets, num_classes=2, with_masks=dataset.has_masks)


def test_a_file_cut_in_half_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    file = tmp_path / "pets.json"
    file.write_text(file.read_text()[:200])
    with pytest.raises(ValueError, match=r"pets\.json is not whole JSON \(.*\); copy or export it again"):
        CocoDataset(tmp_path, file)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(ValueError, match=r"pets\.png is not whole JSON"):
        CocoDataset(tmp_path, tmp_path / "pets.png")


def test_missing_files_are_named(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere\.json; check the path"):
        CocoDataset(tmp_path, tmp_path / "nowhere.json")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; check the path"):
        CocoDataset(tmp_path / "nowhere", tmp_path / "pets.json")
    (tmp_path / "pets.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"pets\.png is missing, and .*pets\.json lists it; is .* the right folder"
    ):
        dataset[0]


@pytest.mark.parametrize("index", [-1, 1])
def test_there_is_no_image_beyond_the_last(tmp_path: Path, index: int) -> None:
    with pytest.raises(IndexError, match=rf"image {index} is not among images 0 to 0"):
        opened(tmp_path)[index]


# Images.


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("grey.png", Image.new("L", (3, 2), 51), [51, 51, 51]),
        ("bits.png", Image.new("1", (3, 2), 1), [255, 255, 255]),
        ("alpha.png", Image.new("RGBA", (3, 2), (51, 102, 153, 7)), [51, 102, 153]),
        ("grey_alpha.png", Image.new("LA", (3, 2), (51, 7)), [51, 51, 51]),
        (
            "palette.png",
            Image.new("RGB", (3, 2), (51, 102, 153)).convert("P", palette=Image.Palette.ADAPTIVE),
            [51, 102, 153],
        ),
        ("ink.tif", Image.new("CMYK", (3, 2), (204, 153, 102, 0)), [51, 102, 153]),
        ("deep.png", Image.fromarray(np.full((2, 3), 257 * 51, dtype=np.uint16)), [51, 51, 51]),
        ("deep.tif", Image.fromarray(np.full((2, 3), 257 * 51, dtype=np.int32)), [51, 51, 51]),
    ],
)
def test_images_of_all_kinds_become_rgb(tmp_path: Path, name: str, image: Image.Image, expected: list[int]) -> None:
    image.save(tmp_path / name)
    pixels = read_image(tmp_path / name)
    assert pixels.shape == (3, 2, 3)
    assert pixels.dtype == torch.float32
    colour = torch.tensor(expected)[:, None, None].expand(3, 2, 3) / 255
    torch.testing.assert_close(pixels, colour, rtol=0, atol=1e-6)


def test_a_palette_may_be_transparent_in_parts(tmp_path: Path) -> None:
    image = Image.new("P", (3, 2), 1)
    image.putpalette([0, 0, 0, 51, 102, 153])
    image.save(tmp_path / "clear.png", transparency=b"\x00\x80")
    assert (read_image(tmp_path / "clear.png")[:, 0, 0] * 255).round().tolist() == [51, 102, 153]


def test_sixteen_bits_keep_their_depth(tmp_path: Path) -> None:
    steps = np.arange(6, dtype=np.uint16).reshape(2, 3) + 300  # all the same in eight bits
    Image.fromarray(steps).save(tmp_path / "deep.png")
    assert (read_image(tmp_path / "deep.png")[0] * 65535).round().tolist() == steps.tolist()


def test_a_note_on_how_to_turn_an_image_is_not_followed(tmp_path: Path) -> None:
    """Annotations refer to the pixels as they are stored."""
    note = Image.Exif()
    note[0x0112] = 6  # turn it by 90 degrees
    Image.fromarray(gradient()).save(tmp_path / "turned.png", exif=note)
    assert read_image(tmp_path / "turned.png").shape == (3, HEIGHT, WIDTH)


def test_numbers_of_an_unknown_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 3), dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif \(it holds floating-point numbers\); .*save it as 8-bit PNG"):
        read_image(tmp_path / "float.tif")
    Image.fromarray(np.full((2, 3), 70000, dtype=np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(ValueError, match=r"wide\.tif \(it holds numbers of more than 16 bits\)"):
        read_image(tmp_path / "wide.tif")


@pytest.mark.parametrize("name", ["noise.png", "noise.jpg"])
def test_a_truncated_image_is_refused_wherever_it_ends(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    cut = tmp_path / f"cut_{name}"
    for length in range(0, len(whole) - 24, 40):  # the last bytes of a PNG only say that it ends
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"cannot read the image .*cut_{name} \(.*\); replace it") as caught:
            read_image(cut)
        assert "\n" not in str(caught.value)


@settings(max_examples=50)
@given(place=st.integers(33, 200), value=st.integers(0, 255))
def test_an_image_with_a_changed_byte_behind_its_size_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    Image.fromarray(gradient(12, 12)).save(path)
    content = bytearray(path.read_bytes())
    content[min(place, len(content) - 1)] = value
    path.write_bytes(content)
    image = result_or_error(lambda: read_image(path))
    assert str(path) in image if isinstance(image, str) else image.shape == (3, 12, 12)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    (tmp_path / "pets.png").write_text("a picture of two pets")
    with pytest.raises(ValueError, match=r"cannot read the image .*pets\.png \(cannot identify image file"):
        dataset[0]
    with pytest.raises(FileNotFoundError, match=r"there is no image .*nowhere\.png; check the path"):
        read_image(tmp_path / "nowhere.png")


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    Image.fromarray(gradient(WIDTH, HEIGHT)).save(tmp_path / "pets.png")
    with pytest.raises(
        ValueError, match=r"pets\.png has 6 x 4 pixels \(H x W\), and .*pets\.json says 4 x 6; was it resized or turned"
    ):
        dataset[0]


# There and back.


class Boxes:
    """A dataset of one's own, without masks."""

    categories = ("thing",)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int, /) -> tuple[Tensor, dict[str, Tensor]]:
        count = 2 * index
        boxes = torch.tensor([[0.1, 0.2, 5.3, 3.7], [1 / 3, 1, 2, 2.5]])[:count]
        return torch.from_numpy(gradient()).permute(2, 0, 1) / 255, {"boxes": boxes, "labels": torch.ones(count).long()}


SCENES = SyntheticScenes(3, settings=SceneSettings((48, 64), (0, 5), (8, 40)))


def test_scenes_in_coco_s_format_by_hand() -> None:
    coco = as_coco(SCENES)
    assert [category["name"] for category in coco["categories"]] == list(SCENES.categories)
    assert coco["images"][1] == {"id": 2, "file_name": "000001.png", "height": 48, "width": 64}
    assert [annotation["id"] for annotation in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    of_image = [annotation for annotation in coco["annotations"] if annotation["image_id"] == 2]
    target = SCENES[1][1]
    assert [annotation["category_id"] for annotation in of_image] == target["labels"].tolist()
    assert [annotation["area"] for annotation in of_image] == target["masks"].sum(dim=(1, 2)).tolist()
    for annotation, (x1, y1, x2, y2) in zip(of_image, target["boxes"].tolist(), strict=True):
        assert annotation["bbox"] == [x1, y1, x2 - x1, y2 - y1]
        assert mask_api.toBbox(annotation["segmentation"]).tolist() == annotation["bbox"]
        assert annotation["iscrowd"] == 0
    assert json.loads(json.dumps(coco)) == coco


def test_a_coco_dataset_has_its_own(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    coco = as_coco(dataset)
    assert coco == dataset.coco
    coco["annotations"][0]["segmentation"] = "spoilt"  # as pycocotools does
    assert dataset[0][1]["masks"].any()


@pytest.mark.parametrize("dataset", [SCENES, Boxes()], ids=["scenes", "boxes"])
def test_a_written_dataset_has_the_same_items(tmp_path: Path, dataset: DetectionDataset) -> None:
    write_coco(dataset, tmp_path / "new" / "folder")
    again = CocoDataset(tmp_path / "new" / "folder", tmp_path / "new" / "folder" / "annotations.json")
    assert len(again) == len(dataset)
    assert again.categories == tuple(dataset.categories)
    assert again.skipped == 0
    assert all(equal(again[index], dataset[index]) for index in range(len(dataset)))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]  # nothing partial is left


def test_a_coco_dataset_is_written_with_crowds_and_ids(tmp_path: Path) -> None:
    dataset = opened(tmp_path, with_another(iscrowd=1))
    write_coco(dataset, tmp_path / "copy")
    again = CocoDataset(tmp_path / "copy", tmp_path / "copy" / "annotations.json")
    assert equal(again[0], dataset[0])
    assert again.coco["annotations"] == dataset.coco["annotations"]
    assert again.coco["images"] == [{**EXAMPLE["images"][0], "file_name": "000000.png"}]
    assert again.coco["categories"] == dataset.coco["categories"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    write_coco(Boxes(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000.png", "000001.png", "annotations.json"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"is not empty; choose another folder, or remove what is in it"):
        write_coco(SCENES, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    saved: list[Path] = []

    def save(image: Image.Image, path: Path) -> None:
        if saved:
            raise error
        saved.append(path)
        path.touch()

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(type(error)) as caught:
        write_coco(SCENES, tmp_path / "scenes")
    assert saved
    assert list(tmp_path.iterdir()) == []
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f"cannot write {tmp_path / 'scenes'} (")
        assert str(caught.value).endswith("make space on the disk, then run this again")


# Real images, where there are some.


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a folder of images and its annotations: of nuclei if RCNN_EDU_NUCLEI says where they are, else scenes."""
    if nuclei := os.environ.get("RCNN_EDU_NUCLEI"):
        return Path(nuclei) / "val", Path(nuclei) / "instances_val.json"
    folder = tmp_path_factory.mktemp("real") / "scenes"
    write_coco(SyntheticScenes(4, settings=SceneSettings((96, 96))), folder)
    return folder, folder / "annotations.json"


@oracle_warns
def test_a_folder_is_what_pycocotools_says(real: tuple[Path, Path]) -> None:
    dataset, oracle = CocoDataset(*real), COCO(str(real[1]))
    assert dataset.skipped == 0
    for index, entry in enumerate(dataset.coco["images"]):
        image, target = dataset[index]
        annotations = oracle.loadAnns(oracle.getAnnIds(imgIds=[entry["id"]], iscrowd=False))
        check_targets([image], [target], num_classes=len(dataset.categories), with_masks=True)
        assert len(target["boxes"]) == len(annotations)
        for row, annotation in enumerate(annotations):
            x, y, width, height = annotation["bbox"]
            assert target["boxes"][row].tolist() == [x, y, x + width, y + height]
            assert np.array_equal(target["masks"][row].numpy(), oracle.annToMask(annotation))
            assert oracle.cats[annotation["category_id"]]["name"] == dataset.categories[target["labels"][row] - 1]
