import pytest

from tests.models.twins import Twins, doubled, make_twins


@pytest.fixture(scope="session")
def mask_twins() -> Twins:
    """torchvision's Mask R-CNN and ours in evaluation mode; a test that changes them works on a copy."""
    return make_twins(with_masks=True)


@pytest.fixture(scope="session")
def mask_twins_in_double(mask_twins: Twins) -> Twins:
    return doubled(mask_twins)


@pytest.fixture(scope="session")
def faster_twins() -> Twins:
    """torchvision's Faster R-CNN and ours in evaluation mode; a test that changes them works on a copy."""
    return make_twins(with_masks=False)


@pytest.fixture(scope="session")
def faster_twins_in_double(faster_twins: Twins) -> Twins:
    return doubled(faster_twins)
