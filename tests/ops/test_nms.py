import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from rcnn_edu.ops import batched_nms, batched_soft_nms, box_iou, clip_boxes, nms, select_detections, soft_nms

IMAGE = (600, 800)  # H, W


def crowd(n: int, objects: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Boxes that jitter about a number of objects within the image, and scores that all differ."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(objects, 2, generator=generator) * torch.tensor([650.0, 450.0])
    size = torch.rand(objects, 2, generator=generator) * 120 + 20
    chosen = torch.randint(objects, (n,), generator=generator)
    shift, growth = torch.randn(2, n, 2, generator=generator)
    corner, size = corner[chosen] + 0.15 * size[chosen] * shift, size[chosen] * torch.exp(0.2 * growth)
    boxes = clip_boxes(torch.cat([corner, corner + size], dim=1), IMAGE)
    scores = (torch.randperm(n, generator=generator) + 1) / (n + 1)
    return boxes.to(dtype), scores.to(dtype)


@st.composite
def detections(draw: st.DrawFn, max_size: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and groups on a small grid: overlaps, ties, duplicates and boxes without area are many."""
    place, size = st.integers(0, 6), st.integers(0, 4)
    rows = draw(st.lists(st.tuples(place, place, size, size, st.integers(1, 8), st.integers(0, 2)), max_size=max_size))
    x, y, width, height, eighths, group = torch.tensor(rows, dtype=torch.long).reshape(-1, 6).unbind(1)
    boxes = torch.stack([x, y, x + width, y + height], dim=1)
    return boxes.double(), eighths.double() / 8, group


THRESHOLDS = st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.6, 0.7, 1.0])


def plain_nms(boxes: Tensor, scores: Tensor, iou_thresh: float) -> list[int]:
    """One box at a time, as the textbooks have it."""
    iou = box_iou(boxes, boxes)
    left = sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i))
    kept = []
    while left:
        best, *left = left
        kept.append(best)
        left = [i for i in left if not float(iou[best, i]) > iou_thresh]
    return kept


# NMS.


def test_nms_by_hand(device: torch.device) -> None:
    boxes = torch.tensor(
        [[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30], [0, 5, 10, 15], [20, 20, 30, 30]], device=device
    )
    scores = torch.tensor([0.7, 0.9, 0.3, 0.5, 0.6], device=device)
    # 1 drops 0 (IoU 0.8); 4 drops its double, 2; 3 overlaps 0 by 1/3 and 1 by 0.2.
    assert nms(boxes, scores, 0.5).tolist() == [1, 4, 3]
    assert nms(boxes, scores, 0.1).tolist() == [1, 4]
    assert nms(boxes, scores, 1.0).tolist() == [1, 0, 4, 3, 2]


def test_a_dropped_box_drops_no_other(device: torch.device) -> None:
    """The first drops the second, which therefore cannot drop the third."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], device=device)
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.3).tolist() == [0, 2]


def test_a_chain_longer_than_a_block_is_followed_link_by_link(device: torch.device) -> None:
    x = torch.arange(600.0, device=device) * 4
    boxes = torch.stack([x, 0 * x, x + 10, 0 * x + 10], dim=1)  # each overlaps the next by 6/14
    scores = torch.linspace(1, 0, 600, device=device)
    assert nms(boxes, scores, 0.3).tolist() == list(range(0, 600, 2))


@pytest.mark.parametrize("iou_thresh", [0.3, 0.5, 0.7])
@pytest.mark.parametrize(
    ("n", "objects"), [(1, 1), (127, 20), (128, 128), (129, 10), (1000, 30), (2500, 5), (2500, 2500)]
)
def test_nms_as_torchvision(device: torch.device, n: int, objects: int, iou_thresh: float) -> None:
    boxes, scores = crowd(n, objects, seed=n + objects)
    expected = torchvision.ops.nms(boxes, scores, iou_thresh)
    assert nms(boxes.to(device), scores.to(device), iou_thresh).tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nms_of_ties_and_exact_thresholds_as_torchvision(dtype: torch.dtype) -> None:
    """Scores in tenths, and whole pixels, so that many an IoU is exactly 3/10 or 3/5."""
    for seed in range(15):
        generator = torch.Generator().manual_seed(seed)
        corner = torch.randint(6, (300, 2), generator=generator)
        boxes = torch.cat([corner, corner + torch.randint(6, (300, 2), generator=generator)], dim=1).to(dtype)
        scores = torch.randint(10, (300,), generator=generator).to(dtype) / 10
        for iou_thresh in (0.3, 0.5, 0.6, 0.7):
            assert torch.equal(nms(boxes, scores, iou_thresh), torchvision.ops.nms(boxes, scores, iou_thresh))


def test_of_equal_scores_the_first_comes_first(device: torch.device) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]], device=device).repeat(200, 1)
    boxes[100:] += 50
    scores = torch.full((200,), 0.5, device=device)
    assert nms(boxes, scores, 0.5).tolist() == [0, 100]
    assert soft_nms(boxes, scores, method="linear")[0].tolist() == [0, 100]


def test_boxes_without_area_neither_drop_nor_are_dropped(device: torch.device) -> None:
    boxes = torch.tensor([[3.0, 3, 3, 3], [3, 3, 3, 3], [0, 0, 6, 6]], device=device)
    scores = torch.tensor([0.9, 0.8, 0.7], device=device)
    assert nms(boxes, scores, 0.0).tolist() == [0, 1, 2]
    assert soft_nms(boxes, scores)[1].tolist() == scores.tolist()


@given(detections(), THRESHOLDS)
def test_nms_is_the_plain_loop_and_torchvision_s(found: tuple[Tensor, Tensor, Tensor], iou_thresh: float) -> None:
    boxes, scores, _ = found
    keep = nms(boxes, scores, iou_thresh)
    assert keep.tolist() == plain_nms(boxes, scores, iou_thresh)
    assert torch.equal(keep, torchvision.ops.nms(boxes, scores, iou_thresh))


@given(detections(), THRESHOLDS)
def test_what_is_kept_is_far_apart_and_what_is_dropped_has_a_reason(
    found: tuple[Tensor, Tensor, Tensor], iou_thresh: float
) -> None:
    boxes, scores, _ = found
    keep = nms(boxes, scores, iou_thresh)
    above = box_iou(boxes, boxes) > iou_thresh
    assert not above[keep][:, keep].fill_diagonal_(False).any()
    dropped = [i for i in range(len(boxes)) if i not in keep.tolist()]
    assert all((above[keep, i] & (scores[keep] >= scores[i])).any() for i in dropped)
    assert torch.equal(nms(boxes[keep], scores[keep], iou_thresh), torch.arange(len(keep)))


# NMS group by group.


@pytest.mark.parametrize("iou_thresh", [0.3, 0.5, 0.7])
@pytest.mark.parametrize(("n", "groups"), [(300, 80), (1000, 80), (1001, 80), (1000, 5), (4000, 5), (4000, 1)])
def test_batched_nms_as_torchvision(device: torch.device, n: int, groups: int, iou_thresh: float) -> None:
    """Up to 1000 boxes, torchvision moves the groups apart, and rounds; ours must round alike."""
    for seed in range(2):
        boxes, scores = crowd(n, 30, seed)
        group = torch.randint(groups, (n,), generator=torch.Generator().manual_seed(seed))
        expected = torchvision.ops.batched_nms(boxes, scores, group, iou_thresh)
        keep = batched_nms(boxes.to(device), scores.to(device), group.to(device), iou_thresh)
        if device.type == "cpu" or n <= 1000:
            assert keep.tolist() == expected.tolist()
        else:  # on a GPU, the groups are moved apart up to 25,000 boxes, by torchvision too
            theirs = torchvision.ops.batched_nms(boxes.to(device), scores.to(device), group.to(device), iou_thresh)
            assert torch.equal(keep, theirs)


def test_batched_nms_rounds_as_torchvision_does(device: torch.device) -> None:
    """The second box overlaps the first by a last bit more than a half, which is lost where the group is moved to."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5.0000005]], device=device)
    scores, groups = torch.tensor([0.9, 0.8], device=device), torch.tensor([70, 70], device=device)
    assert nms(boxes, scores, 0.5).tolist() == [0]
    assert torchvision.ops.batched_nms(boxes, scores, groups, 0.5).tolist() == [0, 1]
    assert batched_nms(boxes, scores, groups, 0.5).tolist() == [0, 1]


def test_batched_nms_of_ties_keeps_the_first_first(device: torch.device) -> None:
    n = 1500
    x = torch.arange(float(n), device=device)[:, None] * 20
    boxes = torch.cat([x, 0 * x, x + 10, 0 * x + 10], dim=1)
    groups = torch.arange(n, device=device) % 7
    assert batched_nms(boxes, torch.full((n,), 0.5, device=device), groups, 0.5).tolist() == list(range(n))


@pytest.mark.parametrize("n", [400, 1200])
@pytest.mark.parametrize("groups", [(0, 1), (3, -2), (0, 10**9), (-(10**9), 7)])
def test_groups_never_drop_each_other(device: torch.device, n: int, groups: tuple[int, int]) -> None:
    """Not where boxes reach far out of the image, and not where a group's number is large."""
    boxes, scores = crowd(n // 2, 20)
    boxes = (boxes - torch.tensor([500.0, 1500.0, 500.0, 1500.0])).repeat(2, 1).to(device)
    scores = scores.repeat(2).to(device)
    group = torch.tensor(groups, device=device).repeat_interleave(n // 2)
    keep = batched_nms(boxes, scores, group, 0.5)
    alone = nms(boxes[: n // 2], scores[: n // 2], 0.5)
    assert torch.equal(keep[keep < n // 2], alone)
    assert torch.equal(keep[keep >= n // 2] - n // 2, alone)


@given(detections(), THRESHOLDS)
def test_batched_nms_is_nms_in_each_group(found: tuple[Tensor, Tensor, Tensor], iou_thresh: float) -> None:
    boxes, scores, groups = found
    keep = batched_nms(boxes, scores, groups, iou_thresh)
    for group in range(3):
        members = (groups == group).nonzero()[:, 0]
        assert torch.equal(keep[groups[keep] == group], members[nms(boxes[members], scores[members], iou_thresh)])
    assert sorted(keep.tolist(), key=lambda i: (-float(scores[i]), i)) == keep.tolist()


# Soft-NMS.


def plain_soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_thresh: float = 0.5,
    sigma: float = 0.5,
    score_thresh: float = 0.001,
    method: str = "gaussian",
) -> tuple[Tensor, Tensor]:
    """The paper's figure 2: take the best, let all the others pay for their overlap with it, one box at a time."""
    left, index = scores.clone(), torch.arange(len(boxes), device=boxes.device)
    kept, decayed = [], []
    while len(left) > 0:
        best = min(range(len(left)), key=lambda i: (-float(left[i]), i))
        if left[best] < score_thresh:
            break
        kept.append(int(index[best]))
        decayed.append(float(left[best]))
        iou = box_iou(boxes[index[best], None], boxes[index])[0]
        left = left * (
            torch.exp(-(iou**2) / sigma) if method == "gaussian" else torch.where(iou > iou_thresh, 1 - iou, 1)
        )
        others = torch.arange(len(left), device=left.device) != best
        left, index = left[others], index[others]
    return torch.tensor(kept, dtype=torch.long), torch.tensor(decayed, dtype=scores.dtype)


def test_soft_nms_by_hand(device: torch.device) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4], [50, 50, 60, 60]], device=device)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6], device=device)
    keep, decayed = soft_nms(boxes, scores, sigma=0.5)
    # IoU: 0 and 1 share 0.5, 0 and 2 share 0.4, 1 and 2 share 0.8. After 0, the scores are 0.8 exp(-0.5) = 0.485 and
    # 0.7 exp(-0.32) = 0.508: 2 overtakes 1, which then pays for 2.
    assert keep.tolist() == [0, 3, 2, 1]
    expected = [0.9, 0.6, 0.7 * math.exp(-0.32), 0.8 * math.exp(-0.5) * math.exp(-1.28)]
    torch.testing.assert_close(decayed.cpu(), torch.tensor(expected))


def test_linear_soft_nms_by_hand(device: torch.device) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4], [50, 50, 60, 60]], device=device)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6], device=device)
    keep, decayed = soft_nms(boxes, scores, iou_thresh=0.45, method="linear")
    assert keep.tolist() == [0, 2, 3, 1]  # 2 pays nothing for an IoU of 0.4; 1 pays for 0 and for 2
    torch.testing.assert_close(decayed.cpu(), torch.tensor([0.9, 0.7, 0.6, 0.8 * (1 - 0.5) * (1 - 0.8)]))


@pytest.mark.parametrize("method", ["gaussian", "linear"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "objects"), [(1, 1), (128, 3), (129, 129), (600, 4), (600, 100)])
def test_soft_nms_is_the_paper_s_loop(
    device: torch.device, n: int, objects: int, dtype: torch.dtype, method: Any
) -> None:
    boxes, scores = crowd(n, objects, seed=n, dtype=dtype)
    keep, decayed = soft_nms(boxes.to(device), scores.to(device), iou_thresh=0.3, method=method)
    expected, expected_scores = plain_soft_nms(boxes, scores, iou_thresh=0.3, method=method)
    assert keep.tolist() == expected.tolist()
    torch.testing.assert_close(decayed.cpu(), expected_scores, rtol=0, atol=1e-6)


@given(
    detections(),
    st.sampled_from([0.0, 0.3, 0.5]),
    st.sampled_from([0.1, 0.5, 2.0]),
    st.sampled_from([0.001, 0.05, 0.5]),
    st.sampled_from(["gaussian", "linear"]),
)
def test_soft_nms_is_the_paper_s_loop_whatever_ties_and_touches(
    found: tuple[Tensor, Tensor, Tensor], iou_thresh: float, sigma: float, score_thresh: float, method: Any
) -> None:
    boxes, scores, groups = found
    keep, decayed = soft_nms(boxes, scores, iou_thresh, sigma, score_thresh, method)
    expected, expected_scores = plain_soft_nms(boxes, scores, iou_thresh, sigma, score_thresh, method)
    assert keep.tolist() == expected.tolist()
    torch.testing.assert_close(decayed, expected_scores, rtol=0, atol=1e-12)
    assert (decayed.diff() <= 0).all()
    assert (decayed <= scores[keep]).all()

    keep, decayed = batched_soft_nms(boxes, scores, groups, iou_thresh, sigma, score_thresh, method)
    assert (decayed.diff() <= 0).all()
    for group in range(3):
        members = (groups == group).nonzero()[:, 0]
        alone, alone_scores = soft_nms(boxes[members], scores[members], iou_thresh, sigma, score_thresh, method)
        own = groups[keep] == group
        assert torch.equal(keep[own], members[alone])
        assert torch.equal(decayed[own], alone_scores)


@given(detections())
def test_the_hardest_soft_nms_is_nms(found: tuple[Tensor, Tensor, Tensor]) -> None:
    boxes, scores, _ = found
    keep, decayed = soft_nms(boxes, scores, sigma=1e-6)  # the least overlap costs everything
    assert torch.equal(keep, nms(boxes, scores, 0.0))
    assert torch.equal(decayed, scores[keep])


def test_a_cut_at_005_throws_away_what_soft_nms_saved(device: torch.device) -> None:
    """Two people, one almost behind the other: the second's score falls below 0.05, but not below 0.001."""
    boxes = torch.tensor([[0.0, 0, 20, 60], [2, 0, 22, 60]], device=device)
    scores = torch.tensor([0.9, 0.15], device=device)
    groups = torch.zeros(2, dtype=torch.long, device=device)
    keep, decayed = soft_nms(boxes, scores)
    assert keep.tolist() == [0, 1]
    assert 0.001 < float(decayed[1]) < 0.05
    assert soft_nms(boxes, scores, score_thresh=0.05)[0].tolist() == [0]
    keep, selected = select_detections(boxes, scores, groups, 0.5, score_thresh=0.05, suppression="gaussian")
    assert keep.tolist() == [0, 1]  # cut by their own scores, not again by the decayed ones
    assert torch.equal(selected, decayed)


# From raw detections to an answer.


def test_select_by_hand(device: torch.device) -> None:
    boxes = torch.tensor(
        [[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [40, 40, 50, 50], [60, 60, 70, 60.5], [80, 80, 90, 90]],
        device=device,
    )
    scores = torch.tensor([0.9, 0.8, 0.7, 0.05, 0.6, 0.5], device=device)
    groups = torch.tensor([1, 1, 2, 1, 1, 1], device=device)
    keep, kept_scores = select_detections(boxes, scores, groups, 0.5, score_thresh=0.05, min_size=1.0)
    assert keep.tolist() == [0, 2, 5]  # 1 overlaps 0, 3 does not score above the threshold, 4 is half a pixel high
    assert torch.equal(kept_scores, scores[keep])
    keep, _ = select_detections(boxes, scores, groups, 0.5, score_thresh=0.05, max_detections=2)
    assert keep.tolist() == [0, 2]
    keep, _ = select_detections(boxes, scores, groups, 0.5)
    assert keep.tolist() == [0, 2, 4, 5, 3]


@pytest.mark.parametrize(("rois", "classes"), [(30, 20), (200, 20)])  # fewer and more than 1000 above the threshold
def test_select_as_torchvision_s_heads(device: torch.device, rois: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    proposals, _ = crowd(rois, 10)
    logits = 4 * torch.randn(rois, classes + 1, generator=generator)
    deltas = torch.randn(rois, 4 * (classes + 1), generator=generator)
    heads = RoIHeads(None, None, None, 0.5, 0.5, 512, 0.25, None, 0.05, 0.5, 100)
    with torch.no_grad():
        [expected_boxes], [expected_scores], [expected_labels] = heads.postprocess_detections(
            logits, deltas, [proposals], [IMAGE]
        )
        boxes = heads.box_coder.decode(deltas, [proposals])[:, 1:].reshape(-1, 4).to(device)
    boxes = clip_boxes(boxes, IMAGE)
    scores = logits.softmax(dim=1)[:, 1:].flatten().to(device)
    labels = torch.arange(1, classes + 1, device=device).repeat(rois)
    keep, kept_scores = select_detections(
        boxes, scores, labels, 0.5, score_thresh=0.05, min_size=1e-2, max_detections=100
    )
    assert torch.equal(boxes[keep].cpu(), expected_boxes)
    assert torch.equal(kept_scores.cpu(), expected_scores)
    assert torch.equal(labels[keep].cpu(), expected_labels)


@pytest.mark.parametrize("counts", [[200, 100], [3000, 800, 200]])
def test_select_as_torchvision_s_rpn(device: torch.device, counts: list[int]) -> None:
    proposals, _ = crowd(sum(counts), 40)
    objectness = torch.randn(sum(counts), generator=torch.Generator().manual_seed(0))
    tops = {"training": 1000, "testing": 1000}
    rpn = RegionProposalNetwork(
        nn.Identity(), nn.Identity(), 0.7, 0.3, 256, 0.5, tops, {"training": 150, "testing": 150}, 0.7
    )
    [expected], [expected_scores] = rpn.filter_proposals(proposals[None], objectness[None], [IMAGE], counts)

    best, start = [], 0
    for count in counts:  # the best of each level, before their boxes are even decoded
        best.append(start + objectness[start : start + count].topk(min(count, 1000)).indices)
        start += count
    levels = torch.cat([torch.full((len(index),), level) for level, index in enumerate(best)]).to(device)
    boxes = clip_boxes(proposals[torch.cat(best)], IMAGE).to(device)
    scores = objectness[torch.cat(best)].sigmoid().to(device)
    keep, kept_scores = select_detections(boxes, scores, levels, 0.7, min_size=1e-3, max_detections=150)
    assert torch.equal(boxes[keep].cpu(), expected)
    assert torch.equal(kept_scores.cpu(), expected_scores)


@given(detections(), THRESHOLDS, st.sampled_from([0.0, 0.25, 0.5]), st.integers(0, 4), st.sampled_from([None, 0, 1, 3]))
def test_select_is_filter_then_nms_then_cut(
    found: tuple[Tensor, Tensor, Tensor], iou_thresh: float, score_thresh: float, min_size: int, most: int | None
) -> None:
    boxes, scores, groups = found
    good = [
        i
        for i, (x1, y1, x2, y2) in enumerate(boxes.tolist())
        if scores[i] > score_thresh and x2 - x1 >= min_size and y2 - y1 >= min_size
    ]
    expected = torch.tensor(good, dtype=torch.long)[batched_nms(boxes[good], scores[good], groups[good], iou_thresh)]
    keep, kept_scores = select_detections(
        boxes, scores, groups, iou_thresh, score_thresh=score_thresh, min_size=min_size, max_detections=most
    )
    assert torch.equal(keep, expected[:most])
    assert torch.equal(kept_scores, scores[keep])


# What holds for all of them.

Call = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
OPERATIONS: dict[str, Call] = {
    "nms": lambda boxes, scores, groups: (nms(boxes, scores, 0.5),),
    "batched_nms": lambda boxes, scores, groups: (batched_nms(boxes, scores, groups, 0.5),),
    "soft_nms": lambda boxes, scores, groups: soft_nms(boxes, scores),
    "batched_soft_nms": lambda boxes, scores, groups: batched_soft_nms(boxes, scores, groups),
    "select_detections": lambda boxes, scores, groups: select_detections(boxes, scores, groups, 0.5),
}
GROUPED = [name for name in OPERATIONS if name not in ("nms", "soft_nms")]


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_to_choose_from(device: torch.device, name: str) -> None:
    none = torch.zeros(0, device=device)
    for result in OPERATIONS[name](torch.zeros(0, 4, device=device), none, none.long()):
        assert result.shape == (0,)
        assert result.device.type == device.type
    assert OPERATIONS[name](torch.zeros(0, 4), none.cpu(), none.cpu().int())[0].dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_dtype_is_kept_inputs_unchanged_and_nothing_in_the_graph(
    device: torch.device, name: str, dtype: torch.dtype
) -> None:
    boxes, scores = crowd(50, 5)
    boxes, scores = boxes.to(device, dtype).requires_grad_(), scores.to(device, dtype).requires_grad_()
    groups = (torch.arange(50, device=device) % 3).int()
    before = boxes.clone(), scores.clone(), groups.clone()
    keep, *new_scores = OPERATIONS[name](boxes, scores, groups)
    assert keep.dtype == torch.int64
    assert all(result.dtype == dtype and not result.requires_grad for result in new_scores)
    assert all(torch.equal(*pair) for pair in zip(before, (boxes, scores, groups), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OPERATIONS)
def test_half_precision_overlaps_are_measured_in_float32(device: torch.device, name: str, dtype: torch.dtype) -> None:
    boxes, scores = (tensor.to(dtype).to(device) for tensor in crowd(50, 5))
    groups = torch.arange(50, device=device) % 3
    keep, *_ = OPERATIONS[name](boxes, scores, groups)
    expected, *_ = OPERATIONS[name](boxes.float(), scores.float(), groups)
    assert torch.equal(keep, expected)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(2), ValueError, r"^scores must be of shape \(3,\), one for each box, got \(2,\)$"),
        (torch.zeros(3, 1), ValueError, r"^scores must be of shape \(3,\), one for each box, got \(3, 1\)$"),
        (torch.zeros(3).long(), TypeError, r"^scores must be a floating-point tensor, got torch.int64; convert"),
        ([0.5, 0.5, 0.5], TypeError, r"^scores must be a floating-point tensor, got list; convert"),
        (torch.tensor([0.5, math.nan, 0.5]), ValueError, r"^scores\[1\] is NaN; look for a diverged training run$"),
    ],
    ids=["too few", "a column", "integers", "a list", "NaN"],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_bad_scores_are_refused(name: str, bad: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        OPERATIONS[name](torch.zeros(3, 4), bad, torch.zeros(3).long())


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(2).long(), ValueError, r"^groups must be of shape \(3,\), one for each box, got \(2,\)$"),
        (torch.zeros(3), TypeError, r"^groups must be an integer tensor, got torch.float32; convert"),
        ([0, 0, 0], TypeError, r"^groups must be an integer tensor, got list; convert"),
    ],
    ids=["too few", "floats", "a list"],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_bad_groups_are_refused(name: str, bad: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        OPERATIONS[name](torch.zeros(3, 4), torch.zeros(3), bad)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.usefixtures("without_shape_checks")
def test_what_is_not_boxes_is_refused(name: str) -> None:
    xywh = torch.tensor([[30.0, 40.0, 20.0, 50.0]])
    with pytest.raises(ValueError, match=r"^boxes\[0\] must have x2 >= x1 and y2 >= y1, .* \(x, y, width, height\)"):
        OPERATIONS[name](xywh, torch.zeros(1), torch.zeros(1).long())
    with pytest.raises(ValueError, match=r"^boxes must be of shape \(n, 4\), "):
        OPERATIONS[name](torch.zeros(3), torch.zeros(3), torch.zeros(3).long())


@pytest.mark.parametrize("iou_thresh", [-0.1, 1.1, math.nan])
def test_a_threshold_that_is_no_iou_is_refused(iou_thresh: float) -> None:
    boxes, scores, groups = torch.zeros(1, 4), torch.zeros(1), torch.zeros(1).long()
    calls: list[Callable[[], object]] = [
        lambda: nms(boxes, scores, iou_thresh),
        lambda: batched_nms(boxes, scores, groups, iou_thresh),
        lambda: soft_nms(boxes, scores, iou_thresh),
        lambda: select_detections(boxes, scores, groups, iou_thresh),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"^iou_thresh must be from 0 to 1, got {iou_thresh}; 0.5 and 0.7 are"):
            call()


@pytest.mark.usefixtures("without_shape_checks")
def test_bad_decays_are_refused() -> None:
    boxes, scores = torch.zeros(1, 4), torch.ones(1)
    for sigma in (0.0, -0.5, math.nan):
        with pytest.raises(ValueError, match=rf"^sigma and score_thresh must be positive, got {sigma} and 0.001"):
            soft_nms(boxes, scores, sigma=sigma)
    with pytest.raises(ValueError, match=r"^sigma and score_thresh must be positive, got 0.5 and 0.0"):
        soft_nms(boxes, scores, score_thresh=0.0)
    method: Any = "hard"
    with pytest.raises(ValueError, match=r"^method must be 'gaussian' or 'linear', got 'hard'$"):
        soft_nms(boxes, scores, method=method)
