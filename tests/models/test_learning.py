"""Each detector learns four small images by heart: every loss falls, and the detections come to lie on the objects."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rcnn_edu.models import FasterRCNN, tiny_cascade_rcnn, tiny_faster_rcnn, tiny_mask_rcnn
from rcnn_edu.ops import box_iou
from tests.models.test_rcnn import scene

SIDE = 64
STEPS = 150

SCENES = [
    scene(SIDE, SIDE, [[4, 6, 28, 38], [34, 36, 60, 58]], [1, 2]),
    scene(SIDE, SIDE, [[14, 14, 50, 54]], [2]),
    scene(SIDE, SIDE, [[6, 40, 26, 62], [26, 4, 60, 30]], [2, 1]),
    scene(SIDE, SIDE, [], []),
]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run on one thread: more gain nothing on maps this small, and on a busy machine wait for each other, spinning."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def learn(model: FasterRCNN) -> dict[str, list[float]]:
    """Return each loss, step by step, of a model that sees the scenes again and again."""
    images, targets = [image for image, _ in SCENES], [target for _, target in SCENES]
    optimizer = torch.optim.AdamW(model.parameters())
    generator = torch.Generator().manual_seed(0)
    history: dict[str, list[float]] = {}
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 10) * (1 - step / STEPS)
        losses = model(images, targets, generator=generator)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        for name, loss in losses.items():
            history.setdefault(name, []).append(loss.item())
    return history


def assert_found(detection: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    """Raise unless the sure detections are the objects: as many, each in its place, of its class and its shape."""
    sure = {name: values[detection["scores"] > 0.5] for name, values in detection.items()}
    assert len(sure["boxes"]) == len(target["boxes"])
    if len(target["boxes"]) == 0:
        return
    best_iou, match = box_iou(target["boxes"], sure["boxes"]).max(dim=1)
    assert best_iou.min() > 0.75
    assert torch.equal(sure["labels"][match], target["labels"])
    if "masks" in sure:
        masks = sure["masks"][match, 0] > 0.5
        overlap = (masks & target["masks"]).sum((1, 2)) / (masks | target["masks"]).sum((1, 2))
        assert overlap.min() > 0.75


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: tiny_faster_rcnn(2), id="faster"),
        pytest.param(lambda: tiny_mask_rcnn(2), id="mask"),
        pytest.param(lambda: tiny_cascade_rcnn(2), id="cascade"),
        pytest.param(lambda: tiny_cascade_rcnn(2, mask=True), id="cascade_mask"),
    ],
)
def test_four_images_are_learnt_by_heart(make: Callable[[], FasterRCNN]) -> None:
    torch.manual_seed(0)
    model = make()
    model.transform = replace(model.transform, min_size=SIDE)
    for name, values in learn(model).items():
        assert sum(values[-5:]) / 5 < max(values) / 3, name
    with torch.no_grad():
        detections = model.eval()([image for image, _ in SCENES])
    for detection, (_, target) in zip(detections, SCENES, strict=True):
        assert_found(detection, target)
