import pytest
import torch
from torch import Tensor

from rcnn_edu.models import FPN
from rcnn_edu.training.experiments.pyramid import VARIANTS, FinestLevel, propose
from rcnn_edu.training.whole_detector import new_detector

CHANNELS = [4, 6, 8, 10]


def maps() -> list[Tensor]:
    """Return C2 to C5 of an image of 64 px, of which one can ask what depends on them."""
    return [torch.rand(1, c, 16 >> k, 16 >> k, requires_grad=True) for k, c in enumerate(CHANNELS)]


def depends_on(p2: Tensor, features: list[Tensor]) -> list[bool]:
    gradients = torch.autograd.grad(p2.sum(), features, allow_unused=True)
    return [gradient is not None and bool(gradient.any()) for gradient in gradients]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("FPN", [True, True, True, True]),
        ("no top-down path", [True, False, False, False]),
        ("no lateral connections", [False, False, False, True]),
        ("C4 alone", [False, False, True, False]),
        ("P2 alone", [True, True, True, True]),
    ],
)
def test_the_finest_map_sees_what_its_name_says(name: str, expected: list[bool]) -> None:
    features = maps()
    neck, strides = VARIANTS[name]
    levels = neck(CHANNELS, 8)(features)
    assert len(levels) == len(strides)
    assert levels[0].shape[1:] == (8, 64 // strides[0], 64 // strides[0])
    assert depends_on(levels[0], features) == expected


def test_the_finest_level_is_that_of_the_pyramid() -> None:
    pyramid, finest = FPN(CHANNELS, 8, p6=None), FinestLevel(CHANNELS, 8)
    finest.load_state_dict({name: value for name, value in pyramid.state_dict().items() if name in finest.state_dict()})
    features = maps()
    torch.testing.assert_close(finest(features)[0], pyramid(features)[0])


@pytest.mark.parametrize(
    ("name", "cells"), [("FPN", 48**2 + 24**2 + 12**2 + 6**2), ("C4 alone", 4 * 12**2), ("P2 alone", 4 * 48**2)]
)
def test_all_have_anchors_of_all_sizes(name: str, cells: int) -> None:
    model = new_detector(*VARIANTS[name]).eval()
    proposals, anchors = propose(model, torch.rand(3, 192, 192))
    assert anchors == 3 * cells
    assert len(proposals) <= model.rpn.post_nms_top_n[1]
    assert proposals.min() >= 0
    assert proposals.max() <= 192
    sizes = [size for level in model.rpn.anchors.sizes for size in level]
    assert sizes == [16, 32, 64, 128]
