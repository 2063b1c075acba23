"""Every record's gradient is that of its own loss, however a parameter is used."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from knorm import KNConv2d
from knorm.kernel.composition import normalized_conv
from privacy.per_record import Recorder, trainable
from privacy.rules import RULES, kn_conv
from tests.privacy.nets import CLASSES, NETS

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
RECORDS, SEED = 4, 3
ONLY_KN = {normalized_conv: kn_conv}  # its centres are activations that carry no gradient
WAYS = {"by records": (ONLY_KN, False), "rules": (RULES, False), "thin": (RULES, True)}


def losses(net, x, labels, views=1):
    """(N,) a loss for each record: the mean over its views."""
    torch.manual_seed(SEED)
    values = F.cross_entropy(net(x), labels.repeat_interleave(views), reduction="none")
    return values.view(-1, views).mean(1)


def one_by_one(net, x, labels, views=1):
    """The gradient of each record's loss alone, dropout as in the whole batch."""
    parameters = dict(trainable(net))
    values = losses(net, x, labels, views)
    rows = [
        torch.autograd.grad(
            value, list(parameters.values()), retain_graph=True, materialize_grads=True
        )
        for value in values
    ]
    return {
        name: torch.stack(grads)
        for name, grads in zip(parameters, zip(*rows, strict=True), strict=True)
    }


def found(net, x, labels, way="rules", views=1):
    rules, thin = WAYS[way]
    recorder = Recorder(net, rules, thin=thin)
    with recorder.recording(len(labels)) as tape:
        values = losses(recorder, x, labels, views)
    values.sum().backward()
    return recorder.gradients(tape)


def make(name, records=RECORDS):
    torch.manual_seed(SEED)
    build, shape = NETS[name]
    net = build().double()
    x = torch.randn(records, *shape, dtype=torch.float64)
    return net, x, torch.arange(records) % CLASSES


def assert_right(parts, expected, tolerance=1e-10):
    weights = torch.rand(len(next(iter(expected.values()))), dtype=torch.float64)
    assert parts.keys() == expected.keys()
    for name, grads in expected.items():
        close = {"rtol": tolerance, "atol": tolerance * float(grads.abs().max()) + 1e-15}
        torch.testing.assert_close(parts[name].samples(), grads, **close)
        norms = grads.flatten(1).square().sum(1)
        torch.testing.assert_close(parts[name].squared_norms(), norms, **close)
        total = torch.tensordot(weights, grads, 1)
        torch.testing.assert_close(parts[name].weighted(weights), total, **close)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETS)
def test_gradients_are_those_of_each_records_own_loss(name, way):
    net, x, labels = make(name)
    assert_right(found(net, x, labels, way), one_by_one(net, x, labels))


@pytest.mark.parametrize("name", ["conv2d", "conv2d, groups", "KNConv2d", "group norm"])
@pytest.mark.parametrize("way", WAYS)
def test_memory_format_changes_nothing(name, way):
    net, x, labels = make(name)
    expected = one_by_one(net, x, labels)
    net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    if "KN" in name:  # dropout draws in the order of memory
        expected = one_by_one(net, x, labels)
    assert_right(found(net, x, labels, way), expected)


@pytest.mark.parametrize(
    "name", ["conv2d", "KNConv2d, groups", "tokens", "windows", "places for the batch"]
)
@pytest.mark.parametrize("way", WAYS)
def test_views_of_a_record_count_as_one(name, way):
    net, _, labels = make(name)
    x = torch.randn(3 * RECORDS, *NETS[name][1], dtype=torch.float64)
    expected = one_by_one(net, x, labels, views=3)
    assert_right(found(net, x, labels, way, views=3), expected)


@pytest.mark.parametrize("name", ["conv2d", "KNConv2d", "tokens", "places"])
@pytest.mark.parametrize("records", [1, 2, 3, 5, 9])
def test_any_number_of_records_will_do(name, records):
    net, x, labels = make(name, records)
    assert_right(found(net, x, labels), one_by_one(net, x, labels))


@settings(max_examples=40, deadline=None)
@given(
    layer=st.sampled_from(["conv", "kn"]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    way=st.sampled_from(list(WAYS)),
    views=st.integers(1, 2),
)
def test_any_geometry(layer, kernel, stride, padding, dilation, groups, way, views):
    torch.manual_seed(SEED)
    kind = nn.Conv2d if layer == "conv" else KNConv2d
    options = (4, 8, kernel, stride, padding, dilation, groups)
    net = nn.Sequential(kind(*options), nn.Tanh(), nn.Flatten(), nn.LazyLinear(CLASSES)).double()
    x = torch.randn(2 * views, 4, 7, 6, dtype=torch.float64)
    labels = torch.tensor([0, 2])
    net(x)
    expected = one_by_one(net, x, labels, views)
    assert_right(found(net, x, labels, way, views), expected)


def test_the_nets_output_is_what_it_always_is():
    for name in NETS:
        net, x, _ = make(name)
        recorder = Recorder(net, RULES)
        torch.manual_seed(SEED)
        plain = net(x)
        torch.manual_seed(SEED)
        with recorder.recording(RECORDS):
            torch.testing.assert_close(recorder(x), plain, rtol=1e-12, atol=1e-12)
        torch.manual_seed(SEED)
        assert torch.equal(recorder(x), plain)


@pytest.mark.parametrize("name", ["conv2d", "KNConv2d", "tokens"])
def test_sixteen_bit_passes_give_gradients_of_32(name):
    net, x, labels = make(name)
    net, x = net.float(), x.float()
    recorder = Recorder(net, RULES, thin=True)
    with recorder.recording(RECORDS) as tape, torch.autocast("cpu", torch.bfloat16):
        values = losses(recorder, x, labels)
    values.sum().backward()
    expected = one_by_one(net, x, labels)
    for parameter, part in recorder.gradients(tape).items():
        assert part.samples().dtype == torch.float32
        error = (part.samples() - expected[parameter]).norm() / expected[parameter].norm()
        assert error < 0.05, parameter


class Unfit(nn.Module):
    """One of the ways in which what a parameter meets is no activation of whole records."""

    def __init__(self, meets):
        super().__init__()
        self.gain, self.meets = nn.Parameter(torch.ones(())), meets
        self.kept = [self.gain]

    def forward(self, x):
        return x.flatten(1)[:, :CLASSES] * self.meets(self, x)


@pytest.mark.parametrize(
    ("meets", "message"),
    [
        (lambda net, x: x.mean() * net.gain, r"activation of shape \(\)"),
        (lambda net, x: (x.flatten()[:5] * net.gain)[:1], r"activation of shape \(5,\)"),
        (lambda net, x: net.kept[0] * net.gain, "outside of its module"),
    ],
)
def test_activations_that_hold_no_records_are_refused(meets, message):
    with pytest.raises(ValueError, match=message):
        found(Unfit(meets), torch.randn(4, 2, 6, 6), torch.arange(4) % CLASSES)


def test_inputs_of_whole_numbers_are_refused():
    with pytest.raises(ValueError, match=r"input of torch\.int64"):
        found(nn.Embedding(5, CLASSES), torch.arange(4), torch.arange(4) % CLASSES)


def test_frozen_layers_in_front_have_no_backward_pass():
    net = nn.Sequential(nn.Conv2d(2, 4, 3).requires_grad_(False), nn.Flatten(), nn.LazyLinear(3))
    x, passed = torch.randn(4, 2, 6, 6), []
    net(x)
    net[0].register_forward_hook(lambda module, inputs, y: y.register_hook(passed.append) and None)
    found(net, x, torch.arange(4) % CLASSES)
    assert not passed


@pytest.mark.parametrize("name", ["tied", "shared", "frozen"])
def test_the_net_has_its_own_parameters_after_a_pass(name):
    net, x, labels = make(name)
    before = list(net.named_parameters(remove_duplicate=False))
    found(net, x, labels)
    after = list(net.named_parameters(remove_duplicate=False))
    assert [name for name, _ in after] == [name for name, _ in before]
    assert all(a is b for (_, a), (_, b) in zip(after, before, strict=True))


def test_batch_statistics_are_refused():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    with pytest.raises(ValueError, match="mixes the records"):
        found(net, torch.randn(4, 2, 6, 6), torch.arange(4))
