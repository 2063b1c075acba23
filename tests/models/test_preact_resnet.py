import pytest
import torch
from torch import nn

from knorm.kernel import KernelNorm2d, KNConv2d
from knorm.models import create_model

# (10, 100, 1000 classes) with either stem, after the published code; None: not listed.
COUNTS = {
    18: ((11_172_170, 11_218_340, 11_680_040), (11_179_978, 11_226_148, 11_687_848)),
    34: ((21_280_330, 21_326_500, 21_788_200), (21_288_138, 21_334_308, 21_796_008)),
    50: ((23_513_162, 23_697_572, 25_541_672), (23_520_970, 23_705_380, 25_549_480)),
    101: ((None, None, 44_533_800), (None, None, 44_541_608)),
    152: ((None, None, 60_177_448), (None, None, 60_185_256)),
}
CASES = [
    (depth, stem, classes, count)
    for depth, rows in COUNTS.items()
    for stem, row in zip(("cifar", "imagenet"), rows, strict=True)
    for classes, count in zip((10, 100, 1000), row, strict=True)
    if count is not None
]
PRIVATE = {"stem": "7x7_stride2", "final_norm": False}


def num_params(name, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **options).parameters())


@pytest.mark.parametrize(("depth", "stem", "classes", "count"), CASES)
def test_parameter_counts_are_the_published_ones(depth, stem, classes, count):
    options = {"stem": stem, "num_classes": classes}
    for kind in ("batch", "group", "layer"):
        assert num_params(f"preact_resnet{depth}", norm=kind, **options) == count
    bare = num_params(f"preact_resnet{depth}", norm="none", **options)
    assert bare == num_params(f"resnet{depth}", norm="none", **options)


@pytest.mark.parametrize(
    ("norm", "options", "counts"),
    [
        ("kernel", {"stem": "cifar"}, (11_169_162, 11_215_332, 11_677_032)),
        ("group", PRIVATE, (11_178_826, 11_224_996, 11_686_696)),
        ("layer", PRIVATE, (11_178_826, 11_224_996, 11_686_696)),
        ("none", PRIVATE, (11_172_042, 11_218_212, 11_679_912)),
    ],
)
def test_parameter_counts_are_those_of_the_code_for_private_training(norm, options, counts):
    for classes, count in zip((10, 100, 1000), counts, strict=True):
        assert num_params("preact_resnet18", norm=norm, num_classes=classes, **options) == count


def test_kernel_kind_has_no_norms_but_the_last_one():
    with torch.device("meta"):
        net = create_model("preact_resnet18", norm="kernel", stem="cifar")
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert all(isinstance(conv, KNConv2d) and conv.dropout_p == 0.1 for conv in convs)
    norms = [name for name, m in net.named_modules() if isinstance(m, KernelNorm2d)]
    assert norms == ["features.norm"]
    assert net.features.norm.dropout_p == 0.5


def test_shortcuts_start_from_the_activated_input():
    net = create_model("preact_resnet18", norm="none", num_classes=2).eval()
    block = net.features.layer2[0]
    for conv in (block.body.conv1, block.body.conv2):
        nn.init.zeros_(conv.weight)
    x = torch.randn(1, 64, 8, 8)
    torch.testing.assert_close(block(x), block.shortcut(x.relu()))
    assert net.features.layer1[0].shortcut is None
