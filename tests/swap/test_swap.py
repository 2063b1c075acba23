"""The contract of `swap_norm`: what is returned, what is untouched, who sees whom."""

import copy
import threading

import pytest
import torch
from torch import nn

import knorm
from tests.swap.test_plan import small_net


def test_the_model_that_is_passed_in_is_untouched():
    net = small_net()
    before, modules = copy.deepcopy(net.state_dict()), list(net.modules())
    for kind in ("group", "kernel", "none"):
        swapped, _ = knorm.swap_norm(net, kind)
        assert swapped is not net
        with torch.no_grad():
            for parameter in swapped.parameters():
                parameter.add_(1)
    assert all(a is b for a, b in zip(net.modules(), modules, strict=True))
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_in_place_the_model_itself_is_changed_and_parameters_stay_the_same_objects():
    net = small_net()
    weight = net[0].weight
    swapped, _ = knorm.swap_norm(net, "kernel", inplace=True)
    assert swapped is net
    assert net[0].weight is weight


def test_in_place_the_model_is_untouched_when_an_error_is_raised():
    net = nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(3))
    modules = list(net.modules())
    with pytest.raises(ValueError, match="1: "):
        knorm.swap_norm(net, "local_context", inplace=True)
    assert all(a is b for a, b in zip(net.modules(), modules, strict=True))


def test_a_norm_alone_is_a_model_too():
    swapped, report = knorm.swap_norm(nn.BatchNorm2d(8), "layer")
    assert type(swapped) is nn.GroupNorm
    assert report.rows[0].name == ""


def test_only_the_selected_norms_change():
    swapped, report = knorm.swap_norm(small_net(), "group", modules="1")
    assert type(swapped[1]) is nn.GroupNorm
    assert type(swapped[4]) is nn.BatchNorm2d
    assert [(row.name, row.note) for row in report.rows] == [
        ("1", ""),
        ("4", "left out by modules="),
    ]


@pytest.mark.parametrize("kind", ["group", "layer", "instance", "kernel", "none"])
def test_no_sample_sees_another(kind):
    net, _ = knorm.swap_norm(small_net(), kind, **({"dropout_p": 0.0} if kind == "kernel" else {}))
    x = torch.randn(3, 3, 9, 9)
    other = torch.cat([x[:1], torch.randn(2, 3, 9, 9)])
    for mode in (True, False):
        assert torch.equal(net.train(mode)(x)[0], net(other)[0])


@pytest.mark.parametrize("kind", ["group", "layer", "instance", "local_context", "kernel"])
def test_a_swapped_net_that_is_swapped_again_gives_the_same_bits(kind):
    net = nn.Sequential(nn.Linear(4, 32), nn.BatchNorm1d(32), nn.Unflatten(1, (32, 1, 1)))
    net.extend([nn.Conv2d(32, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8)])
    modules = "[46]" if kind == "local_context" else None
    swapped, _ = knorm.swap_norm(net.eval(), kind, modules=modules)
    again, report = knorm.swap_norm(swapped, kind, modules=modules)
    x = torch.randn(2, 4)
    assert torch.equal(again(x), swapped(x))
    notes = {row.note for row in report.rows if row.note != "left out by modules="}
    assert notes == {f"{kind} already"}


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("kind", ["group", "kernel", "none"])
def test_the_mode_of_the_model_stays(kind, mode):
    swapped, _ = knorm.swap_norm(small_net().train(mode), kind)
    assert {module.training for module in swapped.modules()} == {mode}


@pytest.mark.parametrize("kind", ["group", "kernel"])
def test_device_and_dtype_stay(kind):
    net = small_net().to("meta", torch.double)
    swapped, _ = knorm.swap_norm(net, kind)
    assert {(p.device.type, p.dtype) for p in swapped.parameters()} == {("meta", torch.double)}


def test_our_own_resnet_swapped_to_kernel_is_normalized_before_pooling_as_ours():
    swapped, report = knorm.swap_norm(knorm.create_model("resnet18", num_classes=5), "kernel")
    ours = knorm.create_model("resnet18", num_classes=5, norm="kernel")
    assert report.parameters_after == sum(p.numel() for p in ours.parameters())
    kinds = [
        [type(m) for m in net.modules() if isinstance(m, knorm.KNConv2d | knorm.KernelNorm2d)]
        for net in (swapped, ours)
    ]
    assert kinds[0] == kinds[1]


def test_what_is_no_net_is_named():
    with pytest.raises(ValueError, match=r"takes a net .*got 'resnet18'"):
        knorm.swap_norm("resnet18", "kernel")


def test_inplace_takes_true_or_false():
    with pytest.raises(ValueError, match="inplace takes True or False, got 'x'"):
        knorm.swap_norm(small_net(), "group", inplace="x")


def test_a_mistake_in_the_kind_is_named_first():
    with pytest.raises(ValueError, match="unknown norm 'kernal'; did you mean 'kernel'"):
        knorm.swap_norm(small_net(), "kernal")


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("thing", [threading.Lock(), torch.ones(1, requires_grad=True) * 2])
def test_a_net_that_cannot_be_copied_is_one_clear_line(thing, inplace):
    net = small_net()
    net.thing = thing
    with pytest.raises(ValueError, match=r"the model \(Sequential\) cannot be copied: "):
        knorm.swap_norm(net, "group", inplace=inplace)
    with pytest.raises(ValueError, match=r"^1.0 \(Sequential\) cannot be copied: "):
        knorm.swap_norm(nn.Sequential(nn.ReLU(), nn.Sequential(net)), "group", inplace=inplace)
