"""timm's nets as `timm:<name>`, with the norm of one's choice; needs the extra `timm`.

create_model("timm:resnet50", num_classes=10)                          # as timm has it
create_model("timm:resnet50", norm="kernel", dropout_p=0.05)           # its norms swapped
create_model("timm:resnet50", norm="group", norm_options={"groups": 8})
"""

import inspect
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
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
CHANNELS_LAST = "NHWC"
PLACING = ("device", "dtype")  # nets are made where `torch.device` says


def build(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The net `timm:<name>`; with `norm` given, its norms replaced by `knorm.swap_norm`.

    Options: norm, dropout_p and eval_stats (of "kernel"; of no effect with other kinds) and
    norm_options (of `swap_norm`: groups, affine, eps, ...), all others timm's.

    Raises:
        ValueError: timm is missing, or there is no such net, option or value.
    """
    given, swapping = _parted(name, options)
    return _swapped(_made(name, given), swapping)


def build_features(name: str, options: Mapping[str, Any], **choice: Any) -> nn.Module:
    """`build` with timm's `features_only`: a net that gives a list of feature maps.

    Its `feature_info` tells of them; all have their channels before height and width. A
    `checkpoint_path` is a file of the whole net. choice: `out_indices`.

    Raises:
        ValueError: as `build`; or the file lacks a tensor.
    """
    given, swapping = _parted(name, options)
    path = given.pop("checkpoint_path", None)
    given |= {"features_only": True, **choice}
    net = _made(name, given)
    if getattr(net, "output_fmt", None) == CHANNELS_LAST:
        net = _made(name, {**given, "feature_cls": "getter"})
    if path is not None:
        _fill(name, net, path)
    return _swapped(net, swapping)


def _parted(name: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What timm is given, and what says how to swap."""
    swapping = {option: options[option] for option in SWAPPING if options.get(option) is not None}
    check_swapping(name, swapping)
    left_out = SWAPPING
    if torch.get_default_device().type == "meta":  # no memory, hence no weights to load
        left_out += ("pretrained", "checkpoint_path")
    return {k: v for k, v in options.items() if k not in left_out}, swapping


def _made(name: str, given: Mapping[str, Any]) -> nn.Module:
    architecture = check(name)
    try:
        return needed(name).create_model(architecture, **given)
    except (TypeError, AssertionError, RuntimeError, FileNotFoundError) as error:
        raise ValueError(f"{name} cannot be made so: {_first_line(error)}") from error


def _swapped(net: nn.Module, swapping: Mapping[str, Any]) -> nn.Module:
    if "norm" not in swapping:
        return net
    swap_options = dict(swapping.get("norm_options", {}))
    if swapping["norm"] == "kernel":  # no other kind has them, and our nets take them with any
        swap_options |= {name: swapping[name] for name in OF_KERNEL if name in swapping}
    swapped, _ = swap_norm(net, swapping["norm"], inplace=True, **swap_options)
    return swapped


def _fill(name: str, net: nn.Module, path: str) -> None:
    """Every tensor of a net of features from a file of the whole net.

    `features_only` puts modules into another one, or joins the first two parts of their names.
    """
    if not Path(path).is_file():
        raise ValueError(f"checkpoint_path of {name}: there is no file {path}")
    try:
        file = needed(name).models.load_state_dict(path, use_ema=False, weights_only=True)
    except (RuntimeError, UnpicklingError) as error:
        raise ValueError(f"{path} is no checkpoint of {name}: {_first_line(error)}") from error
    joined = {_joined(key): tensor for key, tensor in file.items()}
    tensors = {}
    for key, ours in net.state_dict().items():
        bare = key.removeprefix("model.").removeprefix("body.")
        tensor = file.get(bare, joined.get(_joined(bare)))
        if tensor is None or tensor.shape != ours.shape:
            what = "no such tensor" if tensor is None else f"it is {tuple(tensor.shape)} there"
            raise ValueError(f"{path} is not of {name}: {bare} {tuple(ours.shape)}: {what}")
        tensors[key] = tensor
    net.load_state_dict(tensors)


def _joined(key: str) -> str:
    return key.replace(".", "_")


def options_of(name: str) -> tuple[str, ...]:
    """The options that `timm:<name>` takes: ours, and what the class of the net names."""
    needed(name)  # also where the next line remembers
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
    """The first, and what it announces; errors without words have their name."""
    first, *rest = str(error).splitlines() or [type(error).__name__]
    return f"{first} {rest[0].strip()}" if rest and first.endswith(":") else first
