import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from rcnn_edu.ops import box_area, box_iou, check_boxes, clip_boxes, decode_boxes, encode_boxes
from rcnn_edu.ops.boxes import MAX_LOG_SCALE

IMAGE = (120, 160)  # H, W: not square, so that a mix-up of the two shows
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def random_boxes(n: int, seed: int, least: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Boxes of at least ``least`` pixels each way that lie in, across and beyond an image of 120 x 160."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator, dtype=dtype) * 220 - 40
    size = torch.rand(n, 2, generator=generator, dtype=dtype) * 80 + least
    return torch.cat([corner, corner + size], dim=1)


@st.composite
def exact_boxes(draw: st.DrawFn, least: int = 0, number: int | None = None) -> Tensor:
    """Boxes on a grid of 1/8 px: sums, differences and areas are exact in float64, so a property needs no tolerance."""
    coordinate, size = st.integers(-800, 800), st.integers(least, 800)
    row = st.tuples(coordinate, coordinate, size, size)
    rows = draw(st.lists(row, max_size=6) if number is None else st.lists(row, min_size=number, max_size=number))
    x, y, width, height = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4).unbind(1)
    return torch.stack([x, y, x + width, y + height], dim=1) / 8


# Area and IoU.


def test_area_by_hand(device: torch.device) -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 3.0], [1.5, 2.0, 2.0, 4.0], [5.0, 5.0, 5.0, 9.0]], device=device)
    assert box_area(boxes).tolist() == [12, 1, 0]  # a box from 0 to 4 is 4 wide, not 5


def test_iou_by_hand(device: torch.device) -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]], device=device)
    others = [
        [0.0, 0.0, 4.0, 4.0],  # itself
        [2.0, 2.0, 6.0, 6.0],  # 4 / (16 + 16 - 4)
        [1.0, 1.0, 3.0, 3.0],  # inside: 4 / 16
        [4.0, 0.0, 8.0, 4.0],  # touches along an edge
        [9.0, 9.0, 12.0, 12.0],  # far away, on both axes: two negative sides don't make a positive area
    ]
    expected = torch.tensor([[1, 1 / 7, 1 / 4, 0, 0]], device=device)
    torch.testing.assert_close(box_iou(boxes, torch.tensor(others, device=device)), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_area_and_iou_as_torchvision(device: torch.device, seed: int) -> None:
    boxes1, boxes2 = random_boxes(40, seed).to(device), random_boxes(30, 100 + seed).to(device)
    torch.testing.assert_close(box_area(boxes1), torchvision.ops.box_area(boxes1))
    torch.testing.assert_close(box_iou(boxes1, boxes2), torchvision.ops.box_iou(boxes1, boxes2))


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_iou_of_no_boxes(n: int, m: int) -> None:
    assert box_iou(torch.zeros(n, 4), torch.zeros(m, 4)).shape == (n, m)
    assert box_area(torch.zeros(n, 4)).shape == (n,)


def test_iou_of_boxes_without_area_is_zero_and_so_is_its_gradient(device: torch.device) -> None:
    point = [3.0, 3.0, 3.0, 3.0]
    line = [1.0, 3.0, 5.0, 3.0]
    boxes = torch.tensor([point, line, [0.0, 0.0, 6.0, 6.0]], device=device, requires_grad=True)
    iou = box_iou(boxes, boxes)
    torch.testing.assert_close(iou, torch.diag(torch.tensor([0.0, 0.0, 1.0], device=device)))
    iou.sum().backward()  # type: ignore[no-untyped-call]
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()


def test_iou_of_large_boxes_in_float16() -> None:
    boxes = torch.tensor([[0, 0, 600, 600], [0, 0, 600, 300]], dtype=torch.float16)  # areas beyond float16's 65,504
    assert box_iou(boxes, boxes).tolist() == [[1, 0.5], [0.5, 1]]


def test_iou_of_two_dtypes_is_in_the_wider_one() -> None:
    boxes = random_boxes(3, seed=0)
    assert box_iou(boxes, boxes.double()).dtype == torch.float64


@given(exact_boxes(), st.integers(-50, 50), st.integers(-3, 3))
def test_area_grows_with_the_square_and_does_not_depend_on_the_place(boxes: Tensor, shift: int, doublings: int) -> None:
    assert torch.equal(box_area((boxes + shift) * 2.0**doublings), box_area(boxes) * 4.0**doublings)


@given(exact_boxes(), exact_boxes())
def test_iou_is_symmetric_and_from_0_to_1(boxes1: Tensor, boxes2: Tensor) -> None:
    iou = box_iou(boxes1, boxes2)
    assert torch.equal(iou, box_iou(boxes2, boxes1).T)
    assert ((iou >= 0) & (iou <= 1)).all()


@given(exact_boxes())
def test_iou_with_itself_is_1_where_there_is_area(boxes: Tensor) -> None:
    assert torch.equal(box_iou(boxes, boxes).diagonal(), (box_area(boxes) > 0).double())


@given(exact_boxes(), exact_boxes(), st.integers(-50, 50), st.integers(-50, 50), st.integers(-3, 3))
def test_iou_does_not_change_under_shift_and_scale(
    boxes1: Tensor, boxes2: Tensor, right: int, down: int, doublings: int
) -> None:
    shift = torch.tensor([right, down, right, down])
    moved1, moved2 = (boxes1 + shift) * 2.0**doublings, (boxes2 + shift) * 2.0**doublings
    assert torch.equal(box_iou(moved1, moved2), box_iou(boxes1, boxes2))


# The codec.


def test_encode_by_hand(device: torch.device) -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 20.0]], device=device)  # centre (5, 10)
    gt_boxes = torch.tensor([[2.0, 3.0, 22.0, 13.0]], device=device)  # centre (12, 8), twice as wide, half as high
    expected = torch.tensor([[0.7, -0.1, math.log(2), -math.log(2)]], device=device)
    torch.testing.assert_close(encode_boxes(gt_boxes, boxes, weights=(1, 1, 1, 1)), expected)
    torch.testing.assert_close(encode_boxes(gt_boxes, boxes), expected * torch.tensor([10, 10, 5, 5], device=device))


def test_decode_by_hand(device: torch.device) -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 20.0]], device=device)
    deltas = torch.tensor([[7.0, -1.0, 5 * math.log(2), -5 * math.log(2)]], device=device)
    torch.testing.assert_close(decode_boxes(deltas, boxes), torch.tensor([[2.0, 3.0, 22.0, 13.0]], device=device))


def test_deltas_of_zero_leave_a_box_where_it_is() -> None:
    boxes = torch.tensor([[3.0, 4.0, 13.0, 8.0], [5.0, 5.0, 5.0, 5.0]])  # the second has no area
    assert torch.equal(decode_boxes(torch.zeros(2, 4), boxes), boxes)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (10, 10, 5, 5), (30, 30, 15, 15)])
@pytest.mark.parametrize("seed", range(5))
def test_codec_as_torchvision(device: torch.device, seed: int, weights: tuple[float, float, float, float]) -> None:
    boxes, gt_boxes = random_boxes(50, seed).to(device), random_boxes(50, 100 + seed).to(device)
    deltas = 10 * torch.randn(50, 4, generator=torch.Generator().manual_seed(seed)).to(device)
    coder = BoxCoder(weights)
    torch.testing.assert_close(encode_boxes(gt_boxes, boxes, weights), coder.encode_single(gt_boxes, boxes))
    torch.testing.assert_close(decode_boxes(deltas, boxes, weights), coder.decode_single(deltas, boxes))


def test_codec_of_no_boxes() -> None:
    nothing = torch.zeros(0, 4)
    assert encode_boxes(nothing, nothing).shape == (0, 4)
    assert decode_boxes(nothing, nothing).shape == (0, 4)


@pytest.mark.parametrize("log_scale", [100.0, math.inf])
def test_decode_limits_the_growth_of_a_size(device: torch.device, log_scale: float) -> None:
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0]], device=device)
    deltas = torch.tensor([[0.0, 0.0, log_scale, log_scale]], device=device)
    expected = torch.tensor([[-492.0, -492.0, 508.0, 508.0]], device=device)  # 1000 px around (8, 8)
    torch.testing.assert_close(decode_boxes(deltas, boxes, weights=(1, 1, 1, 1)), expected)


def test_the_largest_growth_is_decoded_unclamped() -> None:
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0]], dtype=torch.float64)
    gt_boxes = torch.tensor([[-492.0, -492.0, 508.0, 508.0]], dtype=torch.float64)
    deltas = encode_boxes(gt_boxes, boxes, weights=(1, 1, 1, 1))
    assert deltas[0, 2].item() == pytest.approx(MAX_LOG_SCALE)
    torch.testing.assert_close(decode_boxes(deltas, boxes, weights=(1, 1, 1, 1)), gt_boxes)


@given(exact_boxes(least=16, number=4), exact_boxes(least=16, number=4))  # sizes differ by at most 1:50
def test_decode_undoes_encode(gt_boxes: Tensor, boxes: Tensor) -> None:
    deltas = encode_boxes(gt_boxes, boxes)
    torch.testing.assert_close(decode_boxes(deltas, boxes), gt_boxes, rtol=0, atol=1e-10)


@given(exact_boxes(least=16, number=4), exact_boxes(least=16, number=4), st.integers(-50, 50), st.integers(-3, 3))
def test_deltas_do_not_depend_on_place_and_size(gt_boxes: Tensor, boxes: Tensor, shift: int, doublings: int) -> None:
    moved_gt, moved = (gt_boxes + shift) * 2.0**doublings, (boxes + shift) * 2.0**doublings
    torch.testing.assert_close(encode_boxes(moved_gt, moved), encode_boxes(gt_boxes, boxes), rtol=0, atol=1e-12)


# Clipping.


def test_clip_by_hand(device: torch.device) -> None:
    boxes = [
        [10.0, 10.0, 20.0, 20.0],  # inside
        [-5.0, 100.0, 170.0, 130.0],  # beyond three sides
        [170.0, 130.0, 180.0, 140.0],  # outside altogether: a point in the corner
    ]
    expected = [[10.0, 10.0, 20.0, 20.0], [0.0, 100.0, 160.0, 120.0], [160.0, 120.0, 160.0, 120.0]]
    assert clip_boxes(torch.tensor(boxes, device=device), IMAGE).tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_clip_as_torchvision(device: torch.device, seed: int) -> None:
    boxes = random_boxes(100, seed).to(device)
    assert torch.equal(clip_boxes(boxes, IMAGE), torchvision.ops.clip_boxes_to_image(boxes, IMAGE))


@given(exact_boxes())
def test_clipping_twice_is_clipping_once_and_a_valid_box(boxes: Tensor) -> None:
    clipped = clip_boxes(boxes, IMAGE)
    check_boxes(clipped)
    assert torch.equal(clip_boxes(clipped, IMAGE), clipped)


# What holds for all of them.

OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "box_area": lambda boxes, others: box_area(boxes),
    "box_iou": box_iou,
    "encode_boxes": encode_boxes,
    "decode_boxes": decode_boxes,
    "clip_boxes": lambda boxes, others: clip_boxes(boxes, IMAGE),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_dtype_and_device_are_kept_and_inputs_unchanged(device: torch.device, name: str, dtype: torch.dtype) -> None:
    boxes, others = random_boxes(5, seed=0).to(device, dtype), random_boxes(5, seed=1).to(device, dtype)
    before = boxes.clone(), others.clone()
    result = OPERATIONS[name](boxes, others)
    assert result.dtype == dtype
    assert result.device.type == device.type
    assert torch.equal(boxes, before[0])
    assert torch.equal(others, before[1])


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients(device: torch.device, name: str) -> None:
    boxes = random_boxes(4, seed=2, least=8, dtype=torch.float64).to(device).requires_grad_()
    others = random_boxes(4, seed=3, least=8, dtype=torch.float64).to(device)
    if name == "decode_boxes":  # its first argument is deltas
        boxes = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        boxes = boxes.to(device).requires_grad_()
    assert torch.autograd.gradcheck(OPERATIONS[name], (boxes, others.requires_grad_()))


# Errors: each names the argument and the row, says what came, what was expected and what to do.

GOOD = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
NOT_BOXES: dict[str, tuple[object, type[Exception], str]] = {  # what came, the error, its message after the name
    "one box without its axis": (
        torch.zeros(4),
        ValueError,
        r" must be of shape \(n, 4\).* got \(4,\); .*: box\[None\]$",
    ),
    "five columns": (torch.zeros(2, 5), ValueError, r" must be of shape \(n, 4\).* got \(2, 5\)"),
    "a batch": (torch.zeros(1, 2, 4), ValueError, r" must be of shape \(n, 4\).* got \(1, 2, 4\)"),
    "integers": (GOOD.long(), TypeError, r" must be a floating-point tensor, got torch.int64; convert: "),
    "a list": (GOOD.tolist(), TypeError, r" must be a floating-point tensor, got list; convert: torch.as_tensor\("),
    "NaN": (torch.tensor([[0.0, 0, 1, 1], [0, math.nan, 1, 1]]), ValueError, r"\[1\] is not finite: \[0.0, nan, "),
    "infinity": (torch.tensor([[0.0, 0, math.inf, 1]]), ValueError, r"\[0\] is not finite: .* inf, "),
    "infinity twice": (torch.tensor([[math.inf, 0, math.inf, 1]]), ValueError, r"\[0\] is not finite: \[inf, "),
    "width and height": (
        torch.tensor([[0.0, 0, 9, 9], [30, 40, 20, 50]]),
        ValueError,
        r"\[1\] must have x2 >=? x1 and y2 >=? y1, got \[30.0, 40.0, 20.0, 50.0\]; if these are \(x, y, width, ",
    ),
    "upside down": (torch.tensor([[0.0, 5, 4, 1]]), ValueError, r"\[0\] must have x2 >=? x1 and y2 >=? y1, got "),
}
TAKES_BOXES: dict[str, tuple[str, Callable[[Any], object]]] = {  # the argument's name, a call that passes it
    "box_area": ("boxes", box_area),
    "box_iou, first": ("boxes1", lambda bad: box_iou(bad, GOOD)),
    "box_iou, second": ("boxes2", lambda bad: box_iou(GOOD, bad)),
    "encode_boxes, first": ("gt_boxes", lambda bad: encode_boxes(bad, GOOD)),
    "encode_boxes, second": ("boxes", lambda bad: encode_boxes(GOOD, bad)),
    "decode_boxes": ("boxes", lambda bad: decode_boxes(GOOD, bad)),
    "clip_boxes": ("boxes", lambda bad: clip_boxes(bad, IMAGE)),
    "check_boxes": ("anchors", lambda bad: check_boxes(bad, "anchors")),
}


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("operation", TAKES_BOXES)
@pytest.mark.parametrize("case", NOT_BOXES)
def test_what_is_not_boxes_is_refused(operation: str, case: str) -> None:
    name, call = TAKES_BOXES[operation]
    bad, error, message = NOT_BOXES[case]
    with pytest.raises(error, match="^" + name + message):
        call(bad)


COORDINATES = st.one_of(st.integers(-4, 4), st.sampled_from([math.nan, math.inf, -math.inf]))


@given(st.lists(st.tuples(*[COORDINATES] * 4), max_size=3), st.booleans())
def test_the_first_row_that_is_not_a_box_is_named_and_boxes_pass(rows: list[list[float]], positive_size: bool) -> None:
    boxes = torch.tensor(rows, dtype=torch.float32).view(-1, 4)
    least = 1 if positive_size else 0
    wrong = [
        i
        for i, (x1, y1, x2, y2) in enumerate(rows)
        if not (all(map(math.isfinite, (x1, y1, x2, y2))) and x2 - x1 >= least and y2 - y1 >= least)
    ]
    if not wrong:
        check_boxes(boxes, positive_size=positive_size)
    else:
        with pytest.raises(ValueError, match=rf"^boxes\[{wrong[0]}\] (is not finite|must have x2 >=? x1)"):
            check_boxes(boxes, positive_size=positive_size)


@pytest.mark.parametrize("no_size", [[1.0, 1.0, 1.0, 4.0], [1.0, 1.0, 4.0, 1.0]], ids=["no width", "no height"])
def test_only_encode_refuses_boxes_without_area(no_size: list[float]) -> None:
    line = torch.tensor([no_size])
    for gt_boxes, boxes, name in ((line, GOOD, "gt_boxes"), (GOOD, line, "boxes")):
        with pytest.raises(ValueError, match=rf"^{name}\[0\] must have x2 > x1 and y2 > y1, got"):
            encode_boxes(gt_boxes, boxes)
    assert box_area(line).item() == 0
    assert torch.equal(clip_boxes(line, IMAGE), line)
    assert torch.equal(decode_boxes(torch.zeros(1, 4), line), line)


@pytest.mark.usefixtures("without_shape_checks")
def test_rows_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^gt_boxes and boxes must pair up row by row, got 1 and 3 rows; "):
        encode_boxes(GOOD, GOOD.expand(3, 4))
    with pytest.raises(ValueError, match=r"^deltas must be of the boxes' shape \(1, 4\), got \(1, 8\); .* classes"):
        decode_boxes(torch.zeros(1, 8), GOOD)
    with pytest.raises(ValueError, match=r"^deltas must be of the boxes' shape \(3, 4\), got \(1, 4\)"):
        decode_boxes(torch.zeros(1, 4), GOOD.expand(3, 4))


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (-1, 10)])
def test_clip_refuses_an_empty_image(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"^size must be a positive \(H, W\), got \({size[0]}, {size[1]}\); "):
        clip_boxes(GOOD, size)
