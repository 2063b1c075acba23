"""Optimizers by name: torch's, and as `timm:<name>` those of timm."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from knorm.choices import TIMM, nearest
from knorm.training.settings import OPTIMIZERS, Optim

CLASSES: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
Groups = list[dict[str, Any]]
ScaleOf = Callable[[str], float]
SCALE = "lr_scale"  # of a parameter group, timm's name


def find_optimizer(name: str) -> Callable[..., Optimizer]:
    """What makes the optimizer of that name.

    Raises:
        ValueError: timm has no such one, or it cannot be used here; the message names the nearest.
    """
    return find_in_timm(name.removeprefix(TIMM)) if name.startswith(TIMM) else CLASSES[name]


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
    """Raise ValueError unless the optimizer exists and takes all of `optim.options`."""
    own = ("params", "lr", "weight_decay", *OPTIMIZERS.get(optim.name, ()))
    make = find_optimizer(optim.name)
    taken = [name for name in inspect.signature(make).parameters if name not in own]
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


def make_optimizer(optim: Optim, model: nn.Module, scale_of: ScaleOf = lambda _: 1.0) -> Optimizer:
    """The optimizer of that name over the trainable parameters of `model`.

    `scale_of` a parameter's name is its learning rate over that of the step.
    """
    settings = {name: getattr(optim, name) for name in OPTIMIZERS.get(optim.name, ())}
    make = partial(find_optimizer(optim.name), lr=optim.lr, **settings, **optim.options)
    return make(parameter_groups(optim, model, scale_of))


def parameter_groups(optim: Optim, model: nn.Module, scale_of: ScaleOf = lambda _: 1.0) -> Groups:
    """Parameters that decay and then those that do not, by the scale of their rate."""
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = optim.decay_vectors or parameter.ndim > 1
            groups.setdefault((not decays, scale_of(name)), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": 0.0 if spared else optim.weight_decay}
        | ({} if scale == 1 else {SCALE: scale})
        for (spared, scale), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate, times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(SCALE, 1.0)
