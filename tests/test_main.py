"""The command line, from end to end on small things: what it writes, and what it says of damaged input."""

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rcnn_edu import commands
from rcnn_edu.__main__ import PRESETS, main
from rcnn_edu.datasets import CocoDataset, SceneSettings, SyntheticScenes, write_coco
from rcnn_edu.models import load_model, save_checkpoint, tiny_faster_rcnn, tiny_mask_rcnn
from rcnn_edu.models.presets import BUILDERS

SCENES = SyntheticScenes(3, settings=SceneSettings(size=(64, 64), num_objects=(1, 2), object_size=(16, 40)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in COCO's format."""
    path = tmp_path_factory.mktemp("data") / "scenes"
    write_coco(SCENES, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_checkpoint(tiny_mask_rcnn(), path, preset="tiny_mask_rcnn", categories=SCENES.categories)
    return path


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


def data(folder: Path) -> list[str]:
    return ["--images", str(folder), "--annotations", str(folder / "annotations.json")]


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Return the one line that a command fails with."""
    assert main([str(argument) for argument in arguments]) == 1
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("rcnn_edu ")]
    assert len(lines) == 1
    assert "Traceback" not in shown.err
    return lines[0]


def test_every_command_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "evaluate", "detect", "download", "doctor"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert f"python -m rcnn_edu {command}" in capsys.readouterr().out


def test_a_command_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "COMMAND" in capsys.readouterr().err


def test_it_runs_as_a_module_without_importing_torch() -> None:
    code = "import sys; from rcnn_edu.__main__ import parser; parser(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    command = [sys.executable, "-m", "rcnn_edu", "doctor", "--help"]
    assert "Exit status" in subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_presets_are_those_that_there_are() -> None:
    assert set(PRESETS) == set(BUILDERS)


def test_train_evaluate_and_detect(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    settings = ["--steps", "2", "--batch-size", "2", "--min-size", "64", "--device", "cpu"]
    assert main(["train", str(run), *data(folder), *settings]) == 0
    assert sorted(path.name for path in run.iterdir()) == ["log.jsonl", "model.safetensors", "training.safetensors"]
    model, categories = load_model(run / "model.safetensors")
    assert model.transform.min_size == 64
    assert categories == list(SCENES.categories)

    report = tmp_path / "ap.json"
    trained = ["--model", str(run / "model.safetensors"), "--device", "cpu"]
    assert main(["evaluate", *trained, *data(folder), "--out", str(report)]) == 0
    assert "COCO's figures" in capsys.readouterr().out
    assert set(json.loads(report.read_text())) >= {"bbox", "segm"}

    out = tmp_path / "out"
    assert main(["detect", str(folder), *trained, "--out", str(out), "--score-thresh", "0.01"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["000000.png", "000001.png", "000002.png", "detections.json"]
    found = json.loads((out / "detections.json").read_text())
    assert [image["file_name"] for image in found["images"]] == ["000000.png", "000001.png", "000002.png"]
    assert {"bbox", "score", "segmentation", "category_id", "image_id"} <= found["annotations"][0].keys()
    assert size_of(out / "000001.png") == (640, 640)
    assert len(CocoDataset(folder, out / "detections.json")) == 3  # a dataset itself: to correct by hand, say


def test_train_a_cascade_on_scenes(tmp_path: Path) -> None:
    arguments = ["--scenes", "2", "--steps", "1", "--batch-size", "1", "--min-size", "64", "--device", "cpu"]
    assert main(["train", str(tmp_path), "--preset", "tiny_cascade_rcnn", "--masks", *arguments]) == 0
    model, _ = load_model(tmp_path / "model.safetensors")
    assert isinstance(model.get_submodule("mask_head"), torch.nn.Module)


def test_train_from_a_checkpoint(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    arguments = ["--steps", "1", "--batch-size", "1", "--learning-rate", "1e-12", "--device", "cpu"]
    assert main(["train", str(tmp_path), *data(folder), *arguments, "--weights", str(checkpoint)]) == 0
    before, after = load_model(checkpoint)[0], load_model(tmp_path / "model.safetensors")[0]
    for name, tensor in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], tensor)


def test_several_looks_at_an_image(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(checkpoint), "--multi-scale", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(["detect", str(folder / "000001.png"), *arguments]) == 0
    assert (tmp_path / "out" / "000001.png").is_file()


def test_download_names_what_is_missing_without_a_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert "cannot download" in error_of(capsys, "download", "mask_rcnn_resnet50_fpn")


def test_nuclei_are_fetched_where_one_says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(commands, "fetch_nuclei", lambda folder: Path(folder))
    assert main(["download", "nuclei", "--to", "cells"]) == 0
    assert "cells" in capsys.readouterr().out


def test_an_interrupt_is_no_accident(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "download", interrupted)
    assert main(["download", "nuclei"]) == 130
    assert capsys.readouterr().err == "rcnn_edu download: stopped\n"


def test_data_must_be_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "name the data: --images FOLDER --annotations FILE.json" in error_of(capsys, "train", tmp_path)


def test_options_that_do_not_fit_the_preset(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--masks is for the cascades" in error_of(capsys, "train", tmp_path, "--scenes", "1", "--masks")
    error = error_of(capsys, "train", tmp_path, "--scenes", "1", "--weights", "COCO_V1")
    assert "COCO's weights are for mask_rcnn_resnet50_fpn and" in error


def test_a_model_of_other_classes_is_not_evaluated(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "cats.safetensors"
    save_checkpoint(tiny_faster_rcnn(2), other, preset="tiny_faster_rcnn", categories=["cat", "dog"])
    message = error_of(capsys, "evaluate", "--model", other, *data(folder))
    assert "the model knows ['cat', 'dog'], the data are of ['leaf'" in message


def test_nothing_is_overwritten_unless_told(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "000001.png"
    picture.write_bytes(b"mine")
    detect: list[str | Path] = [
        "detect",
        folder / "000001.png",
        "--model",
        checkpoint,
        "--device",
        "cpu",
        "--out",
        tmp_path,
    ]
    assert "000001.png exists; choose another --out, or --overwrite" in error_of(capsys, *detect)
    assert picture.read_bytes() == b"mine"
    assert main([*map(str, detect), "--overwrite"]) == 0
    assert size_of(picture) == (640, 640)

    report = tmp_path / "ap.json"
    report.write_text("mine")
    evaluate: list[str | Path] = ["evaluate", "--model", checkpoint, *data(folder), "--device", "cpu", "--out", report]
    assert "ap.json exists" in error_of(capsys, *evaluate)
    assert report.read_text() == "mine"


def test_an_image_is_not_replaced_by_its_own_picture(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "000001.png").read_bytes()
    detect: list[str | Path] = ["detect", folder / "000001.png", "--model", checkpoint, "--out", folder, "--overwrite"]
    assert "is one of the images to look at" in error_of(capsys, *detect)
    assert (folder / "000001.png").read_bytes() == before


def test_two_images_of_one_name(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "000001.png"
    copy.write_bytes((folder / "000001.png").read_bytes())
    detect: list[str | Path] = ["detect", folder / "000001.png", copy, "--model", checkpoint, "--out", tmp_path / "out"]
    assert "several images would be written to" in error_of(capsys, *detect)
    assert not (tmp_path / "out").exists()


def test_no_images(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert f"no image in {tmp_path}" in error_of(capsys, "detect", tmp_path, "--model", checkpoint, "--out", out)
    missing = tmp_path / "missing.png"
    assert f"no image or folder {missing}" in error_of(capsys, "detect", missing, "--model", checkpoint, "--out", out)
    assert not out.exists()


def damaged(folder: Path, tmp_path: Path, change: Any) -> list[str]:
    """Return the data's arguments with their json changed."""
    content = json.loads((folder / "annotations.json").read_text())
    change(content)
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(content))
    return ["--images", str(folder), "--annotations", str(file)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["annotations"][0].pop("bbox"), "bbox"),
        (lambda content: content["images"][0].pop("file_name"), "file_name"),
        (lambda content: content.pop("categories"), "categories"),
        (lambda content: content["annotations"][0].update(category_id=77), "77"),
    ],
    ids=["no box", "no file name", "no categories", "unknown category"],
)
def test_a_json_that_is_not_coco_s(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, message: str
) -> None:
    error = error_of(capsys, "train", tmp_path / "run", *damaged(folder, tmp_path, change))
    assert "changed.json" in error
    assert message in error
    assert not (tmp_path / "run").exists()


def test_a_mask_of_another_size(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(content: Any) -> None:
        content["annotations"][0]["segmentation"]["size"] = [10, 10]

    error = error_of(capsys, "train", tmp_path / "run", *damaged(folder, tmp_path, change), "--steps", "1")
    assert "changed.json" in error


def test_a_truncated_image(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: Path) -> None:
    whole = (folder / "000001.png").read_bytes()
    short = tmp_path / "short.png"
    short.write_bytes(whole[: len(whole) // 2])
    assert "short.png" in error_of(capsys, "detect", short, "--model", checkpoint, "--out", tmp_path / "out")


def test_a_checkpoint_cut_in_half(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "half.safetensors"
    half.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    error = error_of(capsys, "detect", folder, "--model", half, "--out", tmp_path / "out")
    assert "half.safetensors is not a whole safetensors file" in error
    assert not (tmp_path / "out").exists()


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_a_pickle_posing_as_weights_is_not_opened(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("weights.safetensors", "weights.pth"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        error = error_of(capsys, "detect", folder, "--model", tmp_path / name, "--out", tmp_path / "out")
        assert "not a whole safetensors file" in error
        error = error_of(capsys, "train", tmp_path / "run", *data(folder), "--weights", tmp_path / name)
        assert "not a whole safetensors file" in error
    assert not (tmp_path / "exploded").exists()


def test_a_full_disk_leaves_what_was_there(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: writes fail in the same way."""
    old = tmp_path / "model.safetensors"
    old.write_bytes(b"what was there")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    arguments = ["train", str(tmp_path), *data(folder), "--steps", "1", "--batch-size", "1", "--min-size", "64"]
    run = subprocess.run(
        [sys.executable, "-m", "rcnn_edu", *arguments, "--device", "cpu"],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1
    assert "cannot write" in run.stderr
    assert "is there space left?" in run.stderr
    assert "Traceback" not in run.stderr
    assert old.read_bytes() == b"what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "model.safetensors"]
