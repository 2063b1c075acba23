import pytest
import torch
from torch import nn

from knorm.models import create_model
from knorm.models.resnet import ResidualBlock


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", ["resnetlike", "resnextlike"])
def test_every_shortcut_is_a_unit(name):
    net = create_model(name, width=8)
    shortcuts = [m.shortcut for m in net.modules() if isinstance(m, ResidualBlock)]
    assert len(shortcuts) == {"resnetlike": 9, "resnextlike": 6}[name]
    assert all(isinstance(shortcut.conv, nn.Conv2d) for shortcut in shortcuts)
    assert all(m.bias is not None for m in net.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(
    ("name", "options", "channels", "side"),
    [
        ("resnetlike", {}, 256, 4),
        ("resnetlike", {"vanilla_chunks": 2, "bottleneck_chunks": 3}, 1024, 1),
        ("resnextlike", {}, 512, 4),
        ("resnextlike", {"chunks": 4}, 1024, 2),
    ],
)
def test_the_last_map_of_cifar_images(name, options, channels, side):
    with torch.device("meta"):
        net = create_model(name, **options).eval()
        features = net.forward_features(torch.empty(1, 3, 32, 32))
    assert features.shape == (1, channels, side, side)


def test_bottlenecks_have_a_quarter_of_the_channels_that_they_give():
    net = create_model("resnetlike", width=8)
    inner = [block.body.unit1.conv.out_channels for block in net.features.chunk2]
    assert inner == [4, 4, 8]


def test_a_chunk_of_resnextlike_equals_its_formula():
    net = create_model("resnextlike", width=8, cardinality=4, group_width=3).eval()
    outer, x = net.features.chunk1, torch.randn(1, 8, 6, 6)
    grouped = [block.body.unit2.conv for block in outer.chunk]
    assert [(c.groups, c.out_channels, c.stride[0]) for c in grouped] == [(4, 12, 1), (4, 12, 2)]
    with torch.no_grad():
        first, second = outer.chunk
        expected = second(first(x)) + outer.shortcut(x)
        torch.testing.assert_close(outer(x), expected)
    assert outer(x).min() < 0  # nothing activates the sum
    assert type(outer.shortcut) is nn.Conv2d


def test_a_net_without_chunks_is_refused():
    with pytest.raises(ValueError, match="vanilla_chunks and bottleneck_chunks are both 0"):
        create_model("resnetlike", vanilla_chunks=0, bottleneck_chunks=0)
