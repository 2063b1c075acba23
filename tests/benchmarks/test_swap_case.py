"""A case says how far a net came and why not further."""

import pytest
import torch
from torch import nn

from benchmarks.swap_case import fitting_input, judge, still


class Seesaw(nn.Module):
    """A net whose samples see each other beside its norm, or that fails once it is swapped."""

    def __init__(self, fails=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fails = fails

    def forward(self, x):
        if self.fails and not isinstance(self.norm, nn.BatchNorm2d):
            raise RuntimeError("no such luck")
        y = self.norm(self.conv(x))
        return (y - y.mean(0)).mean((2, 3))


def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())


@pytest.mark.parametrize("kind", ["group", "kernel", "none"])
def test_a_plain_net_passes(kind):
    row = judge(plain(), kind)
    assert row["status"] == "ok"
    assert row["independent"]
    assert row["consistent"]
    assert (row["norms"], row["batch_norms"], row["stay"]) == (1, 1, 0)


def test_samples_that_see_each_other_are_noticed():
    assert not judge(Seesaw(), "group")["independent"]
    assert not judge(plain(), "batch")["consistent"]


def test_failures_carry_their_reason():
    assert judge(nn.Sequential(nn.Conv2d(3, 3, 1)), "group") == {
        "norms": 0, "batch_norms": 0, "status": "no norm",
    }  # fmt: skip
    failed = judge(Seesaw(fails=True), "group")
    assert (failed["status"], failed["reason"]) == ("failed", "RuntimeError: no such luck")
    refused = judge(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), "local_context")
    assert refused["status"] == "refused"
    assert "channels_per_group" in refused["reason"]


def test_the_input_is_the_smallest_that_fits():
    assert fitting_input(nn.Conv2d(3, 4, 3)).shape == (2, 3, 64, 64)
    assert fitting_input(nn.Conv2d(3, 4, 100)).shape == (2, 3, 128, 128)
    with pytest.raises(ValueError, match="takes no images"):
        fitting_input(nn.Conv2d(3, 4, 300))


def test_nothing_drops_in_a_net_held_still():
    net = still(plain())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(net(x), net(x))


def test_folding_is_measured_on_statistics_that_are_not_those_of_a_new_net():
    net = plain().eval()
    row = judge(net, "none")
    assert 0 < float(row["fold_change"]) < 1e-5
    assert 0 < float(row["rounding"]) < 1e-5
    assert float(row["fold_change_double"]) < 1e-13
    assert bool((net[1].running_var == 1).all())


def test_a_net_that_fails_before_the_swap_is_told_apart():
    class Detached(nn.Sequential):
        def forward(self, x):
            return super().forward(x).detach()

    net = Detached(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert judge(net, "group")["status"] == "net fails by itself"
