import sys

import pytest
import torch
from torch import nn

from knorm.training.optim import check_optimizer, make_optimizer, set_rate
from knorm.training.settings import OPTIMIZERS, Optim


@pytest.fixture
def timm():
    """Skips where timm is not installed; importing it may take ten seconds."""
    return pytest.importorskip("timm")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_built_with_rate_and_decay(name):
    optimizer = make_optimizer(Optim(lr=0.3, name=name, weight_decay=0.01), nn.Linear(2, 3))
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.01)


def test_further_settings_reach_the_optimizer():
    optimizer = make_optimizer(Optim(lr=1, options={"dampening": 0.1}), nn.Linear(2, 3))
    assert (optimizer.defaults["momentum"], optimizer.defaults["dampening"]) == (0.9, 0.1)
    optimizer = make_optimizer(Optim(lr=1, name="adam", options={"eps": 0.5}), nn.Linear(2, 3))
    assert optimizer.defaults["eps"] == 0.5


def test_checking_settings_draws_no_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    Optim(lr=1)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", ["lamb", "lion", "adan", "muon"])
def test_optimizers_of_timm_move_the_weights(name):
    net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    before = [parameter.clone() for parameter in net.parameters()]
    optimizer = make_optimizer(Optim(lr=0.1, name=f"timm:{name}", decay_vectors=False), net)
    net(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}
    assert not any(map(torch.equal, before, net.parameters()))


@pytest.mark.usefixtures("timm")
def test_an_optimizer_of_timm_keeps_its_own_defaults_unless_told():
    def betas(**options):
        optim = Optim(lr=1, name="timm:lion", options=options)
        return make_optimizer(optim, nn.Linear(2, 3)).defaults["betas"]

    assert betas() == (0.9, 0.99)
    assert betas(betas=(0.5, 0.6)) == (0.5, 0.6)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "timm:lamp"}, "did you mean 'timm:lamb'"),
        ({"name": "timm:adahessian"}, "second derivatives"),
        ({"name": "timm:lamb", "momentum": 0.5}, "momentum belongs to optim.name sgd"),
        ({"name": "timm:lamb", "options": {"beta": 1}}, "did you mean 'betas'"),
    ],
)
def test_what_timm_has_not_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        check_optimizer(Optim(lr=1, **settings))


def test_without_timm_its_optimizers_name_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.optim", None)
    with pytest.raises(ValueError, match=r'pip install "knorm\[timm\]"'):
        check_optimizer(Optim(lr=1, name="timm:lamb"))


def test_vectors_may_be_kept_from_decaying():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = make_optimizer(Optim(lr=1, weight_decay=0.1, decay_vectors=False), net)
    decaying, others = optimizer.param_groups
    assert [p.ndim for p in decaying["params"]] == [4]
    assert [p.ndim for p in others["params"]] == [1, 1, 1]
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0)


def test_frozen_parameters_are_left_out():
    net = nn.Linear(2, 3)
    net.bias.requires_grad_(False)
    assert len(make_optimizer(Optim(lr=1), net).param_groups[0]["params"]) == 1


def test_a_rate_reaches_every_group():
    net = nn.Linear(2, 3)
    optimizer = make_optimizer(Optim(lr=1, decay_vectors=False), net)
    set_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 1, "name": "sdg"}, "did you mean 'sgd'"),
        ({"lr": 1, "name": "adam", "momentum": 0.8}, "optim.momentum belongs to optim.name sgd"),
        ({"lr": 1, "name": "adamw", "nesterov": True}, "optim.nesterov belongs to"),
        ({"lr": 1, "betas": (0.8, 0.9)}, "optim.betas belongs to optim.name adam or adamw"),
        ({"lr": 1, "options": {"damping": 1}}, "did you mean 'dampening'"),
        ({"lr": 1, "options": {"momentum": 1}}, "set optim.momentum instead"),
        ({"lr": 1, "name": "adam", "options": {"eps": -1}}, "adam cannot be made so: Invalid eps"),
        ({"lr": 0}, "optim.lr"),
        ({"lr": float("nan")}, "optim.lr"),
        ({"lr": 1, "momentum": 2}, "optim.momentum"),
        ({"lr": 1, "weight_decay": -1}, "optim.weight_decay"),
        ({"lr": 1, "betas": (0.9, 1.5)}, "optim.betas"),
        ({"lr": 1, "nesterov": True, "momentum": 0}, "optim.nesterov"),
        ({"lr": 1, "clip_norm": 0}, "optim.clip_norm"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        check_optimizer(Optim(**settings))


def test_each_group_has_the_rate_times_its_own_scale():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optim = Optim(lr=0.1, weight_decay=0.5, decay_vectors=False)
    optimizer = make_optimizer(optim, net, lambda name: 10.0 if name.startswith("1.") else 1.0)
    set_rate(optimizer, 0.3)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert {name: found[id(parameter)] for name, parameter in net.named_parameters()} == {
        "0.weight": (0.3, 0.5),
        "0.bias": (0.3, 0.0),
        "1.weight": (3.0, 0.5),
        "1.bias": (3.0, 0.0),
    }
