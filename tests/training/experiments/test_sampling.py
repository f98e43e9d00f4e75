"""The comparison of samples: the blind sampler's draws are those of nobody who looks at the labels."""

import torch

from rcnn_edu.models import RoISampler
from rcnn_edu.training.experiments.sampling import ALL, BlindSampler

FAR = torch.stack([torch.arange(90.0), torch.zeros(90), torch.arange(90.0) + 1, torch.ones(90)], dim=1)
OBJECT = torch.tensor([[100.0, 100, 120, 120]])
PROPOSALS = [torch.cat([OBJECT.expand(9, 4), FAR]), FAR]  # with the ground truth, 10 of 100 are positive in the first
TARGETS = [
    {"boxes": OBJECT, "labels": torch.tensor([2])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
]


def test_all_are_all(generator: torch.Generator) -> None:
    sampled = ALL(PROPOSALS, TARGETS, generator)
    assert len(sampled.rois) == 190
    assert (sampled.labels > 0).sum() == 10


def test_a_blind_sample_has_positives_as_often_as_there_are(generator: torch.Generator) -> None:
    shares = []
    for _ in range(100):
        sampled = BlindSampler(0.5, 20)(PROPOSALS, TARGETS, generator)
        assert torch.bincount(sampled.rois[:, 0].long()).tolist() == [20, 20]
        shares.append((sampled.labels[:20] > 0).double().mean().item())
        assert set(sampled.labels.tolist()) <= {0, 2}
        assert (sampled.labels[20:] == 0).all()
    assert 0.07 < sum(shares) / len(shares) < 0.13
    balanced = RoISampler(0.5, 20, 0.25)(PROPOSALS, TARGETS, generator)
    assert (balanced.labels > 0).sum() == 5


def test_a_blind_sample_follows_from_its_generator_and_fits_together() -> None:
    first, again, other = (
        BlindSampler(0.5, 30)(PROPOSALS, TARGETS, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.rois, again.rois)
    assert not torch.equal(first.rois, other.rois)
    positive = first.labels > 0
    assert torch.equal(first.gt_boxes[positive], OBJECT.expand(int(positive.sum()), 4))
    assert torch.equal(positive, (first.rois[:, 1:] == OBJECT).all(dim=1))


def test_fewer_come_back_where_there_are_fewer(generator: torch.Generator) -> None:
    assert len(BlindSampler(0.5, 1000)(PROPOSALS, TARGETS, generator).rois) == 190
