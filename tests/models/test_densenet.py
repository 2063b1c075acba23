import pytest
import torch
from torch import nn

from knorm.kernel import KernelNorm2d, KNConv2d
from knorm.models import create_model

# 10, 100, 1000 classes, after the code of Nasirigerdeh et al. 2023.
COUNTS = {
    "none": (759_306, 783_876, 1_029_576),
    "layer": (764_778, 789_348, 1_035_048),
    "group": (764_778, 789_348, 1_035_048),
    "kernel": (759_882, 784_452, 1_030_152),
}


def meta_net(**options):
    with torch.device("meta"):
        return create_model("densenet20x16", **options)


@pytest.mark.parametrize("norm", COUNTS)
def test_parameter_counts_are_the_published_ones(norm):
    for classes, count in zip((10, 100, 1000), COUNTS[norm], strict=True):
        net = meta_net(norm=norm, num_classes=classes)
        assert sum(p.numel() for p in net.parameters()) == count


def test_group_norm_has_16_groups_unless_told():
    for options, expected in [({}, 16), ({"norm_options": {"groups": 8}}, 8)]:
        net = meta_net(norm="group", **options)
        groups = {m.num_groups for m in net.modules() if isinstance(m, nn.GroupNorm)}
        assert groups == {expected}


def test_new_channels_come_behind_the_old_ones():
    net = create_model("densenet20x16", norm="none", num_classes=2)
    x = torch.randn(1, 32, 8, 8)
    out = net.features.block1[0](x)
    assert out.shape == (1, 48, 8, 8)
    assert torch.equal(out[:, :32], x)


def test_dropout_is_the_published_one():
    net = meta_net(norm="kernel")
    assert {m.dropout_p for m in net.modules() if isinstance(m, KNConv2d)} == {0.1}
    assert [m.dropout_p for m in net.modules() if isinstance(m, KernelNorm2d)] == [0.5]
