"""From settings of the net to the net."""

import json
from bisect import bisect_left
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from knorm.choices import nearest
from knorm.models import create_model, model_options
from knorm.models.in_timm import OF_KERNEL
from knorm.swap import Report, swap_norm
from knorm.training.mistakes import UserMistakeError
from knorm.training.model_settings import Model
from knorm.training.seeds import seed_torch
from knorm.training.weights import Beginning

COMMON = ("norm", "stem", "activation", *OF_KERNEL)
KNOWN = ("num_classes", "in_chans")  # options that the data decide
CANNOT_TAKE = (RuntimeError, ValueError, AssertionError)  # what nets raise; timm's assert sizes


def make_model(
    model: Model,
    *,
    num_classes: int,
    in_chans: int,
    seed: int,
    weights: Beginning | None = None,
) -> nn.Module:
    """The net on the CPU, its norms swapped if the recipe says so.

    Its first weights are a function of `seed`, or `weights`, which were saved before the swap or,
    where the run that saved them had swapped, after it.
    """
    options, swap = net_options(model), swap_options(model)
    seed_torch(seed)
    net = create_model(model.name, num_classes=num_classes, in_chans=in_chans, **options)
    if weights is not None and not weights.swapped:
        weights.fill(net)
    if swap:
        net, _ = swap_norm(net, inplace=True, **swap)
    if weights is not None and weights.swapped:
        weights.fill(net)
    return net


def swap_report(model: Model, *, num_classes: int, in_chans: int) -> Report:
    """What `model.swap` does to each norm of the net."""
    with torch.device("meta"):
        net = create_model(
            model.name, num_classes=num_classes, in_chans=in_chans, **net_options(model)
        )
        return swap_norm(net, inplace=True, **swap_options(model))[1]


def swap_options(model: Model) -> dict[str, Any]:
    """What the recipe gives `swap_norm`; empty where the norms stay."""
    if model.swap is None:
        return {}
    given = {name: getattr(model, name) for name in OF_KERNEL if model.swap == "kernel"}
    given = {name: value for name, value in given.items() if value is not None}
    return {"kind": model.swap, **given, **model.swap_options}


def net_options(model: Model) -> dict[str, Any]:
    """What the recipe gives `create_model` besides what the data ask for."""
    names = [name for name in COMMON if model.swap != "kernel" or name not in OF_KERNEL]
    given = {name: getattr(model, name) for name in names if getattr(model, name) is not None}
    twice = sorted(given.keys() & model.options.keys())
    if twice:
        raise ValueError(f"model.{twice[0]} is given twice, also in model.options")
    taken = model_options(model.name)
    for option in model.options:
        if option in KNOWN:
            raise ValueError(f"model.options.{option} is known from the data; leave it out")
        if option not in taken:
            raise ValueError(
                f"model.options.{option}: {model.name} takes no such option"
                f"{nearest(option, taken)} (--model.options '{{}}' drops those of the recipe)"
            )
    return given | model.options


def check_takes(
    model: Model,
    what: str = "images",
    /,
    *,
    num_classes: int,
    in_chans: int,
    height: int,
    width: int,
) -> None:
    """Raise `UserMistakeError` where the net cannot take `what` of that size; computes nothing."""
    with torch.device("meta"):
        net = make_model(model, num_classes=num_classes, in_chans=in_chans, seed=0).eval()
        try:
            net(torch.empty(1, in_chans, height, width))
        except CANNOT_TAKE as error:
            raise UserMistakeError(
                f"{model.name} cannot take {what} of {height} x {width}: {error}"
            ) from error


def smallest_side(model: Model, *, num_classes: int, in_chans: int, known: int) -> int:
    """The least height and width that the net takes; computes nothing.

    It takes `known` and, as all nets without a fixed size, whatever is larger than what it takes.
    """
    return _smallest_side(json.dumps(asdict(model)), num_classes, in_chans, known)


@lru_cache(maxsize=64)
def _smallest_side(settings: str, num_classes: int, in_chans: int, known: int) -> int:
    model = Model(**json.loads(settings))
    with torch.device("meta"):
        net = make_model(model, num_classes=num_classes, in_chans=in_chans, seed=0).eval()

        def takes(side: int) -> bool:
            try:
                net(torch.empty(1, in_chans, side, side))
            except CANNOT_TAKE:
                return False
            return True

        return 1 + bisect_left(range(1, known), True, key=takes)
