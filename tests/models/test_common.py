import pytest
import torch
from torch import nn

from knorm.models.common import (
    ACTIVATIONS,
    STEMS,
    NetOptions,
    init_convs,
    largest_divisor,
    scaled,
    sequence,
)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_the_shape_and_their_input(name):
    x = torch.randn(2, 3)
    before = x.clone()
    assert NetOptions(activation=name).make_act()(x).shape == x.shape
    assert torch.equal(x, before)


def test_pre_activation_stems_are_bare_where_the_first_block_brings_norm_and_activation():
    layers = {
        name: [*dict(NetOptions(stem=name).make_preact_stem(8).named_children())] for name in STEMS
    }
    assert layers == {
        "cifar": ["conv"],
        "imagenet": ["conv", "norm", "act"],
        "5x5_stride2_pool": ["conv", "norm", "act"],
        "7x7_stride2": ["conv"],
    }


STEM_SIZES = {"cifar": 64, "imagenet": 16, "5x5_stride2_pool": 16, "7x7_stride2": 32}


@pytest.mark.parametrize("name", STEMS)
def test_stems_have_their_stride(name):
    options, x = NetOptions(stem=name), torch.randn(2, 3, 64, 64)
    for stem in (options.make_stem(8, act=True), options.make_preact_stem(8)):
        whole = sequence(stem=stem, pool=options.make_stem_pool())
        assert whole(x).shape == (2, 8, STEM_SIZES[name], STEM_SIZES[name])
    assert STEMS[name].total_stride == 64 // STEM_SIZES[name]


@pytest.mark.parametrize(
    ("dropout_p", "given", "expected"),
    [(0.05, None, 0.25), (0.1, None, 0.25), (0.02, None, 0.1), (0.0, None, 0.0), (0.1, 0.5, 0.5)],
)
def test_final_dropout_is_five_times_that_of_convolutions_up_to_a_bound(dropout_p, given, expected):
    options = NetOptions(norm="kernel", dropout_p=dropout_p, final_dropout_p=given)
    assert options.make_final_norm(8).dropout_p == pytest.approx(expected)
    assert options.make_conv(3, 8, 3).dropout_p == dropout_p


@pytest.mark.parametrize("stats", ["expected", "plain", "sampled"])
def test_kernel_options_reach_every_kernel_layer(stats):
    options = NetOptions(norm="kernel", eval_stats=stats, norm_options={"eps": 1e-3})
    for layer in (
        options.make_conv(3, 8, 3),
        options.make_unit(3, 8, 3),
        options.make_final_norm(8),
    ):
        assert (layer.eval_stats, layer.eps) == (stats, 1e-3)


@pytest.mark.parametrize(
    ("kind", "channels", "name", "expected"),
    [
        ("group", 64, "num_groups", 32),
        ("group", 724, "num_groups", 4),
        ("group", 201, "num_groups", 3),
        ("group", 16, "num_groups", 16),
        ("local_context", 64, "channels_per_group", 2),
        ("local_context", 843, "channels_per_group", 1),
    ],
)
def test_default_groups_divide_the_channels(kind, channels, name, expected):
    assert getattr(NetOptions(norm=kind).make_final_norm(channels), name) == expected


def test_given_groups_are_taken_as_they_are():
    options = NetOptions(norm="group", norm_options={"groups": 8})
    assert options.make_unit(3, 64, 3).norm.num_groups == 8


def test_divisors_and_widths():
    assert [largest_divisor(n, 32) for n in (64, 48, 31, 37)] == [32, 24, 31, 1]
    assert [scaled(64, w) for w in (1.0, 0.25, 2)] == [64, 16, 128]
    with pytest.raises(ValueError, match=r"0.5 of 64"):
        scaled(64, 1 / 128)


def test_convolutions_start_normal_by_fan_out_and_biases_at_zero():
    net = sequence(conv=nn.Conv2d(64, 256, 3), none=None)
    init_convs(net)
    assert net.conv.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    assert not net.conv.bias.any()
