"""Who gives to whom is read from forwards, whatever the order of definition."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from knorm.swap.flow import Flow


class Net(nn.Module):
    """Two convolutions and a norm, used as a function says."""

    def __init__(self, forward):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.first = nn.Conv2d(4, 4, 1)
        self.second = nn.Conv2d(4, 4, 1)
        self.idle = nn.Identity()
        self.how = forward

    def forward(self, x, flag=None):
        return self.how(self, x) if flag is None else x


def twice(net, x):
    return net.norm(net.second(net.second(x)))


def norm_twice(net, x):
    return net.norm(net.first(x)) + net.norm(net.second(x))


def two_consumers(net, x):
    y = net.first(x)
    return net.norm(y) + net.second(y)


def output_is_also_returned(net, x):
    y = net.first(x)
    return net.norm(y), y


def reaches_into_the_weight(net, x):
    return net.norm(net.first(x)) + net.first.weight.sum()


def shape_is_asked_for(net, x):
    y = net.first(x)
    batch, *_ = y.shape[0], y.size(1)
    return net.norm(y).view(batch, -1, y.size(2), y.shape[3])


def cannot_be_traced(net, x):
    return net.norm(net.first(x)) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("forward", "source", "words"),
    [
        (lambda net, x: net.second(net.norm(net.first(x))), "first", ""),
        (lambda net, x: net.first(net.norm(net.second(x))), "second", ""),
        (lambda net, x: net.norm(net.idle(net.second(net.first(x)))), "second", ""),
        (lambda net, x: net.norm(net.first(x) + x), None, "no convolution"),
        (lambda net, x: net.norm(torch.cat([net.first(x)], 1)), None, "no convolution"),
        (lambda net, x: net.norm(net.first(x).relu()), None, "no convolution"),
        (lambda net, x: net.norm(x), None, "from outside"),
        (twice, None, "second is used more than once"),
        (norm_twice, None, "used more than once"),
        (two_consumers, None, "elsewhere too"),
        (output_is_also_returned, None, "elsewhere too"),
        (reaches_into_the_weight, None, "first is used more than once"),
        (shape_is_asked_for, "first", ""),
        (cannot_be_traced, None, "the model cannot be traced"),
        (lambda net, x: net.first(x), None, "its parent does not call it"),
    ],
)
def test_the_source_is_what_gives_its_output_to_the_norm_alone(forward, source, words):
    found, why = Flow(Net(forward)).source("norm")
    assert found == source
    assert words in why


def test_the_source_is_found_across_containers():
    net = nn.Sequential(
        nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 1)),
        nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()),
    )
    assert Flow(net).source("1.0") == ("0.1", "")


def test_a_container_that_is_used_twice_hides_its_ends_but_not_its_inside():
    inside = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    net = nn.Sequential(nn.Conv2d(4, 4, 1), inside, inside)
    flow = Flow(net)
    assert flow.source("1.0")[0] is None
    assert flow.source("1.2") == ("1.1", "")


def test_a_module_that_cannot_be_traced_hides_only_its_own_calls():
    net = nn.Sequential(Net(cannot_be_traced), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    flow = Flow(net)
    assert flow.source("0.norm")[0] is None
    assert flow.source("2") == ("1", "")


def test_what_goes_through_a_module_that_cannot_be_traced_has_no_source():
    net = nn.Sequential(nn.Conv2d(4, 4, 1), Net(cannot_be_traced), nn.BatchNorm2d(4))
    assert Flow(net).source("2") == (None, "what 1 gives cannot be traced")


class Bypassed(nn.Module):
    """Calls a method of its child that is not the child's forward."""

    def __init__(self):
        super().__init__()
        self.backbone = Net(lambda net, x: net.norm(net.first(x)))

    def forward(self, x):
        return self.backbone.how(self.backbone, x).mean((2, 3))


def test_a_call_past_the_forward_of_a_child_counts_once():
    assert Flow(Bypassed()).source("backbone.norm") == ("backbone.first", "")


class ByMode(nn.Module):
    """Uses the convolution for something else too, in evaluation."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) if self.training else self.norm(y) + y


@pytest.mark.parametrize("mode", [True, False])
def test_the_flow_is_that_of_the_mode_asked_for(mode):
    net = ByMode().train(mode)
    assert Flow(net).source("norm") == ("conv", "")
    assert Flow(net, training=False).source("norm") == (None, "its input goes elsewhere too")
    assert net.training is mode


def test_a_parametrized_convolution_is_a_source():
    net = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4))
    assert Flow(net).source("1") == ("0", "")


def test_tensors_that_other_forwards_read_are_noted_whatever_becomes_of_them():
    def reads(net, x):
        return net.norm(net.first(x)) * float(net.norm.running_var.mean())

    assert Flow(Net(reads)).read["norm"] == {"running_var"}


def test_tracing_leaves_nothing_behind():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.last = None

        def forward(self, x):
            self.last = self.conv(x) + torch.rand(1)
            return self.last

    net = Remembers()
    state = torch.random.get_rng_state()
    Flow(net)
    assert net.last is None
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_order_is_that_of_the_calls():
    net = Net(lambda net, x: net.first(net.norm(net.second(x))))
    assert list(Flow(net).order()) == ["second", "norm", "first"]


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_container_with_hooks_is_no_way_to_a_norm(register):
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Sequential(nn.BatchNorm2d(4)))
    container = net[0] if register == "register_forward_hook" else net[1]
    getattr(container, register)(lambda *args: None)
    source, why = Flow(net).source("1.0")
    assert source is None
    assert why.endswith("has hooks")


def test_tracing_leaves_buffers_alone():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls.add_(1)
            return self.conv(x)

    net = Counts()
    Flow(net)
    assert net.calls.item() == 0
