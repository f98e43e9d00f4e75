import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import Matcher

from rcnn_edu.ops import AnchorGenerator, assign_anchors_to_gt, box_iou, match_boxes


def random_boxes(n: int, seed: int, size: float = 60) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * 200
    return torch.cat([corner, corner + 4 + torch.rand(n, 2, generator=generator) * size], dim=1)


@st.composite
def iou_matrices(draw: st.DrawFn, least: int = 0) -> Tensor:
    """IoUs in eighths, so that ties are many and exact."""
    n, m = draw(st.integers(least, 8)), draw(st.integers(least, 5))
    eighths = draw(st.lists(st.integers(0, 8), min_size=n * m, max_size=n * m))
    return torch.tensor(eighths, dtype=torch.float64).view(n, m) / 8


# By hand.


def test_match_by_hand(device: torch.device) -> None:
    iou = torch.tensor(
        [
            [0.8, 0.1],  # positive
            [0.7, 0.0],  # exactly at the threshold: positive
            [0.5, 0.6],  # between the thresholds: ignored, unless it is the best of the second ground truth
            [0.3, 0.2],  # exactly at the lower threshold: ignored
            [0.2, 0.29],  # negative
            [0.0, 0.0],
        ],
        dtype=torch.float64,
        device=device,
    )
    matched, labels = match_boxes(iou, 0.7, 0.3, keep_best=False)
    assert labels.tolist() == [1, 1, -1, -1, 0, 0]
    assert matched[:5].tolist() == [0, 0, 1, 0, 1]
    matched, labels = match_boxes(iou, 0.7, 0.3, keep_best=True)
    assert labels.tolist() == [1, 1, 1, -1, 0, 0]
    assert matched[:5].tolist() == [0, 0, 1, 0, 1]


def test_assign_by_hand(device: torch.device) -> None:
    anchors = torch.tensor(
        [[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [5, 5, 15, 15], [50, 50, 60, 60]], device=device
    )
    gt_boxes = torch.tensor([[0.0, 0, 10, 10], [52, 52, 70, 70]], device=device)
    labels, matched_gt_boxes = assign_anchors_to_gt(anchors, gt_boxes)
    assert labels.tolist() == [1, 1, -1, 0, 1]  # IoU 1, 0.8, 0.5, 1/7, and the second ground truth's best: 0.18
    assert torch.equal(matched_gt_boxes[[0, 1, 4]], gt_boxes[[0, 0, 1]])


# The traps.


def test_a_ground_truth_that_no_anchor_touches_turns_none_positive(device: torch.device) -> None:
    """All anchors tie at IoU 0: were they all its best, every one of them would be positive."""
    anchors = random_boxes(50, 0).to(device)
    far_away = torch.tensor([[1000.0, 1000, 1100, 1100], [100, 100, 100, 100]], device=device)  # the second has no area
    labels, _ = assign_anchors_to_gt(anchors, far_away)
    assert labels.tolist() == [0] * 50


def test_a_rescued_anchor_learns_the_ground_truth_that_rescued_it(device: torch.device) -> None:
    """The anchor overlaps the large object more, but is the only one that touches the small one."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20]], device=device)
    large, small = [0.0, 0.0, 10.0, 18.0], [8.0, 0.0, 14.0, 4.0]
    gt_boxes = torch.tensor([large, small], device=device)
    iou = box_iou(anchors, gt_boxes)
    assert iou[0, 0] > iou[0, 1] > iou[1, 1] > 0
    labels, matched_gt_boxes = assign_anchors_to_gt(anchors, gt_boxes)
    assert labels.tolist() == [1, 1]
    assert matched_gt_boxes.tolist() == [small, large]


def test_an_anchor_that_is_positive_anyway_still_learns_the_ground_truth_that_needs_it() -> None:
    iou = torch.tensor([[0.9, 0.75], [0.95, 0.1]])  # the first anchor is the best that the second ground truth has
    matched, labels = match_boxes(iou, 0.7, 0.3, keep_best=True)
    assert labels.tolist() == [1, 1]
    assert matched.tolist() == [1, 0]


def test_the_best_of_two_ground_truths_learns_the_one_it_overlaps_more() -> None:
    matched, labels = match_boxes(torch.tensor([[0.2, 0.25, 0.1]]), 0.7, 0.3, keep_best=True)
    assert (matched.tolist(), labels.tolist()) == ([1], [1])


def test_ties_do_not_hang_on_rounding(device: torch.device) -> None:
    """Two anchors lie alike left and right of an object: both are its best, whatever the last bit says."""
    iou = torch.tensor([[0.4], [0.4 + 5e-7], [0.39]], dtype=torch.float64, device=device)
    _, labels = match_boxes(iou, 0.7, 0.3, keep_best=True)
    assert labels.tolist() == [1, 1, -1]


def test_without_ground_truths_all_anchors_are_negative(device: torch.device) -> None:
    labels, matched_gt_boxes = assign_anchors_to_gt(random_boxes(5, 0).to(device), torch.zeros(0, 4, device=device))
    assert labels.tolist() == [0] * 5
    assert torch.equal(matched_gt_boxes, torch.zeros(5, 4, device=device))


def test_no_anchors(device: torch.device) -> None:
    labels, matched_gt_boxes = assign_anchors_to_gt(torch.zeros(0, 4, device=device), random_boxes(3, 0).to(device))
    assert labels.shape == (0,)
    assert matched_gt_boxes.shape == (0, 4)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("keep_best", [False, True])
def test_match_nothing(shape: tuple[int, int], keep_best: bool) -> None:
    matched, labels = match_boxes(torch.zeros(shape), 0.7, 0.3, keep_best=keep_best)
    assert matched.tolist() == labels.tolist() == [0] * shape[0]


# torchvision.


def torchvision_labels(iou: Tensor, high: float, low: float, keep_best: bool) -> tuple[Tensor, Tensor]:
    """The ground truth and the label that torchvision gives each box; where it is not positive, 0."""
    found = Matcher(high, low, keep_best)(iou.T)
    return found.clamp(min=0), torch.where(found >= 0, 1, torch.where(found == Matcher.BELOW_LOW_THRESHOLD, 0, -1))


@pytest.mark.parametrize("keep_best", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_match_as_torchvision(device: torch.device, seed: int, keep_best: bool) -> None:
    iou = box_iou(random_boxes(500, seed), random_boxes(7, 100 + seed)).to(device)
    assert (iou.amax(dim=0) > 0).all()
    matched, labels = match_boxes(iou, 0.7, 0.3, keep_best=keep_best)
    expected, expected_labels = torchvision_labels(iou, 0.7, 0.3, keep_best)
    assert torch.equal(labels, expected_labels)
    same = labels == 1
    if keep_best:  # torchvision leaves a rescued box matched to the one it overlaps most, the trap above
        same &= ~(iou >= iou.amax(dim=0) - 1e-6).any(dim=1)
    assert torch.equal(matched[same], expected[same])


def test_assign_all_anchors_of_an_image_as_torchvision(device: torch.device) -> None:
    """More anchors than are looked at in one go."""
    generator = AnchorGenerator(((16,), (32,)), (0.5, 1.0, 2.0), (4, 8))
    anchors = torch.cat(generator([(50, 60), (25, 30)], device))
    gt_boxes = random_boxes(12, 3).to(device)
    assert len(anchors) > 2 * 4096
    labels, matched_gt_boxes = assign_anchors_to_gt(anchors, gt_boxes)
    iou = box_iou(anchors, gt_boxes)
    matched, expected_labels = torchvision_labels(iou, 0.7, 0.3, keep_best=True)
    assert torch.equal(labels, expected_labels)
    learnt = box_iou(matched_gt_boxes, gt_boxes).argmax(dim=1)
    rescued = (iou >= iou.amax(dim=0) - 1e-6).any(dim=1)
    assert torch.equal(learnt[(labels == 1) & ~rescued], matched[(labels == 1) & ~rescued])
    assert set(learnt[labels == 1].tolist()) == set(range(12))  # every object is learnt by somebody


# Properties.


@given(iou_matrices(least=1), st.integers(0, 8), st.integers(0, 8))
def test_what_a_match_promises(iou: Tensor, first: int, second: int) -> None:
    low, high = min(first, second) / 8, max(first, second) / 8
    matched, labels = match_boxes(iou, high, low, keep_best=True)
    best_iou, best_of_gt = iou.amax(dim=1), iou.amax(dim=0)
    is_best = (iou == best_of_gt) & (iou > 0)  # exact here: the IoUs are eighths
    rescued = is_best.any(dim=1)
    assert (labels[best_iou >= high] == 1).all()
    assert (labels[rescued] == 1).all()
    assert torch.equal(labels == 1, (best_iou >= high) | rescued)
    assert torch.equal(labels == 0, (best_iou < low) & ~rescued)
    own = iou[torch.arange(len(iou)), matched]
    assert torch.equal(own[~rescued], best_iou[~rescued])
    assert is_best[rescued, matched[rescued]].all()
    assert torch.equal(own[rescued], iou.where(is_best, -1).amax(dim=1)[rescued])


@given(iou_matrices(least=1), st.integers(0, 8), st.integers(0, 8))
def test_proposals_are_never_rescued(iou: Tensor, first: int, second: int) -> None:
    low, high = min(first, second) / 8, max(first, second) / 8
    matched, labels = match_boxes(iou, high, low, keep_best=False)
    expected, expected_labels = torchvision_labels(iou, high, low, keep_best=False)
    assert torch.equal(labels, expected_labels)
    assert torch.equal(iou[torch.arange(len(iou)), matched], iou.amax(dim=1))
    assert torch.equal(matched[labels == 1], expected[labels == 1])


@given(st.integers(0, 20), st.integers(0, 5), st.integers(0, 100))
def test_assign_is_match_of_the_ious(n: int, m: int, seed: int) -> None:
    anchors, gt_boxes = random_boxes(n, seed), random_boxes(m, 1000 + seed)
    labels, matched_gt_boxes = assign_anchors_to_gt(anchors, gt_boxes, 0.5, 0.2)
    matched, expected = match_boxes(box_iou(anchors, gt_boxes), 0.5, 0.2, keep_best=True)
    assert torch.equal(labels, expected)
    if m > 0:
        assert torch.equal(matched_gt_boxes, gt_boxes[matched])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_inputs_unchanged_and_nothing_in_the_graph(device: torch.device, dtype: torch.dtype) -> None:
    anchors = random_boxes(20, 0).to(device, dtype).requires_grad_()
    gt_boxes = random_boxes(3, 1).to(device, dtype).requires_grad_()
    before = anchors.clone(), gt_boxes.clone()
    labels, matched_gt_boxes = assign_anchors_to_gt(anchors, gt_boxes)
    assert (labels.dtype, matched_gt_boxes.dtype) == (torch.int64, dtype)
    assert not matched_gt_boxes.requires_grad
    iou = box_iou(anchors, gt_boxes).detach()
    iou_before = iou.clone()
    match_boxes(iou, 0.7, 0.3, keep_best=True)
    assert torch.equal(anchors, before[0])
    assert torch.equal(gt_boxes, before[1])
    assert torch.equal(iou, iou_before)


# Errors.


@pytest.mark.parametrize("thresholds", [(0.3, 0.7), (1.5, 0.3), (0.7, -0.1), (float("nan"), 0.3)])
def test_thresholds_out_of_order_are_refused(thresholds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"^thresholds must be 0 <= neg_iou_thresh <= pos_iou_thresh <= 1, got "):
        match_boxes(torch.zeros(2, 2), *thresholds, keep_best=True)
    with pytest.raises(ValueError, match=r"^thresholds must be "):
        assign_anchors_to_gt(torch.zeros(2, 4), torch.zeros(2, 4), *thresholds)


@pytest.mark.usefixtures("without_shape_checks")
def test_what_is_not_an_iou_matrix_or_boxes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^iou must be of shape \(n, m\), boxes by ground truths, got \(3,\); "):
        match_boxes(torch.zeros(3), 0.7, 0.3, keep_best=False)
    xywh = torch.tensor([[30.0, 40.0, 20.0, 50.0]])
    with pytest.raises(ValueError, match=r"^anchors\[0\] must have x2 >= x1 .* \(x, y, width, height\)"):
        assign_anchors_to_gt(xywh, torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"^gt_boxes\[0\] must have x2 >= x1 .* \(x, y, width, height\)"):
        assign_anchors_to_gt(torch.zeros(1, 4), xywh)
    with pytest.raises(TypeError, match=r"^gt_boxes must be a floating-point tensor, got torch.int64"):
        assign_anchors_to_gt(torch.zeros(1, 4), torch.zeros(1, 4, dtype=torch.long))
