import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from rcnn_edu.ops import crop_masks, paste_masks

IMAGE = (40, 60)  # H, W


def random_boxes(n: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Boxes in, across and beyond the image."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator, dtype=dtype) * 80 - 20
    return torch.cat([corner, corner + 1 + torch.rand(n, 2, generator=generator, dtype=dtype) * 40], dim=1)


def random_probs(n: int, height: int = 7, width: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, height, width, generator=torch.Generator().manual_seed(0), dtype=dtype)


def rectangle(x1: int, y1: int, x2: int, y2: int) -> Tensor:
    mask = torch.zeros(IMAGE, dtype=torch.bool)
    mask[y1:y2, x1:x2] = True
    return mask


@st.composite
def rectangles(draw: st.DrawFn, least: int) -> tuple[int, int, int, int]:
    """Whole-pixel boxes within the image."""
    x1, y1 = draw(st.integers(0, IMAGE[1] - least)), draw(st.integers(0, IMAGE[0] - least))
    return x1, y1, draw(st.integers(x1 + least, IMAGE[1])), draw(st.integers(y1 + least, IMAGE[0]))


# Pasting.


def test_paste_by_hand(device: torch.device) -> None:
    """Two cells over four pixels: a pixel's centre lies 1/4 or 3/4 of a cell from a cell's border."""
    probs = torch.tensor([[[0.0, 1.0]]], device=device)
    boxes = torch.tensor([[1.0, 2.0, 5.0, 3.0]], device=device)
    pasted = paste_masks(probs, boxes, (4, 8))[0]
    assert pasted[2].tolist() == [0, 0, 0.25, 0.75, 0.75, 0.25, 0, 0]  # falls to 0 beyond the last cell's centre
    assert pasted[[0, 1, 3]].count_nonzero() == 0


def test_a_mask_full_of_ones_crosses_one_half_on_the_sides_of_its_box(device: torch.device) -> None:
    boxes = torch.tensor([[10.0, 5.0, 30.0, 25.0], [10.4, 5.6, 30.6, 25.4]], device=device)
    pasted = paste_masks(torch.ones(2, 28, 28, device=device), boxes, IMAGE) > 0.5
    for x1, y1, x2, y2, mask in ((10, 5, 30, 25, pasted[0]), (10, 6, 31, 25, pasted[1])):  # centres at 0.5 decide
        assert torch.equal(mask.cpu(), rectangle(x1, y1, x2, y2))


def test_paste_adds_no_pixel_to_the_width(device: torch.device) -> None:
    """The legacy width of x2 - x1 + 1 would make an object of 20 pixels one of 21."""
    pasted = paste_masks(torch.ones(1, 14, 14, device=device), torch.tensor([[10.0, 5, 30, 25]], device=device), IMAGE)
    assert int((pasted > 0.5).sum()) == 20 * 20


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_paste_is_grid_sample_over_the_whole_image(device: torch.device, seed: int, dtype: torch.dtype) -> None:
    probs, boxes = random_probs(20, dtype=dtype).to(device), random_boxes(20, seed, dtype).to(device)
    y, x = (torch.arange(size, dtype=dtype, device=device) + 0.5 for size in IMAGE)
    start, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    grid_x = 2 * (x - start[:, :1]) / size[:, :1] - 1
    grid_y = 2 * (y - start[:, 1:]) / size[:, 1:] - 1
    grid = torch.stack([grid_x[:, None, :].expand(-1, *IMAGE), grid_y[:, :, None].expand(-1, *IMAGE)], dim=-1)
    expected = F.grid_sample(probs[:, None], grid, align_corners=False)[:, 0]
    torch.testing.assert_close(paste_masks(probs, boxes, IMAGE), expected, rtol=0, atol=1e-5)


def test_boxes_beyond_the_image_or_without_area_paste_nothing(device: torch.device) -> None:
    boxes = [[-30.0, 5, -10, 25], [70, 5, 90, 25], [10, -30, 30, -10], [10, 50, 30, 70], [20, 20, 20, 20]]
    pasted = paste_masks(torch.ones(5, 28, 28, device=device), torch.tensor(boxes, device=device), IMAGE)
    assert pasted.count_nonzero() == 0


def test_a_box_far_larger_than_the_image(device: torch.device) -> None:
    boxes = torch.tensor([[-1e6, -1e6, 1e6, 1e6]], device=device)
    assert torch.equal(paste_masks(torch.ones(1, 2, 2, device=device), boxes, IMAGE).cpu(), torch.ones(1, *IMAGE))


def test_paste_nothing(device: torch.device) -> None:
    pasted = paste_masks(torch.zeros(0, 28, 28, device=device), torch.zeros(0, 4, device=device), IMAGE)
    assert pasted.shape == (0, *IMAGE)


def test_what_was_pasted_is_the_caller_s_own() -> None:
    """The memory is fresh, may be written, and stays while anything looks at it."""
    probs, boxes = random_probs(3), random_boxes(3, 0)
    first = paste_masks(probs, boxes, IMAGE)
    expected = first.clone()
    first.add_(1)
    row = paste_masks(probs, boxes, IMAGE)[1]
    assert torch.equal(row, expected[1])


@given(rectangles(4), st.integers(-3, 3), st.integers(-3, 3), st.integers(1, 9))
def test_paste_follows_its_box(box: tuple[int, int, int, int], right: int, down: int, cells: int) -> None:
    probs = random_probs(1, cells, cells, torch.float64)
    boxes = torch.tensor([box], dtype=torch.float64)
    pasted = paste_masks(probs, boxes, IMAGE)
    moved = paste_masks(probs, boxes + torch.tensor([right, down, right, down]), IMAGE)
    inner = (slice(None), slice(3, -3), slice(3, -3))
    torch.testing.assert_close(moved[inner], pasted.roll((down, right), dims=(1, 2))[inner], rtol=0, atol=1e-12)
    assert ((pasted >= 0) & (pasted <= 1 + 1e-12)).all()


@given(rectangles(1), st.integers(4, 28))
def test_a_rectangle_pastes_back_onto_itself(box: tuple[int, int, int, int], size: int) -> None:
    boxes = torch.tensor([box], dtype=torch.float64)
    pasted = paste_masks(torch.ones(1, size, size, dtype=torch.float64), boxes, IMAGE)[0] > 0.5
    x, y = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2  # along the middles: corners are round if pixels are small
    assert torch.equal(pasted[y], rectangle(*box)[y])
    assert torch.equal(pasted[:, x], rectangle(*box)[:, x])
    assert not (pasted & ~rectangle(*box)).any()


# Cropping.


def test_crop_by_hand(device: torch.device) -> None:
    mask = rectangle(0, 0, 4, 40).to(device)  # the left four columns
    boxes = torch.tensor([[2.0, 0, 10, 8], [1, 0, 9, 8], [0, 0, 4, 4], [8, 8, 16, 16]], device=device)
    crops = crop_masks(mask.expand(4, -1, -1), boxes, 4)
    assert crops[0].tolist() == [[1, 0, 0, 0]] * 4  # a bin is two pixels wide
    assert crops[1].tolist() == [[1, 0.5, 0, 0]] * 4  # and its value the share of it that is mask
    assert crops[2].tolist() == [[1, 1, 1, 1]] * 4
    assert crops[3].tolist() == [[0, 0, 0, 0]] * 4


def test_boxes_may_share_masks(device: torch.device) -> None:
    masks = torch.stack([rectangle(0, 0, 20, 20), rectangle(30, 10, 50, 30)]).to(device)
    boxes = torch.tensor([[0.0, 0, 20, 20], [30, 10, 50, 30], [25, 5, 55, 35]], device=device)
    index = torch.tensor([0, 1, 1], device=device)
    assert torch.equal(crop_masks(masks, boxes, 7, index), crop_masks(masks[index], boxes, 7))


@pytest.mark.parametrize("seed", range(3))
def test_crop_as_torchvision(device: torch.device, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = (torch.rand(4, *IMAGE, generator=generator) > 0.5).byte().to(device)
    boxes = random_boxes(25, seed)
    height, width = IMAGE
    beyond = [  # hardly touching the image, or not at all, without area, or all of it
        [-9, -9, -0.5, -0.5],
        [width, height, width + 9, height + 9],
        [width + 2, 3, width + 9, 9],
        [7, 7, 7, 7],
        [-50, -60, width + 70, height + 90],
    ]
    boxes = torch.cat([boxes, torch.tensor(beyond)]).to(device)
    index = torch.randint(4, (30,), generator=generator).to(device)
    expected = project_masks_on_boxes(masks, boxes, index, 28)
    torch.testing.assert_close(crop_masks(masks, boxes, 28, index, aligned=False), expected, rtol=0, atol=1e-5)
    rois = torch.cat([index[:, None], boxes], dim=1)
    for size in (1, 7):
        expected = torchvision.ops.roi_align(masks[:, None].float(), rois, size, 1.0, aligned=True)[:, 0]
        torch.testing.assert_close(crop_masks(masks, boxes, size, index), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.float64])
def test_a_mask_may_be_of_any_type(device: torch.device, dtype: torch.dtype) -> None:
    masks = torch.stack([rectangle(3, 4, 20, 30), rectangle(10, 10, 40, 33)]).to(device)
    boxes = torch.tensor([[1.0, 2.0, 25.0, 28.0], [12.5, 7.25, 44.0, 36.0]], device=device)
    crops = crop_masks(masks.to(dtype), boxes, 14)
    assert crops.dtype == torch.float32
    assert torch.equal(crops, crop_masks(masks, boxes, 14))


def test_half_precision_boxes_still_find_their_mask(device: torch.device) -> None:
    """An index of 300 is none of bfloat16's numbers."""
    masks = torch.zeros(301, 4, 4, dtype=torch.bool, device=device)
    masks[299] = True
    boxes = torch.tensor([[0.0, 0, 4, 4]], dtype=torch.bfloat16, device=device)
    assert crop_masks(masks, boxes, 2, torch.tensor([299], device=device)).tolist() == [[[1, 1], [1, 1]]]


@pytest.mark.parametrize("number", [0, 3])
def test_crop_no_boxes(device: torch.device, number: int) -> None:
    masks = torch.zeros(number, *IMAGE, dtype=torch.bool, device=device)
    index = torch.zeros(0, dtype=torch.long, device=device)
    assert crop_masks(masks, torch.zeros(0, 4, device=device), 28, index).shape == (0, 28, 28)


@given(rectangles(4), st.integers(1, 28))
def test_within_a_rectangle_a_crop_is_one_and_around_it_its_share(box: tuple[int, int, int, int], size: int) -> None:
    mask = rectangle(*box)[None]
    x1, y1, x2, y2 = box
    inside = torch.tensor([[x1 + 0.5, y1 + 0.5, x2 - 0.5, y2 - 0.5]], dtype=torch.float64)
    torch.testing.assert_close(crop_masks(mask, inside, size), torch.ones(1, size, size, dtype=torch.float64))
    crop = crop_masks(mask, torch.tensor([[0.0, 0.0, IMAGE[1], IMAGE[0]]], dtype=torch.float64), size)
    assert ((crop >= 0) & (crop <= 1 + 1e-12)).all()


@given(rectangles(6))
def test_a_mask_comes_back_from_crop_and_paste(box: tuple[int, int, int, int]) -> None:
    """A RoI a little larger than the object, as proposals are: at 28 x 28, nothing is lost at one half."""
    x1, y1, x2, y2 = box
    boxes = torch.tensor([[x1 - 2.0, y1 - 3.0, x2 + 3.0, y2 + 2.0]], dtype=torch.float64)
    mask = rectangle(*box)
    crops = crop_masks(mask[None], boxes, 28)
    pasted = paste_masks(crops, boxes, IMAGE)[0] > 0.5
    union, common = int((pasted | mask).sum()), int((pasted & mask).sum())
    assert common / union > 0.9


# What holds for both.


def test_gradients(device: torch.device) -> None:
    boxes = random_boxes(3, 0, torch.float64).to(device)
    probs = random_probs(3, dtype=torch.float64).to(device).requires_grad_()
    assert torch.autograd.gradcheck(lambda probs: paste_masks(probs, boxes, (9, 11)), probs)
    masks = random_probs(3, 9, 11, torch.float64).to(device).requires_grad_()
    assert torch.autograd.gradcheck(lambda masks: crop_masks(masks, boxes / 4, 3), masks)


def test_autocast_changes_nothing(device: torch.device) -> None:
    """Targets and pasted masks are as exact in a mixed-precision run as in any other."""
    probs, boxes = random_probs(4).to(device), random_boxes(4, 1).to(device)
    masks = (random_probs(4, *IMAGE) > 0.5).to(device)
    outside = paste_masks(probs, boxes, IMAGE), crop_masks(masks, boxes, 28)
    with torch.autocast(device.type, torch.bfloat16):
        inside = paste_masks(probs, boxes, IMAGE), crop_masks(masks, boxes, 28)
    assert all(torch.equal(*pair) for pair in zip(inside, outside, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_paste_keeps_the_dtype_of_the_masks_and_changes_no_input(device: torch.device, dtype: torch.dtype) -> None:
    probs, boxes = random_probs(4).to(device, dtype), random_boxes(4, 1).to(device)
    before = probs.clone(), boxes.clone()
    pasted = paste_masks(probs, boxes, IMAGE)
    assert pasted.dtype == dtype
    assert pasted.device.type == device.type
    torch.testing.assert_close(pasted, paste_masks(probs.float(), boxes, IMAGE).to(dtype), rtol=0, atol=1e-6)
    assert torch.equal(probs, before[0])
    assert torch.equal(boxes, before[1])


# Errors.

GOOD = torch.tensor([[0.0, 0.0, 4.0, 4.0]])


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("shape", [(2, 28, 28), (28, 28), (1, 3, 28, 28), (1, 0, 28)])
def test_masks_that_do_not_fit_their_boxes_are_refused(shape: tuple[int, ...]) -> None:
    came = re.escape(f"got {shape}")
    with pytest.raises(
        ValueError, match=rf"^mask_probs must be of shape \(n, h, w\), one for each of 1 .*{came}; choose"
    ):
        paste_masks(torch.zeros(shape), GOOD, IMAGE)


@pytest.mark.usefixtures("without_shape_checks")
def test_masks_that_cannot_be_cropped_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^masks must be of shape \(n, H, W\), one for each of 1 boxes, got \(2, 40, 60\)"
    ):
        crop_masks(torch.zeros(2, *IMAGE), GOOD, 7)
    with pytest.raises(ValueError, match=r"^masks must be of shape .* got \(40, 60\); mask_index, .* lets boxes share"):
        crop_masks(torch.zeros(IMAGE), GOOD, 7, torch.tensor([0]))
    for index in (2, -1):
        with pytest.raises(ValueError, match=rf"^mask_index must be from 0 to 1, .* got \[{index}\]$"):
            crop_masks(torch.zeros(2, *IMAGE), GOOD, 7, torch.tensor([index]))
    with pytest.raises(ValueError, match=r"^size must be at least one bin, got 0; 28 is usual$"):
        crop_masks(torch.zeros(1, *IMAGE), GOOD, 0)


@pytest.mark.usefixtures("without_shape_checks")
def test_what_is_not_boxes_is_refused() -> None:
    bad: list[tuple[Any, type[Exception], str]] = [
        (torch.tensor([[30.0, 40.0, 20.0, 50.0]]), ValueError, r"^boxes\[0\] must have x2 >= x1 .* \(x, y, width,"),
        (GOOD[0], ValueError, r"^boxes must be of shape \(n, 4\)"),
        (GOOD.long(), TypeError, r"^boxes must be a floating-point tensor, got torch.int64"),
    ]
    for boxes, error, message in bad:
        with pytest.raises(error, match=message):
            crop_masks(torch.zeros(1, *IMAGE), boxes, 7)
        with pytest.raises(error, match=message):
            paste_masks(torch.zeros(1, 7, 7), boxes, IMAGE)


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (-1, 10)])
def test_paste_refuses_an_empty_image(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"^image_size must be a positive \(H, W\), got \({size[0]}, {size[1]}\)"):
        paste_masks(torch.zeros(1, 7, 7), GOOD, size)
