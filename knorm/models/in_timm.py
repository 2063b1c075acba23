"""timm's nets as `timm:<name>`, with the norm of one's choice; needs the extra `timm`.

create_model("timm:resnet50", num_classes=10)                          # as timm has it
create_model("timm:resnet50", norm="kernel", dropout_p=0.05)           # its norms swapped
create_model("timm:resnet50", norm="group", norm_options={"groups": 8})
"""

import inspect
from collections.abc import Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import nn

from knorm.choices import NORM_KINDS, SWAP_OPTIONS, check_name, nearest
from knorm.swap import swap_norm

PREFIX = "timm:"
OF_KERNEL = ("dropout_p", "eval_stats")
SWAPPING = ("norm", *OF_KERNEL, "norm_options")
BUILDING = ("pretrained", "pretrained_cfg_overlay", "checkpoint_path")
PLACING = ("device", "dtype")  # nets are made where `torch.device` says


def build(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The net `timm:<name>`; with `norm` given, its norms replaced by `knorm.swap_norm`.

    Options: norm, dropout_p and eval_stats (of "kernel"; of no effect with other kinds) and
    norm_options (of `swap_norm`: groups, affine, eps, ...), all others timm's.

    Raises:
        ValueError: timm is missing, or there is no such net, option or value.
    """
    architecture = check(name)
    swapping = {option: options[option] for option in SWAPPING if options.get(option) is not None}
    left_out = SWAPPING
    if torch.get_default_device().type == "meta":  # no memory, hence no weights to load
        left_out += ("pretrained", "checkpoint_path")
    given = {option: value for option, value in options.items() if option not in left_out}
    check_swapping(name, swapping)
    try:
        net = needed(name).create_model(architecture, **given)
    except (TypeError, AssertionError, RuntimeError, FileNotFoundError) as error:
        raise ValueError(f"{name} cannot be made so: {_first_line(error)}") from error
    if "norm" not in swapping:
        return net
    swap_options = dict(swapping.get("norm_options", {}))
    if swapping["norm"] == "kernel":  # no other kind has them, and our nets take them with any
        swap_options |= {name: swapping[name] for name in OF_KERNEL if name in swapping}
    swapped, _ = swap_norm(net, swapping["norm"], inplace=True, **swap_options)
    return swapped


def options_of(name: str) -> tuple[str, ...]:
    """The options that `timm:<name>` takes: ours, and what the class of the net names."""
    return (*SWAPPING, *BUILDING, *_parameters(name))


def check(name: str) -> str:
    """What follows the prefix; it is a net of timm's, perhaps with the tag of its weights."""
    timm, wanted = needed(name), name.removeprefix(PREFIX)
    architecture = wanted.partition(".")[0]
    if not timm.is_model(architecture):
        hint = nearest(name, [f"{PREFIX}{known}" for known in timm.list_models()])
        raise ValueError(f"unknown model {name!r}{hint} (timm.list_models() has all of timm's)")
    return wanted


def check_swapping(name: str, swapping: Mapping[str, Any]) -> None:
    """Raise ValueError unless these options say how to swap."""
    if "norm" not in swapping:
        for option in swapping:
            raise ValueError(f"{option} of {name} belongs to norm, which is not given")
        return
    check_name("norm", swapping["norm"], NORM_KINDS)
    norm_options = swapping.get("norm_options", {})
    if not isinstance(norm_options, Mapping):
        raise ValueError(f"norm_options takes names and values, got {norm_options!r}")
    for option in norm_options:
        check_name("norm option", option, SWAP_OPTIONS)


def needed(name: str) -> ModuleType:
    """timm, or one line that says how to get it."""
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            f'{name} needs timm, which cannot be imported ({error}); pip install "knorm[timm]"'
        ) from error
    return timm


@lru_cache(maxsize=64)
def _parameters(name: str) -> tuple[str, ...]:
    architecture = check(name).partition(".")[0]
    with torch.device("meta"):
        net = needed(name).create_model(architecture)
    parameters = list(inspect.signature(type(net).__init__).parameters.values())[1:]
    named = (p.name for p in parameters if p.kind is not p.VAR_KEYWORD)
    return tuple(option for option in named if option not in PLACING)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
