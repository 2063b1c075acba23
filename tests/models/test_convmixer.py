import pytest
import torch
from torch import nn

from knorm.kernel import KNConv2d
from knorm.models import create_model

SMALL = {"dim": 6, "depth": 2, "kernel_size": 3, "num_classes": 3}


def test_the_net_equals_its_formula():
    torch.manual_seed(0)
    net = create_model("convmixer", **SMALL).eval()
    x = images = torch.randn(2, 3, 8, 8)
    children = dict(net.features.named_children())
    with torch.no_grad():
        stem = children.pop("stem")
        x = stem.norm(nn.functional.gelu(stem.conv(x)))
        for mixer in children.values():
            (conv1, norm1), (conv2, norm2) = (
                (layer.conv, layer.norm) for layer in (mixer.depthwise, mixer.pointwise)
            )
            x = x + norm1(nn.functional.gelu(conv1(x)))
            x = norm2(nn.functional.gelu(conv2(x)))
            assert (conv1.groups, conv2.kernel_size) == (6, (1, 1))
        torch.testing.assert_close(net(images), net.fc(x.mean((2, 3))))


@pytest.mark.parametrize(
    ("options", "patch"), [({}, 2), ({"stem": "imagenet"}, 7), ({"patch_size": 4}, 4)]
)
def test_patches(options, patch):
    net = create_model("convmixer", **SMALL, **options)
    assert net.features.stem.conv.stride == (patch, patch)
    assert {level["reduction"] for level in net.feature_info} == {patch}


def test_every_convolution_of_the_kernel_kind_normalizes():
    net = create_model("convmixer", norm="kernel", **SMALL)
    assert sum(isinstance(m, KNConv2d) for m in net.modules()) == 5
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="kernel_size takes an odd number, got 4"):
        create_model("convmixer", kernel_size=4)
