"""A convolution as a KNConv keeps its geometry and weight; folding keeps its outputs."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import knorm
from knorm.swap.convs import folded, to_kernel, why_not_fold, why_not_kernel

GEOMETRIES = {
    "strided": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(4, 6, (3, 2), padding=(2, 1), dilation=2, bias=False),
    "same": nn.Conv2d(4, 6, (2, 5), padding="same", padding_mode="reflect"),
    "depthwise": nn.Conv2d(4, 8, 3, groups=4, padding=1, padding_mode="circular"),
    "grouped": nn.Conv2d(4, 6, 1, groups=2, bias=False),
    "1d": nn.Conv1d(4, 6, 3, stride=2),
    "3d": nn.Conv3d(4, 6, (1, 2, 3), padding=(0, 1, 1)),
}


def normalized(x):
    """The input with mean 0 and variance 1 over channels everywhere: windows without padding need
    no more."""
    return knorm.make_norm("kernel", x.shape[1], dims=x.dim() - 2, dropout_p=0.0, eps=0.0)(x)


@pytest.mark.parametrize("conv", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_kernel_convolution_is_that_of_the_same_geometry_and_weight(conv):
    x = torch.randn(2, 4, *[9] * (conv.weight.dim() - 2))
    new = to_kernel(conv, dropout_p=0.1, eps=1e-4)
    assert new.weight is conv.weight
    assert new.bias is conv.bias or (conv.bias is None and not new.bias.any())
    assert (new.dropout_p, new.eps) == (0.1, 1e-4)
    table = {1: knorm.KNConv1d, 2: knorm.KNConv2d, 3: knorm.KNConv3d}
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
    options = {name: getattr(conv, name) for name in (*names, "groups", "padding_mode")}
    expected = table[x.dim() - 2](**options, dropout_p=0.1, eps=1e-4)
    expected.load_state_dict(new.state_dict())
    torch.testing.assert_close(new.eval()(x), expected.eval()(x), rtol=0, atol=0)
    assert new(x).shape == conv(x).shape


def test_what_does_not_learn_goes_on_not_learning_and_the_mode_stays():
    conv = nn.Conv2d(4, 6, 3, bias=False).eval().requires_grad_(False)
    new = to_kernel(conv, dropout_p=0.1, eps=1e-5)
    assert not new.bias.requires_grad
    assert not new.training


@pytest.mark.parametrize("size", [7, 8, 9])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (2, 1, 1), (5, 3, 2)])
def test_padding_by_the_size_of_the_input_is_that_of_timm(size, kernel, stride, dilation):
    layers = pytest.importorskip("timm.layers")
    conv = layers.Conv2dSame(4, 6, kernel, stride, dilation=dilation)
    x = torch.randn(2, 4, size, size + 1)
    padded = layers.padding.pad_same(x, (kernel,) * 2, (stride,) * 2, (dilation,) * 2)
    expected = knorm.kn_conv(padded, conv.weight, conv.bias, stride, 0, dilation)
    new = to_kernel(conv, dropout_p=0.0, eps=1e-5)
    torch.testing.assert_close(new(x), expected, rtol=0, atol=0)
    assert new(x).shape == conv(x).shape


@pytest.mark.parametrize(
    "name", ["StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame"]
)
def test_standardized_convolutions_go_on_standardizing(name):
    conv = getattr(pytest.importorskip("timm.layers"), name)(4, 6, 1, bias=True)
    with torch.no_grad():
        conv.bias.fill_(0.3)
        if hasattr(conv, "gain"):
            conv.gain.uniform_(0.5, 2)
    x = normalized(torch.randn(2, 4, 5, 5))
    new = to_kernel(conv, dropout_p=0.0, eps=0.0)
    torch.testing.assert_close(new(x), conv(x), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in new.parameters()) == sum(p.numel() for p in conv.parameters())


@pytest.mark.parametrize("layer", GEOMETRIES.values(), ids=GEOMETRIES)
def test_folding_multiplies_and_adds_after_the_layer(layer):
    x = torch.randn(3, 4, *[7] * (layer.weight.dim() - 2))
    scale, shift = torch.randn(2, layer.weight.shape[0], dtype=torch.double)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    view = (-1, *[1] * (x.dim() - 2))
    expected = layer(x) * scale.float().view(view) + shift.float().view(view)
    torch.testing.assert_close(folded(layer, scale, shift)(x), expected)
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


NORMS = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@pytest.mark.parametrize("layer", GEOMETRIES.values(), ids=GEOMETRIES)
def test_folding_a_trained_batch_norm_changes_outputs_by_less_than_1e_5(layer):
    torch.manual_seed(0)
    x = torch.randn(16, 4, *[7] * (layer.weight.dim() - 2))
    norm = NORMS[layer.weight.dim()](layer.weight.shape[0], momentum=1.0)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    net = nn.Sequential(layer, norm)
    net(x)
    new, report = knorm.swap_norm(net.eval(), "none", fold=True)
    assert report.rows[0].note == "folded into 0"
    assert (new(x) - net(x)).abs().max() < 1e-5


class Odd(nn.Conv2d):
    def forward(self, input):  # noqa: A002
        return super().forward(input).relu()


class OddStep(nn.Conv2d):
    def _conv_forward(self, *args):
        return super()._conv_forward(*args).relu()


def hooked(register):
    conv = nn.Conv2d(4, 4, 1)
    getattr(conv, register)(lambda *args: None)
    return conv


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.ReLU(), "ReLU gives its input"),
        (nn.Linear(3, 3), "Linear gives its input"),
        (nn.Conv2d(1, 3, 1), "windows of one element"),
        (Odd(4, 4, 1), "Odd before it is not a known convolution"),
        (OddStep(4, 4, 1), "OddStep before it is not a known convolution"),
        (parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), "parametrized"),
        (hooked("register_forward_pre_hook"), "has hooks"),
        (hooked("register_full_backward_hook"), "has hooks"),
        (hooked("register_full_backward_pre_hook"), "has hooks"),
    ],
)
def test_other_layers_are_refused_with_the_reason(layer, words):
    assert words in why_not_kernel(layer)


def test_standardized_weights_take_no_scale():
    layers = pytest.importorskip("timm.layers")
    assert why_not_fold(layers.StdConv2d(4, 4, 1)) is not None
    assert why_not_fold(nn.Conv2d(4, 4, 1)) is None
