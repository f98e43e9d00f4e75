"""The detectors as wholes: torchvision's detections and losses, the contract, odd inputs, learning."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.roi_heads import maskrcnn_inference
from torchvision.ops import clip_boxes_to_image

from rcnn_edu.models import (
    BoxHead,
    CascadeRCNN,
    FasterRCNN,
    MaskRCNN,
    RoISampler,
    tiny_cascade_rcnn,
    tiny_faster_rcnn,
    tiny_mask_rcnn,
)
from rcnn_edu.models.presets import TINY
from rcnn_edu.ops import assign_fpn_levels
from tests.models.twins import Twins, picture, pictures

Maker = Callable[[], FasterRCNN]

MAKERS = [
    pytest.param(lambda: tiny_faster_rcnn(2), id="faster"),
    pytest.param(lambda: tiny_mask_rcnn(2), id="mask"),
    pytest.param(lambda: tiny_cascade_rcnn(2), id="cascade"),
    pytest.param(lambda: tiny_cascade_rcnn(2, mask=True), id="cascade_mask"),
]
every_model = pytest.mark.parametrize("make", MAKERS)
# Mask R-CNN has all the parts of Faster R-CNN, so the quick part of the tests leaves the latter out.
both_kinds = pytest.mark.parametrize("kind", [pytest.param("faster", marks=pytest.mark.slow), "mask"])


def scene(height: int, width: int, boxes: list[list[float]], labels: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return an image of bright rectangles (label 1) and dark ellipses (label 2) on noise, and its target."""
    generator = torch.Generator().manual_seed(height * width)
    image = 0.4 + 0.2 * torch.rand(3, height, width, generator=generator)
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    for mask, (x1, y1, x2, y2), label in zip(masks, boxes, labels, strict=True):
        across, down = (x - (x1 + x2) / 2) / (x2 - x1) * 2, (y - (y1 + y2) / 2) / (y2 - y1) * 2
        mask[:] = (across.abs().maximum(down.abs()) if label == 1 else across.hypot(down)) < 1
        image[:, mask] = 0.9 if label == 1 else 0.1
    target = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": masks,
    }
    return image, target


def scenes() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return four small scenes of different sizes, one of them without objects."""
    made = [
        scene(96, 96, [[8, 10, 40, 50], [50, 52, 90, 84]], [1, 2]),
        scene(96, 120, [[60, 20, 110, 80]], [2]),
        scene(110, 96, [[10, 60, 34, 100], [40, 8, 88, 44]], [2, 1]),
        scene(96, 100, [], []),
    ]
    return [image for image, _ in made], [target for _, target in made]


def scenes_on(device: torch.device) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    images, targets = scenes()
    moved = [{name: values.to(device) for name, values in target.items()} for target in targets]
    return [image.to(device) for image in images], moved


def assert_gradients(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


# torchvision's detections -----------------------------------------------------------------------------------------


def detections(model: Any, images: list[Tensor]) -> list[dict[str, Tensor]]:
    with torch.no_grad():
        return model(images)  # type: ignore[no-any-return]


def assert_same_detections(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], pixels: float, probability: float, pasted: float
) -> None:
    assert len(theirs["boxes"]) > 10
    assert ours.keys() == theirs.keys()
    assert ours["labels"].tolist() == theirs["labels"].tolist()
    torch.testing.assert_close(ours["boxes"], theirs["boxes"], atol=pixels, rtol=0)
    torch.testing.assert_close(ours["scores"], theirs["scores"], atol=probability, rtol=0)
    if "masks" in theirs:
        torch.testing.assert_close(ours["masks"], theirs["masks"], atol=pasted, rtol=0)


Found = Callable[[str, str], tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]]


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> Found:
    """A function that says what ours and what torchvision's model finds, of a kind and in a precision, found once."""

    @cache
    def find(kind: str, precision: str) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
        twins: Twins = request.getfixturevalue(f"{kind}_twins{'_in_double' if precision == 'double' else ''}")
        images = [image.double() if precision == "double" else image for image in pictures()]
        return detections(twins.ours, images), detections(twins.theirs, images)

    return find


@both_kinds
def test_in_double_precision_detections_are_torchvision_s(kind: str, found: Found) -> None:
    for ours, theirs in zip(*found(kind, "double"), strict=True):
        assert_same_detections(ours, theirs, pixels=1e-3, probability=1e-5, pasted=1e-5)


@both_kinds
def test_in_single_precision_detections_are_torchvision_s(kind: str, found: Found) -> None:
    """Where rounding turns torchvision's own answer, a tie decided; such an image shows nothing and is left out."""
    _, exact = found(kind, "double")
    compared = 0
    for ours, theirs, truth in zip(*found(kind, "single"), exact, strict=True):
        if theirs["labels"].tolist() != truth["labels"].tolist():
            continue
        if (theirs["boxes"] - truth["boxes"]).abs().max() > 0.05:
            continue
        compared += 1
        # A pasted mask moves with its box, and a thousandth of a pixel is worth more than 1e-4 at an edge.
        assert_same_detections(ours, theirs, pixels=0.05, probability=1e-4, pasted=1e-3)
    assert compared >= 2


# torchvision's stages, one by one: without choices between near ties, single precision is held to what it can do ------


@dataclass(frozen=True)
class Given:
    """What both twins' stages are given: a batch, its features, and boxes in each of its images."""

    images: Tensor
    sizes: list[tuple[int, int]]
    features: list[Tensor]
    boxes: list[Tensor]

    @property
    def named_features(self) -> dict[str, Tensor]:
        return dict(zip(("0", "1", "2", "3", "pool"), self.features, strict=True))


@dataclass(frozen=True)
class Stages:
    theirs: Any
    ours: Any
    batches: list[Given]
    close: Callable[[Tensor, Tensor], None]


def boxes_in(size: tuple[int, int], count: int, seed: int) -> Tensor:
    """Return boxes from a few pixels up to the whole image, in double precision."""
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    start, side = corners.unbind(dim=1)
    start[0], side[0] = 0, 1
    end = start + (1 - start) * side.square().clamp(min=0.01)
    return torch.cat([start, end], dim=1) * torch.tensor([size[1], size[0], size[1], size[0]])


@pytest.fixture(scope="module", params=["single", "double"])
def stages(request: pytest.FixtureRequest) -> Stages:
    """Two batches of images of several sizes, odd ones too, and how close their results must be."""
    single = request.param == "single"
    twins: Twins = request.getfixturevalue("mask_twins" if single else "mask_twins_in_double")
    dtype = torch.float32 if single else torch.float64
    batches = []
    for images in ([picture(91, 145, 0), picture(301, 175, 2)], [picture(97, 203, 3)]):
        with torch.no_grad():
            batch = twins.ours.transform([image.to(dtype) for image in images])
            features = twins.ours.backbone(batch.images)
        boxes = [boxes_in(size, 8, seed).to(dtype) for seed, size in enumerate(batch.sizes)]
        assert set(assign_fpn_levels(torch.cat(boxes)).tolist()) == {2, 3}
        batches.append(Given(batch.images, batch.sizes, features, boxes))
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-4 if single else 1e-9)
    return Stages(twins.theirs, twins.ours, batches, close)


@torch.no_grad()
def test_the_same_images_have_torchvision_s_features(stages: Stages) -> None:
    for batch in stages.batches:
        theirs = stages.theirs.backbone(batch.images)
        for level, other in zip(batch.features, theirs.values(), strict=True):
            stages.close(level / other.std(), other / other.std())


@torch.no_grad()
def test_the_same_features_have_torchvision_s_objectness_and_deltas(stages: Stages) -> None:
    for batch in stages.batches:
        ours, theirs = stages.ours.rpn.head(batch.features), stages.theirs.rpn.head(batch.features)
        for own, other, channels in zip(ours, theirs, (1, 4), strict=True):
            for level, their_level in zip(own, other, strict=True):
                expected = their_level.unflatten(1, (-1, channels)).permute(0, 3, 4, 1, 2)  # (B, H, W, A, 1 or 4)
                stages.close(level.view(expected.shape), expected)


@torch.no_grad()
def test_the_same_proposals_have_torchvision_s_probabilities_and_boxes(stages: Stages) -> None:
    heads = stages.theirs.roi_heads
    for batch in stages.batches:
        pooled = heads.box_roi_pool(batch.named_features, batch.boxes, batch.sizes)
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        ours = stages.ours.box_head.predict(batch.features, batch.boxes, batch.sizes)
        stages.close(torch.cat([probabilities for _, probabilities in ours]), logits.softmax(dim=1))
        decoded = heads.box_coder.decode(deltas, batch.boxes).split([len(boxes) for boxes in batch.boxes])
        for (boxes, _), their_boxes, size in zip(ours, decoded, batch.sizes, strict=True):
            expected = clip_boxes_to_image(their_boxes, size)[:, 1:]
            stages.close(boxes / 100, expected / 100)  # in single precision, to a hundredth of a pixel


@torch.no_grad()
def test_the_same_boxes_have_torchvision_s_mask_probabilities(stages: Stages) -> None:
    """The 28 x 28 probabilities of the label's class, before they are pasted."""
    heads = stages.theirs.roi_heads
    for batch in stages.batches:
        labels = [torch.arange(len(boxes)) * 37 % 90 + 1 for boxes in batch.boxes]
        pooled = heads.mask_roi_pool(batch.named_features, batch.boxes, batch.sizes)
        theirs = maskrcnn_inference(heads.mask_predictor(heads.mask_head(pooled)), labels)
        given = [{"boxes": boxes, "labels": own} for boxes, own in zip(batch.boxes, labels, strict=True)]
        for own, other in zip(stages.ours.mask_head.predict(batch.features, given), theirs, strict=True):
            assert own.shape == (8, 28, 28)
            assert own.std() > 0.01
            stages.close(own, other[:, 0])


# torchvision's losses ---------------------------------------------------------------------------------------------


def draw_all(twins: Twins) -> Twins:
    """Return copies of the twins, in training mode, that sample every anchor and every proposal."""
    theirs, ours = copy.deepcopy(twins.theirs).train(), copy.deepcopy(twins.ours).train()
    theirs.rpn.fg_bg_sampler = BalancedPositiveNegativeSampler(10**6, 0.5)  # type: ignore[union-attr]
    theirs.roi_heads.fg_bg_sampler = BalancedPositiveNegativeSampler(10**6, 0.5)  # type: ignore[union-attr]
    ours.rpn.num_samples = 10**6
    ours.box_head.sampler = RoISampler(num_samples=10**6, pos_fraction=0.5)
    return Twins(theirs, ours)


def targets_for(images: list[Tensor]) -> list[dict[str, Tensor]]:
    """Return two disjoint objects for each image, none for the last one."""
    targets = []
    for image in images:
        height, width = image.shape[1:]
        boxes = [
            [0.1 * width, 0.1 * height, 0.5 * width, 0.6 * height],
            [0.6 * width, 0.3 * height, 0.9 * width, 0.9 * height],
        ]
        targets.append(scene(height, width, boxes, [2, 1])[1])
    targets[-1] = {name: value[:0] for name, value in targets[-1].items()}
    return targets


@both_kinds
def test_losses_are_torchvision_s_when_all_is_sampled(kind: str, request: pytest.FixtureRequest) -> None:
    twins = draw_all(request.getfixturevalue(f"{kind}_twins"))
    images = pictures()[1:]
    theirs = twins.theirs(images, copy.deepcopy(targets_for(images)))
    ours = twins.ours(images, targets_for(images))
    assert ours.keys() == theirs.keys()
    for name, loss in theirs.items():
        torch.testing.assert_close(ours[name], loss, rtol=1e-3, atol=0)
    sum(theirs.values()).backward()
    sum(ours.values()).backward()
    for name, their_name in {
        "rpn.conv": "rpn.head.conv.0.0",
        "box_head.fc2": "roi_heads.box_head.fc7",
        "backbone.fpn.outputs.0": "backbone.fpn.layer_blocks.0.0",
        "backbone.body.stages.0.0.conv1": "backbone.body.layer1.0.conv1",  # through every folded batch norm
    }.items():
        gradient = twins.ours.get_parameter(f"{name}.weight").grad
        their_gradient = twins.theirs.get_parameter(f"{their_name}.weight").grad
        assert isinstance(gradient, Tensor)
        assert isinstance(their_gradient, Tensor)
        assert (gradient - their_gradient).norm() < 0.01 * their_gradient.norm(), name


# the contract -----------------------------------------------------------------------------------------------------


@every_model
def test_training_gives_losses_and_evaluation_detections(make: Maker, device: torch.device) -> None:
    model = make().to(device)
    images, targets = scenes_on(device)
    losses = model(images, targets)
    assert {"loss_objectness", "loss_rpn_box_reg"} < losses.keys()
    assert ("loss_mask" in losses) == (getattr(model, "mask_head", None) is not None)
    assert all(loss.ndim == 0 and loss.isfinite() and loss.requires_grad for loss in losses.values())
    model.eval()
    model.select = replace(model.select, score_thresh=0.0)
    found = detections(model, images)
    for image, detection in zip(images, found, strict=True):
        count = len(detection["scores"])
        assert count > 0
        assert detection["boxes"].shape == (count, 4)
        assert detection["labels"].shape == (count,)
        assert set(detection["labels"].tolist()) <= {1, 2}
        assert (detection["scores"].diff() <= 0).all()
        height, width = image.shape[1:]
        assert (detection["boxes"] >= 0).all()
        assert (detection["boxes"].cpu() <= torch.tensor([width, height, width, height]) + 1e-3).all()
        assert all(values.device.type == device.type for values in detection.values())
        if "loss_mask" in losses:
            assert detection["masks"].shape == (count, 1, height, width)
            assert detection["masks"].min() >= 0
            assert detection["masks"].max() <= 1


def test_a_batch_is_a_list_of_its_images() -> None:
    model = tiny_mask_rcnn(2).eval()
    batch = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    for one, other in zip(detections(model, batch), detections(model, list(batch)), strict=True):  # type: ignore[arg-type]
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_image_s_detections_do_not_depend_on_the_others_in_its_batch() -> None:
    """Nothing is normalised, sampled or suppressed across images."""
    model = tiny_mask_rcnn(2).eval().double()
    model.select = replace(model.select, score_thresh=0.0, max_detections=10)
    images = [torch.rand(3, 192, 192).double(), torch.rand(3, 192, 192).double()]
    together = detections(model, images)
    for image, both in zip(images, together, strict=True):
        [alone] = detections(model, [image])
        torch.testing.assert_close(alone["boxes"], both["boxes"])
        torch.testing.assert_close(alone["masks"], both["masks"])


@every_model
def test_the_same_seed_gives_the_same_losses_and_another_does_not(make: Maker) -> None:
    model = make()
    images, targets = scenes()
    runs = [model(images, targets, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@every_model
def test_arguments_are_left_as_they_were(make: Maker) -> None:
    model = make()
    images, targets = scenes()
    before = copy.deepcopy((images, targets))
    model(images, targets)
    model.eval()(images)
    assert all(torch.equal(one, other) for one, other in zip(images, before[0], strict=True))
    for target, old in zip(targets, before[1], strict=True):
        assert target.keys() == old.keys()
        assert all(torch.equal(target[name], old[name]) for name in target)


@pytest.mark.parametrize("mask", [False, True])
def test_a_cascade_of_one_stage_is_faster_rcnn(mask: bool) -> None:
    """With a box for all classes, the same weights and the same draws: the same losses, the same detections."""
    torch.manual_seed(0)
    cascade = tiny_cascade_rcnn(2, iou_thresholds=(0.5,), mask=mask)
    faster: FasterRCNN = tiny_mask_rcnn(2) if mask else tiny_faster_rcnn(2)
    faster.box_head = BoxHead(2, TINY.channels, class_agnostic=True, **TINY.box_head)
    weights = cascade.state_dict()
    faster.load_state_dict({name.replace("box_head.stages.0.", "box_head."): weights[name] for name in weights})
    images, targets = scenes()
    one, other = (model(images, targets, torch.Generator().manual_seed(0)) for model in (cascade, faster))
    assert {name.removesuffix("_1"): loss.item() for name, loss in one.items()} == {
        name: loss.item() for name, loss in other.items()
    }
    for model in (cascade, faster):
        model.eval().select = replace(model.select, score_thresh=0.2)
    for found, expected in zip(detections(cascade, images), detections(faster, images), strict=True):
        assert len(expected["boxes"]) > 0
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_a_model_saw_before_changes_nothing() -> None:
    """Strides are given: a first image of 33 px, padded to 64, is no reason to take 2 for one."""
    torch.manual_seed(0)
    fresh = tiny_mask_rcnn(2).eval()
    fresh.transform = replace(fresh.transform, min_size=33)
    used = copy.deepcopy(fresh)
    detections(used, [torch.rand(3, 33, 33)])
    images, _ = scenes()
    for one, other in zip(detections(used, images), detections(fresh, images), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


# odd inputs -------------------------------------------------------------------------------------------------------


@every_model
def test_without_any_object_every_parameter_still_gets_a_gradient(make: Maker, device: torch.device) -> None:
    """As distributed training needs: the mask loss is 0 with its graph, not a constant."""
    model = make().to(device)
    images, targets = scenes_on(device)
    losses = model(images[3:], targets[3:])
    assert losses["loss_rpn_box_reg"] == 0
    assert losses.get("loss_mask", 0) == 0
    sum(losses.values()).backward()
    assert_gradients(model)


@every_model
def test_a_degenerate_target_is_refused_by_image_index_and_likely_cause(make: Maker) -> None:
    images, targets = scenes()
    x1, y1, x2, y2 = targets[2]["boxes"][0]
    targets[2]["boxes"][0] = torch.stack([x1, y1, x2 - x1, y2 - y1])  # as COCO's files have them
    with pytest.raises(ValueError, match=r"^targets\[2\]\['boxes'\]\[0\] must have x2 > x1.*\(x, y, width, height\)"):
        make()(images, targets)


@every_model
def test_evaluation_that_finds_nothing_returns_empty_tensors(make: Maker, device: torch.device) -> None:
    model = make().eval().to(device)
    model.select = replace(model.select, score_thresh=1.0)
    [found] = detections(model, [torch.rand(3, 50, 70, device=device)])
    assert found["boxes"].shape == (0, 4)
    assert found["labels"].shape == found["scores"].shape == (0,)
    assert found["labels"].dtype == torch.int64
    if getattr(model, "mask_head", None) is not None:
        assert found["masks"].shape == (0, 1, 50, 70)


@every_model
def test_bf16_autocast_trains_and_detects_in_full_precision(make: Maker, device: torch.device) -> None:
    model = make().to(device)
    images, targets = scenes_on(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        losses = model(images, targets, generator=torch.Generator().manual_seed(0))
        sum(losses.values()).backward()
        found = detections(model.eval(), images)
    exact = model.train()(images, targets, generator=torch.Generator().manual_seed(0))
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], rtol=0.05, atol=0.05)
    assert all(value.dtype in (torch.float32, torch.int64) for detection in found for value in detection.values())
    assert_gradients(model)


@every_model
def test_a_state_dict_round_trip_gives_the_same_detections(make: Maker) -> None:
    torch.manual_seed(0)
    first, second = make().eval(), make().eval()
    for model in (first, second):
        model.select = replace(model.select, score_thresh=0.0)
    second.load_state_dict(first.state_dict())
    images, _ = scenes()
    for one, other in zip(detections(first, images), detections(second, images), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_in_training_mode_asks_for_targets(without_shape_checks: None) -> None:
    with pytest.raises(ValueError, match=r"training needs one target for each of 1 images, got none.*eval\(\)"):
        tiny_mask_rcnn(2)([torch.rand(3, 64, 64)])


def test_mask_rcnn_asks_for_masks_where_faster_rcnn_does_not() -> None:
    image, target = scene(64, 64, [[8, 8, 40, 40]], [1])
    del target["masks"]
    tiny_faster_rcnn(2)([image], [target])
    with pytest.raises(ValueError, match=r"targets\[0\] must have .*add \['masks'\]"):
        tiny_mask_rcnn(2)([image], [target])


def test_the_classes_alone_make_a_whole_detector() -> None:
    """The defaults of every part fit together: ResNet-50, FPN, 80 classes."""
    image, target = scene(64, 64, [[8, 8, 40, 40]], [1])
    for model in (MaskRCNN(num_classes=3), CascadeRCNN(num_classes=3, iou_thresholds=(0.5, 0.6), mask=True)):
        model.transform = replace(model.transform, min_size=64)
        losses = model([image], [target])
        assert all(loss.isfinite() for loss in losses.values())
