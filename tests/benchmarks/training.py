"""The tiny Mask R-CNN and torchvision's of the same architecture, trained alike and evaluated on the same scenes.

``OMP_NUM_THREADS=1 python -m tests.benchmarks.training OUT`` trains both from the same backbone, on the same scenes in
the same order, with the shipped model's settings but for a quarter of its steps, and writes both models' figures to
data/results. It takes about half an hour; interrupted, it goes on where it was.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rcnn_edu.datasets import SyntheticScenes
from rcnn_edu.models import MaskRCNN, tiny_mask_rcnn
from rcnn_edu.training import Evaluation, TrainSettings, evaluate, train
from rcnn_edu.training.log import Record
from rcnn_edu.training.machine import describe_machine
from tests.benchmarks.checkpoints import BATCH_SIZE, SCENES, TEST_SEED
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


class Pace:
    """Called after each step, it notes the processor time that the step took, which other programs hardly change."""

    def __init__(self) -> None:
        self.last: float | None = None  # unknown before the first step: loading what went before takes its time
        self.seconds: list[float] = []

    def __call__(self, _record: Record) -> None:
        now = time.process_time()
        if self.last is not None:
            self.seconds.append(now - self.last)
        self.last = now


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """Return a trained model's AP, and how fast it detects."""
    kinds = {"mask": evaluation["segm"], "box": evaluation["bbox"]}
    return {
        **{kind: {**accuracy.figures, "per_threshold": accuracy.per_threshold} for kind, accuracy in kinds.items()},
        "detection_seconds_per_image": evaluation.seconds_per_image,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.training", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the two runs")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--test-scenes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    settings = TrainSettings(steps=options.steps, batch_size=BATCH_SIZE, seed=options.seed)
    command = f"python -m tests.benchmarks.training OUT --steps {options.steps} --seed {options.seed}"
    trained: dict[str, dict[str, Any]] = {}
    report = {"command": command, "settings": vars(settings), **describe_machine(), "trained": trained}
    for name, model in contenders(options.seed).items():
        pace = Pace()
        train(model, SyntheticScenes(SCENES), options.out / name, settings, log_every=1, on_log=pace)
        evaluation = evaluate(model, SyntheticScenes(options.test_scenes, seed=TEST_SEED))
        print(f"{name}\n{evaluation}")
        trained[name] = {**figures(evaluation), "training_seconds_per_step": statistics.median(pace.seconds)}
    options.result.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
