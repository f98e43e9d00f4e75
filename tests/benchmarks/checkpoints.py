"""The shipped checkpoints: trains them, evaluates them on held-out scenes, and puts them with their cards into data.

``OMP_NUM_THREADS=1 python -m tests.benchmarks.checkpoints OUT`` runs the commands that the cards name, in about an
hour; interrupted, it goes on where it was. The cascade begins with what it shares with the trained Mask R-CNN.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rcnn_edu import commands
from rcnn_edu.__main__ import main as run
from rcnn_edu.datasets import SyntheticScenes
from rcnn_edu.models import load_model
from rcnn_edu.models.weights import read_checkpoint, write_tensors
from rcnn_edu.training import Evaluation, evaluate, read_log
from rcnn_edu.training.machine import describe_machine
from rcnn_edu.training.train import LOG
from tests.benchmarks.harness import ROOT

CHECKPOINTS = ROOT / "data" / "checkpoints"
SCENES, BATCH_SIZE = 30_000, 4
STEPS = {"tiny_mask_rcnn": 10_000, "tiny_cascade_rcnn": 4000}
OPTIONS = {
    "tiny_mask_rcnn": ["--preset", "tiny_mask_rcnn"],
    "tiny_cascade_rcnn": [
        *("--preset", "tiny_cascade_rcnn", "--masks"),
        *("--weights", "data/checkpoints/tiny_mask_rcnn.safetensors", "--learning-rate", "0.02"),
    ],
}
TEST_SCENES, TEST_SEED = 200, 1  # training is on seed 0, the sample scenes are of seed 2


def card(
    name: str, command: Sequence[str], evaluation: Evaluation, log: Path, machine: dict[str, Any]
) -> dict[str, Any]:
    """Return what there is to know about a checkpoint."""
    records = read_log(log)
    steps = [
        after["step"] - before["step"] for before, after in zip([{"step": 0}, *records[:-1]], records, strict=True)
    ]
    seconds = sum(BATCH_SIZE * n / record["images_per_second"] for n, record in zip(steps, records, strict=True))
    kinds = {"box": evaluation["bbox"], "mask": evaluation["segm"]}
    return {
        "checkpoint": f"{name}.safetensors",
        "stored_in": "float16",
        "command": " ".join(["python -m rcnn_edu", *command]),
        "trained_on": f"scenes of seed 0, {STEPS[name] * BATCH_SIZE} looks at {SCENES} scenes",
        "evaluated_on": f"{TEST_SCENES} scenes of seed {TEST_SEED}",
        "training_minutes": round(seconds / 60, 1),
        **machine,
        "figures": {kind: {k: round(v, 4) for k, v in accuracy.figures.items()} for kind, accuracy in kinds.items()},
        "per_class": {
            kind: {k: round(v, 4) for k, v in accuracy.per_class.items()} for kind, accuracy in kinds.items()
        },
        "per_threshold": {
            kind: {f"{k:.2f}": round(v, 4) for k, v in accuracy.per_threshold.items()}
            for kind, accuracy in kinds.items()
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.checkpoints", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the runs")
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(OPTIONS), help=f"of {', '.join(OPTIONS)}")
    options = parser.parse_args(arguments)
    for name in options.names:
        folder = options.out / name
        machine = describe_machine()  # before: the commit is the one that the training began at
        settings = ["--scenes", str(SCENES), "--steps", str(STEPS[name]), "--batch-size", str(BATCH_SIZE)]
        if run(["train", str(folder), *OPTIONS[name], *settings]):
            raise SystemExit(1)
        tensors, about = read_checkpoint(folder / commands.MODEL)
        shipped = folder / f"{name}.safetensors"
        write_tensors(shipped, {key: tensor.half() for key, tensor in tensors.items()}, about)  # half the download
        model, _ = load_model(shipped)
        evaluation = evaluate(model, SyntheticScenes(TEST_SCENES, seed=TEST_SEED))
        print(evaluation)
        command = ["train", f"runs/{name}", *OPTIONS[name], *settings]
        content = json.dumps(card(name, command, evaluation, folder / LOG, machine), indent=2)
        CHECKPOINTS.mkdir(exist_ok=True)
        shutil.copyfile(shipped, CHECKPOINTS / shipped.name)
        (CHECKPOINTS / f"{name}.json").write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
