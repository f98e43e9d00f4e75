"""Fetching the nuclei: from a server of the test's own, with breaks, and a small archive of the same layout."""

import errno
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rcnn_edu.datasets import CocoDataset, fetch_nuclei, nuclei

HEIGHT, WIDTH = 20, 24
NAMES = sorted(hashlib.sha256(bytes([number])).hexdigest() for number in range(12))
COMMIT = nuclei.COMMIT + 32 * "0"


def png(pixels: NDArray[np.uint8], mode: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


def noise(name: str) -> NDArray[np.uint8]:
    rng = np.random.default_rng(int(name[:8], 16))
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def squares(number: int) -> NDArray[np.uint8]:
    """Return the mask of nucleus ``number``: 4 x 4 pixels, one beside the other."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[2:6, 6 * number : 6 * number + 4] = 255
    return mask


def archive(comment: str = COMMIT, **other_files: bytes) -> bytes:
    """Return a zip archive such as GitHub packs, with 12 images of one or two nuclei each."""
    root = f"kaggle-dsbowl-2018-dataset-fixes-{COMMIT}"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as files:
        files.comment = comment.encode()
        files.mkdir(root)
        files.writestr(f"{root}/README.rst", "Fixes")
        for number, name in enumerate(NAMES):
            folder = f"{root}/stage1_train/{name}"
            files.mkdir(folder)
            files.writestr(f"{folder}/images/{name}.png", png(noise(name), "RGBA"))
            for nucleus in range(1 + number % 2):
                mode = "RGBA" if nucleus else "L"  # a few masks are in colour
                files.writestr(f"{folder}/masks/{nucleus:064x}.png", png(squares(nucleus), mode))
        files.writestr(f"{root}/stage1_train/{NAMES[0]}/masks/empty.png", png(0 * squares(0), "L"))
        for name, content in other_files.items():
            files.writestr(f"{root}/stage1_train/{NAMES[0]}/masks/{name}.png", content)
    return file.getvalue()


class Server(ThreadingHTTPServer):
    """Serves an archive behind a redirection, as GitHub does, with the failures that are asked for.

    Attributes:
        content: the archive.
        breaks: after how many bytes each of the next answers breaks off.
        has_ranges: whether it can go on in the middle.
        has_length: whether it says how much there is.
        ranges: the part that each request asked for.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content = content
        self.breaks: list[int] = []
        self.has_ranges = self.has_length = True
        self.ranges: list[str | None] = []


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        if self.path == "/archive.zip":
            self.send_response(302)
            self.send_header("Location", "/codeload")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        server.ranges.append(self.headers["Range"])
        if self.path != "/codeload":
            self.send_error(404)
            return
        start = int(self.headers["Range"].removeprefix("bytes=")[:-1]) if self.headers["Range"] else 0
        start *= server.has_ranges
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if server.has_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.breaks.pop(0)] if server.breaks else body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(archive()) as server:
        monkeypatch.setattr(nuclei, "URL", f"http://127.0.0.1:{server.server_port}/archive.zip")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def check(folder: Path) -> None:
    """Check that the folder holds the nuclei of ``archive()``, and that nothing lies beside it."""
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    names = []
    for split in ("train", "val"):
        dataset = CocoDataset(folder / split, folder / f"instances_{split}.json")
        assert dataset.categories == ("nucleus",)
        assert dataset.skipped == 0
        for index, entry in enumerate(dataset.coco["images"]):
            name = entry["file_name"].removesuffix(".png")
            image, target = dataset[index]
            assert np.array_equal((image * 255).round().byte().permute(1, 2, 0), noise(name))
            count = 1 + NAMES.index(name) % 2
            assert target["boxes"].tolist() == [[0, 2, 4, 6], [6, 2, 10, 6]][:count]
            assert target["labels"].tolist() == [1] * count
            for nucleus in range(count):
                assert np.array_equal(target["masks"][nucleus], squares(nucleus) > 0)
            names.append(name)
    assert sorted(names) == NAMES


def test_the_nuclei_by_hand(server: Server, tmp_path: Path) -> None:
    folder = fetch_nuclei(tmp_path / "new" / "nuclei")
    assert folder == tmp_path / "new" / "nuclei"
    check(folder)
    val = json.loads((folder / "instances_val.json").read_text())
    expected = [f"{name}.png" for name in NAMES if int(name[:8], 16) % 5 == 0]
    assert 0 < len(expected) < 6
    assert [image["file_name"] for image in val["images"]] == expected
    assert val["images"][0] == {"id": 1, "file_name": expected[0], "height": HEIGHT, "width": WIDTH}
    assert val["annotations"][0]["area"] == 16
    assert "CC0" in val["info"]["description"]


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    folder = fetch_nuclei(tmp_path / "nuclei")
    assert fetch_nuclei(folder) == folder
    assert server.ranges == [None]


@pytest.mark.parametrize("has_length", [True, False])
def test_a_download_that_breaks_off_goes_on_at_once(server: Server, tmp_path: Path, has_length: bool) -> None:
    server.breaks, server.has_length = [1000, 1500], has_length
    check(fetch_nuclei(tmp_path / "nuclei"))
    assert server.ranges == [None, "bytes=1000-", "bytes=2500-"]


def test_a_download_that_broke_off_goes_on_at_the_next_run(server: Server, tmp_path: Path) -> None:
    server.breaks = [1000] + 9 * [0]
    with pytest.raises(ConnectionError, match=r"cannot download http.*archive\.zip .*run this again, or put the file"):
        fetch_nuclei(tmp_path / "nuclei")
    assert [path.name for path in tmp_path.iterdir()] == ["nuclei.zip.partial"]  # nothing looks complete
    server.breaks, server.ranges = [], []
    check(fetch_nuclei(tmp_path / "nuclei"))
    assert server.ranges == ["bytes=1000-"]


def test_where_a_server_cannot_go_on_a_download_begins_anew(server: Server, tmp_path: Path) -> None:
    server.has_ranges, server.breaks = False, [1000]
    check(fetch_nuclei(tmp_path / "nuclei"))
    assert server.ranges == [None, "bytes=1000-"]


def test_a_file_too_long_to_go_on_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "nuclei.zip.partial").write_bytes(bytes(len(server.content)))
    check(fetch_nuclei(tmp_path / "nuclei"))
    assert server.ranges == [f"bytes={len(server.content)}-", None]


def test_a_server_that_always_breaks_off_is_given_up(server: Server, tmp_path: Path) -> None:
    server.breaks = 100 * [100]
    with pytest.raises(ConnectionError, match=r"\(the connection broke off\); connect to the internet"):
        fetch_nuclei(tmp_path / "nuclei")
    assert len(server.ranges) == nuclei.ATTEMPTS


def test_an_address_that_is_gone_is_tried_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nuclei, "URL", nuclei.URL.replace("archive", "gone"))
    with pytest.raises(ConnectionError, match=r"cannot download http.*gone\.zip \(HTTP Error 404: Not Found\)"):
        fetch_nuclei(tmp_path / "nuclei")
    assert server.ranges == [None]
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_arguments: object, **_options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(nuclei, "urlopen", no_network)
    with pytest.raises(
        ConnectionError, match=r"cannot download https://github\.com/.*30354551\.zip .*no route"
    ) as caught:
        fetch_nuclei(tmp_path / "nuclei")
    assert str(caught.value).endswith(f"or put the file there by hand, as {tmp_path / 'nuclei.zip'}")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_put_there_by_hand_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "nuclei.zip").write_bytes(server.content)
    check(fetch_nuclei(tmp_path / "nuclei"))
    assert server.ranges == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(comment="e" * 40), r"nuclei\.zip is of the commit 'e{40}', not 30354551; remove it"),
        (archive(comment=""), r"nuclei\.zip is of the commit '', not 30354551"),
        (archive()[:-200], r"nuclei\.zip is damaged \(File is not a zip file\); remove it, then run this again"),
        (archive().replace(b"IDAT", b"IDAX"), r"nuclei\.zip is damaged \(Bad CRC-32 for file .*\.png'\)"),
        (
            archive(large=png(squares(0)[:-1], "L")),
            r"nuclei\.zip: .*large\.png is of size \(19, 24\), on an .* \(20, 24\)",
        ),
    ],
)
def test_a_damaged_archive_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "nuclei.zip").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        fetch_nuclei(tmp_path / "nuclei")
    assert [path.name for path in tmp_path.iterdir()] == ["nuclei.zip"]


def test_an_archive_without_the_images_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "nuclei.zip", "w") as files:
        files.comment = COMMIT.encode()
    with pytest.raises(ValueError, match=r"nuclei\.zip lacks images; remove it"):
        fetch_nuclei(tmp_path / "nuclei")


def test_a_folder_with_something_else_is_left_alone(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"mine is not empty; choose another folder"):
        fetch_nuclei(folder)
    assert server.ranges == []
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_interruption_leaves_the_archive_alone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupted(*_arguments: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(nuclei._Split, "write", interrupted)
        with pytest.raises(type(error)):
            fetch_nuclei(tmp_path / "nuclei")
    assert [path.name for path in tmp_path.iterdir()] == ["nuclei.zip"]
    check(fetch_nuclei(tmp_path / "nuclei"))
    assert server.ranges == [None]


def test_a_full_disk_is_no_broken_connection(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nuclei, "_fetch_rest", full)
    with pytest.raises(OSError, match=r"cannot write .*nuclei \(.*No space left.*\); make space on the disk") as caught:
        fetch_nuclei(tmp_path / "nuclei")
    assert not isinstance(caught.value, ConnectionError)
