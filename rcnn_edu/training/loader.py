"""From a set of images to the batches of a run: which images a step sees follows from the step's number."""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rcnn_edu.datasets.coco import DetectionDataset, Sample
from rcnn_edu.models.transform import Target
from rcnn_edu.training.augment import augment


class EndlessSamples(Dataset[Sample]):
    """Sample k of a training that never ends: every epoch shows all images in an order of its own, each augmented."""

    def __init__(self, dataset: DetectionDataset, seed: int, flip: bool, scale_range: tuple[float, float]) -> None:
        self.dataset, self.seed, self.flip, self.scale_range = dataset, seed, flip, scale_range

    def __getitem__(self, k: int) -> Sample:
        """Return sample ``k``."""
        epoch, place = divmod(k, len(self.dataset))
        image, target = self.dataset[_order(len(self.dataset), self.seed, epoch)[place]]
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, k))
        return augment(image, target, generator, flip=self.flip, scale_range=self.scale_range)


@lru_cache(maxsize=2)  # a batch may lie across two epochs
def _order(length: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(mixed_seed(seed, epoch))
    return torch.randperm(length, generator=generator).tolist()


def batches(
    samples: EndlessSamples, steps: range, batch_size: int, *, rank: int = 0, world_size: int = 1, workers: int = 0
) -> Iterator[tuple[list[Tensor], list[Target]]]:
    """Yield this process's share of the batch of each step, images before targets."""
    share = batch_size // world_size
    numbers = [list(range(step * batch_size + rank * share, step * batch_size + (rank + 1) * share)) for step in steps]
    start = "spawn" if workers else None  # a fork would inherit the locks of threads that it does not inherit
    loader = DataLoader(
        samples,
        batch_sampler=numbers,
        num_workers=workers,
        collate_fn=_as_lists,
        multiprocessing_context=start,
        persistent_workers=workers > 0,
    )
    yield from loader


def _as_lists(samples: list[Sample]) -> tuple[list[Tensor], list[Target]]:
    return [image for image, _ in samples], [target for _, target in samples]


def mixed_seed(*numbers: int) -> int:
    """Return a seed that differs, as good as always, wherever one of the numbers does."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 6364136223846793005 + number * 1442695040888963407 + 1) % 2**63
    return mixed
