"""The layers of swapped nets do what they say, for every shape they say."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from knorm.swap.layers import (
    AdaptedKNConv2d,
    Gate,
    InstanceNorm,
    PositionNorm,
    ScaleShift,
    Threshold,
)


@pytest.mark.parametrize("shape", [(5, 8), (2, 8, 5), (2, 8, 4, 3), (2, 8, 2, 2, 2)])
def test_a_position_norm_is_the_layer_norm_of_every_position(shape):
    x = torch.randn(shape, requires_grad=True)
    expected = F.layer_norm(x.movedim(1, -1), (8,), eps=1e-5)
    norm = PositionNorm(dropout_p=0.0, eps=1e-5)
    torch.testing.assert_close(norm(x), expected.movedim(-1, 1))
    last = PositionNorm(channels_last=True, dropout_p=0.0, eps=1e-5)
    torch.testing.assert_close(last(x.movedim(1, -1)), expected)
    assert "channels_last=True" in repr(last)


@pytest.mark.parametrize("space", [(6,), (4, 3), (2, 3, 2)])
def test_an_instance_norm_is_that_of_torch_where_a_channel_has_elements(space):
    table = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
    norm, theirs = InstanceNorm(4, affine=True), table[len(space)](4, affine=True)
    x = torch.randn(3, 4, *space)
    torch.testing.assert_close(norm(x), theirs(x), rtol=0, atol=0)


@pytest.mark.parametrize("space", [(), (1,), (1, 1)])
def test_an_instance_norm_of_single_elements_is_the_layer_norm(space):
    x = torch.randn(3, 4, *space)
    expected = F.layer_norm(x.view(3, 4), (4,)).view(x.shape)
    torch.testing.assert_close(InstanceNorm(4, affine=True)(x), expected)


@pytest.mark.parametrize("space", [(), (5,), (2, 3)])
def test_scale_threshold_and_gate_are_by_channel(space):
    x = torch.randn(3, 4, *space)
    a, b = torch.randn(2, 4)
    wide = [p.view(4, *[1] * len(space)) for p in (a, b)]
    torch.testing.assert_close(ScaleShift(a, b)(x), x * wide[0] + wide[1])
    torch.testing.assert_close(Threshold(nn.Parameter(a))(x), torch.maximum(x, wide[0]))
    torch.testing.assert_close(Gate(nn.Parameter(a))(x), x * torch.sigmoid(wide[0] * x))


def test_the_adapted_convolution_shows_its_adaptations():
    text = repr(AdaptedKNConv2d(3, 4, 3, same_pad=True, standardize_eps=1e-6))
    assert "same_pad=True, standardize_eps=1e-06" in text
