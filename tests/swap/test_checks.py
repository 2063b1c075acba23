"""What a swap would break without a word is refused with the module's name, before any change."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from knorm.swap import swap_norm


class Net(nn.Module):
    """A convolution and its norm, used as a function says."""

    def __init__(self, forward=lambda net, x: net.norm(net.conv(x))):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.how = forward

    def forward(self, x):
        return self.how(self, x)


def with_hook(register):
    net = Net()
    getattr(net.norm, register)(lambda *args: None)
    return net


def parametrized():
    net = Net()
    parametrize.register_parametrization(net.norm, "weight", nn.Softplus())
    return net


def held_by(attribute, value):
    net = Net()
    vars(net)[attribute] = value(net)
    return net


def unregistered(net):
    return [nn.Sequential(net.norm)]


def patched():
    net = Net()
    forward = net.norm.forward
    net.norm.forward = lambda x: 2 * forward(x)
    return net


def functional(net, x):
    norm = net.norm
    return F.batch_norm(net.conv(x), norm.running_mean, norm.running_var, training=net.training)


def by_a_buffer(net, x):
    return net.norm(net.conv(x)) * float(net.norm.running_var.mean())


def in_evaluation(net, x):
    return net.norm(net.conv(x)) if net.training else functional(net, x)


class FSDPModule(nn.Module):
    """Stands for torch's, which needs processes."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


class Wrapped(FSDPModule):
    pass


@pytest.mark.parametrize("kind", ["group", "kernel", "none"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: with_hook("register_forward_hook"), "norm: the BatchNorm2d has hooks"),
        (lambda: with_hook("register_forward_pre_hook"), "norm: the BatchNorm2d has hooks"),
        (lambda: with_hook("register_full_backward_hook"), "norm: the BatchNorm2d has hooks"),
        (parametrized, "norm: the .*BatchNorm2d is parametrized; leave it out"),
        (patched, "norm: BatchNorm2d keeps running statistics in a form that is not known"),
        (lambda: held_by("norms", lambda net: [net.norm]), "norm: norms holds it"),
        (lambda: held_by("by_name", lambda net: {"a": net.norm}), "norm: by_name holds it"),
        (lambda: held_by("same", lambda net: net.norm), "norm: same holds it"),
        (lambda: held_by("deep", lambda net: [{"a": (net.norm,)}]), "norm: deep holds it"),
        (lambda: held_by("method", lambda net: net.norm.forward), "norm: method holds it"),
        (lambda: held_by("call", lambda net: partial(torch.add, net.norm)), "norm: call holds it"),
        (lambda: held_by("hidden", unregistered), "norm: hidden holds it"),
        (lambda: Net(functional), "norm: another module's forward reads its .*running_mean"),
        (lambda: Net(by_a_buffer), "norm: another module's forward reads its running_var"),
        (lambda: Net(in_evaluation), "norm: another module's forward reads its .*running_mean"),
        (lambda: Wrapped(Net()), "the model itself: swap the net before FSDPModule takes it"),
    ],
)
def test_what_hangs_on_a_norm_is_not_lost(make, words, kind):
    net = make()
    modules = list(net.modules())
    with pytest.raises(ValueError, match=words):
        swap_norm(net, kind, inplace=True)
    assert all(a is b for a, b in zip(net.modules(), modules, strict=True))


def test_a_convolution_that_is_held_elsewhere_is_refused_for_kernel_alone():
    with pytest.raises(ValueError, match="conv: convs holds it"):
        swap_norm(held_by("convs", lambda net: [net.conv]), "kernel")
    swapped, _ = swap_norm(held_by("convs", lambda net: [net.conv]), "group")
    assert type(swapped.norm) is nn.GroupNorm


def test_a_list_of_children_that_hold_norms_is_no_hindrance():
    net = nn.Sequential(Net())
    net.stages = [net[0], net[0].conv]
    net.me = net.forward
    swapped, _ = swap_norm(net, "group")
    assert type(swapped.stages[0].norm) is nn.GroupNorm


def test_a_norm_that_is_left_out_or_stays_may_have_hooks():
    net = nn.Sequential(with_hook("register_forward_hook"), nn.BatchNorm2d(4))
    swapped, _ = swap_norm(net, "layer", modules="1")
    assert swapped(torch.randn(2, 3, 4, 4)).shape == (2, 4, 4, 4)
    assert swap_norm(with_hook("register_forward_hook"), "batch")[1].rows[0].stays


def test_tensors_that_the_successor_has_too_may_be_read():
    net = Net(lambda net, x: net.norm(net.conv(x)) * net.norm.weight.mean())
    swapped, _ = swap_norm(net, "group")
    assert swapped(torch.randn(2, 3, 4, 4)).shape == (2, 4, 4, 4)
