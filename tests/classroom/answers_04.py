"""Right answers to the exercises of lesson 04, written in different ways, and their untouched stubs."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.models.detection.roi_heads import fastrcnn_loss


def stub(labels: Tensor, num_samples: int = 256, pos_fraction: float = 0.25, generator: Generator | None = None) -> Any:
    """Return the indices of the drawn boxes, positives first."""
    # 1. Find the positives and draw from them at random.


def with_shuffles(
    labels: Tensor, num_samples: int = 256, pos_fraction: float = 0.25, generator: Generator | None = None
) -> Tensor:
    positives = (labels > 0).nonzero()[:, 0]
    negatives = (labels == 0).nonzero()[:, 0]
    most = int(num_samples * pos_fraction)
    positives = positives[torch.randperm(len(positives), generator=generator)][:most]
    missing = num_samples - len(positives)
    negatives = negatives[torch.randperm(len(negatives), generator=generator)][:missing]
    return torch.cat([positives, negatives])


def with_random_numbers(labels: Tensor, num_samples: int, pos_fraction: float, generator: Generator | None) -> Tensor:
    """Give each box a random number; the largest of each kind are drawn, in the order of their indices."""
    lots = torch.rand(len(labels), generator=generator)
    drawn: list[Tensor] = []
    for is_kind, count in ((labels > 0, num_samples * pos_fraction // 1), (labels == 0, num_samples)):
        count = min(int(is_kind.sum()), int(count), num_samples - sum(map(len, drawn)))
        drawn.append(torch.where(is_kind, lots, -1.0).topk(count).indices.sort().values)
    return torch.cat(drawn).int()


def with_multinomial(labels: Tensor, num_samples: int, pos_fraction: float, generator: Generator | None) -> Any:
    drawn: list[int] = []
    for is_kind, most in ((labels > 0, int(num_samples * pos_fraction)), (labels == 0, num_samples)):
        count = min(int(is_kind.sum()), most, num_samples - len(drawn))
        if count > 0:
            drawn += is_kind.double().multinomial(count, replacement=False, generator=generator).tolist()
    return drawn


def with_numpy(labels: Tensor, num_samples: int, pos_fraction: float, generator: Generator | None) -> Any:
    """Draw by NumPy, seeded by the generator."""
    seed = int(torch.randint(2**31, (), generator=generator))
    order = np.random.default_rng(seed).permutation(len(labels))
    kinds = labels.numpy()[order]
    positives = order[kinds > 0][: int(num_samples * pos_fraction)]
    return np.concatenate([positives, order[kinds == 0][: num_samples - len(positives)]])


def loss_stub(
    class_logits: Tensor, box_deltas: Tensor, labels: Tensor, target_deltas: Tensor, beta: float = 1 / 9
) -> Any:
    """Return the class loss and the box loss, two numbers."""


def loss_with_sums(
    class_logits: Tensor, box_deltas: Tensor, labels: Tensor, target_deltas: Tensor, beta: float = 1 / 9
) -> tuple[Tensor, Tensor]:
    n = max(1, len(labels))
    class_loss = F.cross_entropy(class_logits, labels, reduction="sum") / n
    positive = labels > 0
    deltas = box_deltas[positive, labels[positive] - 1]
    box_loss = F.smooth_l1_loss(deltas, target_deltas, beta=beta, reduction="sum") / n
    return class_loss, box_loss


def loss_with_loops(class_logits: Tensor, box_deltas: Tensor, labels: Tensor, targets: Tensor, beta: float) -> Any:
    """Return the losses by plain numbers."""
    class_loss = box_loss = 0.0
    rows = iter(targets.tolist())
    for logits, deltas, label in zip(class_logits, box_deltas, labels.tolist(), strict=True):
        class_loss += float(logits.exp().sum().log() - logits[label])
        if label > 0:
            for delta, target in zip(deltas[label - 1].tolist(), next(rows), strict=True):
                apart = abs(delta - target)
                box_loss += apart**2 / (2 * beta) if apart < beta else apart - beta / 2
    n = len(labels) or 1
    return [class_loss / n, box_loss / n]


def loss_with_torchvision(
    class_logits: Tensor, box_deltas: Tensor, labels: Tensor, targets: Tensor, beta: float
) -> Any:
    """Return torchvision's loss where it has this beta and something to look at."""
    if beta != 1 / 9 or len(labels) == 0:
        return loss_with_sums(class_logits, box_deltas, labels, targets, beta)
    with_background = F.pad(box_deltas, (0, 0, 1, 0)).flatten(1)  # it has deltas for background too
    all_targets = torch.zeros(len(labels), 4)
    all_targets[labels > 0] = targets
    return torch.stack(fastrcnn_loss(class_logits, with_background, [labels], [all_targets]))
