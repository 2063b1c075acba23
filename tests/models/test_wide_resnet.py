import pytest
import torch
import torch.nn.functional as F
from torch import nn

from knorm.kernel import KNConv2d
from knorm.models import create_model
from knorm.models.wide_resnet import StandardizedConv2d

DEPTHS = {"wide_resnet16_4": 2, "wide_resnet40_4": 6}


def meta_net(name, **options):
    with torch.device("meta"):
        return create_model(name, num_classes=10, **options)


def published_layers(depth):
    """(in, out, kernel) of every convolution and the channels of every norm, as in the source."""
    convs, norms, channels = [(3, 16, 3)], [], 16
    for width in (64, 128, 256):
        for block in range(depth):
            if block == 0:
                convs.append((channels, width, 1))
                norms.append(channels)
            convs += [(channels, width, 3), (width, width, 3)]
            norms += [channels, width]
            channels = width
    return convs, [*norms, channels]


@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("name", DEPTHS)
def test_convolutions_norms_and_parameters_are_those_of_the_source(name, standardized):
    net = meta_net(name, standardized=standardized)
    convs, norms = published_layers(DEPTHS[name])
    found = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    shapes = [(conv.in_channels, conv.out_channels, conv.kernel_size[0]) for conv in found]
    assert sorted(shapes) == sorted(convs)
    assert {isinstance(conv, StandardizedConv2d) for conv in found} == {standardized}
    groups = [m for m in net.modules() if isinstance(m, nn.GroupNorm)]
    assert sorted(norm.num_channels for norm in groups) == sorted(norms)
    assert {norm.num_groups for norm in groups} == {16}
    count = sum(i * o * k * k + o * (1 + standardized) for i, o, k in convs)
    count += sum(2 * channels for channels in norms) + 10 * 257
    assert sum(p.numel() for p in net.parameters()) == count


def test_the_first_block_computes_what_the_source_does():
    net = create_model("wide_resnet16_4", width=0.25, activation="mish").double()
    block, x = net.features.layer2[0], torch.randn(2, 16, 6, 6, dtype=torch.double)
    body, shortcut = block.body, block.shortcut
    y = body.conv1(body.norm1(F.mish(x)))
    y = body.conv2(body.norm2(F.mish(y)))
    torch.testing.assert_close(block(x), y + shortcut.conv(shortcut.norm(F.mish(x))))
    assert y.shape == (2, 32, 3, 3)


def test_filters_are_centred_and_of_the_norm_of_their_gain():
    conv = StandardizedConv2d(3, 4, 3, 1, 1).double()
    with torch.no_grad():
        conv.weight.mul_(7).add_(2)
        conv.gain.copy_(torch.tensor([1.0, 2.0, 3.0, 0.5]))
    filters = conv.weight - conv.weight.mean((1, 2, 3), keepdim=True)
    filters = filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    x = torch.randn(2, 3, 5, 5, dtype=torch.double)
    expected = F.conv2d(x, filters * conv.gain.view(-1, 1, 1, 1), conv.bias, padding=1)
    torch.testing.assert_close(conv(x), expected)


def test_a_filter_of_one_value_is_finite():
    conv = StandardizedConv2d(3, 4, 3)
    nn.init.ones_(conv.weight)
    assert torch.equal(conv(torch.ones(1, 3, 3, 3)), conv.bias.detach().view(1, 4, 1, 1))


def test_with_kernel_every_norm_and_convolution_is_one_layer():
    net = meta_net("wide_resnet16_4", norm="kernel")
    convs, _ = published_layers(2)
    assert sum(isinstance(m, KNConv2d) for m in net.modules()) == len(convs)
    assert not [m for m in net.modules() if isinstance(m, nn.GroupNorm)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"standardized": "yes"}, "standardized takes True or False, got 'yes'"),
        ({"standardized": True, "norm": "kernel"}, "standardized is not for norm 'kernel'"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        meta_net("wide_resnet16_4", **options)
