"""Optimizers by name: torch's, and as `timm:<name>` those of timm."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from knorm.choices import check_name, nearest
from knorm.training.mistakes import check_positive, check_range, check_unused


@dataclass(kw_only=True)
class Optim:
    """Optimizer. Rates are for the global batch, whatever the number of processes."""

    lr: float
    """peak learning rate"""
    name: str = "sgd"
    """sgd, adam, adamw, or timm:<name> for one of timm's, such as timm:lamb"""
    momentum: float = 0.9
    """momentum of sgd"""
    nesterov: bool = False
    """Nesterov's momentum, sgd only"""
    betas: tuple[float, float] = (0.9, 0.999)
    """decay of the running moments of adam and adamw"""
    weight_decay: float = 0.0
    """weight decay: an L2 term for sgd and adam, decoupled for adamw, as timm has it for others"""
    decay_vectors: bool = True
    """also decay biases and norm weights, i.e. parameters of one dimension"""
    clip_norm: float | None = None
    """largest norm of the whole gradient; null: no clipping"""
    options: dict[str, Any] = field(default_factory=dict)
    """further arguments of this optimizer, such as eps; all of them where it is one of timm's"""

    def __post_init__(self) -> None:
        check_positive("optim.lr", self.lr)
        check_range("optim.momentum", self.momentum, 0, 1)
        check_range("optim.weight_decay", self.weight_decay, 0, 1)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optim.betas must lie in [0, 1), got {self.betas}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("optim.nesterov needs an optim.momentum above 0")
        if self.clip_norm is not None:
            check_positive("optim.clip_norm", self.clip_norm)
        check_optimizer(self)


class Kind(NamedTuple):
    """What makes an optimizer, and the settings of `Optim` that it takes besides rate and decay."""

    make: Callable[..., Optimizer]
    settings: tuple[str, ...] = ()


OPTIMIZERS: Mapping[str, Kind] = {
    "sgd": Kind(SGD, ("momentum", "nesterov")),
    "adam": Kind(Adam, ("betas",)),
    "adamw": Kind(AdamW, ("betas",)),
}
USERS = {
    setting: [name for name, kind in OPTIMIZERS.items() if setting in kind.settings]
    for setting in ("momentum", "nesterov", "betas")
}
TIMM = "timm:"
Groups = list[dict[str, Any]]


def find_optimizer(name: str) -> Kind:
    """The optimizer of that name.

    Raises:
        ValueError: there is none, or it cannot be used here; the message names the nearest.
    """
    if name.startswith(TIMM):
        return Kind(find_in_timm(name.removeprefix(TIMM)))
    check_name("optimizer", name, [*OPTIMIZERS, f"{TIMM}<name>"])
    return OPTIMIZERS[name]


def find_in_timm(name: str) -> Callable[..., Optimizer]:
    """timm's optimizer of that name, with the arguments that timm binds to it."""
    try:
        from timm.optim import (
            get_optimizer_class,  # pyright: ignore[reportPrivateImportUsage]
            get_optimizer_info,  # pyright: ignore[reportPrivateImportUsage]
            list_optimizers,  # pyright: ignore[reportPrivateImportUsage]
        )
    except ImportError as error:
        raise ValueError(
            f"optim.name {TIMM}{name} needs timm, which cannot be imported ({error}); "
            'pip install "knorm[timm]"'
        ) from error
    names = list_optimizers()
    if name not in names:
        hint = nearest(f"{TIMM}{name}", [f"{TIMM}{known}" for known in names])
        raise ValueError(f"optim.name {TIMM}{name}: timm has no such optimizer{hint}")
    if get_optimizer_info(name).second_order:
        raise ValueError(f"optim.name {TIMM}{name} needs second derivatives, which no step takes")
    try:
        return get_optimizer_class(name, bind_defaults=True)
    except (AssertionError, ImportError) as error:
        raise ValueError(f"optim.name {TIMM}{name} cannot be had here: {error}") from error


def check_optimizer(optim: Optim) -> None:
    """Raise ValueError unless the optimizer exists and takes every setting that was given."""
    kind = find_optimizer(optim.name)
    check_unused("optim", optim, USERS)
    own = ("params", "lr", "weight_decay", *kind.settings)
    taken = [name for name in inspect.signature(kind.make).parameters if name not in own]
    for option in optim.options:
        if option in own:
            raise ValueError(f"optim.options.{option}: set optim.{option} instead")
        if option not in taken:
            raise ValueError(
                f"optim.options.{option}: {optim.name} takes no such option"
                f"{nearest(option, taken)} (it takes {', '.join(taken)})"
            )
    try:
        make_optimizer(optim, nn.Embedding.from_pretrained(torch.zeros(2, 2), freeze=False))
    except (TypeError, ValueError, AssertionError, ImportError, RuntimeError) as error:
        raise ValueError(f"optim: {optim.name} cannot be made so: {error}") from error


def make_optimizer(optim: Optim, model: nn.Module) -> Optimizer:
    """The optimizer of that name over the trainable parameters of `model`."""
    kind = find_optimizer(optim.name)
    settings = {name: getattr(optim, name) for name in kind.settings}
    make = partial(kind.make, lr=optim.lr, **settings, **optim.options)
    return make(parameter_groups(optim, model))


def parameter_groups(optim: Optim, model: nn.Module) -> Groups:
    """Parameters that decay and parameters that do not, empty groups left out."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decays = [optim.decay_vectors or parameter.ndim > 1 for parameter in parameters]
    pairs = list(zip(parameters, decays, strict=True))
    groups: Groups = [
        {"params": [p for p, decay in pairs if decay], "weight_decay": optim.weight_decay},
        {"params": [p for p, decay in pairs if not decay], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
