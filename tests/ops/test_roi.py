import math
import re
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops.poolers import LevelMapper

from rcnn_edu.ops import assign_fpn_levels, check_rois, pool_bins, pyramid_roi_align, roi_align, roi_pool

GRID = torch.arange(25.0).view(1, 1, 5, 5)  # cell (y, x) holds 5 y + x
ROI = torch.tensor([[0.0, 1.0, 1.0, 3.0, 3.0]])


def ramp(height: int, width: int, slope_x: float = 1.0, slope_y: float = 0.0, offset: float = 0.0) -> Tensor:
    """One float64 map whose cell (y, x) holds slope_x x + slope_y y + offset."""
    y, x = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    return (slope_x * x + slope_y * y[:, None] + offset)[None, None]


def close(actual: Tensor, expected: Tensor, note: str = "") -> None:
    """Fail unless the two differ by at most 1e-4, or 1e-9 in float64."""
    assert actual.shape == expected.shape, note
    assert actual.dtype == expected.dtype, note
    difference = (actual - expected).abs().max().item() if actual.numel() else 0.0
    assert difference <= (1e-9 if actual.dtype == torch.float64 else 1e-4), f"{note}: they differ by {difference:.2e}"


def gradient(pooled: Tensor, features: Tensor, seed: int = 0) -> Tensor:
    """The gradient on ``features`` of a weighted sum of what was pooled."""
    weights = torch.randn(pooled.shape, dtype=pooled.dtype, generator=torch.Generator().manual_seed(seed))
    return torch.autograd.grad(pooled, features, weights.to(pooled.device))[0]


# RoIAlign by hand.


@pytest.mark.parametrize(("aligned", "first"), [(False, 7.5), (True, 4.5)])
def test_align_golden_case(device: torch.device, aligned: bool, first: float) -> None:
    """A 2 x 2 RoI in 4 x 4 bins of half a cell: the first bin's centre is (1.25, 1.25), or 0.75 on aligned axes."""
    pooled = roi_align(GRID.to(device), ROI.to(device), 4, 1.0, aligned=aligned)
    steps = torch.arange(4.0) / 2
    expected = first + 5 * steps[:, None] + steps
    close(pooled, expected[None, None].to(device))


def test_align_reads_the_centre_of_each_bin_on_a_ramp(device: torch.device) -> None:
    rois = torch.tensor([[0.0, 2.3, 3.1, 8.3, 7.9]], dtype=torch.float64, device=device)
    pooled = roi_align(ramp(10, 12).to(device), rois, (2, 3), 1.0)
    centres = torch.tensor([3.3, 5.3, 7.3], dtype=torch.float64) - 0.5  # cell i's value sits at i + 0.5
    close(pooled, centres.expand(1, 1, 2, 3).to(device))


def test_align_with_one_sample_is_bilinear_interpolation() -> None:
    features = torch.tensor([[[[1.0, 2.0], [3.0, 10.0]]]])
    rois = torch.tensor([[0.0, 0.25, 0.5, 1.25, 1.5]])  # centre (0.75, 1.0): 0.25 and 0.5 between the cells' centres
    upper, lower = 0.75 * 1 + 0.25 * 2, 0.75 * 3 + 0.25 * 10
    close(roi_align(features, rois, 1, 1.0, sampling_ratio=1), torch.tensor([[[[(upper + lower) / 2]]]]))


def test_align_beyond_the_border_repeats_the_edge_for_one_cell_and_then_reads_zero() -> None:
    features = torch.full((1, 1, 4, 4), 6.0)
    rois = torch.tensor([[0.0, -1.5, 0.0, 2.5, 4.0]])  # samples at x = -1.5 (too far out), -0.5, 0.5, 1.5, less half
    pooled = roi_align(features, rois, (1, 4), 1.0, sampling_ratio=1)
    assert pooled[0, 0, 0].tolist() == [0, 6, 6, 6]


def test_align_without_aligned_grows_a_small_roi_to_one_cell() -> None:
    small = torch.tensor([[0.0, 4.0, 4.0, 4.2, 4.2]], dtype=torch.float64)
    one_cell = torch.tensor([[0.0, 4.0, 4.0, 5.0, 5.0]], dtype=torch.float64)
    features = ramp(10, 10, 1, 3)
    assert torch.equal(
        roi_align(features, small, 2, 1.0, aligned=False), roi_align(features, one_cell, 2, 1.0, aligned=False)
    )
    assert not torch.equal(roi_align(features, small, 2, 1.0), roi_align(features, one_cell, 2, 1.0))


def test_each_roi_reads_its_own_image(device: torch.device) -> None:
    features = torch.tensor([10.0, 20.0, 30.0], device=device).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    rois = torch.tensor([[2.0, 1, 1, 3, 3], [0, 1, 1, 3, 3], [1, 0, 0, 2, 2], [2, 0, 0, 4, 4]], device=device)
    for pooled in (
        roi_align(features, rois, 1, 1.0),
        roi_align(features, rois, 1, 1.0, 0),
        roi_pool(features, rois, 1, 1.0),
    ):
        assert pooled.flatten().tolist() == [30, 10, 20, 30]


# RoI Pooling by hand.


def test_pool_by_hand_with_uneven_bins(device: torch.device) -> None:
    """Corners 0.6 and 3.4 round to 1 and 3: cells 1 to 3, three of them for two bins, which share the middle one."""
    rois = torch.tensor([[0.0, 0.6, 0.6, 3.4, 3.4]], device=device)
    pooled = roi_pool(GRID.to(device), rois, 2, 1.0)
    assert pooled.tolist() == [[[[12, 13], [17, 18]]]]  # the lower right corners of cells [1, 2] and [2, 3], both ways


def test_pool_counts_the_last_cell_in() -> None:
    rois = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0]])  # no area, yet one cell
    assert roi_pool(GRID, rois, 1, 1.0).item() == 6
    assert roi_pool(GRID, ROI, 1, 1.0).item() == 18  # cells 1, 2 and 3 both ways


@pytest.mark.parametrize(("corner", "cell"), [(0.49, 0), (0.5, 1), (1.5, 2), (2.5, 3), (2.49, 2)])
def test_pool_rounds_halves_away_from_zero(corner: float, cell: int) -> None:
    rois = torch.tensor([[0.0, corner, 0.0, corner, 0.0]])
    assert roi_pool(GRID, rois, 1, 1.0).item() == cell


def test_pool_of_bins_outside_the_map_is_zero(device: torch.device) -> None:
    features = torch.full((1, 1, 4, 4), -3.0, device=device)
    rois = torch.tensor([[0.0, 2.0, 0.0, 5.0, 3.0], [0.0, 8.0, 8.0, 9.0, 9.0]], device=device)
    pooled = roi_pool(features, rois, 2, 1.0)
    assert pooled[0, 0].tolist() == [[-3, 0], [-3, 0]]
    assert pooled[1, 0].tolist() == [[0, 0], [0, 0]]


def test_pool_bins_by_hand() -> None:
    rois = torch.tensor([[0.0, 9.0, 20.0, 41.0, 30.0]])  # at stride 8: 1.125 to 5.125, 2.5 to 3.75
    x_from, x_to, y_from, y_to = pool_bins(rois, (2, 3), 1 / 8, (10, 10))
    assert (x_from.tolist(), x_to.tolist()) == ([[1, 2, 4]], [[3, 5, 6]])  # 1 + 5/3 i, rounded outwards
    assert (y_from.tolist(), y_to.tolist()) == ([[3, 4]], [[4, 5]])  # cells 3 and 4, one each


@given(
    st.tuples(*[st.integers(-300, 300)] * 2),
    st.tuples(*[st.integers(0, 300)] * 2),
    st.tuples(*[st.integers(1, 7)] * 2),
    st.tuples(*[st.integers(1, 20)] * 2),
)
def test_pool_bins_cover_their_roi_and_stay_on_the_map(
    corner: tuple[int, int], size: tuple[int, int], bins: tuple[int, int], cells: tuple[int, int]
) -> None:
    """Along each axis the bins read every cell from the first to the last, in order; neighbours share one at most."""
    (x1, y1), (width, height), scale = corner, size, 1 / 8
    rois = torch.tensor([[0.0, x1 / 4, y1 / 4, (x1 + width) / 4, (y1 + height) / 4]], dtype=torch.float64)
    x_from, x_to, y_from, y_to = (side[0].tolist() for side in pool_bins(rois, bins, scale, cells))
    for start, end, low, high, count in (
        (x_from, x_to, rois[0, 1], rois[0, 3], cells[1]),
        (y_from, y_to, rois[0, 2], rois[0, 4], cells[0]),
    ):
        read = {cell for first, last in zip(start, end, strict=True) for cell in range(first, last)}
        lowest, highest = (math.copysign(math.floor(abs(x * scale) + 0.5), x) for x in (low.item(), high.item()))
        assert read == {cell for cell in range(count) if lowest <= cell <= highest}
        assert all(behind - ahead in (0, 1) for behind, ahead in zip(end[:-1], start[1:], strict=True))


# torchvision as the oracle: random maps, scales, outputs and RoIs, a fresh draw for each seed.


def random_case(seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, tuple[int, int], float]:
    """Features, RoIs, output size and scale; RoIs lie in, across and beyond the map, some without width or height."""
    generator = torch.Generator().manual_seed(seed)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=dtype)

    batch, channels, height, width = integer(1, 3), integer(1, 4), integer(1, 14), integer(1, 14)
    features = torch.randn(batch, channels, height, width, generator=generator, dtype=dtype)
    if seed % 2:
        features = features.contiguous(memory_format=torch.channels_last)
    scale = [1.0, 0.5, 0.25, 1 / 16, 0.37, 1.7][integer(0, 5)]
    number = integer(0, 6)
    cells = torch.tensor([width, height], dtype=dtype)
    corner = (uniform(number, 2) * 2 - 0.5) * cells / scale
    size = uniform(number, 2) * cells * 1.5 / scale * (uniform(number, 2) > 0.2)  # a fifth of the sides are zero
    batch_index = torch.randint(0, batch, (number, 1), generator=generator).to(dtype)
    rois = torch.cat([batch_index, corner, corner + size], dim=1)
    return features, rois, (integer(1, 5), integer(1, 5)), scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
def test_align_as_torchvision(device: torch.device, sampling_ratio: int, aligned: bool, dtype: torch.dtype) -> None:
    for seed in range(80):
        features, rois, size, scale = random_case(seed, dtype)
        features, rois = features.to(device).requires_grad_(), rois.to(device)
        ours = roi_align(features, rois, size, scale, sampling_ratio, aligned)
        theirs = torchvision.ops.roi_align(features, rois, size, scale, sampling_ratio, aligned)
        close(ours, theirs, f"seed {seed}")
        close(gradient(ours, features), gradient(theirs, features), f"seed {seed}, gradient")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pool_as_torchvision(device: torch.device, dtype: torch.dtype) -> None:
    for seed in range(300):
        features, rois, size, scale = random_case(seed, dtype)
        if seed % 3 == 0:
            features = features.round()  # ties: the first cell of a bin wins, and takes the gradient
        features, rois = features.to(device).requires_grad_(), rois.to(device)
        ours, theirs = roi_pool(features, rois, size, scale), torchvision.ops.roi_pool(features, rois, size, scale)
        close(ours, theirs, f"seed {seed}")
        close(gradient(ours, features), gradient(theirs, features), f"seed {seed}, gradient")


def test_the_random_cases_are_what_they_claim() -> None:
    cases = [random_case(seed, torch.float32) for seed in range(80)]
    rois = torch.cat([rois for _, rois, _, _ in cases])
    sides = rois[:, 3:] - rois[:, 1:3]
    assert sum(len(rois) == 0 for _, rois, _, _ in cases) >= 5
    assert (sides == 0).all(1).any()
    assert (sides == 0).any(1).sum() >= 20
    assert (rois[:, 1:3] < 0).any(1).sum() >= 20
    assert len({size for _, _, size, _ in cases}) == 25
    assert {len(features) for features, _, _, _ in cases} == {1, 2, 3}


# Gradients.

POOLINGS: dict[str, Callable[..., Tensor]] = {
    "roi_pool": roi_pool,
    "roi_align": roi_align,
    "roi_align, legacy": partial(roi_align, aligned=False),
    "roi_align, adaptive": partial(roi_align, sampling_ratio=0),
}
ACROSS = torch.tensor([[0.0, 1.3, 0.7, 5.9, 4.2], [1.0, -2.0, 3.0, 3.1, 9.0]])  # one inside, one across the border


def random_features(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", POOLINGS)
def test_gradients(device: torch.device, name: str, memory_format: torch.memory_format) -> None:
    features = random_features(2, 1, 4, 5, dtype=torch.float64).to(device, memory_format=memory_format).requires_grad_()
    rois = ACROSS.to(device, torch.float64)
    assert torch.autograd.gradcheck(lambda features: POOLINGS[name](features, rois, (2, 3), 0.9), (features,))


def test_gradients_through_the_pyramid(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(1, 1, 24 // s, 32 // s, generator=generator, dtype=torch.float64) for s in (4, 8)]
    features = [level.to(device).requires_grad_() for level in features]
    rois = torch.tensor([[0.0, 2, 3, 9, 10], [0, 1, 1, 30, 22]], dtype=torch.float64, device=device)  # one a level

    def pool(*features: Tensor) -> Tensor:
        return pyramid_roi_align(features, rois, (4, 8), 2, canonical_size=16, canonical_level=3)

    assert torch.autograd.gradcheck(pool, features)


@pytest.mark.parametrize("name", POOLINGS)
def test_rois_get_no_gradient(name: str) -> None:
    rois = ACROSS.clone().requires_grad_()
    assert not POOLINGS[name](random_features(2, 3, 6, 6), rois, 2, 1.0).requires_grad
    features = random_features(2, 3, 6, 6).requires_grad_()
    POOLINGS[name](features, rois, 2, 1.0).sum().backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert rois.grad is None


def test_pool_gives_the_gradient_of_a_tie_to_the_first_cell(device: torch.device) -> None:
    features = torch.tensor([[[[0.0, 2.0, 1.0], [2.0, 1.0, 2.0]]]], device=device, requires_grad=True)
    pooled = roi_pool(features, torch.tensor([[0.0, 0.0, 0.0, 2.0, 1.0]], device=device), 1, 1.0)
    assert pooled.item() == 2
    assert torch.autograd.grad(pooled.sum(), features)[0].tolist() == [[[[0, 1, 0], [0, 0, 0]]]]


@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("name", POOLINGS)
def test_no_rois_give_an_empty_result_that_keeps_its_graph(device: torch.device, name: str, batch: int) -> None:
    features = torch.ones(batch, 3, 4, 4, device=device, requires_grad=True)
    pooled = POOLINGS[name](features, torch.zeros(0, 5, device=device), (2, 3), 1.0)
    assert pooled.shape == (0, 3, 2, 3)
    assert torch.equal(torch.autograd.grad(pooled.sum(), features)[0], torch.zeros_like(features))


def test_adaptive_align_of_rois_without_area_is_zero_and_keeps_its_graph() -> None:
    features = torch.ones(1, 3, 4, 4, requires_grad=True)
    pooled = roi_align(features, torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 3.0, 1.0]]), 2, 1.0, 0)
    assert torch.equal(pooled, torch.zeros(2, 3, 2, 2))
    assert torch.equal(torch.autograd.grad(pooled.sum(), features)[0], torch.zeros_like(features))


# Types, layouts, arguments.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", POOLINGS)
def test_half_precision_is_kept_but_not_computed_in(device: torch.device, name: str, dtype: torch.dtype) -> None:
    features = random_features(2, 3, 40, 40).to(device, dtype)
    rois = torch.tensor([[0.0, 1.5, 7.0, 201.0, 99.5], [1.0, 255.0, 0.0, 256.0, 300.0]], device=device).to(dtype)
    pooled = POOLINGS[name](features, rois, 7, 0.15)
    assert pooled.dtype == dtype
    assert torch.equal(pooled, POOLINGS[name](features.float(), rois.float(), 7, 0.15).to(dtype))


@pytest.mark.parametrize("name", POOLINGS)
def test_float64_features_take_float32_rois(name: str) -> None:
    features = random_features(2, 3, 6, 6, dtype=torch.float64)
    assert torch.equal(POOLINGS[name](features, ACROSS, 2, 0.3), POOLINGS[name](features, ACROSS.double(), 2, 0.3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", POOLINGS)
def test_autocast_changes_nothing(name: str, dtype: torch.dtype) -> None:
    features = random_features(2, 3, 6, 6).to(dtype).requires_grad_()
    outside = POOLINGS[name](features, ACROSS, 2, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = POOLINGS[name](features, ACROSS, 2, 1.0)
    assert inside.dtype == dtype
    assert torch.equal(inside, outside)
    assert torch.equal(gradient(inside, features), gradient(outside, features))


@pytest.mark.parametrize("name", POOLINGS)
def test_any_layout_in_channels_last_out(device: torch.device, name: str) -> None:
    features = random_features(2, 6, 6, 8).to(device)
    layouts = {
        "contiguous": features,
        "channels_last": features.contiguous(memory_format=torch.channels_last),
        "transposed": features.mT.contiguous().mT,
        "a slice": features.repeat_interleave(2, dim=1)[:, ::2],
        "expanded": features[:1].expand(2, -1, -1, -1),
    }
    rois = ACROSS.to(device)
    for layout, same in layouts.items():
        pooled = POOLINGS[name](same, rois, 3, 1.0)
        assert pooled.is_contiguous(memory_format=torch.channels_last), layout
        assert torch.equal(pooled, POOLINGS[name](same.clone(memory_format=torch.contiguous_format), rois, 3, 1.0)), (
            layout
        )


@pytest.mark.parametrize("name", POOLINGS)
def test_a_number_is_a_square_output(name: str) -> None:
    features = random_features(2, 3, 6, 6)
    square, same, upright = (POOLINGS[name](features, ACROSS, size, 1.0) for size in (3, (3, 3), (4, 2)))
    assert torch.equal(square, same)
    assert upright.shape == (2, 3, 4, 2)


@pytest.mark.parametrize("name", POOLINGS)
def test_inputs_are_left_as_they_are(name: str) -> None:
    features, rois = random_features(2, 3, 6, 6), ACROSS.clone()
    before = features.clone()
    POOLINGS[name](features, rois, 2, 1.0)
    assert torch.equal(features, before)
    assert torch.equal(rois, ACROSS)


# Equivariance: what the first lesson is about.

EIGHTHS = st.integers(0, 8 * 24).map(lambda eighths: eighths / 8)  # a coordinate from 0 to 24 px, exact in any float


@given(EIGHTHS, EIGHTHS, EIGHTHS, EIGHTHS, st.integers(-3, 3), st.integers(-3, 3), st.sampled_from(list(POOLINGS)))
def test_whole_cells_of_shift_change_nothing(
    x: float, y: float, width: float, height: float, right: int, down: int, name: str
) -> None:
    features = random_features(1, 2, 24, 24, dtype=torch.float64)
    rois = torch.tensor([[0.0, x + 20, y + 20, x + width + 20, y + height + 20]], dtype=torch.float64)  # 20 to 68 of 96
    moved_rois = rois + 4 * torch.tensor([0, right, down, right, down])
    moved = features.roll((down, right), dims=(2, 3))
    close(POOLINGS[name](moved, moved_rois, (2, 3), 1 / 4), POOLINGS[name](features, rois, (2, 3), 1 / 4))


@given(EIGHTHS, EIGHTHS, st.integers(1, 31).map(lambda part: part / 32), st.sampled_from([0, 1, 2, 3]), st.booleans())
def test_on_a_ramp_align_follows_every_shift_and_pooling_no_fraction(
    x: float, width: float, shift: float, sampling_ratio: int, aligned: bool
) -> None:
    features = ramp(8, 24)
    rois = torch.tensor([[0.0, x + 8, 8.0, x + width + 9, 24.0]], dtype=torch.float64)  # 8 to 57 of 96 px at stride 4
    moved_rois = rois + 4 * shift * torch.tensor([0, 1, 0, 1, 0])  # less than one cell to the right
    follows = roi_align(features, moved_rois, 3, 1 / 4, sampling_ratio, aligned)
    close(follows, roi_align(features, rois, 3, 1 / 4, sampling_ratio, aligned) + shift)
    jump = roi_pool(features, moved_rois, 3, 1 / 4) - roi_pool(features, rois, 3, 1 / 4)
    assert torch.equal(jump, jump.round())  # whole cells, whatever the shift: never the fraction that it was


# The pyramid.


@pytest.mark.parametrize(
    ("width", "height", "level"),
    [
        (224, 224, 4),
        (223, 223, 3),
        (336, 336, 4),  # log2 of 1.5 is .58: floor, not round
        (447, 447, 4),
        (448, 448, 5),
        (112, 112, 3),
        (111, 111, 2),
        (448, 112, 4),  # by area: as large as 224 x 224
        (5000, 5000, 5),
        (1, 1, 2),
        (0, 300, 2),
        (0, 0, 2),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])  # the areas overflow in float16
def test_levels_by_hand(device: torch.device, width: int, height: int, level: int, dtype: torch.dtype) -> None:
    boxes = torch.tensor([[8, 0, 8 + width, height]], dtype=dtype, device=device)
    levels = assign_fpn_levels(boxes)
    assert levels.tolist() == [level]
    assert levels.dtype == torch.int64


@pytest.mark.parametrize(
    ("lowest", "highest", "size", "level"), [(2, 5, 224, 4), (3, 4, 224, 4), (2, 6, 64, 3), (0, 9, 224, 4)]
)
def test_levels_as_torchvision(device: torch.device, lowest: int, highest: int, size: float, level: int) -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2000, 2, generator=generator) * 500
    boxes = torch.cat([corner, corner + torch.exp(torch.rand(2000, 2, generator=generator) * 9 - 1)], dim=1).to(device)
    expected = LevelMapper(lowest, highest, size, level)([boxes]) + lowest
    assert torch.equal(assign_fpn_levels(boxes, lowest, highest, size, level), expected)


def test_a_box_of_336_px_is_on_p4_as_the_level_is_rounded_down() -> None:
    """log2(336 / 224) is 0.58: rounded to the nearest level, the box would be on P5."""
    assert assign_fpn_levels(torch.tensor([[0.0, 0.0, 336.0, 336.0]])).tolist() == [4]


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(0, 3), st.integers(3, 6))
def test_twice_the_size_is_one_level_up_within_the_levels_there_are(w: int, h: int, lowest: int, highest: int) -> None:
    boxes = torch.tensor([[0, 0, w, h], [7, 9, 7 + w, 9 + h], [0, 0, h, w], [0, 0, 2 * w, 2 * h]], dtype=torch.float64)
    free = assign_fpn_levels(boxes, -20, 20)
    assert free.diff().tolist() == [0, 0, 1]
    assert 224 * 2.0 ** (free[0] - 4) <= math.sqrt(w * h) * (1 + 1e-6) < 224 * 2.0 ** (free[0] - 3) * (1 + 1e-6)
    assert torch.equal(assign_fpn_levels(boxes, lowest, highest), free.clamp(lowest, highest))


def test_levels_of_no_boxes() -> None:
    assert assign_fpn_levels(torch.zeros(0, 4)).shape == (0,)


IMAGE = (256, 320)
STRIDES = (4, 8, 16, 32)


def random_pyramid(dtype: torch.dtype, strides: tuple[int, ...] = STRIDES) -> list[Tensor]:
    return [random_features(2, 3, IMAGE[0] // stride, IMAGE[1] // stride, dtype=dtype) for stride in strides]


def random_rois(number: int, dtype: torch.dtype) -> Tensor:
    """RoIs of all sizes within a 256 x 320 image, in the order of the images."""
    generator = torch.Generator().manual_seed(1)
    height, width = IMAGE
    corners = torch.rand(number, 2, 2, generator=generator, dtype=dtype) * torch.tensor([width, height])
    batch_index = torch.arange(number).mul(2).div(number, rounding_mode="floor").to(dtype)
    return torch.cat([batch_index[:, None], corners.amin(1), corners.amax(1)], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pyramid_as_torchvision(device: torch.device, dtype: torch.dtype) -> None:
    features = [level.to(device).requires_grad_() for level in random_pyramid(dtype)]
    rois = random_rois(60, dtype).to(device)
    assert set(assign_fpn_levels(rois[:, 1:], canonical_size=64).tolist()) == {2, 3, 4, 5}
    ours = pyramid_roi_align(features, rois, STRIDES, (5, 3), aligned=False, canonical_size=64)
    theirs = torchvision.ops.MultiScaleRoIAlign(list("2345"), (5, 3), sampling_ratio=2, canonical_scale=64)(
        dict(zip("2345", features, strict=True)), [rois[rois[:, 0] == image, 1:] for image in (0, 1)], [IMAGE, IMAGE]
    )
    close(ours, theirs)
    weights = torch.randn(ours.shape, dtype=dtype, generator=torch.Generator().manual_seed(0)).to(device)
    gradients = (torch.autograd.grad((pooled * weights).sum(), features) for pooled in (ours, theirs))
    for stride, own, other in zip(STRIDES, *gradients, strict=True):
        close(own, other, f"stride {stride}")


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_pyramid_is_align_on_the_level_of_each_roi(device: torch.device, sampling_ratio: int, aligned: bool) -> None:
    features = [level.to(device, memory_format=torch.channels_last) for level in random_pyramid(torch.float32)]
    rois = torch.tensor([[0, 0, 0, 112, 112], [1, 0, 0, 224, 224], [0, 9, 9, 30, 40], [1, 5, 5, 319, 255]])
    rois = rois.float().to(device)
    pooled = pyramid_roi_align(features, rois, STRIDES, (3, 4), sampling_ratio, aligned)
    assert pooled.is_contiguous(memory_format=torch.channels_last)
    for row, level in enumerate([3, 4, 2, 4]):
        alone = roi_align(features[level - 2], rois[row, None], (3, 4), 1 / 2**level, sampling_ratio, aligned)
        assert torch.equal(pooled[row, None], alone)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 1), *[st.integers(0, 250)] * 4), max_size=6), st.randoms())
def test_in_a_pyramid_every_roi_is_pooled_by_itself(rows: list[list[int]], random: Random) -> None:
    features = random_pyramid(torch.float64)
    rois = torch.tensor(rows, dtype=torch.float64).view(-1, 5)
    rois[:, 3:] += rois[:, 1:3]
    pooled = pyramid_roi_align(features, rois, STRIDES, 2, canonical_size=64)
    levels = assign_fpn_levels(rois[:, 1:], canonical_size=64)
    for row, (roi, level) in enumerate(zip(rois, levels.tolist(), strict=True)):
        close(pooled[row, None], roi_align(features[level - 2], roi[None], 2, 1 / 2**level))
    order = random.sample(range(len(rois)), len(rois))
    assert torch.equal(pyramid_roi_align(features, rois[order], STRIDES, 2, canonical_size=64), pooled[order])


def test_pyramid_of_other_levels() -> None:
    rois = torch.tensor([[0.0, 0, 0, 8, 8], [1.0, 0, 0, 255, 255]])  # would be P2, or lower still, and P4
    features = random_pyramid(torch.float32, (8, 16))
    close(pyramid_roi_align(features, rois, (8, 16), 2)[:1], roi_align(features[0], rois[:1], 2, 1 / 8))
    close(pyramid_roi_align(features, rois, (8, 16), 2)[1:], roi_align(features[1], rois[1:], 2, 1 / 16))
    close(pyramid_roi_align(features[1:], rois, [16], 2), roi_align(features[1], rois, 2, 1 / 16))


@pytest.mark.parametrize("number", [0, 1])
def test_pyramid_levels_without_rois_stay_in_the_graph(device: torch.device, number: int) -> None:
    features = [level.to(device).requires_grad_() for level in random_pyramid(torch.float32)]
    rois = torch.tensor([[0.0, 0, 0, 224, 224]], device=device)[:number]
    pooled = pyramid_roi_align(features, rois, STRIDES)
    assert pooled.shape == (number, 3, 7, 7)
    gradients = torch.autograd.grad(pooled.sum(), features)
    assert [bool(gradient.any()) for gradient in gradients] == [False, False, number == 1, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_pyramid_keeps_the_dtype_of_its_features(dtype: torch.dtype) -> None:
    rois = random_rois(5, torch.float32)
    assert pyramid_roi_align(random_pyramid(dtype), rois, STRIDES).dtype == dtype


# Errors.

FEATURES = torch.zeros(2, 3, 6, 6)
BAD_ROIS: dict[str, tuple[object, type[Exception], str]] = {
    "a list": (ACROSS.tolist(), TypeError, r"^rois must be a floating-point tensor, got list; convert"),
    "integers": (ACROSS.int(), TypeError, r"^rois must be a floating-point tensor, got torch.int32; .* rois.float\(\)"),
    "boxes": (ACROSS[:, 1:], ValueError, r"^rois must be of shape \(R, 5\), .* got \(2, 4\); put the batch index"),
    "one RoI": (ACROSS[0], ValueError, r"^rois must be of shape \(R, 5\), .* got \(5,\); "),
    "NaN": (torch.tensor([[0, 1, math.nan, 2, 2]]), ValueError, r"^rois\[:, 1:\]\[0\] is not finite: \[1.0, nan, "),
    "infinity": (torch.tensor([[0, 1, 1, math.inf, 2]]), ValueError, r"^rois\[:, 1:\]\[0\] is not finite: .* inf, "),
    "ends before it starts": (
        torch.tensor([[0.0, 1, 1, 2, 2], [0.0, 5, 5, 4, 4]]),
        ValueError,
        r"^rois\[:, 1:\]\[1\] must have x2 >= x1 and y2 >= y1, got \[5.0, 5.0, 4.0, 4.0\]; if these are",
    ),
    "an image too many": (
        torch.tensor([[1.0, 1, 1, 2, 2], [2.0, 1, 1, 2, 2]]),
        ValueError,
        r"^rois\[1, 0\] must be a batch index from 0 to 1, .* got 2; the columns are",
    ),
    "a negative image": (torch.tensor([[-1.0, 1, 1, 2, 2]]), ValueError, r"^rois\[0, 0\] must be a batch .* got -1; "),
    "half an image": (torch.tensor([[0.5, 1, 1, 2, 2]]), ValueError, r"^rois\[0, 0\] must be a batch .* got 0.5; "),
    "no image": (torch.tensor([[math.nan, 1, 1, 2, 2]]), ValueError, r"^rois\[0, 0\] must be a batch .* got nan; "),
}
BAD_FEATURES: dict[str, tuple[object, type[Exception], str]] = {
    "a list": ([FEATURES], TypeError, r"^features must be a floating-point tensor, got list; "),
    "integers": (FEATURES.byte(), TypeError, r"^features must be a floating-point tensor, got torch.uint8; "),
    "one map": (FEATURES[0], ValueError, r"^features must be of shape \(B, C, H, W\) .* got \(3, 6, 6\); .*\[None\]"),
    "no cells": (FEATURES[:, :, :, :0], ValueError, r"^features must be .* at least one cell, got \(2, 3, 6, 0\); "),
}
CALLS: dict[str, Callable[[Any, Any], Tensor]] = {
    "roi_pool": lambda features, rois: roi_pool(features, rois, 7, 1.0),
    "roi_align": lambda features, rois: roi_align(features, rois, 7, 1.0),
    "pyramid_roi_align": lambda features, rois: pyramid_roi_align([features], rois, [4]),
}


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("case", BAD_ROIS)
@pytest.mark.parametrize("name", CALLS)
def test_what_is_not_rois_is_refused(name: str, case: str) -> None:
    rois, error, message = BAD_ROIS[case]
    with pytest.raises(error, match=message):
        CALLS[name](FEATURES, rois)


@given(st.lists(st.sampled_from([-1, 0, 0.5, 1, 2, math.nan]), max_size=4))
def test_the_first_wrong_batch_index_is_named_and_rois_pass(indices: list[float]) -> None:
    rois = torch.tensor([[index, 0, 0, 1, 1] for index in indices], dtype=torch.float32).view(-1, 5)
    wrong = [row for row, index in enumerate(indices) if index not in (0, 1)]
    if not wrong:
        check_rois(FEATURES, rois)
    else:
        with pytest.raises(ValueError, match=rf"^rois\[{wrong[0]}, 0\] must be a batch index from 0 to 1"):
            check_rois(FEATURES, rois)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("case", BAD_FEATURES)
@pytest.mark.parametrize("name", CALLS)
def test_what_is_not_features_is_refused(name: str, case: str) -> None:
    features, error, message = BAD_FEATURES[case]
    with pytest.raises(error, match=message):
        CALLS[name](features, ACROSS)


@pytest.mark.parametrize("name", POOLINGS)
def test_bad_sizes_and_scales_are_refused(name: str) -> None:
    for size in (0, -7, (0, 7), (7, -1)):
        with pytest.raises(ValueError, match=r"^output_size must be at least one bin each way, got .*; 7 and 14"):
            POOLINGS[name](FEATURES, ACROSS, size, 1.0)
    for scale in (0.0, -0.25, math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"^spatial_scale must be positive, got {scale}; it is 1 / stride"):
            POOLINGS[name](FEATURES, ACROSS, 7, scale)


def test_a_negative_sampling_ratio_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^sampling_ratio must be 0 \(adaptive\) or more, got -1; "):
        roi_align(FEATURES, ACROSS, 7, 1.0, sampling_ratio=-1)


@pytest.mark.parametrize(
    ("levels", "strides"),
    [(0, []), (2, [4]), (1, [4, 8]), (2, [4, 6]), (2, [4, 16]), (2, [8, 4]), (2, [4, 4]), (1, [0]), (1, [-4])],
)
def test_strides_that_do_not_fit_are_refused(levels: int, strides: list[int]) -> None:
    came = re.escape(f"got {strides} for {levels} levels; P2 to P5 have")
    with pytest.raises(ValueError, match=f"^strides must be consecutive powers of two, .* one for each level, {came}"):
        pyramid_roi_align([FEATURES] * levels, ACROSS, strides)


def test_levels_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^min_level must not be above max_level, got 5 and 2; swap them$"):
        assign_fpn_levels(ACROSS[:, 1:], min_level=5, max_level=2)
