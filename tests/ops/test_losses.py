import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork

from rcnn_edu.ops import box_head_loss, crop_masks, mask_loss, rpn_loss

CLASSES = 3
Losses = tuple[Tensor, Tensor]


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_labels(n: int, most: int, seed: int = 0) -> Tensor:
    return torch.randint(most + 1, (n,), generator=torch.Generator().manual_seed(seed))


def smooth_l1(difference: float, beta: float) -> float:
    return difference**2 / 2 / beta if abs(difference) < beta else abs(difference) - beta / 2


# By hand.


def test_rpn_loss_by_hand(device: torch.device) -> None:
    logits = torch.tensor([0.0, math.log(3), -math.log(3)], device=device)  # probabilities 1/2, 3/4, 1/4
    labels = torch.tensor([1, 0, 0], device=device)
    deltas = torch.tensor([[1.0, 2.0, 3.0, 4.0], [9.0] * 4, [9.0] * 4], device=device)
    targets = torch.tensor([[1.0, 1.75, 3.05, 6.0]], device=device)
    objectness, box = rpn_loss(logits, deltas, labels, targets, beta=0.1)
    assert objectness.item() == pytest.approx((math.log(2) + math.log(4) + math.log(4 / 3)) / 3)
    expected = smooth_l1(0, 0.1) + smooth_l1(0.25, 0.1) + smooth_l1(0.05, 0.1) + smooth_l1(2, 0.1)
    assert box.item() == pytest.approx(expected / 3)  # by all three sampled anchors, not by the one positive


def test_box_head_loss_by_hand(device: torch.device) -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]], device=device)  # softmax over the classes: 1/2, 3/4
    labels = torch.tensor([0, 1], device=device)
    deltas = torch.tensor([[[7.0, 7.0, 7.0, 7.0]], [[1.0, 2.0, 3.0, 4.0]]], device=device)
    targets = torch.tensor([[1.0, 2.5, 3.0, 3.0]], device=device)
    classes, box = box_head_loss(logits, deltas, labels, targets, beta=0)
    assert classes.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert box.item() == pytest.approx((0.5 + 1) / 2)  # beta 0 is L1


def test_mask_loss_by_hand(device: torch.device) -> None:
    logits = torch.full((1, 2, 1, 2), 99.0, device=device)
    logits[0, 1, 0] = torch.tensor([0.0, math.log(3)])
    loss = mask_loss(logits, torch.tensor([2], device=device), torch.tensor([[[1.0, 0.0]]], device=device))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


# torchvision, given the same samples.


@pytest.mark.parametrize("seed", range(3))
def test_rpn_loss_as_torchvision(device: torch.device, seed: int) -> None:
    n = 400
    logits, deltas, targets = (randn(n, *shape, seed=seed + i).to(device) for i, shape in enumerate([(), (4,), (4,)]))
    labels = random_labels(n, 1, seed).to(device)
    sampled = random_labels(n, 1, seed + 1).bool().to(device)
    drawn = SimpleNamespace(fg_bg_sampler=lambda labels: ([sampled & (labels[0] == 1)], [sampled & (labels[0] == 0)]))
    network = cast(Any, drawn)  # all that compute_loss asks of the network is its sampler
    expected = RegionProposalNetwork.compute_loss(network, logits[:, None], deltas, [labels.float()], [targets])
    positive = labels[sampled] > 0
    losses = rpn_loss(logits[sampled], deltas[sampled], labels[sampled], targets[sampled][positive])
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_box_head_loss_as_torchvision(device: torch.device, seed: int) -> None:
    n = 200
    logits, deltas = randn(n, CLASSES + 1, seed=seed).to(device), randn(n, CLASSES + 1, 4, seed=seed + 1).to(device)
    targets, labels = randn(n, 4, seed=seed + 2).to(device), random_labels(n, CLASSES, seed).to(device)
    expected = fastrcnn_loss(logits, deltas.flatten(1), [labels], [targets])
    losses = box_head_loss(logits, deltas[:, 1:], labels, targets[labels > 0])  # it has deltas for background too
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_mask_loss_as_torchvision(device: torch.device, seed: int) -> None:
    logits = randn(10, CLASSES + 1, 28, 28, seed=seed).to(device)
    gt_masks = (randn(2, 40, 50, seed=seed) > 0).byte().to(device)
    gt_labels, index = torch.tensor([1, 3], device=device), random_labels(10, 1, seed).to(device)
    corner = 20 * torch.rand(10, 2, generator=torch.Generator().manual_seed(seed))
    boxes = torch.cat([corner, corner + 5 + corner], dim=1).to(device)
    expected = maskrcnn_loss(logits, [boxes], [gt_masks], [gt_labels], [index])
    targets = crop_masks(gt_masks, boxes, 28, index, aligned=False)
    loss = mask_loss(logits[:, 1:], gt_labels[index], targets)  # it has a mask for background too
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


# The traps.


def test_a_loss_over_nothing_is_zero_with_its_graph(device: torch.device) -> None:
    """An image without objects: each loss 0, not NaN, and each parameter gets a gradient, so that DDP goes on."""
    weight = torch.ones(4, device=device, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long, device=device)
    empty = torch.zeros(0, 4, device=device)
    losses = [
        *rpn_loss((empty * weight).sum(dim=1), empty * weight, none, empty),
        *box_head_loss(empty * weight, (empty * weight)[:, None], none, empty),
        mask_loss(empty.view(0, 1, 2, 2) * weight.view(2, 2), none, empty.view(0, 2, 2)),
    ]
    for loss in losses:
        assert loss.item() == 0
        [gradient] = torch.autograd.grad(loss, weight)
        assert torch.equal(gradient, torch.zeros(4, device=device))


def test_a_box_loss_without_positives_is_zero_with_its_graph(device: torch.device) -> None:
    """The mean of a smooth L1 over no rows would be NaN."""
    deltas = torch.ones(5, 1, 4, device=device, requires_grad=True)
    labels = torch.zeros(5, dtype=torch.long, device=device)
    nothing = torch.zeros(0, 4, device=device)
    for loss in (
        rpn_loss(torch.zeros(5, device=device), deltas[:, 0], labels, nothing)[1],
        box_head_loss(torch.zeros(5, 2, device=device), deltas, labels, nothing)[1],
    ):
        assert loss.item() == 0
        [gradient] = torch.autograd.grad(loss, deltas)
        assert torch.equal(gradient, torch.zeros_like(deltas))


@pytest.mark.parametrize("wild", [math.inf, -math.inf, math.nan])
def test_what_is_not_sampled_cannot_spoil_a_loss(device: torch.device, wild: float) -> None:
    """Rows are picked by index: multiplied by a mask of zeros, an infinity would become NaN."""
    deltas = torch.tensor([[1.0] * 4, [wild] * 4], device=device)
    labels, targets = torch.tensor([1, 0], device=device), torch.zeros(1, 4, device=device)
    assert rpn_loss(torch.zeros(2, device=device), deltas, labels, targets, beta=0)[1].item() == 2
    of_classes = torch.stack([deltas, deltas.flip(0)], dim=1).requires_grad_()  # the second class: the other way round
    loss = box_head_loss(torch.zeros(2, 3, device=device), of_classes, labels, targets, beta=0)[1]
    assert loss.item() == 2
    assert torch.autograd.grad(loss, of_classes)[0].isfinite().all()
    logits = torch.zeros(1, 2, 3, 3, device=device)
    logits[:, 1] = wild
    loss = mask_loss(logits.requires_grad_(), torch.tensor([1], device=device), torch.ones(1, 3, 3, device=device))
    assert loss.item() == pytest.approx(math.log(2))
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_softmax_is_over_classes_and_not_over_rois(device: torch.device) -> None:
    """A row's loss does not depend on the other rows."""
    logits, deltas = randn(6, CLASSES + 1).to(device), torch.zeros(6, 1, 4, device=device)
    labels = random_labels(6, CLASSES).to(device)
    targets = torch.zeros(6, 4, device=device)
    alone = [
        box_head_loss(logits[i, None], deltas[:1], labels[i, None], targets[: int(labels[i] > 0)])[0] for i in range(6)
    ]
    together = box_head_loss(logits, deltas, labels, targets[labels > 0])[0]
    torch.testing.assert_close(together, torch.stack(alone).mean())


@pytest.mark.parametrize("label", [1, 2, 3])
def test_a_class_s_mask_and_deltas_are_in_channel_label_minus_one(device: torch.device, label: int) -> None:
    labels = torch.tensor([label], device=device)
    logits = torch.zeros(1, CLASSES, 2, 2, device=device, requires_grad=True)
    [gradient] = torch.autograd.grad(mask_loss(logits, labels, torch.ones(1, 2, 2, device=device)), logits)
    assert [bool(channel.any()) for channel in gradient[0]] == [channel == label - 1 for channel in range(CLASSES)]
    deltas = torch.ones(1, CLASSES, 4, device=device, requires_grad=True)
    _, loss = box_head_loss(
        torch.zeros(1, CLASSES + 1, device=device), deltas, labels, torch.zeros(1, 4, device=device)
    )
    [gradient] = torch.autograd.grad(loss, deltas)
    assert [bool(channel.any()) for channel in gradient[0]] == [channel == label - 1 for channel in range(CLASSES)]


def test_class_agnostic_deltas_serve_every_class(device: torch.device) -> None:
    logits, deltas = randn(8, CLASSES + 1).to(device), randn(8, 1, 4).to(device)
    labels = random_labels(8, CLASSES).to(device)
    targets = randn(8, 4, seed=1).to(device)[labels > 0]
    expected = box_head_loss(logits, deltas.expand(-1, CLASSES, -1), labels, targets)
    assert torch.equal(torch.stack(box_head_loss(logits, deltas, labels, targets)), torch.stack(expected))


# Properties.


@given(st.lists(st.integers(0, CLASSES), max_size=12), st.integers(0, 50), st.sampled_from([0.0, 1 / 9, 1.0]))
def test_losses_are_plain_sums_over_rows(labels: list[int], seed: int, beta: float) -> None:
    n = len(labels)
    given = torch.tensor(labels, dtype=torch.long)
    positive = given > 0
    logits = randn(n, CLASSES + 1, seed=seed, dtype=torch.float64)
    deltas = randn(n, CLASSES, 4, seed=seed + 1, dtype=torch.float64)
    targets = randn(n, 4, seed=seed + 2, dtype=torch.float64)
    class_sum, box_sum = 0.0, 0.0
    for row, label in enumerate(labels):
        class_sum += float(logits[row].exp().sum().log() - logits[row, label])
        for difference in (deltas[row, label - 1] - targets[row]).tolist() if label else []:
            box_sum += smooth_l1(difference, beta) if beta else abs(difference)
    losses = box_head_loss(logits, deltas, given, targets[positive], beta)
    assert [loss.item() for loss in losses] == pytest.approx([class_sum / max(1, n), box_sum / max(1, n)])

    agnostic = deltas[:, 0]
    losses = rpn_loss(logits[:, 0], agnostic, positive.long(), targets[positive], beta)
    object_sum = sum(
        math.log(1 + math.exp(-x if label else x)) for x, label in zip(logits[:, 0].tolist(), labels, strict=True)
    )
    box_sum = sum(
        smooth_l1(difference, beta) if beta else abs(difference)
        for difference in (agnostic - targets)[positive].flatten().tolist()
    )
    assert [loss.item() for loss in losses] == pytest.approx([object_sum / max(1, n), box_sum / max(1, n)])


@given(st.lists(st.integers(1, CLASSES), max_size=6), st.integers(0, 50))
def test_the_mask_loss_ignores_the_other_classes(labels: list[int], seed: int) -> None:
    p = len(labels)
    given = torch.tensor(labels, dtype=torch.long)
    logits = randn(p, CLASSES, 3, 4, seed=seed, dtype=torch.float64)
    targets = randn(p, 3, 4, seed=seed + 1, dtype=torch.float64).sigmoid()
    loss = mask_loss(logits, given, targets)
    own = logits[torch.arange(p), given - 1]
    expected = (own.exp().log1p() - own * targets).sum() / max(1, own.numel())
    torch.testing.assert_close(loss, expected)
    others = torch.ones_like(logits).index_put((torch.arange(p), given - 1), torch.tensor(0.0, dtype=torch.float64))
    assert torch.equal(mask_loss(logits + 100 * others, given, targets), loss)


LABELS = torch.tensor([0, 2, 1, 0, 3])
POSITIVE = LABELS > 0
CALLS: dict[str, tuple[list[tuple[int, ...]], Callable[..., tuple[Tensor, ...]]]] = {  # shapes of logits, deltas
    "rpn_loss": ([(5,), (5, 4)], lambda x, d: rpn_loss(x, d, POSITIVE.long().to(x.device), randn(3, 4).to(d), 0.5)),
    "box_head_loss": (
        [(5, 4), (5, 3, 4)],
        lambda x, d: box_head_loss(x, d, LABELS.to(x.device), randn(3, 4).to(d), 0.5),
    ),
    "mask_loss": (
        [(3, 3, 2, 2)],
        lambda x: (mask_loss(x, LABELS[POSITIVE].to(x.device), randn(3, 2, 2).sigmoid().to(x)),),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_gradients(device: torch.device, name: str) -> None:
    shapes, call = CALLS[name]
    inputs = [randn(*shape, seed=7, dtype=torch.float64).to(device).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(call, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CALLS)
def test_half_precision_is_summed_in_float32(device: torch.device, name: str, dtype: torch.dtype) -> None:
    shapes, call = CALLS[name]
    inputs = [randn(*shape, seed=7).to(device, dtype) for shape in shapes]
    for loss, expected in zip(call(*inputs), call(*(tensor.float() for tensor in inputs)), strict=True):
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected, rtol=0.01, atol=0)  # the targets were rounded too


@pytest.mark.parametrize("name", CALLS)
def test_inputs_are_unchanged_and_the_dtype_is_theirs(device: torch.device, name: str) -> None:
    shapes, call = CALLS[name]
    for dtype in (torch.float32, torch.float64):
        inputs = [randn(*shape, seed=7, dtype=dtype).to(device) for shape in shapes]
        before = [tensor.clone() for tensor in inputs]
        assert all(loss.dtype == dtype and loss.shape == () for loss in call(*inputs))
        assert all(torch.equal(*pair) for pair in zip(inputs, before, strict=True))


# Errors.


@pytest.mark.parametrize(("label", "row"), [(-1, 2), (4, 2)])
def test_labels_out_of_range_are_refused(label: int, row: int) -> None:
    labels = torch.tensor([0, 1, label])
    with pytest.raises(ValueError, match=rf"^labels\[{row}\] must be from 0 to 3, got {label}; 0 is background"):
        box_head_loss(torch.zeros(3, 4), torch.zeros(3, 3, 4), labels, torch.zeros(1, 4))
    with pytest.raises(ValueError, match=rf"^labels\[{row}\] must be from 0 to 1, got {label}; .* not sampled$"):
        rpn_loss(torch.zeros(3), torch.zeros(3, 4), labels, torch.zeros(1, 4))


def test_background_has_no_mask() -> None:
    with pytest.raises(ValueError, match=r"^labels\[0\] must be from 1 to 3, got 0; 0 is background, classes count"):
        mask_loss(torch.zeros(1, 3, 2, 2), torch.tensor([0]), torch.zeros(1, 2, 2))


@pytest.mark.usefixtures("without_shape_checks")
def test_shapes_that_do_not_fit_together_are_refused() -> None:
    labels = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"^labels must be of shape \(3,\), one for each box, got \(2,\)"):
        rpn_loss(torch.zeros(3), torch.zeros(3, 4), labels, torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"^deltas must be of shape \(2, 4\), got \(3, 4\)"):
        rpn_loss(torch.zeros(2), torch.zeros(3, 4), labels, torch.zeros(1, 4))
    with pytest.raises(
        ValueError, match=r"^target_deltas must have one row for each of 1 positives, got \(2, 4\); enc"
    ):
        rpn_loss(torch.zeros(2), torch.zeros(2, 4), labels, torch.zeros(2, 4))
    for shape in ((2, 4, 4), (2, 16), (3, 3, 4)):  # with background, unlike ours, all in one row, and too many rows
        with pytest.raises(ValueError, match=r"^box_deltas must be of shape \(2, 3, 4\), or \(2, 1, 4\) if .*; backgr"):
            box_head_loss(torch.zeros(2, 4), torch.zeros(shape), labels, torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"^mask_targets must be of shape \(1, 28, 28\), got \(1, 14, 14\); see crop_"):
        mask_loss(torch.zeros(1, 3, 28, 28), torch.tensor([1]), torch.zeros(1, 14, 14))
