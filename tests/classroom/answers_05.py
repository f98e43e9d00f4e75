"""Right answers to the exercises of lesson 05, written in different ways, and its untouched stubs."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# As the lesson shows them: a stub, then its folded solution. (test_notebook_exercises.py reads the lesson's own.)


def mask_loss_stub(mask_logits: Tensor, labels: Tensor, mask_targets: Tensor) -> Any:
    """Return the mean binary cross-entropy of each positive RoI's own class's mask: a scalar tensor."""
    # 1. Choose each RoI's channel.


def mask_loss(mask_logits: Tensor, labels: Tensor, mask_targets: Tensor) -> Tensor:
    chosen = mask_logits[torch.arange(len(labels)), labels - 1]
    total = F.binary_cross_entropy_with_logits(chosen, mask_targets, reduction="sum")
    return total / max(1, chosen.numel())


def paste_masks_stub(mask_probs: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> Any:
    """Return each RoI's probabilities in its box, in an image of image_size (H, W): shape (n, H, W)."""
    # 1. Where do the centres of the pixels lie, in cells of the mask?


def paste_masks(mask_probs: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    n, h, w = mask_probs.shape
    H, W = image_size
    pasted = torch.zeros(n, H, W)
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        y = (torch.arange(H) + 0.5 - y1) * h / (y2 - y1) - 0.5
        x = (torch.arange(W) + 0.5 - x1) * w / (x2 - x1) - 0.5
        down = (1 - (y[:, None] - torch.arange(h)).abs()).clamp(min=0)
        across = (1 - (x[:, None] - torch.arange(w)).abs()).clamp(min=0)
        pasted[i] = down @ mask_probs[i] @ across.T
    return pasted


# Others.


def loss_with_a_loop(mask_logits: Tensor, labels: Tensor, mask_targets: Tensor) -> Tensor:
    total = mask_logits.sum() * 0
    for logits, label, target in zip(mask_logits, labels, mask_targets, strict=True):
        x = logits[label - 1]
        total = total + (F.softplus(x) - x * target).sum()
    return total / max(1, mask_targets.numel())


def loss_with_gather(mask_logits: Tensor, labels: Tensor, mask_targets: Tensor) -> Tensor:
    index = (labels - 1)[:, None, None, None].expand(-1, 1, *mask_logits.shape[2:])
    x = mask_logits.gather(1, index).flatten()
    if x.numel() == 0:
        return x.sum()
    target = mask_targets.flatten()
    return -(target * F.logsigmoid(x) + (1 - target) * F.logsigmoid(-x)).mean().view(1)


def paste_with_grid_sample(mask_probs: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    H, W = image_size
    x1, y1, x2, y2 = boxes.T[:, :, None]
    x = 2 * (torch.arange(W) + 0.5 - x1) / (x2 - x1) - 1
    y = 2 * (torch.arange(H) + 0.5 - y1) / (y2 - y1) - 1
    grid = torch.stack([x[:, None].expand(-1, H, -1), y[:, :, None].expand(-1, -1, W)], dim=-1)
    return F.grid_sample(mask_probs[:, None], grid, align_corners=False)[:, 0]


def paste_with_numpy(mask_probs: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> Any:
    """Surround each mask by zeros and read it pixel by pixel."""
    pasted = np.zeros((len(boxes), *image_size))
    for i, (x1, y1, x2, y2) in enumerate(boxes.numpy()):
        padded = np.pad(mask_probs[i].numpy(), 1)
        h, w = mask_probs.shape[1:]
        for row, column in np.ndindex(*image_size):
            y = (row + 0.5 - y1) / (y2 - y1) * h + 0.5  # in cells of the padded mask
            x = (column + 0.5 - x1) / (x2 - x1) * w + 0.5
            if not (0 <= y < h + 1 and 0 <= x < w + 1):
                continue
            top, left = int(y), int(x)
            square = padded[top : top + 2, left : left + 2]
            pasted[i, row, column] = [top + 1 - y, y - top] @ square @ [left + 1 - x, x - left]
    return pasted
