import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionAnchors
from torchvision.models.detection.image_list import ImageList

from rcnn_edu.ops import AnchorGenerator, box_area


def test_anchors_by_hand(device: torch.device) -> None:
    generator = AnchorGenerator(sizes=((8,),), aspect_ratios=(0.25, 1.0, 4.0), strides=(4,))
    [anchors] = generator([(1, 2)], device)
    around_origin = [
        [-8.0, -2.0, 8.0, 2.0],  # height / width = 1/4, area 64
        [-4.0, -4.0, 4.0, 4.0],
        [-2.0, -8.0, 2.0, 8.0],
    ]
    beside = [[x1 + 4, y1, x2 + 4, y2] for x1, y1, x2, y2 in around_origin]
    assert anchors.tolist() == around_origin + beside
    assert generator.num_anchors_per_cell == 3


def test_anchors_are_rounded_to_whole_pixels_around_the_cell() -> None:
    [anchors] = AnchorGenerator(sizes=((32,),), aspect_ratios=(0.5,), strides=(4,))([(1, 1)])
    assert anchors.tolist() == [[-23, -11, 23, 11]]  # 22.63 and 11.31


def test_order_is_row_column_ratio_size() -> None:
    generator = AnchorGenerator(sizes=((2, 4),), aspect_ratios=(1.0, 4.0), strides=(10,))
    [anchors] = generator([(3, 2)])
    anchors = anchors.view(3, 2, 2, 2, 4)  # rows, columns, ratios, sizes
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2
    assert (centre[..., 0] == 10 * torch.arange(2)[None, :, None, None]).all()
    assert (centre[..., 1] == 10 * torch.arange(3)[:, None, None, None]).all()
    assert (anchors[..., 3] - anchors[..., 1])[0, 0].tolist() == [[2, 4], [4, 8]]


@pytest.mark.parametrize("sizes", [((32,), (64,), (128,)), ((32, 45.25), (64, 90.5), (128, 181))])
def test_anchors_as_torchvision(device: torch.device, sizes: tuple[tuple[float, ...], ...]) -> None:
    ratios = (0.5, 1.0, 2.0)
    features = [torch.zeros(1, 1, 96 // stride, 160 // stride, device=device) for stride in (4, 8, 16)]
    images = ImageList(torch.zeros(1, 3, 96, 160, device=device), [(96, 160)])
    [expected] = TorchvisionAnchors(sizes, (ratios,) * 3)(images, features)
    ours = AnchorGenerator(sizes, ratios, (4, 8, 16))([(24, 40), (12, 20), (6, 10)], device)
    assert torch.equal(torch.cat(ours), expected)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=3),
    st.lists(st.floats(4, 500), min_size=1, max_size=3),
    st.lists(st.floats(0.2, 5), min_size=1, max_size=3),
)
def test_every_cell_of_every_level_has_the_same_anchors(
    feature_sizes: list[tuple[int, int]], sizes: list[float], ratios: list[float]
) -> None:
    levels = len(feature_sizes)
    strides = [2 ** (2 + level) for level in range(levels)]
    generator = AnchorGenerator([sizes] * levels, ratios, strides)
    per_cell = generator.num_anchors_per_cell
    assert per_cell == len(sizes) * len(ratios)
    for anchors, (height, width), stride in zip(generator(feature_sizes), feature_sizes, strides, strict=True):
        assert anchors.shape == (height * width * per_cell, 4)
        corner = torch.tensor([[x, y, x, y] for y in range(height) for x in range(width)]).view(-1, 1, 4) * stride
        around = anchors.view(-1, per_cell, 4) - corner
        assert (around == around[:1]).all()
        assert (around[..., :2] == -around[..., 2:]).all()
        assert (box_area(anchors) >= 0).all()


def test_dtype_and_device_are_those_asked_for(device: torch.device) -> None:
    generator = AnchorGenerator(((8,),), (0.5, 1.0), (4,))
    for dtype in (torch.float32, torch.float64):
        [anchors] = generator([(2, 3)], device, dtype)
        assert anchors.dtype == dtype
        assert anchors.device.type == device.type
        assert torch.equal(anchors.float().cpu(), generator([(2, 3)])[0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strides": (4, 8)}, r"^sizes and strides must agree in levels, got 5 and 2"),
        ({"sizes": ((8,), (8, 9)), "strides": (4, 8)}, r"^every level needs the same number of sizes, .* one head"),
        ({"sizes": ((), ()), "strides": (4, 8)}, r"^every level needs .* at least one"),
        ({"aspect_ratios": ()}, r"^every level needs .* and a ratio"),
        ({"sizes": (), "strides": ()}, r"^every level needs "),
        ({"sizes": ((0,),), "strides": (4,)}, r"^sizes, aspect_ratios and strides must be positive"),
        ({"aspect_ratios": (1.0, -2.0)}, r"^sizes, aspect_ratios and strides must be positive"),
        ({"sizes": ((8,),), "strides": (0,)}, r"^sizes, aspect_ratios and strides must be positive"),
        ({"sizes": ((float("nan"),),), "strides": (4,)}, r"^sizes, aspect_ratios and strides must be positive"),
    ],
)
def test_levels_that_do_not_agree_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnchorGenerator(**wrong)


def test_another_number_of_levels_is_refused() -> None:
    came = re.escape("feature_sizes must name 5 levels' (H, W), got [(3, 4)]")
    with pytest.raises(ValueError, match=f"^{came}"):
        AnchorGenerator()([(3, 4)])
