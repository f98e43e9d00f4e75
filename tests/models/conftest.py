import pytest

from tests.models.twins import Twins, doubled, make_twins, without_masks


@pytest.fixture(scope="session")
def mask_twins() -> Twins:
    """torchvision's Mask R-CNN and ours in evaluation mode; a test that changes them works on a copy."""
    return make_twins()


@pytest.fixture(scope="session")
def mask_twins_in_double(mask_twins: Twins) -> Twins:
    return doubled(mask_twins)


@pytest.fixture(scope="session")
def faster_twins(mask_twins: Twins) -> Twins:
    """torchvision's Faster R-CNN and ours in evaluation mode; a test that changes them works on a copy."""
    return without_masks(mask_twins)


@pytest.fixture(scope="session")
def faster_twins_in_double(faster_twins: Twins) -> Twins:
    return doubled(faster_twins)
