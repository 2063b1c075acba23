from collections import Counter

import pytest
import torch
from torch import nn

from knorm.checkpoints import convert_torchvision_resnet_state_dict
from knorm.kernel import KNConv2d
from knorm.models import create_model
from knorm.models.resnet import Geometry, ResidualBlock, stage_geometries

# (10, 100, 1000 classes) with either stem, after the published code; None: not listed.
COUNTS = {
    (18, "affine"): (
        (11_173_962, 11_220_132, 11_681_832),
        (11_181_642, 11_227_812, 11_689_512),
    ),
    (18, "none"): (
        (11_164_362, 11_210_532, 11_672_232),
        (11_172_042, 11_218_212, 11_679_912),
    ),
    (34, "affine"): (
        (21_282_122, 21_328_292, 21_789_992),
        (21_289_802, 21_335_972, 21_797_672),
    ),
    (34, "none"): (
        (21_265_098, 21_311_268, 21_772_968),
        (21_272_778, 21_318_948, 21_780_648),
    ),
    (50, "affine"): (
        (23_520_842, 23_705_252, 25_549_352),
        (23_528_522, 23_712_932, 25_557_032),
    ),
    (50, "none"): (
        (23_467_722, 23_652_132, 25_496_232),
        (23_475_402, 23_659_812, 25_503_912),
    ),
    (101, "affine"): ((None, None, 44_541_480), (None, None, 44_549_160)),
    (101, "none"): ((None, None, 44_436_136), (None, None, 44_443_816)),
    (152, "affine"): ((None, None, 60_185_128), (None, None, 60_192_808)),
    (152, "none"): ((None, None, 60_033_704), (None, None, 60_041_384)),
}
CASES = [
    (depth, norm, stem, classes, count)
    for (depth, norm), rows in COUNTS.items()
    for stem, row in zip(("cifar", "imagenet"), rows, strict=True)
    for classes, count in zip((10, 100, 1000), row, strict=True)
    if count is not None
]


def num_params(name, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **options).parameters())


@pytest.mark.parametrize(("depth", "norm", "stem", "classes", "count"), CASES)
def test_parameter_counts_are_the_published_ones(depth, norm, stem, classes, count):
    for kind in ("batch", "group", "layer") if norm == "affine" else ("none",):
        assert num_params(f"resnet{depth}", norm=kind, stem=stem, num_classes=classes) == count


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_kernel_kind_has_a_bias_for_every_convolution_and_nothing_else(name):
    with torch.device("meta"):
        bare, kernel = (create_model(name, norm=kind) for kind in ("none", "kernel"))
    outputs = sum(m.out_channels for m in bare.modules() if isinstance(m, nn.Conv2d))
    assert sum(p.numel() for p in kernel.parameters()) == num_params(name, norm="none") + outputs
    assert not list(kernel.buffers())


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("resnet18", "kernel"),
        ("resnet50", "none"),
        ("preact_resnet18", "batch"),
        ("preact_resnet50", "none"),
    ],
)
@pytest.mark.parametrize(
    ("stem", "output_stride", "feature_stride"),
    [
        ("imagenet", 32, 32),
        ("imagenet", 16, 16),
        ("imagenet", 8, 8),
        ("7x7_stride2", 32, 16),
        ("7x7_stride2", 8, 8),
        ("cifar", 8, 8),
    ],
)
def test_output_stride_bounds_the_feature_stride(name, norm, stem, output_stride, feature_stride):
    with torch.device("meta"):
        net = create_model(name, norm=norm, stem=stem, output_stride=output_stride)
        features = net.eval().forward_features(torch.empty(1, 3, 128, 96))
    assert features.shape[2:] == (128 // feature_stride, 96 // feature_stride)
    assert features.shape[1] == net.num_features


def test_a_dilated_stage_begins_with_the_dilation_of_the_one_before():
    stages = list(stage_geometries((2, 2, 2, 2), stem_stride=4, output_stride=8))
    assert stages == [
        [Geometry(1, 1, 1), Geometry(1, 1, 1)],
        [Geometry(2, 1, 1), Geometry(1, 1, 1)],
        [Geometry(1, 1, 2), Geometry(1, 2, 2)],
        [Geometry(1, 2, 4), Geometry(1, 4, 4)],
    ]


@pytest.mark.parametrize(
    ("name", "dilate"),
    [("resnet18", None), ("resnet50", None), ("resnet50", (False, True, True))],
)
def test_torchvision_weights_give_torchvision_outputs(name, dilate):
    models = pytest.importorskip("torchvision.models")
    theirs = models.get_model(name, num_classes=10, replace_stride_with_dilation=dilate).eval()
    ours = create_model(name, num_classes=10, output_stride=8 if dilate else 32).eval()
    ours.load_state_dict(convert_torchvision_resnet_state_dict(theirs.state_dict()))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_convolutions_start_normal_by_fan_out_and_norms_at_one():
    net = create_model("resnet18", norm="group", stem="cifar", num_classes=10)
    conv = net.features.layer2[0].body.unit1.conv
    assert conv.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    norms = [m for m in net.modules() if isinstance(m, nn.GroupNorm)]
    assert all((m.weight == 1).all() and (m.bias == 0).all() for m in norms)


def kinds(net):
    """How many norms there are of each kind."""
    norms = (nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, KNConv2d)
    return Counter(type(m).__name__ for m in net.modules() if isinstance(m, norms))


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("group", "GroupNorm"), ("instance", "InstanceNorm2d"), ("kernel", "KNConv2d")],
)
def test_norms_of_the_stem_alone_leave_19_batch_norms_in_resnet18(norm, kind):
    with torch.device("meta"):
        stem, every = (
            create_model("resnet18", norm=norm, norm_scope=scope) for scope in ("stem", "all")
        )
    assert kinds(stem) == {kind: 1, "BatchNorm2d": 19}
    assert kinds(every) == {kind: 20}
    assert isinstance(stem.features.stem.unit, KNConv2d) is (norm == "kernel")


def test_options_of_the_norm_go_to_the_stem_alone_where_its_norm_is():
    options = {"norm": "batch", "norm_options": {"momentum": 0.5}, "norm_scope": "stem"}
    net = create_model("resnet10", **options)
    momenta = [m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert momenta == [0.5] + [0.1] * 11


@pytest.mark.parametrize(
    ("name", "bare", "blocks"),
    [("resnet10", 1, 4), ("resnet18", 5, 8), ("resnet34", 13, 16), ("resnet50", 12, 16)],
)
def test_without_identity_skips_only_projections_are_left(name, bare, blocks):
    with torch.device("meta"):
        skipping, bare_net = (create_model(name, identity_skip=skip) for skip in (True, False))

    def shortcuts(net):
        return [m.shortcut for m in net.modules() if isinstance(m, ResidualBlock)]

    assert len(shortcuts(skipping)) == len(shortcuts(bare_net)) == blocks
    assert sum(isinstance(s, nn.Identity) for s in shortcuts(skipping)) == bare
    assert sum(s is None for s in shortcuts(bare_net)) == bare
    assert [*skipping.state_dict()] == [*bare_net.state_dict()]


def test_a_block_without_a_skip_gives_its_branch_alone():
    torch.manual_seed(0)
    net = create_model("resnet10", identity_skip=False, stem="cifar").eval()
    block, x = net.features.layer1[0], torch.randn(2, 64, 8, 8)
    with torch.no_grad():
        assert torch.equal(block(x), block.body(x).relu())
        block.shortcut = nn.Identity()
        assert torch.equal(block(x), (block.body(x) + x).relu())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"identity_skip": 1}, "identity_skip takes True or False, got 1"),
        ({"norm_scope": "stme"}, "unknown norm_scope 'stme'; did you mean 'stem'"),
    ],
)
def test_mistakes_raise_one_clear_line(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("resnet18", **options)
