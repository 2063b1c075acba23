import pytest
import torch
from torch import nn

from knorm.training import profile

CPU = torch.device("cpu")


def test_works_take_turns_and_the_first_rounds_do_not_count():
    done = []
    works = {name: lambda name=name: done.append(name) for name in "ab"}
    times = profile.in_turns(works, CPU, rounds=3)
    assert done == ["a", "b"] * (3 + profile.WARM_UP)
    assert {name: len(row) for name, row in times.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_that_within_a_round():
    ratios = profile.over([2.0, 20.0, 60.0], [1.0, 10.0, 10.0])
    assert ratios == {"time_ratio": 2.0, "lower_quartile": 2.0, "upper_quartile": 6.0}


def test_saved_is_what_autograd_keeps_each_storage_once():
    net, x = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU()), torch.zeros(8, 4)
    target = torch.zeros(8, dtype=torch.long)
    kept = {"x": 8 * 4 * 4, "relu": 8 * 3 * 4, "log_softmax": 8 * 3 * 4, "target": 8 * 8}
    nll_total = 4
    assert profile.saved_bytes(net, x, target) == sum(kept.values()) + nll_total


def test_the_passes_are_in_the_modes_they_say():
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout())
    profile.forward_pass(net, torch.zeros(2, 4))
    assert not net.training
    assert net[0].weight.grad is None
    profile.training_step(net, torch.ones(2, 4), torch.tensor([0, 1]))
    assert net.training
    assert net[0].weight.grad is not None


def test_the_peak_is_what_is_alive_together():
    def step():
        a = torch.ones(1000, 1000)
        b = a + 1
        del a
        b.add_(1)
        c = b * 2
        del b, c

    assert profile.peak_bytes(step, CPU) == pytest.approx(8e6, rel=0.01)
