"""The tiny Mask R-CNN and torchvision's of the same architecture, trained alike and evaluated on the same scenes.

``python -m tests.benchmarks.training OUT`` trains torchvision's with the settings of the shipped model, from the same
backbone, on the same scenes in the same order, and writes both models' figures to data/results. It takes as long as
two trainings; interrupted, it goes on where it was. Run nothing else meanwhile, since it compares times too.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rcnn_edu.datasets import SyntheticScenes
from rcnn_edu.models import MaskRCNN, tiny_mask_rcnn
from rcnn_edu.training import Evaluation, TrainSettings, evaluate, read_log, train
from rcnn_edu.training.machine import describe_machine
from rcnn_edu.training.train import LOG
from tests.benchmarks.harness import ROOT
from tests.benchmarks.models import torchvision_tiny

RESULT = ROOT / "data" / "results" / "training_against_torchvision.json"


class TorchvisionDetector(nn.Module):
    """torchvision's model, called as ours is: it samples with the global generator, which is set to the given one's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        images: list[Tensor],
        targets: list[dict[str, Tensor]] | None = None,
        generator: torch.Generator | None = None,
    ) -> Any:
        if generator is not None:
            torch.manual_seed(generator.initial_seed())
        return self.model(images, targets)


def contenders(seed: int) -> dict[str, MaskRCNN | TorchvisionDetector]:
    """Return both models, their backbones alike."""
    torch.manual_seed(seed)
    ours = tiny_mask_rcnn()
    return {"ours": ours, "torchvision": TorchvisionDetector(torchvision_tiny(ours, ours.num_classes))}


def figures(evaluation: Evaluation, log: Path) -> dict[str, Any]:
    """Return a trained model's AP, and the pace of its training."""
    pace = statistics.median(record["images_per_second"] for record in read_log(log))
    return {
        "mask": {**evaluation["segm"].figures, "per_threshold": evaluation["segm"].per_threshold},
        "box": {**evaluation["bbox"].figures, "per_threshold": evaluation["bbox"].per_threshold},
        "training_images_per_second": pace,
        "detection_seconds_per_image": evaluation.seconds_per_image,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.training", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the two runs")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--train-scenes", type=int, default=20000)
    parser.add_argument("--test-scenes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    settings = TrainSettings(steps=options.steps, seed=options.seed)
    report: dict[str, Any] = {"settings": vars(settings), **describe_machine()}
    for name, model in contenders(options.seed).items():
        train(model, SyntheticScenes(options.train_scenes), options.out / name, settings)
        evaluation = evaluate(model, SyntheticScenes(options.test_scenes, seed=1))
        print(f"{name}\n{evaluation}")
        report[name] = figures(evaluation, options.out / name / LOG)
    options.result.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
