"""Training a head alone: the trunk's work, features and proposals, is done once and kept.

A whole detector takes hours on a laptop, a head on what a trained trunk sees a minute. So heads, samplers and losses
can be compared one against the other, all else being equal, the random numbers too. Scenes are *seen* by the trunk, a
head is *trained* on what was seen, and detects in other scenes:

    train, test = see_for_experiment(frozen_trunk(), seed=0, quick=False)
    head = new_head(lambda: BoxHead(SCENES_CLASSES, TINY.channels, **TINY.box_head), seed=0)
    train_head(head, box_losses(head), train, steps=300, seed=0)
    evaluate_boxes(detect_boxes(head, test), test)["bbox"].figures["AP"]

So what is compared is what heads make of the same features. The trunk was trained with heads of its own, and does not
follow another kind of head to wherever that would have led it.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rcnn_edu.datasets import SyntheticScenes
from rcnn_edu.datasets.coco import DetectionDataset, as_coco
from rcnn_edu.models import RPN, BoxHead, Cascade, DetectionSelector, MaskHead, MaskRCNN, RoISampler, tiny_mask_rcnn
from rcnn_edu.models.transform import Detection, Size, Target
from rcnn_edu.ops import paste_masks
from rcnn_edu.training.evaluate import Evaluation, evaluate_results
from rcnn_edu.training.loader import mixed_seed
from rcnn_edu.training.results import Coco, Result, to_results
from rcnn_edu.training.train import TrainSettings

BATCH = 8  # scenes
TRAINING_SCENES, TEST_SCENES = 800, 200  # of an experiment
TRAINING_SEED, TEST_SEED = 3000, 4000  # the first training's, and all tests': far from those the trunk has seen

Head = TypeVar("Head", bound=nn.Module)


@dataclass(frozen=True)
class SceneBatch:
    """What a head gets of a few scenes: the pyramid's levels, and each scene's proposals and target."""

    features: list[Float[Tensor, "B C _ _"]]
    proposals: list[Float[Tensor, "_ 4"]]
    targets: list[Target]
    sizes: list[Size]


Losses = Callable[[SceneBatch, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class SeenScenes:
    """What the trunk made of scenes, all of one size.

    Attributes:
        levels: the pyramid's, each of shape (N, H, W, C), in half precision: 0.4 MB for a scene of 192 px.
        proposals: of each scene, best first.
        targets: of each scene.
        size: of every scene.
        dataset: the scenes themselves.
    """

    levels: list[Float[Tensor, "N _ _ C"]]
    proposals: list[Float[Tensor, "_ 4"]]
    targets: list[Target]
    size: Size
    dataset: DetectionDataset

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.targets)

    @cached_property
    def coco(self) -> Coco:
        """Return what COCO's format says of the scenes."""
        return as_coco(self.dataset)

    def batch(self, scenes: Sequence[int], device: torch.device | str = "cpu") -> SceneBatch:
        """Return the chosen scenes on ``device``, their features in single precision and laid out channels_last."""
        chosen = list(scenes)
        return SceneBatch(
            [level[chosen].to(device, torch.float32).permute(0, 3, 1, 2) for level in self.levels],
            [self.proposals[scene].to(device) for scene in chosen],
            [{name: values.to(device) for name, values in self.targets[scene].items()} for scene in chosen],
            [self.size] * len(chosen),
        )

    def in_order(self, device: torch.device | str = "cpu") -> Iterator[SceneBatch]:
        """Yield all scenes, a batch at a time."""
        for start in range(0, len(self), BATCH):
            yield self.batch(range(start, min(start + BATCH, len(self))), device)


def frozen_trunk(device: torch.device | str = "cpu") -> MaskRCNN:
    """Return the shipped Mask R-CNN, in evaluation mode, none of its weights to be trained."""
    return tiny_mask_rcnn(weights="scenes").eval().requires_grad_(False).to(device)


@torch.no_grad()
def see(trunk: MaskRCNN, dataset: DetectionDataset, *, for_training: bool = False) -> SeenScenes:
    """Return what the backbone and the RPN of ``trunk`` make of scenes of one size, kept on the CPU.

    Args:
        trunk: a detector.
        dataset: the scenes, of the size that the trunk works at.
        for_training: as many proposals as a training step has, more than a test.

    Raises:
        ValueError: if there are none, or the trunk would resize them: their targets would no longer fit.
    """
    if len(dataset) == 0:
        raise ValueError("the dataset is empty: there is nothing to see")
    rpn = copy.deepcopy(trunk.rpn).train(for_training)  # its mode decides over nothing but the number of proposals
    device = _device_of(trunk)
    seen, proposals, targets = [], [], []
    for index in range(len(dataset)):
        image, target = dataset[index]
        batch = trunk.transform([image.to(device)])
        if batch.sizes != batch.original_sizes:
            raise ValueError(
                f"scenes must be of the size that the trunk works at, got {batch.original_sizes[0]}, which it resizes "
                f"to {batch.sizes[0]}; give it scenes of that size"
            )
        features = trunk.backbone(batch.images)
        [boxes], _ = rpn(features, batch.sizes)
        seen.append([level.permute(0, 2, 3, 1).half().cpu() for level in features])
        proposals.append(boxes.cpu())
        targets.append(target)
    levels = [torch.cat(level) for level in zip(*seen, strict=True)]
    return SeenScenes(levels, proposals, targets, batch.sizes[0], dataset)


def see_for_experiment(trunk: MaskRCNN, seed: int, *, quick: bool) -> tuple[SeenScenes, SeenScenes]:
    """Return scenes to learn from, which the seed chooses, and those of every test; a few of each if ``quick``."""
    training, test = (8, 4) if quick else (TRAINING_SCENES, TEST_SCENES)
    return (
        see(trunk, SyntheticScenes(training, seed=TRAINING_SEED + seed), for_training=True),
        see(trunk, SyntheticScenes(test, seed=TEST_SEED)),
    )


def new_head(make: Callable[[], Head], seed: int, device: torch.device | str = "cpu") -> Head:
    """Return a head as ``make`` makes it, its initial weights those of ``seed``; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = make()
    return head.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def box_losses(head: BoxHead | Cascade) -> Losses:
    """Return what :func:`train_head` needs to train a box head: it samples proposals by itself."""
    return lambda batch, generator: head.losses(batch.features, batch.proposals, batch.targets, batch.sizes, generator)[
        0
    ]


def mask_losses(head: MaskHead, sampler: RoISampler) -> Losses:
    """Return what :func:`train_head` needs to train a mask head, on the positives among the RoIs of ``sampler``."""
    return lambda batch, generator: head.losses(
        batch.features, sampler(batch.proposals, batch.targets, generator), batch.targets
    )


def rpn_losses(rpn: RPN) -> Losses:
    """Return what :func:`train_head` needs to train an RPN; the kept proposals have no part in it."""

    def losses(batch: SceneBatch, generator: torch.Generator) -> dict[str, Tensor]:
        feature_sizes = [(level.shape[2], level.shape[3]) for level in batch.features]
        anchors = torch.cat(rpn.anchors(feature_sizes, batch.features[0].device))
        return rpn.losses(batch.features, anchors, batch.targets, generator)

    return losses


def train_head(
    head: nn.Module, losses: Losses, scenes: SeenScenes, *, steps: int, seed: int, learning_rate: float = 0.05
) -> list[float]:
    """Train ``head``, in place and where it is, on batches of scenes; return the loss of every step.

    SGD with momentum, the learning rate rising for a tenth of the steps and falling as a cosine. Which scenes a step
    sees and the generator that ``losses`` draws from follow from ``seed`` and the step alone: two heads trained with
    one seed see the same, whatever the one before has drawn.

    Raises:
        FloatingPointError: if the loss is no longer a finite number.
    """
    settings = TrainSettings(steps, BATCH, learning_rate, warmup_steps=steps // 10)
    optimizer = torch.optim.SGD(
        head.parameters(), learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    order = _endless_order(len(scenes), steps * BATCH, seed)
    history = []
    for step in range(steps):
        batch = scenes.batch(order[step * BATCH : (step + 1) * BATCH], _device_of(head))
        generator = torch.Generator().manual_seed(mixed_seed(seed, step))
        total = torch.stack(list(losses(batch, generator).values())).sum()
        if not total.isfinite():
            raise FloatingPointError(f"the loss is {total.item()} at step {step}: try a lower learning rate")
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(step)
        optimizer.zero_grad()
        torch.autograd.backward(total)
        nn.utils.clip_grad_norm_(head.parameters(), settings.clip_norm)
        optimizer.step()
        history.append(total.item())
    return history


@torch.no_grad()
def detect_boxes(
    head: BoxHead | Cascade, scenes: SeenScenes, select: DetectionSelector | None = None
) -> list[Detection]:
    """Return the boxes, labels and scores that a box head finds in each scene, on the CPU."""
    select = select if select is not None else DetectionSelector()
    found: list[Detection] = []
    for batch in scenes.in_order(_device_of(head)):
        for boxes, probabilities in head.predict(batch.features, batch.proposals, batch.sizes):
            found.append({name: values.cpu() for name, values in select(boxes, probabilities).items()})
    return found


def evaluate_boxes(detections: Sequence[Detection], scenes: SeenScenes) -> Evaluation:
    """Return the figures of each scene's detections."""
    results = [_results(scenes, index, detection) for index, detection in enumerate(detections)]
    return evaluate_results(list(itertools.chain(*results)), scenes.coco)


@torch.no_grad()
def evaluate_masks(head: MaskHead, detections: Sequence[Detection], scenes: SeenScenes) -> Evaluation:
    """Return the figures of each scene's detections, with the masks that a mask head draws in their boxes."""
    results: list[Result] = []
    device = _device_of(head)
    for index, detection in enumerate(detections):  # one by one: pasted masks are large
        batch = scenes.batch([index], device)
        [masks] = head.predict(batch.features, [{name: values.to(device) for name, values in detection.items()}])
        pasted = paste_masks(masks.cpu(), detection["boxes"], scenes.size)[:, None]
        results += _results(scenes, index, {**detection, "masks": pasted})
    return evaluate_results(results, scenes.coco)


def _device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _endless_order(length: int, count: int, seed: int) -> list[int]:
    """Return ``count`` numbers below ``length``: all of them in a random order, and again in another."""
    generator = torch.Generator().manual_seed(seed)
    epochs = [torch.randperm(length, generator=generator) for _ in range(math.ceil(count / length))]
    return torch.cat(epochs)[:count].tolist()


def _results(scenes: SeenScenes, index: int, detection: Detection) -> list[Result]:
    category_ids = [category["id"] for category in scenes.coco["categories"]]
    return to_results(detection, scenes.coco["images"][index]["id"], category_ids)
