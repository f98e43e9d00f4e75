import pytest
import torch
import torch.nn.functional as F

from rcnn_edu.models import AgnosticMaskHead, FCNMasks, MaskHead, MLPMasks, SoftmaxMaskHead


def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    targets = (torch.rand(2, 4, 4, generator=generator) > 0.5).float()
    return logits, torch.tensor([1, 3]), targets


@pytest.mark.parametrize("network", [FCNMasks, MLPMasks])
def test_either_network_doubles_the_bins(network: type[FCNMasks] | type[MLPMasks]) -> None:
    masks = network(5, 8, hidden=16)(torch.randn(2, 8, 14, 14))
    assert masks.shape == (2, 5, 28, 28)


def test_the_channel_is_the_label_less_one_and_the_others_are_left_alone() -> None:
    logits, labels, targets = logits_and_labels()
    logits.requires_grad_()
    head = MaskHead(3, 8)
    expected = F.binary_cross_entropy_with_logits(torch.stack([logits[0, 0], logits[1, 2]]), targets)
    loss = head.loss(logits, labels, targets)
    assert torch.allclose(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert [bool(channel.any()) for channel in gradient[0]] == [True, False, False]
    assert [bool(channel.any()) for channel in gradient[1]] == [False, False, True]
    assert torch.allclose(head.probabilities(logits, labels)[1], logits[1, 2].sigmoid())


def test_a_class_agnostic_head_has_one_mask_for_all() -> None:
    logits, labels, targets = logits_and_labels()
    head = AgnosticMaskHead(3, 8)
    assert head.num_channels(3) == 1
    expected = F.binary_cross_entropy_with_logits(logits[:, 0], targets)
    assert torch.allclose(head.loss(logits[:, :1], labels, targets), expected)
    assert torch.allclose(head.probabilities(logits[:, :1], labels), logits[:, 0].sigmoid())


def test_a_softmax_head_makes_classes_and_background_compete() -> None:
    logits, _, targets = logits_and_labels()
    head, labels = SoftmaxMaskHead(2, 8), torch.tensor([1, 2])
    assert head.num_channels(2) == 3
    classes = torch.stack([targets[0].long() * 1, targets[1].long() * 2])
    assert torch.allclose(head.loss(logits, labels, targets), F.cross_entropy(logits, classes))
    probabilities = head.probabilities(logits, labels)
    assert torch.allclose(probabilities[1], logits.softmax(dim=1)[1, 2])
    assert head.loss(logits[:0], labels[:0], targets[:0]) == 0
