import pytest
import torch
from torch import nn

from knorm.kernel import KernelNorm2d, KNConv2d
from knorm.models import create_model

# (10, 100, 1000 classes) with either stem: Nasirigerdeh et al. 2024, tables 1, 2 and 4.
COUNTS = {
    18: ((11_169_670, 11_215_840, 11_677_540), (11_177_350, 11_223_520, 11_685_220)),
    34: ((21_277_280, 21_323_450, 21_785_150), (21_284_960, 21_331_130, 21_792_830)),
    50: ((23_497_160, 23_681_570, 25_525_670), (23_527_880, 23_712_290, 25_556_390)),
}
CASES = [
    (depth, stem, classes, count)
    for depth, rows in COUNTS.items()
    for stem, row in zip(("cifar", "imagenet"), rows, strict=True)
    for classes, count in zip((10, 100, 1000), row, strict=True)
]


def meta_net(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


@pytest.mark.parametrize(("depth", "stem", "classes", "count"), CASES)
def test_parameter_counts_are_the_published_ones(depth, stem, classes, count):
    net = meta_net(f"knresnet{depth}", stem=stem, num_classes=classes)
    assert sum(p.numel() for p in net.parameters()) == count
    assert not list(net.buffers())


def test_the_5x5_stem_of_the_code_for_private_training_has_its_count():
    net = meta_net("knresnet18", stem="5x5_stride2_pool", activation="mish")
    assert sum(p.numel() for p in net.parameters()) == 11_680_612


SIZES = {
    ("cifar", 32): {"stem": 32, "stage1": 32, "stage2": 16, "stage3": 8, "stage4": 4},
    ("imagenet", 224): {"stem": 112, "stage1": 56, "stage2": 28, "stage3": 14, "stage4": 8},
}


@pytest.mark.parametrize("depth", [18, 34, 50])
@pytest.mark.parametrize(("stem", "size"), SIZES)
def test_feature_sizes_are_those_of_the_paper(depth, stem, size):
    expected = dict(SIZES[stem, size])
    if depth == 50 and stem == "imagenet":
        expected["stage4"] = 7
    expected["act"] = expected["stage4"] if depth == 50 else 3
    net = meta_net(f"knresnet{depth}", stem=stem).eval()
    x, sizes = torch.empty(1, 3, size, size, device="meta"), {}
    for name, layer in net.features.named_children():
        x = layer(x)
        sizes[name] = x.shape[-1]
        assert x.shape[-2] == x.shape[-1]
    assert {name: sizes[name] for name in expected} == expected
    assert x.shape[1] == net.num_features
    assert net.forward_head(x).shape == (1, 1000)


@pytest.mark.parametrize(
    ("stem", "size"), [("imagenet", (93, 160)), ("cifar", (16, 40)), ("7x7_stride2", (64, 48))]
)
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_other_sizes_work(depth, stem, size):
    net = meta_net(f"knresnet{depth}", stem=stem, num_classes=7).eval()
    assert net(torch.empty(2, 3, *size, device="meta")).shape == (2, 7)


def test_dropout_is_that_of_the_paper_and_options_reach_every_kernel_layer():
    net = meta_net("knresnet18", eval_stats="plain")
    convs = [m for m in net.modules() if isinstance(m, KNConv2d)]
    norms = [m for m in net.modules() if isinstance(m, KernelNorm2d)]
    assert (len(convs), len(norms)) == (1 + 12 + 3 + 1, 1)
    assert {m.dropout_p for m in convs} == {0.05}
    assert norms[0].dropout_p == 0.25
    assert {m.eval_stats for m in convs + norms} == {"plain"}
    segmentation = meta_net("knresnet18", dropout_p=0.1, final_dropout_p=0.5)
    assert segmentation.features.norm.dropout_p == 0.5


def features_of(options, state_dict, x):
    net = create_model(num_classes=2, **options).eval()
    net.load_state_dict(state_dict)
    with torch.no_grad():
        return net.forward_features(x)


@pytest.mark.parametrize("norm", ["kernel", "batch"])
@pytest.mark.parametrize("size", [(64, 96), (97, 70)])
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_a_finer_map_has_the_pixels_of_the_coarser_one_and_those_between(depth, size, norm):
    options = {"name": f"knresnet{depth}", "norm": norm}
    state_dict = create_model(num_classes=2, **options).state_dict()
    x = torch.randn(1, 3, *size)
    coarse = features_of(options | {"output_stride": 32}, state_dict, x)
    assert coarse.shape[2:] == tuple(-(-side // 32) for side in size)
    for stride in (8, 16):
        fine = features_of(options | {"output_stride": stride}, state_dict, x)
        step = 32 // stride
        assert fine.shape[2:] == tuple(-(-side // stride) for side in size)
        torch.testing.assert_close(fine[..., ::step, ::step], coarse, rtol=1e-3, atol=1e-4)


def shifts(name, **options):
    """For the maps of a net, how many pixels right of itself each of them sees an image's column.

    The columns that see it are those that it fills with NaN.
    """
    net, width = create_model(name, norm="none", in_chans=1, num_classes=2, **options), 1536
    found = {}
    for column in range(704, 768, 16):
        x = torch.zeros(1, 1, 64, width)
        x[..., column] = torch.nan
        for child, layer in net.features.named_children():
            x = layer(x)
            seen = x.isnan().any(1).any(1)[0].nonzero().flatten()
            centre = (seen[0] + seen[-1]).item() / 2 * width / x.shape[-1]
            found.setdefault(child, []).append(column - centre)
    return {child: sum(row) / len(row) for child, row in found.items()}


@pytest.mark.parametrize(("depth", "stride"), [(18, 8), (18, 32), (50, 32)])
def test_with_an_output_stride_the_maps_are_not_shifted(depth, stride):
    with torch.no_grad():
        found = shifts(f"knresnet{depth}", output_stride=stride)
    assert all(abs(shift) <= 16 for shift in found.values()), found


def test_output_stride_leaves_the_published_net_alone():
    net = meta_net("knresnet18")
    assert not any(m.dilation != (1, 1) for m in net.modules() if isinstance(m, nn.Conv2d))
    assert {type(net.features.transition1.pool), type(net.features.tail.pool)} == {nn.MaxPool2d}
    assert net.feature_info[-1]["reduction"] == 64
    assert meta_net("knresnet18", output_stride=8).feature_info[-1]["reduction"] == 8


def test_weights_start_as_published():
    net = create_model("knresnet18", num_classes=10)
    conv = net.features.stage2[0].body.unit1
    assert conv.weight.std().item() == pytest.approx((2 / (256 * 4)) ** 0.5, rel=0.02)
    assert not any(bias.any() for name, bias in net.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_another_norm_takes_the_place_of_kernel_normalization(norm):
    net = meta_net("knresnet50", norm=norm)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert {type(m) for m in convs} == {nn.Conv2d}
    assert {m.bias is not None for m in convs} == {norm == "none"}
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == (0 if norm == "none" else len(convs) + 1)
