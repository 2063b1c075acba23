import pytest
import torch

from knorm.kernel import KernelNorm2d, KNConv2d
from knorm.models import create_model

# 10, 100, 1000 classes, after the code of Nasirigerdeh et al. 2023.
COUNTS = {
    ("knresnet13", "kernel"): (2_041_034, 2_133_284, 3_055_784),
    ("resnet8", "none"): (1_855_178, 1_947_428, 2_869_928),
    ("resnet8", "layer"): (1_857_610, 1_949_860, 2_872_360),
    ("resnet8", "group"): (1_857_610, 1_949_860, 2_872_360),
    ("resnet8", "kernel"): (1_856_394, 1_948_644, 2_871_144),
}


def meta_net(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


@pytest.mark.parametrize(("name", "norm"), COUNTS)
def test_parameter_counts_are_the_published_ones(name, norm):
    for classes, count in zip((10, 100, 1000), COUNTS[name, norm], strict=True):
        net = meta_net(name, norm=norm, num_classes=classes)
        assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize(
    ("name", "channels", "features"), [("knresnet13", 256, 4), ("resnet8", 256, 4)]
)
@pytest.mark.parametrize("width", [1.0, 0.25, 2])
def test_width_scales_every_channel_count(name, channels, features, width):
    net = meta_net(name, width=width, norm="kernel").eval()
    x = net.forward_features(torch.empty(1, 3, 32, 32, device="meta"))
    assert x.shape == (1, channels * width, features, features)
    assert net.num_features == channels * width
    assert net.fc.in_features == 4 * channels * width


@pytest.mark.parametrize(("name", "final_p"), [("knresnet13", 0.5), ("resnet8", 0.25)])
def test_dropout_is_the_published_one(name, final_p):
    net = meta_net(name, norm="kernel")
    assert {m.dropout_p for m in net.modules() if isinstance(m, KNConv2d)} == {0.1}
    assert [m.dropout_p for m in net.modules() if isinstance(m, KernelNorm2d)] == [final_p]
