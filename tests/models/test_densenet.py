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


@pytest.mark.parametrize("depth", [121, 161, 169, 201])
def test_large_images_have_the_net_of_torchvision(depth):
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        ours, theirs = (make(f"densenet{depth}") for make in (create_model, models.get_model))
        shapes = [ours.forward_features(torch.empty(1, 3, 224, 224)).shape]
        shapes += [theirs.features(torch.empty(1, 3, 224, 224)).shape]
    counts = {sum(p.numel() for p in net.parameters()) for net in (ours, theirs)}
    assert len(counts) == 1
    assert shapes[0] == shapes[1]


def test_new_channels_of_densenet121_stand_before_the_old_ones():
    layer = create_model("densenet121", num_classes=2).features.block1[0]
    x = torch.randn(2, 64, 8, 8)
    out = layer(x)
    assert out.shape == (2, 96, 8, 8)
    assert torch.equal(out[:, 32:], x)


def test_densenetlike_activates_after_its_convolutions_and_halves_channels():
    net = create_model("densenetlike", num_classes=2)
    kinds = [type(m).__name__ for m in net.features.block1[0].modules() if not [*m.children()]]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2
    transitions = [m for name, m in net.features.named_children() if "transition" in name]
    channels = [(m.unit.conv.in_channels, m.unit.conv.out_channels) for m in transitions]
    assert channels == [(144, 72), (168, 84), (180, 90), (186, 93)]
    assert net.num_features == 189
    assert all(m.bias is not None for m in net.modules() if isinstance(m, nn.Conv2d))
