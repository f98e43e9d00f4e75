"""The training loop: one for every detector, on one device or, under ``torchrun``, on many.

What happens at a step follows from the settings and the step's number alone: which images are seen, how they are
augmented, which anchors and RoIs are sampled. So a run that was interrupted goes on exactly where it was, and the
processes of a distributed run see together what one process would see alone.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rcnn_edu.datasets.coco import DetectionDataset
from rcnn_edu.models.transform import Target
from rcnn_edu.models.weights import read_tensors, write_tensors
from rcnn_edu.training.loader import EndlessSamples, batches, mixed_seed
from rcnn_edu.training.log import Record, RunLog

STATE = "training.safetensors"  # in the run's folder: what it needs to go on
LOG = "log.jsonl"  # in the run's folder: a line of figures every few steps


@dataclass(frozen=True)
class TrainSettings:
    """How to train. Two runs with equal settings on equal data, hardware and versions end with equal weights.

    Attributes:
        steps: of the optimiser.
        batch_size: images a step, over all processes together.
        learning_rate: the highest, after the warm-up.
        warmup_steps: over which it rises from 0.
        schedule: "cosine" lets it fall smoothly to 0; "steps" to a tenth after 2/3 of the steps and again after 8/9.
        momentum: of SGD.
        weight_decay: of SGD.
        clip_norm: the largest norm of the gradient.
        ema_decay: of the moving average of the weights, which is what training returns; 0 returns the last ones.
        flip: whether every other image is mirrored.
        scale_range: the smallest and the largest factor on an image's scale.
        seed: of all that is random.
    """

    steps: int
    batch_size: int = 8
    learning_rate: float = 0.04
    warmup_steps: int = 100
    schedule: Literal["cosine", "steps"] = "cosine"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 10.0
    ema_decay: float = 0.99
    flip: bool = True
    scale_range: tuple[float, float] = (0.8, 1.25)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings under which nothing could be learnt."""
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")
        if not (self.learning_rate > 0 and 0 <= self.ema_decay < 1):
            raise ValueError(
                "learning_rate must be positive and ema_decay from 0 to below 1, "
                f"got {self.learning_rate} and {self.ema_decay}"
            )
        if self.schedule not in ("cosine", "steps"):
            raise ValueError(f"schedule must be 'cosine' or 'steps', got {self.schedule!r}")
        if not 0 < self.scale_range[0] <= self.scale_range[1]:
            raise ValueError(f"scale_range must be the smallest and the largest factor, got {self.scale_range}")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step, the first being 0."""
        warm_up = min(1.0, (step + 1) / (self.warmup_steps + 1))
        done = step / self.steps
        if self.schedule == "cosine":
            return self.learning_rate * warm_up * (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * warm_up * 0.1 ** ((done >= 2 / 3) + (done >= 8 / 9))


def train(
    model: nn.Module,
    dataset: DetectionDataset,
    folder: str | os.PathLike[str],
    settings: TrainSettings,
    *,
    device: torch.device | str = "cpu",
    workers: int = 0,
    save_every: int = 100,
    log_every: int = 10,
    on_log: Callable[[Record], None] | None = None,
) -> None:
    """Train ``model``, in place. A run that left its state in ``folder`` goes on from there.

    Under ``torchrun`` every process calls this alike; they share the batch, and the first one writes.

    Args:
        model: a detector; as it is now, unless the folder says otherwise.
        dataset: the images and their targets.
        folder: for the state and the log; made if need be.
        settings: how to train; to go on, the same as before.
        device: to train on; on a GPU in bfloat16 where that is safe.
        workers: processes that prepare images; with 0, the training one does.
        save_every: steps from one saved state to the next.
        log_every: steps that a line of the log averages over.
        on_log: is called with each line of the log, to draw it, say.

    Raises:
        ValueError: for an empty dataset, a batch that the processes cannot share, or a folder with another run's state.
        FloatingPointError: if a loss is no longer a finite number.

    Lesson: 09.
    """
    folder, device = Path(folder), torch.device(device)
    if len(dataset) == 0:
        raise ValueError("the dataset is empty: there is nothing to learn from")
    with _processes(device) as (rank, world_size, device):
        if settings.batch_size % world_size:
            raise ValueError(f"batch_size must be a multiple of {world_size}, the processes, got {settings.batch_size}")
        run = _Run(model.to(device).train(), settings)
        start = run.load(folder) if (folder / STATE).exists() else 0
        folder.mkdir(parents=True, exist_ok=True)
        steps = range(start, settings.steps)
        samples = EndlessSamples(dataset, settings.seed, settings.flip, settings.scale_range)
        loader = batches(samples, steps, settings.batch_size, rank=rank, world_size=world_size, workers=workers)
        network = DistributedDataParallel(model) if world_size > 1 else model
        generator = torch.Generator()
        log = RunLog(folder / LOG if rank == 0 else None, start, settings.steps, settings.batch_size, log_every, on_log)
        with log:
            for step, (images, targets) in zip(steps, loader, strict=True):
                generator.manual_seed(mixed_seed(settings.seed, step, rank))
                losses = run.step(network, step, *_move(images, targets, device), generator)
                log.add(step, _mean_over_processes(losses), settings.learning_rate_at(step))
                if rank == 0 and ((step + 1) % save_every == 0 or step + 1 == settings.steps):
                    run.save(folder, step + 1)
        model.load_state_dict(run.result())


def _mean_over_processes(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    if not dist.is_initialized():
        return losses
    values = torch.stack(list(losses.values())) / dist.get_world_size()
    dist.all_reduce(values)
    return dict(zip(losses, values, strict=True))


def _move(images: list[Tensor], targets: list[Target], device: torch.device) -> tuple[list[Tensor], list[Target]]:
    moved = [{name: values.to(device, non_blocking=True) for name, values in target.items()} for target in targets]
    return [image.to(device, non_blocking=True) for image in images], moved


@contextmanager
def _processes(device: torch.device) -> Iterator[tuple[int, int, torch.device]]:
    """Yield this process's rank, the number of all, and its device: 0, 1 and ``device`` unless ``torchrun`` started it.

    Where there are several GPUs, each process has one of its own.
    """
    if not dist.is_torchelastic_launched():
        yield 0, 1, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), dist.get_world_size(), device
    finally:
        dist.destroy_process_group()


class _Run:
    """What a run consists of: the model, its optimiser and the average of its weights."""

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        self.model, self.settings = model, settings
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.SGD(
            self.parameters.values(), momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        average = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(model, multi_avg_fn=average)

    def step(
        self,
        network: nn.Module,
        step: int,
        images: list[Tensor],
        targets: list[Target],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Take a step of the optimiser and return the losses."""
        device = images[0].device
        with torch.autocast(
            device.type, torch.bfloat16, enabled=device.type == "cuda" and torch.cuda.is_bf16_supported()
        ):
            losses: dict[str, Tensor] = network(images, targets, generator)
        total = torch.stack(list(losses.values())).sum()
        if not total.isfinite():
            raise FloatingPointError(f"the loss is {total.item()} at step {step}: try a lower learning rate")
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate_at(step)
        self.optimizer.zero_grad()
        torch.autograd.backward(total)
        nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.clip_norm)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        return {name: loss.detach() for name, loss in losses.items()}

    def result(self) -> dict[str, Tensor]:
        """Return the state dict that training is for: the averaged one, if there is one."""
        return self.average.module.state_dict() if self.settings.ema_decay else self.model.state_dict()

    def _momenta(self) -> dict[str, Tensor]:
        state = self.optimizer.state
        return {name: state[p]["momentum_buffer"] for name, p in self.parameters.items() if p in state}

    def save(self, folder: Path, step: int) -> None:
        """Write all of the run into its folder, or nothing."""
        parts = {"model": self.model.state_dict(), "average": self.average.state_dict(), "momentum": self._momenta()}
        tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        write_tensors(folder / STATE, tensors, {"step": step, "settings": asdict(self.settings)})

    def load(self, folder: Path) -> int:
        """Read the run from its folder and return the number of steps that it has taken."""
        path = folder / STATE
        tensors, card = read_tensors(path)
        settings = json.loads(json.dumps(asdict(self.settings)))  # tuples as the lists that they are in the file
        if "step" not in card or card["settings"] != settings:
            before = card.get("settings", {})
            changed = [
                f"{name} {before.get(name)} -> {new}" for name, new in settings.items() if before.get(name) != new
            ]
            raise ValueError(
                f"{path} is of a run with other settings ({', '.join(changed)}); "
                "train into another folder, or with the old settings to go on"
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "momentum": {}}
        for name, tensor in tensors.items():
            part, _, key = name.partition("/")
            parts[part][key] = tensor
        if parts["model"].keys() != self.model.state_dict().keys():
            raise ValueError(f"{path} is of another kind of model; train into another folder")
        self.model.load_state_dict(parts["model"])
        self.average.load_state_dict(parts["average"])
        for name, momentum in parts["momentum"].items():
            parameter = self.parameters[name]
            self.optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter)
        return cast(int, card["step"])
