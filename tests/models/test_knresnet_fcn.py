import pytest
import torch
from torch import nn

from knorm.kernel import KernelNorm2d, KNConv2d
from knorm.models import create_model

# 19 classes: Nasirigerdeh et al. 2024, Table 3 (13.525M, 23.399M, 32.874M).
COUNTS = {18: 13_525_380, 34: 23_399_315, 50: 32_873_971}


def meta_net(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


@pytest.mark.parametrize("depth", COUNTS)
def test_parameter_counts_are_the_published_ones(depth):
    net = meta_net(f"fcn_knresnet{depth}")
    assert sum(p.numel() for p in net.parameters()) == COUNTS[depth]
    assert not list(net.buffers())


@pytest.mark.parametrize("depth", COUNTS)
def test_dropout_is_that_of_the_paper(depth):
    net = meta_net(f"fcn_knresnet{depth}")
    assert {m.dropout_p for m in net.modules() if isinstance(m, KNConv2d)} == {0.1}
    (norm,) = (m for m in net.modules() if isinstance(m, KernelNorm2d))
    assert (norm.dropout_p, norm.kernel_size) == (0.5, (1, 1))


def test_the_head_of_50_layers_alone_begins_with_a_convolution():
    heads = {depth: meta_net(f"fcn_knresnet{depth}").classifier for depth in COUNTS}
    plain = ["norm", "act", "conv"]
    assert [*dict(heads[18].named_children())] == [*dict(heads[34].named_children())] == plain
    assert [*dict(heads[50].named_children())] == ["unit_act", "unit", *plain]


@pytest.mark.parametrize("depth", COUNTS)
def test_feature_sizes_halve_five_times_and_round_up(depth):
    net = meta_net(f"fcn_knresnet{depth}").eval()
    x, sizes = torch.empty(1, 3, 129, 255, device="meta"), {}
    for name, layer in net.features.named_children():
        x = layer(x)
        sizes[name] = tuple(x.shape[2:])
    assert [sizes[name] for name in ("stem", "stage1", "stage2", "stage3", "stage4")] == [
        (65, 128),
        (33, 64),
        (17, 32),
        (9, 16),
        (5, 8),
    ]


@pytest.mark.parametrize("norm", ["kernel", "batch", "none"])
@pytest.mark.parametrize("depth", COUNTS)
def test_a_finer_map_has_the_pixels_of_the_coarser_one_and_those_between(depth, norm):
    torch.manual_seed(0)
    coarse = create_model(f"fcn_knresnet{depth}", norm=norm, aux=True).eval()
    x = torch.randn(1, 3, 97, 70)
    with torch.no_grad():
        few_aux, few = coarse.features(x)
    assert few.shape[2:] == (4, 3)
    for stride in (8, 16):
        fine = create_model(f"fcn_knresnet{depth}", norm=norm, output_stride=stride, aux=True)
        fine.load_state_dict(coarse.state_dict())
        with torch.no_grad():
            many_aux, many = fine.eval().features(x)
        assert many.shape[2:] == (-(-97 // stride), -(-70 // stride))
        step, aux_step = 32 // stride, 16 // stride
        torch.testing.assert_close(many[..., ::step, ::step], few, rtol=1e-3, atol=1e-4)
        aux = many_aux[..., ::aux_step, ::aux_step]
        torch.testing.assert_close(aux, few_aux, rtol=1e-3, atol=1e-4)


def test_the_published_net_does_not_dilate():
    net = meta_net("fcn_knresnet50")
    assert {m.dilation for m in net.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
    pools = [m for m in net.modules() if isinstance(m, nn.MaxPool2d)]
    assert [(m.kernel_size, m.stride, m.padding, m.dilation) for m in pools] == [(3, 2, 1, 1)] * 4
    dilated = meta_net("fcn_knresnet50", output_stride=8)
    convs = [m for m in dilated.features.modules() if isinstance(m, nn.Conv2d)]
    assert {m.dilation for m in convs} == {(1, 1), (2, 2), (4, 4)}


def test_another_norm_takes_the_place_of_kernel_normalization():
    net = meta_net("fcn_knresnet18", norm="batch")
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert {type(m) for m in convs} == {nn.Conv2d}
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == len(convs)  # the classifier has none, the head one before it
