import copy

import pytest
import torch
import torchvision
from torch import nn

from rcnn_edu.models import ResNetBody, TinyBody
from rcnn_edu.models.backbone import STRIDES, FrozenNormConv2d, fold_batch_norms


def with_statistics(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """Give the batch norm what it might have after training."""
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert values is not None
        nn.init.uniform_(values, 0.5, 2)
    return norm


def scale_and_shift(conv: FrozenNormConv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    conv.scale.copy_(norm.weight.detach() * (norm.running_var + norm.eps).rsqrt())
    conv.shift.copy_(norm.bias.detach() - norm.running_mean * conv.scale)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"groups": 2}, {"dilation": 2}])
def test_a_folded_batch_norm_is_the_batch_norm(options: dict[str, int]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, bias=False, **options).double()  # type: ignore[arg-type]
    norm = with_statistics(nn.BatchNorm2d(6).double().eval())
    folded = FrozenNormConv2d(copy.deepcopy(conv))
    scale_and_shift(folded, norm)
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(folded(x), norm(conv(x)))
    [gradient] = torch.autograd.grad(folded(x).square().sum(), folded.weight)
    [expected] = torch.autograd.grad(norm(conv(x)).square().sum(), conv.weight)
    torch.testing.assert_close(gradient, expected)
    assert [name for name, _ in folded.named_parameters()] == ["weight"]  # scale and shift are given, not learnt


def test_every_batch_norm_is_folded_wherever_it_stands() -> None:
    resnet = torchvision.models.resnet18(weights=None).double().eval()
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            with_statistics(module)
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    norms = [module for module in resnet.modules() if isinstance(module, nn.BatchNorm2d)]
    expected = resnet(x)
    fold_batch_norms(resnet)
    folded = [module for module in resnet.modules() if isinstance(module, FrozenNormConv2d)]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in resnet.modules())
    for conv, norm in zip(folded, norms, strict=True):
        scale_and_shift(conv, norm)
    torch.testing.assert_close(resnet(x), expected)


@pytest.mark.parametrize("body", [TinyBody(), ResNetBody("resnet18")], ids=["tiny", "resnet18"])
def test_maps_lie_at_their_strides_with_the_channels_that_are_said(body: TinyBody | ResNetBody) -> None:
    maps = body(torch.rand(2, 3, 64, 96))
    expected = [
        (2, channels, 64 // stride, 96 // stride) for channels, stride in zip(body.channels, STRIDES, strict=True)
    ]
    assert [features.shape for features in maps] == expected


def test_a_fresh_resnet_keeps_its_features_in_bounds() -> None:
    """Without statistics to normalise by, C5 would vary thirty times as much as C2."""
    torch.manual_seed(0)
    c2, *_, c5 = ResNetBody("resnet50")(torch.randn(1, 3, 64, 64))
    assert 0.2 < c5.std() / c2.std() < 5


def test_freezing_counts_from_the_stem() -> None:
    body = TinyBody()
    body.freeze(2)
    trained = {name.split(".")[0] + name.split(".")[1] for name, p in body.named_parameters() if p.requires_grad}
    assert trained == {"stages1", "stages2", "stages3"}
    assert not any(parameter.requires_grad for parameter in [*body.stem.parameters(), *body.stages[0].parameters()])
