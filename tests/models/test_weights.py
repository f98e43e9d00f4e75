import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rcnn_edu.models import load_model, tiny_cascade_rcnn, tiny_faster_rcnn, tiny_mask_rcnn
from rcnn_edu.models.cascade import Cascade
from rcnn_edu.models.presets import faster_rcnn_resnet50_fpn, mask_rcnn_resnet50_fpn
from rcnn_edu.models.weights import (
    fetch_coco_weights,
    load_checkpoint,
    load_torchvision_state_dict,
    read_checkpoint,
    save_checkpoint,
)
from tests.models.twins import Twins

NAMES = ["disc", "square"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(tiny_faster_rcnn(2), path, preset="tiny_faster_rcnn", categories=NAMES)
    return path


# torchvision's state dicts ----------------------------------------------------------------------------------------


def test_a_state_dict_of_another_kind_of_model_is_refused_whole(mask_twins: Twins, faster_twins: Twins) -> None:
    ours = mask_rcnn_resnet50_fpn()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"the state dict does not fit MaskRCNN.*mask_head.* is missing; .*not from a v2"
    ):
        load_torchvision_state_dict(ours, faster_twins.theirs.state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def test_other_classes_leave_the_layers_that_know_them_as_they_were(faster_twins: Twins) -> None:
    ours = faster_rcnn_resnet50_fpn(num_classes=3)
    before = ours.state_dict()["box_head.class_logits.weight"].clone()
    load_torchvision_state_dict(ours, faster_twins.theirs.state_dict(), new_classes=True)
    assert torch.equal(ours.state_dict()["box_head.class_logits.weight"], before)
    theirs = faster_twins.theirs.state_dict()["roi_heads.box_head.fc7.weight"]
    assert torch.equal(ours.state_dict()["box_head.fc2.weight"], theirs)


def test_coco_weights_without_a_network_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*_args: Any, **_options: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        ConnectionError, match=r"cannot download .*maskrcnn_resnet50_fpn.*by hand.*weights=None"
    ) as caught:
        fetch_coco_weights("maskrcnn_resnet50_fpn")
    assert str(tmp_path) in str(caught.value)


def test_coco_weights_are_loaded_as_they_were_trained(monkeypatch: pytest.MonkeyPatch, mask_twins: Twins) -> None:
    published = mask_twins.theirs.state_dict()
    monkeypatch.setattr("rcnn_edu.models.presets.fetch_coco_weights", lambda name: published)
    model = mask_rcnn_resnet50_fpn(weights="COCO_V1")
    scale = published["backbone.body.bn1.weight"] * published["backbone.body.bn1.running_var"].rsqrt()  # eps 0
    stem = dict(model.named_buffers())["backbone.body.stem.0.scale"]
    assert torch.allclose(stem, scale)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert any(name.startswith("backbone.body.stem") for name in frozen)
    assert not any(name.startswith(("backbone.fpn", "rpn", "box_head", "mask_head")) for name in frozen)


@pytest.mark.parametrize("build", [mask_rcnn_resnet50_fpn, tiny_mask_rcnn])
def test_unknown_weights_are_refused(build: Any, without_shape_checks: None) -> None:
    with pytest.raises(ValueError, match=r"weights must be None or '.*', got 'imagenet'; your own: load_checkpoint"):
        build(weights="imagenet")


def test_shipped_weights_come_from_the_course_s_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trained = tiny_mask_rcnn()
    save_checkpoint(trained, tmp_path / "tiny_mask_rcnn.safetensors", preset="tiny_mask_rcnn", categories=list("abcd"))
    monkeypatch.setattr("rcnn_edu.models.presets.CHECKPOINTS", tmp_path)
    for name, tensor in tiny_mask_rcnn(weights="scenes").state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name])


# our own checkpoints ----------------------------------------------------------------------------------------------


def test_a_checkpoint_builds_the_model_again(tmp_path: Path) -> None:
    saved = tiny_cascade_rcnn(2, mask=True, iou_thresholds=(0.5, 0.6))
    saved.transform = replace(saved.transform, min_size=96, max_size=128)
    path = tmp_path / "cascade.safetensors"
    save_checkpoint(saved, path, preset="tiny_cascade_rcnn", categories=NAMES, mask=True, iou_thresholds=(0.5, 0.6))
    model, categories = load_model(path)
    assert categories == NAMES
    assert not model.training
    assert model.transform == saved.transform  # objects look as large to it as to the one that was trained
    assert isinstance(model.box_head, Cascade)
    assert [stage.sampler.iou_thresh for stage in model.box_head.stages] == [0.5, 0.6]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, saved.state_dict()[name])
    assert list(tmp_path.iterdir()) == [path]  # nothing partial is left behind


def test_a_checkpoint_helps_with_other_classes(tmp_path: Path) -> None:
    saved, model = tiny_mask_rcnn(2), tiny_mask_rcnn(5)
    path = tmp_path / "two.safetensors"
    save_checkpoint(saved, path, preset="tiny_mask_rcnn", categories=NAMES)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_checkpoint(model, path, new_heads=True)
    fresh = [name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])]
    known = saved.state_dict()
    layers = {name.rpartition(".")[0] for name in fresh if before[name].shape != known[name].shape}
    assert layers == {"box_head.class_logits", "box_head.deltas", "mask_head.network.6"}
    with pytest.raises(ValueError, match="does not fit FasterRCNN"):
        load_checkpoint(faster_rcnn_resnet50_fpn(5), path, new_heads=True)


def test_a_cascade_begins_with_what_it_shares_with_a_mask_rcnn(tmp_path: Path) -> None:
    saved, path = tiny_mask_rcnn(2), tmp_path / "two.safetensors"
    save_checkpoint(saved, path, preset="tiny_mask_rcnn", categories=NAMES)
    for cascade, kept in (
        (tiny_cascade_rcnn(2, mask=True), ("box_head.",)),
        (tiny_cascade_rcnn(2), ("box_head.",)),
        (tiny_faster_rcnn(2), ()),
    ):
        before = {name: tensor.clone() for name, tensor in cascade.state_dict().items()}
        load_checkpoint(cascade, path, new_heads=True)
        for name, tensor in cascade.state_dict().items():
            expected = before[name] if name.startswith(kept) else saved.state_dict()[name]
            assert torch.equal(tensor, expected), name


def test_categories_must_be_as_many_as_the_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"categories must name the model's 2 classes, got \['disc'\]"):
        save_checkpoint(tiny_faster_rcnn(2), tmp_path / "x.safetensors", preset="tiny_faster_rcnn", categories=["disc"])
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_cut_in_half_is_refused(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"tiny\.safetensors is not a whole safetensors file .*copy it again"):
        read_checkpoint(checkpoint)


def test_a_changed_byte_is_noticed(checkpoint: Path) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[-7] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(ValueError, match=r"tiny\.safetensors is damaged"):
        read_checkpoint(checkpoint)


class Bomb:
    """A pickle of it would call something when it is opened."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was opened",))


def test_a_pickle_that_poses_as_weights_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"is not a whole safetensors file .*is not opened"):
        read_checkpoint(path)


def test_safetensors_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(
        ValueError, match=r"does not say how to build its model; write checkpoints with save_checkpoint"
    ):
        read_checkpoint(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*nowhere\.safetensors; check the path"):
        load_model(tmp_path / "nowhere.safetensors")


def test_a_model_of_another_kind_keeps_its_weights(checkpoint: Path) -> None:
    model: nn.Module = tiny_mask_rcnn(2)
    with pytest.raises(
        ValueError, match=r"does not fit MaskRCNN.*it is of tiny_faster_rcnn with 2 classes; see load_model"
    ):
        load_checkpoint(model, checkpoint)


def test_a_preset_of_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "future.safetensors"
    save_checkpoint(tiny_faster_rcnn(2), path, preset="tiny_transformer", categories=NAMES)
    with pytest.raises(ValueError, match=r"is of the preset 'tiny_transformer'; this version knows \["):
        load_model(path)
    _, card = read_checkpoint(path)
    assert json.loads(json.dumps(card)) == {
        "preset": "tiny_transformer",
        "categories": NAMES,
        "options": {},
        "sizes": {"min_size": 192, "max_size": 320},
    }
