"""The comparison of trainings: that it runs, goes on, and starts both models from the same backbone."""

import json
from pathlib import Path

import pytest
import torch

from rcnn_edu.datasets import SyntheticScenes
from rcnn_edu.models import MaskRCNN
from tests.benchmarks import training
from tests.benchmarks.models import torchvision_tiny


def test_both_begin_with_the_same_backbone_and_are_as_large() -> None:
    models = training.contenders(seed=3)
    ours, theirs = models["ours"], models["torchvision"]
    backbone = {name: tensor for name, tensor in theirs.state_dict().items() if "backbone.backbone." in name}
    assert len(backbone) == len(ours.get_submodule("backbone").state_dict())
    for name, tensor in backbone.items():
        assert torch.equal(tensor, ours.state_dict()[name.replace("model.backbone.backbone.", "backbone.")])
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (ours, theirs)]
    # torchvision has a box and a mask for background too, which nothing ever learns.
    assert sizes[1] - sizes[0] == 4 * 256 + 4 + 64 + 1


@pytest.mark.slow
def test_a_short_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "result.json"
    few = ["--steps", "2", "--test-scenes", "2", "--result", str(result)]
    training.main([str(tmp_path / "runs"), *few])
    report = json.loads(result.read_text(encoding="utf-8"))
    assert report["settings"]["steps"] == 2
    printed = capsys.readouterr().out
    for name in ("ours", "torchvision"):
        assert 0 <= report["trained"][name]["mask"]["AP"] <= 1
        assert report["trained"][name]["training_seconds_per_step"] > 0
        assert f"{name}\n2 images" in printed
    assert isinstance(report["torchvision"], str)  # its version


def test_torchvision_samples_as_it_is_told() -> None:
    torch.manual_seed(0)
    ours = training.contenders(seed=0)["ours"]
    assert isinstance(ours, MaskRCNN)
    theirs = training.TorchvisionDetector(torchvision_tiny(ours, ours.num_classes))
    image, target = SyntheticScenes(1)[0]

    def loss(seed: int) -> torch.Tensor:
        losses = theirs.train()([image], [target], torch.Generator().manual_seed(seed))
        return torch.stack(list(losses.values())).sum().detach()

    assert torch.equal(loss(1), loss(1))
    assert not torch.equal(loss(1), loss(2))
