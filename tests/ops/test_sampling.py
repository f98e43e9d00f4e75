import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from rcnn_edu.ops import sample_rois

LABELS = st.lists(st.integers(-1, 3), max_size=30).map(lambda labels: torch.tensor(labels, dtype=torch.long))


def counts(labels: Tensor, sampled: Tensor) -> tuple[int, int]:
    """How many of the sampled are positive, and how many negative."""
    return int((labels[sampled] > 0).sum()), int((labels[sampled] == 0).sum())


def test_a_quarter_is_positive_and_comes_first(device: torch.device) -> None:
    labels = torch.tensor([0, 1] * 50 + [-1] * 10, device=device)
    sampled = sample_rois(labels, 40, 0.25)
    assert labels[sampled].tolist() == [1] * 10 + [0] * 30
    assert len(sampled.unique()) == 40  # type: ignore[no-untyped-call]


def test_negatives_take_the_places_of_missing_positives() -> None:
    labels = torch.tensor([0] * 50 + [1, 2, 3])
    assert labels[sample_rois(labels, 40, 0.25)].sort(descending=True).values.tolist() == [3, 2, 1] + [0] * 37


def test_positives_never_take_the_places_of_missing_negatives() -> None:
    labels = torch.tensor([1] * 50 + [0, 0, -1, -1])
    assert labels[sample_rois(labels, 40, 0.25)].tolist() == [1] * 10 + [0, 0]  # fewer than asked for


def test_the_ignored_are_never_drawn() -> None:
    assert sample_rois(torch.full((10,), -1)).tolist() == []
    assert sample_rois(torch.tensor([-1, 0, -1]), 3).tolist() == [1]


def test_no_labels() -> None:
    assert sample_rois(torch.zeros(0, dtype=torch.long)).tolist() == []


@pytest.mark.parametrize(("number", "fraction", "positives"), [(100, 0.29, 29), (10, 0.25, 2), (512, 0.25, 128)])
def test_the_share_of_positives_does_not_hang_on_rounding(number: int, fraction: float, positives: int) -> None:
    labels = torch.tensor([0, 1]).repeat(1000)  # 100 x 0.29 is 28.999999999999996
    assert counts(labels, sample_rois(labels, number, fraction)) == (positives, number - positives)


def test_everybody_is_drawn_equally_often(generator: torch.Generator) -> None:
    labels = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    drawn = torch.zeros(10)
    for _ in range(600):
        drawn[sample_rois(labels, 4, 0.5, generator)] += 1
    # Two of four positives, two of six negatives: 300 and 200 each, with a standard deviation of 12 and 12.
    assert (drawn[:4] - 300).abs().max() < 60
    assert (drawn[4:] - 200).abs().max() < 60


def test_the_same_seed_draws_the_same_on_every_device(device: torch.device) -> None:
    labels = torch.tensor([0, 1] * 500)
    drawn = [
        sample_rois(labels.to(device), 20, 0.5, torch.Generator().manual_seed(seed)).tolist() for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == sample_rois(labels, 20, 0.5, torch.Generator().manual_seed(0)).tolist()


def test_the_generator_may_live_on_the_labels_device(device: torch.device) -> None:
    labels = torch.tensor([0, 1] * 50, device=device)
    drawn = [sample_rois(labels, 20, 0.5, torch.Generator(device).manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert all(sampled.device.type == device.type for sampled in drawn)


@given(LABELS, st.integers(0, 20), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 100))
def test_as_many_as_torchvision_and_each_once(labels: Tensor, number: int, fraction: float, seed: int) -> None:
    before = labels.clone()
    sampled = sample_rois(labels, number, fraction, torch.Generator().manual_seed(seed))
    [positive], [negative] = BalancedPositiveNegativeSampler(number, fraction)([labels])
    assert counts(labels, sampled) == (int(positive.sum()), int(negative.sum()))
    assert len(set(sampled.tolist())) == len(sampled) <= number
    assert (labels[sampled].clamp(max=1).diff() <= 0).all()  # positives first
    assert (labels[sampled] >= 0).all()
    assert torch.equal(labels, before)


@pytest.mark.parametrize(("number", "fraction"), [(-1, 0.5), (10, -0.1), (10, 1.1), (10, float("nan"))])
def test_impossible_shares_are_refused(number: int, fraction: float) -> None:
    with pytest.raises(ValueError, match=rf"^num_samples must not be negative, and .* got {number} and {fraction}"):
        sample_rois(torch.zeros(3, dtype=torch.long), number, fraction)


@pytest.mark.usefixtures("without_shape_checks")
def test_labels_of_several_images_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^labels must be of shape \(n,\), got \(2, 3\); sample each image by itself$"
    ):
        sample_rois(torch.zeros(2, 3, dtype=torch.long))
