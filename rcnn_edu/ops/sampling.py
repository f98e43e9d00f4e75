"""Sampling: a small, balanced share of the anchors or proposals takes part in the loss."""

import torch
from jaxtyping import Int
from torch import Tensor


@torch.no_grad()
def sample_rois(
    labels: Int[Tensor, " n"],
    num_samples: int = 256,
    pos_fraction: float = 0.25,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " k"]:
    """Return the indices of at most ``num_samples`` boxes drawn at random, positives first, shape (k,).

    At most ``pos_fraction`` of them are positive (label above 0), and negatives (label 0) fill up the rest, the places
    of missing positives too. Ignored boxes (label -1) are never drawn. Fewer come back where there are fewer.

    Raises:
        ValueError: for labels not of shape (n,), a negative number, or a fraction outside [0, 1].

    Lesson: 04 (Faster R-CNN, section 3.1.3).
    """
    if labels.ndim != 1:
        raise ValueError(f"labels must be of shape (n,), got {tuple(labels.shape)}; sample each image by itself")
    if num_samples < 0 or not 0 <= pos_fraction <= 1:
        raise ValueError(
            f"num_samples must not be negative, and pos_fraction be from 0 to 1, got {num_samples} and {pos_fraction}"
        )
    device = generator.device if generator is not None else labels.device

    def draw(candidates: Tensor, count: int) -> Tensor:
        chosen = torch.randperm(len(candidates), generator=generator, device=device)[:count]
        return candidates[chosen.to(labels.device)]

    # The tiny term: 100 x 0.29 is 28.999... in floating point.
    positives = draw((labels > 0).nonzero()[:, 0], int(num_samples * pos_fraction + 1e-6))
    negatives = draw((labels == 0).nonzero()[:, 0], num_samples - len(positives))
    return torch.cat([positives, negatives])
