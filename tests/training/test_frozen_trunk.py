"""Heads on a frozen trunk: what is kept is what the model computes, and heads learn from it, the same every time."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from rcnn_edu.datasets import SceneSettings, SyntheticScenes
from rcnn_edu.models import RPN, BoxHead, Cascade, MaskHead, MaskRCNN, RoISampler, tiny_mask_rcnn
from rcnn_edu.models.presets import SCENES_CLASSES, TINY
from rcnn_edu.training import evaluate
from rcnn_edu.training.frozen_trunk import (
    Losses,
    SeenScenes,
    box_losses,
    detect_boxes,
    evaluate_boxes,
    evaluate_masks,
    frozen_trunk,
    mask_losses,
    new_head,
    rpn_losses,
    see,
    train_head,
)

SCENES = SyntheticScenes(2, seed=5)
make_box_head = partial(BoxHead, SCENES_CLASSES, TINY.channels, **TINY.box_head)
make_mask_head = partial(MaskHead, SCENES_CLASSES, TINY.channels, **TINY.mask_head)
make_cascade = partial(
    Cascade,
    SCENES_CLASSES,
    TINY.channels,
    head=partial(BoxHead, **TINY.box_head),
    sampler=TINY.box_head["sampler"],
)
make_rpn = partial(RPN, TINY.channels, **TINY.rpn)


@pytest.fixture(scope="module")
def trunk() -> MaskRCNN:
    return frozen_trunk()


@pytest.fixture(scope="module")
def train_scenes(trunk: MaskRCNN) -> SeenScenes:
    return see(trunk, SCENES, for_training=True)


@pytest.fixture(scope="module")
def test_scenes(trunk: MaskRCNN) -> SeenScenes:
    return see(trunk, SCENES)


def losses_of(head: nn.Module) -> Losses:
    if isinstance(head, RPN):
        return rpn_losses(head)
    if isinstance(head, MaskHead):
        return mask_losses(head, RoISampler(num_samples=32))
    assert isinstance(head, BoxHead | Cascade)
    return box_losses(head)


def test_what_is_kept_is_what_the_model_computes(trunk: MaskRCNN, test_scenes: SeenScenes) -> None:
    batch = test_scenes.batch([1])
    images = trunk.transform([SCENES[1][0]]).images
    with torch.no_grad():
        features = trunk.backbone(images)
        [proposals], _ = trunk.rpn(features, [(192, 192)])
    for kept, level in zip(batch.features, features, strict=True):
        assert kept.dtype == torch.float32
        assert kept.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(kept, level, rtol=1e-3, atol=1e-6)  # half precision's
    torch.testing.assert_close(batch.proposals[0], proposals)
    assert batch.sizes == [(192, 192)]
    for name, values in SCENES[1][1].items():
        assert torch.equal(batch.targets[0][name], values)


def test_proposals_are_as_many_as_a_training_step_or_a_test_has() -> None:
    trunk = frozen_trunk()
    trunk.rpn.post_nms_top_n = (30, 20)
    assert [len(boxes) for boxes in see(trunk, SCENES, for_training=True).proposals] == [30] * len(SCENES)
    assert [len(boxes) for boxes in see(trunk, SCENES).proposals] == [20] * len(SCENES)
    assert not trunk.training
    assert not trunk.rpn.training


def test_the_trunk_s_own_heads_find_what_the_model_finds(trunk: MaskRCNN, test_scenes: SeenScenes) -> None:
    detections = detect_boxes(trunk.box_head, test_scenes, trunk.select)
    ours, models = evaluate_masks(trunk.mask_head, detections, test_scenes), evaluate(trunk, SCENES)
    assert ours.detections == pytest.approx(models.detections, abs=2)
    for kind in ("bbox", "segm"):
        assert ours[kind].figures["AP"] == pytest.approx(models[kind].figures["AP"], abs=0.02)
    assert evaluate_boxes(detections, test_scenes)["bbox"].figures == ours["bbox"].figures


@pytest.mark.parametrize("make", [make_box_head, make_cascade, make_mask_head, make_rpn], ids=lambda make: make.func)
def test_a_head_learns_from_two_scenes(make: partial[nn.Module], train_scenes: SeenScenes) -> None:
    head = new_head(make, seed=0)
    history = train_head(head, losses_of(head), train_scenes, steps=12, seed=0)
    assert len(history) == 12
    assert sum(history[-3:]) < 0.95 * sum(history[:3])  # an RPN starts slowly: its initial weights are small


def weights(head: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in head.state_dict().values()]


@pytest.mark.parametrize("make", [make_box_head, make_mask_head], ids=lambda make: make.func)
def test_the_same_seed_gives_the_same_head(make: partial[nn.Module], train_scenes: SeenScenes) -> None:
    def trained(seed: int) -> list[Tensor]:
        torch.rand(1)  # whatever the global generator is at
        head = new_head(make, seed)
        train_head(head, losses_of(head), train_scenes, steps=2, seed=seed)
        return weights(head)

    first, again, other = trained(0), trained(0), trained(1)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not all(torch.equal(*pair) for pair in zip(first, other, strict=True))


def test_every_head_sees_the_same_whatever_another_has_drawn(train_scenes: SeenScenes) -> None:
    drawn: list[list[float]] = []
    for greed in (0, 5):
        head = nn.Linear(1, 1)
        numbers: list[float] = []

        def losses(
            batch: object,
            generator: torch.Generator,
            *,
            numbers: list[float] = numbers,
            greed: int = greed,
            head: nn.Linear = head,
        ) -> dict[str, Tensor]:
            numbers.append(torch.rand(1, generator=generator).item())
            torch.rand(greed, generator=generator)
            return {"loss": head.weight.sum()}

        train_head(head, losses, train_scenes, steps=3, seed=0)
        drawn.append(numbers)
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3


def test_a_new_head_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    new_head(make_box_head, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_trunk_stays_as_it_is(trunk: MaskRCNN) -> None:
    shipped = tiny_mask_rcnn(weights="scenes")
    assert not any(parameter.requires_grad for parameter in trunk.parameters())
    assert all(torch.equal(*pair) for pair in zip(weights(trunk), weights(shipped), strict=True))


@pytest.mark.parametrize("make", [make_box_head, make_cascade, make_mask_head, make_rpn], ids=lambda make: make.func)
def test_empty_images_are_seen_and_learnt_from(trunk: MaskRCNN, make: partial[nn.Module]) -> None:
    empty = see(trunk, SyntheticScenes(2, settings=SceneSettings(num_objects=(0, 0))), for_training=True)
    head = new_head(make, seed=0)
    history = train_head(head, losses_of(head), empty, steps=2, seed=0)
    assert all(loss >= 0 for loss in history)
    assert all(tensor.isfinite().all() for tensor in head.state_dict().values())


def test_images_without_a_detection_have_figures_too(test_scenes: SeenScenes) -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "scores": torch.zeros(0)}
    evaluation = evaluate_masks(new_head(make_mask_head, seed=0), [nothing, nothing], test_scenes)
    assert evaluation["bbox"].figures["AP"] == evaluation["segm"].figures["AP"] == 0


def test_scenes_of_another_size_are_refused(trunk: MaskRCNN) -> None:
    with pytest.raises(ValueError, match=r"got \(96, 96\), which it resizes to \(192, 192\)"):
        see(trunk, SyntheticScenes(1, settings=SceneSettings(size=(96, 96), object_size=(8, 60))))
    with pytest.raises(ValueError, match="the dataset is empty: there is nothing to see"):
        see(trunk, SyntheticScenes(0))


def test_a_loss_that_is_no_number_is_reported(train_scenes: SeenScenes) -> None:
    head = new_head(make_box_head, seed=0)
    with torch.no_grad():
        head.fc1.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0: try a lower learning rate"):
        train_head(head, box_losses(head), train_scenes, steps=2, seed=0)
