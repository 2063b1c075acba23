"""A case tells right gradients from wrong ones and from those that are refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import per_record_case
from benchmarks.per_record_case import (
    RECORDS,
    Images,
    difference,
    judge,
    made_up,
    one_by_one,
)
from privacy.contributions import Samples
from privacy.rules import RULES

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")


@pytest.fixture(autouse=True)
def in_float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class Mixer(nn.Module):
    """A net whose records see each other."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x):
        y = self.conv(x).mean((2, 3))
        return y - torch.tanh(y).mean(0)


def images():
    return torch.randn(RECORDS, 3, 8, 8)


@pytest.mark.parametrize("norms", ["own", "kernel"])
def test_a_plain_net_is_exact_after_its_batch_norms_are_swapped(norms):
    row = judge(plain(), images(), norms, "privacy")
    assert row["status"] == "exact"
    assert (row["batch_norms"], row["size"]) == (1, 8)
    assert 0 <= float(row["difference"]) < 1e-12
    assert 0 <= float(row["difference_thin"]) < 1e-12


def test_records_that_see_each_other_are_refused_and_would_have_been_wrong():
    row = judge(Mixer(), images(), "own", "privacy")
    assert row["status"] == "refused"
    assert "depends on the other images" in row["reason"]
    assert float(row["difference"]) > 1e-3
    assert judge(Mixer(), images(), "own", "opacus")["status"] == "wrong"


def test_a_rule_that_gives_wrong_gradients_does_not_pass(monkeypatch):
    def halved(tape, func, x, weight, bias=None, *geometry):
        return RULES_CONV(tape, func, x, weight, bias, *geometry) / 2 + 0

    RULES_CONV = RULES[F.conv2d]  # noqa: N806
    monkeypatch.setitem(per_record_case.RULES, F.conv2d, halved)
    row = judge(plain(), images(), "own", "privacy")
    assert row["status"] == "refused"  # by the checks: the sum is not torch's
    monkeypatch.setattr(per_record_case, "prove", lambda *args: None)
    row = judge(plain(), images(), "own", "privacy")
    assert row["status"] == "wrong"
    assert row["reason"].startswith("difference")


def test_opacus_is_right_for_a_plain_net_and_refuses_what_it_cannot_take():
    assert judge(plain(), images(), "own", "opacus")["status"] == "exact"
    net = plain()
    net[0].register_buffer("table", torch.ones(2))
    row = judge(net, images(), "own", "opacus")
    assert row["status"] == "refused"
    assert "buffer" in row["reason"]


def test_a_net_whose_norms_cannot_be_swapped_says_why():
    row = judge(nn.Sequential(nn.Conv2d(3, 5, 8), nn.Flatten()), images(), "kernel", "privacy")
    assert row["status"] == "not swapped"
    assert row["reason"]


class Crooked(Samples):
    """Right gradients, one of whose uses is not."""

    def __init__(self, grads, use):
        super().__init__(grads)
        self.use = use

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if name not in ("samples", "squared_norms", "weighted") or name != self.use:
            return value
        return lambda *args: 1.001 * value(*args)


@pytest.mark.parametrize("use", ["samples", "squared_norms", "weighted", None])
def test_every_use_of_a_gradient_is_compared(use):
    expected = {"a": torch.rand(RECORDS, 2), "b": torch.rand(RECORDS)}
    found = {name: Crooked(grads, use if name == "b" else None) for name, grads in expected.items()}
    worst = difference(found, expected)
    assert (worst.size > 1e-5) == (use is not None)
    assert worst.parameter == "b" or use is None


def test_no_number_is_as_wrong_as_can_be():
    expected = {"a": torch.rand(RECORDS, 2)}
    found = {"a": Samples(torch.full((RECORDS, 2), torch.nan))}
    assert difference(found, expected).size == torch.inf


def test_one_record_at_a_time_sums_over_all_outputs():
    net = nn.ModuleDict({"a": nn.Linear(2, 5), "b": nn.Linear(2, 5)})

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = net

        def forward(self, x):
            x = x.mean((2, 3))
            return {"a": self.parts["a"](x), "b": [self.parts["b"](x)]}

    batch = Images(torch.randn(RECORDS, 2, 3, 3), torch.tensor([0, 4, 1]))
    grads = one_by_one(Two(), batch)
    assert all(value.flatten(1).any(1).all() for value in grads.values())
    x, labels = batch.inputs[1:2].mean((2, 3)), batch.labels[1:2]
    alone = torch.autograd.grad(F.cross_entropy(net["b"](x), labels), net["b"].weight)[0]
    torch.testing.assert_close(grads["parts.b.weight"][1], alone)


def test_batches_of_the_checks_are_functions_of_their_seed():
    make = made_up(Images(images(), torch.zeros(RECORDS)))
    assert torch.equal(make(4, 1).inputs, make(4, 1).inputs)
    assert not torch.equal(make(4, 1).inputs, make(4, 2).inputs)
    assert make(4, 1).inputs.shape == (4, 3, 8, 8)
