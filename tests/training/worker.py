"""A small training in a process of its own, to be killed or joined by others: ``python -m tests.training.worker``."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from rcnn_edu.datasets import SceneSettings, SyntheticScenes
from rcnn_edu.models import MaskRCNN, RoISampler, tiny_mask_rcnn
from rcnn_edu.models.weights import write_tensors
from rcnn_edu.training.train import TrainSettings, train

SIDE = 64
SCENES = SyntheticScenes(8, settings=SceneSettings(size=(SIDE, SIDE), num_objects=(1, 3), object_size=(16, 48)))
ALL = 10**6  # samples: all there are, so that no chance decides which


def small_model(seed: int = 0) -> MaskRCNN:
    torch.manual_seed(seed)
    model = tiny_mask_rcnn()
    model.transform = replace(model.transform, min_size=SIDE)
    return model


def main(steps: int, folder: Path) -> None:
    torch.set_num_threads(1)
    model = small_model()
    model.rpn.num_samples = ALL
    model.box_head.sampler = RoISampler(num_samples=ALL)
    settings = TrainSettings(steps=steps, batch_size=4, learning_rate=0.01, warmup_steps=2)
    train(model, SCENES, folder, settings, save_every=1, log_every=1, on_log=lambda record: print(record, flush=True))
    write_tensors(folder / "result.safetensors", model.state_dict(), {})


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
