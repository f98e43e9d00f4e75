"""What every test may ask for: a device, a seeded generator, a run without the shape checks."""

import os
from collections.abc import Iterator

import hypothesis
import jaxtyping
import matplotlib
import pytest
import torch

matplotlib.use("Agg")  # before anybody imports pyplot: no test opens a window

# A property's first example pays for imports and kernels, so a deadline would measure those. In CI the examples are
# the same in every run; print_blob says how to repeat a failure at home.
hypothesis.settings.register_profile("local", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(
    scope="session",  # so that Hypothesis, which runs many examples within one test, may use it
    params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)],
)
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """Let wrong shapes and types reach the package, as they do outside pytest: its own messages are under test."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
