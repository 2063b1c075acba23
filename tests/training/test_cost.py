from pathlib import Path

import pytest
import torch
from torch import nn

from knorm import KernelNorm2d, KNConv2d
from knorm.kan import KANConv2d
from knorm.models import create_model
from knorm.training.cost import (
    Macs,
    count_macs,
    count_mult_adds,
    count_parameters,
    forget_peak_memory,
    macs_by_module,
    peak_memory,
    stages,
    weight_bytes,
)

# GMACs as published and exactly, of 128 images, and MACs of one; after
# theabhirath/cifar10-experiments.
COMPACT = {
    ("vgglike", ()): ("11.28", 11_279_893_760, 87_917_824),
    ("resnetlike", ()): ("8.95", 8_945_149_184, 69_437_952),
    ("resnetlike", (("vanilla_chunks", 2), ("bottleneck_chunks", 3))): (
        "16.73",
        16_731_415_808,
        130_197_504,
    ),
    ("resnextlike", ()): ("19.19", 19_190_564_096, 148_329_472),
    ("resnextlike", (("chunks", 4),)): ("21.23", 21_234_500_864, 164_247_552),
    ("densenetlike", ()): ("16.30", 16_297_234_688, 126_510_210),
    ("densenetlike", (("chunks", 5), ("growth", 16))): ("28.75", 28_754_815_232, 223_561_740),
}


def net_of(norm, **options):
    return create_model("knresnet13", num_classes=10, in_chans=1, width=0.25, norm=norm, **options)


def test_parameters_are_the_trainable_ones():
    net = nn.Linear(3, 2)
    net.bias.requires_grad_(False)
    assert count_parameters(net) == 6


def test_weights_take_the_bytes_of_parameters_and_running_statistics():
    assert weight_bytes(nn.BatchNorm1d(3).half()) == 2 * 4 * 3 + 8


def test_macs_are_those_of_convolutions_and_matrix_products():
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(100, 7))
    assert count_macs(net, torch.zeros(1, 2, 5, 5)) == 25 * 4 * 2 * 9 + 100 * 7
    assert net.training
    assert count_macs(nn.ReLU(), torch.zeros(3)) == 0


def test_mult_adds_are_all_parameters_of_convolutions_at_every_position_of_others_once():
    parts = (nn.Conv2d(2, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 7))
    expected = 3 * (4 * 4 * (2 * 9 + 1) + 2 * 4 + 7 * 16 + 7)
    net = nn.Sequential(*parts)
    assert count_mult_adds(net, torch.zeros(3, 2, 5, 5)) == expected
    assert net.training
    again = nn.Linear(3, 3, bias=False)
    assert count_mult_adds(nn.Sequential(again, nn.ReLU(), again), torch.zeros(1, 3)) == 2 * 9
    assert count_mult_adds(KNConv2d(2, 4, 3), torch.zeros(1, 2, 5, 5)) == 9 * 4 * (2 * 9 + 1)


def test_mult_adds_of_the_compact_nets_are_the_published_gmacs_of_128_images():
    for (name, options), (published, mult_adds, macs) in COMPACT.items():
        with torch.device("meta"):
            net = create_model(name, num_classes=10, **dict(options))
            counted = count_mult_adds(net, torch.zeros(128, 3, 32, 32))
            assert count_macs(net, torch.zeros(1, 3, 32, 32)) == macs
        assert counted == mult_adds
        assert f"{counted / 1e9:.2f}" == published


def test_kernel_normalization_is_counted_apart():
    example = torch.zeros(1, 1, 8, 8)
    kernel, plain = (macs_by_module(net_of(norm), example)[""] for norm in ("kernel", "none"))
    assert kernel.products == plain.products > 0
    assert 0 < kernel.kernel_norm < kernel.products
    assert plain.kernel_norm == 0


@pytest.mark.parametrize(
    ("layer", "macs"),
    [  # 2 x 5 x 5 -> 4 x 3 x 3: 50 elements, 9 windows of 9 pixels, 36 outputs of 18 products
        (KNConv2d(2, 4, 3), Macs(36 * 18, 3 * 50 + 3 * 9 * 9 + 11 * 36)),
        (
            KNConv2d(2, 4, 3, groups=2, group_stats=True),
            Macs(36 * 9, 3 * 50 + 2 * 3 * 9 * 9 + 11 * 36),
        ),
        (KernelNorm2d(3), Macs(0, 2 * 50 + 3 * 9 * 9 + 2 * 9 * 9)),
    ],
    ids=["KNConv2d", "group_stats", "KernelNorm2d"],
)
def test_the_work_of_a_kernel_layer_is_that_of_the_stated_formula(layer, macs):
    assert macs_by_module(layer, torch.zeros(1, 2, 5, 5))[""] == macs


def test_the_stages_of_a_net_sum_up_to_it():
    net, example = net_of("kernel"), torch.zeros(1, 1, 8, 8)
    parts, whole = stages(net, example), macs_by_module(net, example)[""]
    assert [parts[0].name, parts[-1].name] == ["features.stem", "fc"]
    assert parts[-1].output == (10,)
    assert sum(part.parameters for part in parts) == count_parameters(net)
    assert sum(part.macs.products for part in parts) == whole.products
    assert sum(part.macs.kernel_norm for part in parts) == whole.kernel_norm


def test_a_large_net_is_counted_without_computing_anything():
    with torch.device("meta"):
        net, example = create_model("resnet50"), torch.zeros(1, 3, 224, 224)
    assert count_macs(net, example) == 4_089_184_256


def test_a_process_takes_memory():
    assert peak_memory(torch.device("cpu")) > 2**20


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone forgets peaks")
def test_the_peak_of_memory_can_be_forgotten():
    device = torch.device("cpu")
    block = torch.ones(50_000_000)
    high = peak_memory(device)
    del block
    assert peak_memory(device) == high
    forget_peak_memory(device)
    assert peak_memory(device) < high - 100_000_000


@pytest.mark.parametrize("form", ["kan", "kagn", "wavkan"])
def test_branches_of_kan_convolutions_count_at_every_position(form):
    conv = KANConv2d(3, 4, 3, padding=1, form=form, norm="none", act=nn.Identity())
    weights = sum(parameter.numel() for parameter in conv.parameters())
    assert count_mult_adds(conv, torch.randn(2, 3, 5, 6)) == 2 * 30 * weights
