from typing import get_args, get_type_hints

import pytest
from torch import nn

from knorm.training.optim import OPTIMIZERS, Optim, make_optimizer, set_rate


def test_the_names_of_the_settings_are_the_rows_of_the_table():
    assert list(get_args(get_type_hints(Optim)["name"])) == list(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_built_with_rate_and_decay(name):
    optimizer = make_optimizer(Optim(lr=0.3, name=name, weight_decay=0.01), nn.Linear(2, 3))
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.01)


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
    ("settings", "name"),
    [
        ({"lr": 0}, "optim.lr"),
        ({"lr": float("nan")}, "optim.lr"),
        ({"lr": 1, "momentum": 2}, "optim.momentum"),
        ({"lr": 1, "weight_decay": -1}, "optim.weight_decay"),
        ({"lr": 1, "betas": (0.9, 1.5)}, "optim.betas"),
        ({"lr": 1, "nesterov": True, "momentum": 0}, "optim.nesterov"),
        ({"lr": 1, "clip_norm": 0}, "optim.clip_norm"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings, name):
    with pytest.raises(ValueError, match=name):
        Optim(**settings)
