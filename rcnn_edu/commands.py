"""What the command line's commands do."""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor
from tqdm.auto import tqdm

from rcnn_edu.datasets import CocoDataset, DetectionDataset, SyntheticScenes, fetch_nuclei, read_image
from rcnn_edu.explore.detections import draw_detections
from rcnn_edu.models import FasterRCNN, load_checkpoint, load_model, multi_scale_test, save_checkpoint
from rcnn_edu.models.presets import BUILDERS, CHECKPOINTS
from rcnn_edu.models.transform import Detection
from rcnn_edu.training import TrainSettings, experiments, to_results
from rcnn_edu.training import evaluate as evaluate_model
from rcnn_edu.training import train as train_model
from rcnn_edu.training.whole_file import write_json

MODEL = "model.safetensors"  # in a run's folder: the trained detector
COCO = "COCO_V1"
COCO_MODELS = ("mask_rcnn_resnet50_fpn", "faster_rcnn_resnet50_fpn")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def train(options: argparse.Namespace) -> None:
    """Train a detector, or go on with it, and write it as a checkpoint."""
    if options.masks and "cascade" not in options.preset:
        raise ValueError(f"--masks is for the cascades; {options.preset} draws masks always or never")
    if options.weights == COCO and options.preset not in COCO_MODELS:
        raise ValueError(f"COCO's weights are for {' and '.join(COCO_MODELS)}, not for {options.preset}")
    dataset = _dataset(options)
    extra = {"mask": True} if options.masks else {}
    settings = TrainSettings(
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        scale_range=tuple(options.scale_range),
        seed=options.seed,
    )
    torch.manual_seed(options.seed)  # of the weights to begin with
    weights = {"weights": COCO} if options.weights == COCO else {}
    model = BUILDERS[options.preset](len(dataset.categories), **extra, **weights)
    if options.weights and options.weights != COCO:
        load_checkpoint(model, options.weights, new_heads=True)
    if options.min_size:
        largest = round(options.min_size * model.transform.max_size / model.transform.min_size)
        model.transform = replace(model.transform, min_size=options.min_size, max_size=largest)
    train_model(
        model,
        dataset,
        options.out,
        settings,
        device=options.device,
        workers=options.workers,
        save_every=options.save_every,
    )
    if int(os.environ.get("RANK", "0")) == 0:
        path = Path(options.out) / MODEL
        save_checkpoint(model, path, preset=options.preset, categories=dataset.categories, **extra)
        print(f"the trained model: {path}")


def evaluate(options: argparse.Namespace) -> None:
    """Print a model's average precision and the kinds of its errors, and write the figures if told to."""
    if options.out:
        _check_free(Path(options.out), options.overwrite)  # before minutes of work
    dataset = _dataset(options)
    model, categories = _trained(options)
    if list(categories) != list(dataset.categories):
        raise ValueError(f"the model knows {list(categories)}, the data are of {list(dataset.categories)}")
    evaluation = evaluate_model(model, dataset)
    print(evaluation)
    if options.out:
        path = Path(options.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, evaluation.to_json())


def detect(options: argparse.Namespace) -> None:
    """Write each image with the objects found in it, and all as a dataset in COCO's format, with their scores."""
    paths = list(_image_files(options.images))
    model, categories = _trained(options)
    folder = Path(options.out)
    pictures = [folder / f"{path.stem}.png" for path in paths]
    clash = [picture for picture in pictures if pictures.count(picture) > 1]
    if clash:
        raise ValueError(f"several images would be written to {clash[0]}; give them different names, or one at a time")
    results_file = folder / "detections.json"
    for file in [results_file, *pictures]:
        _check_free(file, options.overwrite)
        if any(file.exists() and file.samefile(path) for path in paths):
            raise ValueError(f"{file} is one of the images to look at; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, Any]] = []
    for number, (path, picture) in enumerate(zip(tqdm(paths, unit="image"), pictures, strict=True), start=1):
        image = read_image(path)
        with torch.inference_mode():
            detection = _look(model, image.to(options.device), options.multi_scale)
        detection = {name: values.cpu() for name, values in detection.items()}
        draw_detections(image, detection, categories, score_thresh=options.score_thresh).save(picture)
        images.append({"id": number, "file_name": path.name, "height": image.shape[1], "width": image.shape[2]})
        for result in to_results(detection, number, range(1, len(categories) + 1)):
            area = result["bbox"][2] * result["bbox"][3]
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, "area": area, **result})
    names = [{"id": label, "name": name} for label, name in enumerate(categories, start=1)]
    report = {"images": images, "categories": names, "annotations": annotations}
    write_json(results_file, report)
    sure = sum(annotation["score"] >= options.score_thresh for annotation in annotations)
    print(f"{sure} objects in {len(images)} images: see {folder}")


def experiment(options: argparse.Namespace) -> None:
    """Print an experiment's table, after measuring what is not stored yet."""
    if options.show:
        print(experiments.table(experiments.read(options.name)))
        return
    print(
        experiments.table(experiments.repeat(options.name, options.seeds, device=options.device, quick=options.quick))
    )


def download(options: argparse.Namespace) -> None:
    """Fetch what the course does not bring: the nuclei, or weights trained on COCO."""
    if options.what == "nuclei":
        print(f"the nuclei: {fetch_nuclei(options.to)}")
    else:
        BUILDERS[options.what](weights=COCO)
        print(f"the weights of {options.what}: {Path(torch.hub.get_dir()) / 'checkpoints'}")


def default_device() -> str:
    """Return the device to compute on unless one is named."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another --out, or --overwrite")


def _dataset(options: argparse.Namespace) -> DetectionDataset:
    if options.scenes is not None:
        return SyntheticScenes(options.scenes, seed=options.scenes_seed)
    if not (options.images and options.annotations):
        raise ValueError("name the data: --images FOLDER --annotations FILE.json, or --scenes NUMBER")
    return CocoDataset(options.images, options.annotations)


def _trained(options: argparse.Namespace) -> tuple[FasterRCNN, list[str]]:
    """Return the model that ``--model`` names, a checkpoint or one that is ready made, and its classes' names."""
    name = options.model
    if name in COCO_MODELS:
        weights = torchvision.models.get_model_weights(name)[COCO]
        model = BUILDERS[name](weights=COCO).eval()
        return model.to(options.device), weights.meta["categories"][1:]
    path = CHECKPOINTS / f"{name}.safetensors"
    model, categories = load_model(path if path.is_file() else name)
    return model.to(options.device), categories


def _look(model: FasterRCNN, image: Tensor, multi_scale: bool) -> Detection:
    return multi_scale_test(model, image, scales=(0.5, 1.0, 1.5) if multi_scale else (1.0,), flip=multi_scale)


def _image_files(names: Sequence[str]) -> Iterator[Path]:
    """Yield the images named, and those in the folders named."""
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise FileNotFoundError(f"there is no image in {path}: none ends with {', '.join(IMAGE_SUFFIXES)}")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise FileNotFoundError(f"there is no image or folder {path}; check the path")
