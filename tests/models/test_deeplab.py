import pytest
import torch
from torch import nn

from knorm.kernel import KNConv2d
from knorm.models import create_model
from knorm.models.common import NetOptions
from knorm.models.deeplab import ImagePooling, rates_of


def meta_net(name="deeplabv3plus_resnet50", **options):
    with torch.device("meta"):
        return create_model(name, **options)


# (in, out, kernel) of the convolutions of the head over ResNet-50, as in the paper.
PYRAMID = [(2048, 256, 1), (2048, 256, 3), (2048, 256, 3), (2048, 256, 3), (2048, 256, 1)]
DECODER = [(1280, 256, 1), (256, 48, 1), (304, 256, 3), (256, 256, 3), (256, 19, 1)]


@pytest.mark.parametrize("norm", ["batch", "kernel"])
def test_the_heads_convolutions_are_the_papers(norm):
    head = meta_net(norm=norm).classifier
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convs] == PYRAMID + DECODER
    count = sum(i * o * k * k for i, o, k in PYRAMID + DECODER) + 19
    if norm == "kernel":
        assert {type(conv) for conv in convs[:-1]} == {KNConv2d}
        count += sum(o for _, o, _ in PYRAMID + DECODER[:-1])
    else:  # scales and shifts, and the bias of the pooled image's convolution
        count += 2 * sum(o for _, o, _ in PYRAMID[:-1] + DECODER[:-1]) + 256
    assert sum(p.numel() for p in head.parameters()) == count


@pytest.mark.parametrize(
    ("options", "rates", "reductions"),
    [
        ({"output_stride": 8}, (12, 24, 36), (4, 8)),
        ({}, (6, 12, 18), (4, 16)),
        ({"output_stride": 32}, (3, 6, 9), (4, 32)),
        ({"output_stride": None}, (3, 6, 9), (4, 32)),
        ({"output_stride": 8, "stem": "cifar"}, (12, 24, 36), (4, 8)),
    ],
)
def test_rates_follow_the_stride_and_the_finer_map_has_stride_4(options, rates, reductions):
    net = meta_net(**options).eval()
    branches = net.classifier.aspp.branches
    dilations = [branch.unit.conv.dilation for branch in branches[1:4]]
    assert dilations == [(rate, rate) for rate in rates]
    maps = net.features(torch.empty(1, 3, 128, 128, device="meta"))
    assert tuple(128 // m.shape[-1] for m in maps) == reductions


def test_rates_are_at_least_1():
    assert rates_of(256) == (1, 1, 1)


def test_the_pooled_image_is_the_same_everywhere_and_has_no_norm_but_its_channels():
    x = torch.randn(2, 16, 5, 4)
    for norm in ("batch", "instance", "kernel"):
        branch = ImagePooling(NetOptions(norm=norm, dropout_p=0.0), 16, 8)
        out = branch(x)
        assert out.shape == (2, 8, 5, 4)
        assert torch.equal(out, out[:, :, :1, :1].expand_as(out))
        assert out.std(0).max() > 0  # a norm over the one pixel would give its shift
    pixel = x.mean((2, 3), keepdim=True)
    unit = (pixel - pixel.mean(1, keepdim=True)) / (pixel.var(1, False, keepdim=True) + 1e-5).sqrt()
    expected = torch.nn.functional.conv2d(unit, branch.conv.weight, branch.conv.bias).relu()
    torch.testing.assert_close(out[:, :, :1, :1], expected)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_one_image_is_enough_to_train_on(norm):
    net = create_model("deeplabv3plus", backbone="resnet18", norm=norm, num_classes=3)
    assert net(torch.randn(1, 3, 64, 64)).isfinite().all()


def test_the_decoder_takes_both_maps():
    torch.manual_seed(0)
    net = create_model("deeplabv3plus", backbone="resnet8", output_stride=None, num_classes=3)
    fine, coarse = net.eval().features(torch.randn(1, 3, 32, 40))
    assert fine.shape[2:] == (8, 10)
    assert coarse.shape[2:] == (4, 5)
    with torch.no_grad():
        logits = net.decode([fine, coarse])
        assert logits.shape == (1, 3, 8, 10)
        assert not torch.equal(logits, net.decode([fine, coarse * 0]))
        assert not torch.equal(logits, net.decode([fine * 0, coarse]))
