from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from rcnn_edu.models import FPN, ConvP6, SingleMap, resnet_fpn, subsampled_p6
from rcnn_edu.models.fpn import Maps, Pyramid

CHANNELS = [3, 4, 5]


def maps(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, count, *size, generator=generator) for count, size in zip(CHANNELS, sizes, strict=True)]


EVEN = ((8, 12), (4, 6), (2, 3))
ODD = ((7, 11), (4, 6), (2, 3))


def set_weights(fpn: FPN, lateral: float, output: float) -> None:
    """Make each lateral convolution a multiple of its one channel, each output one a multiple of its centre."""
    for conv in fpn.laterals:
        nn.init.constant_(conv.get_parameter("weight"), lateral)
    for conv in fpn.outputs:
        weight = conv.get_parameter("weight")
        nn.init.zeros_(weight)
        weight.data[:, :, 1, 1] = output


def test_the_top_down_path_by_hand() -> None:
    """Ones below, a ramp above: each cell of the ramp is spread over four cells, and added."""
    fpn = FPN([1, 1], 1, p6=None)
    set_weights(fpn, lateral=10, output=2)
    fine, coarse = torch.ones(1, 1, 2, 4), torch.tensor([[[[1.0, 2.0]]]])
    p2, p3 = fpn([fine, coarse])
    assert p3.tolist() == [[[[20, 40]]]]
    assert p2.tolist() == [[[[40, 40, 60, 60]] * 2]]


@pytest.mark.parametrize("sizes", [EVEN, ODD])
def test_the_pyramid_is_torchvision_s(sizes: tuple[tuple[int, int], ...]) -> None:
    theirs = FeaturePyramidNetwork(CHANNELS, 8, extra_blocks=LastLevelMaxPool())
    ours = FPN(CHANNELS, 8)
    for level in range(3):
        ours.laterals[level].load_state_dict(theirs.inner_blocks[level][0].state_dict())
        ours.outputs[level].load_state_dict(theirs.layer_blocks[level][0].state_dict())
    features = maps(*sizes)
    expected = theirs(dict(zip("012", features, strict=True)))
    for level, other in zip(ours(features), expected.values(), strict=True):
        torch.testing.assert_close(level, other)


def test_both_p6_have_every_other_cell_of_p5() -> None:
    features = maps(*ODD)
    subsampled = FPN(CHANNELS, 8)(features)
    assert torch.equal(subsampled[-1], subsampled[-2][:, :, ::2, ::2])
    convolved = FPN(CHANNELS, 8, p6=ConvP6(CHANNELS[-1], 8))
    assert convolved(features)[-1].shape == subsampled[-1].shape
    assert torch.equal(convolved(features)[-1], convolved.get_submodule("p6.conv")(features[-1]))  # C5, not P5
    assert len(FPN(CHANNELS, 8, p6=None)(features)) == 3


@pytest.mark.parametrize(
    ("merge", "is_of_lateral", "is_of_above"),
    [
        (torch.add, True, True),
        (lambda lateral, above: lateral, True, False),
        (lambda lateral, above: above, False, True),
    ],
    ids=["both", "no top-down path", "no laterals"],
)
def test_a_level_comes_from_what_merge_returns(
    merge: Callable[[Tensor, Tensor], Tensor], is_of_lateral: bool, is_of_above: bool
) -> None:
    features = [level.requires_grad_() for level in maps(*EVEN)]
    finest = FPN(CHANNELS, 8, p6=None, merge=merge)(features)[0]
    of_lateral, _, of_above = torch.autograd.grad(finest.sum(), features, allow_unused=True)
    assert (of_lateral is not None) == is_of_lateral
    assert (of_above is not None) == is_of_above


def test_p6_may_be_any_function_of_the_pyramid_and_the_maps() -> None:
    def mean_p6(pyramid: Pyramid, features: Maps) -> Tensor:
        return F.avg_pool2d(pyramid[-1], 2, ceil_mode=True)

    pyramid = FPN(CHANNELS, 8, p6=mean_p6)(maps(*EVEN))
    assert pyramid[-1].shape == subsampled_p6(pyramid[:-1], []).shape


def test_a_single_map_is_one_level() -> None:
    neck = SingleMap(CHANNELS, 8, level=1)
    [level] = neck(maps(*EVEN))
    assert level.shape == (2, 8, 4, 6)


def test_a_resnet_s_pyramid_halves_from_level_to_level() -> None:
    levels = resnet_fpn("resnet18")(torch.rand(1, 3, 64, 96))
    assert [level.shape for level in levels] == [
        (1, 256, 16, 24), (1, 256, 8, 12), (1, 256, 4, 6), (1, 256, 2, 3), (1, 256, 1, 2),
    ]  # fmt: skip
