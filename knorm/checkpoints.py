"""Published checkpoints: read without running code from them, renamed to this library's keys."""

import argparse
import pickle
import re
from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor

# Where trainers put the model's state dict within their checkpoint.
_WRAPPINGS = ("model", "model_state_dict", "model_ema")

_TORCHVISION_RESNET = {
    r"conv1\.(\w+)": r"features.stem.unit.conv.\1",
    r"bn1\.(\w+)": r"features.stem.unit.norm.\1",
    r"(layer\d\.\d+)\.conv(\d)\.(\w+)": r"features.\1.body.unit\2.conv.\3",
    r"(layer\d\.\d+)\.bn(\d)\.(\w+)": r"features.\1.body.unit\2.norm.\3",
    r"(layer\d\.\d+)\.downsample\.0\.(\w+)": r"features.\1.shortcut.conv.\2",
    r"(layer\d\.\d+)\.downsample\.1\.(\w+)": r"features.\1.shortcut.norm.\2",
    r"fc\.(\w+)": r"fc.\1",
}

_TORCHVISION_FCN = {
    **{rf"backbone\.{theirs}": ours for theirs, ours in _TORCHVISION_RESNET.items()},
    r"(aux_)?classifier\.0\.(\w+)": r"\1classifier.unit.conv.\2",
    r"(aux_)?classifier\.1\.(\w+)": r"\1classifier.unit.norm.\2",
    r"(aux_)?classifier\.4\.(\w+)": r"\1classifier.conv.\2",
}


def _torchvision_stage(stage: int) -> dict[str, str]:
    """Blocks and the down-sampling layer after them, without a norm in the authors' KNConvNeXt."""
    blocks, ours = rf"features\.{2 * stage - 1}\.(\d+)", rf"features.stage{stage}.\1"
    return {
        rf"{blocks}\.block\.0\.(\w+)": rf"{ours}.body.depthwise.\2",
        rf"{blocks}\.block\.2\.(\w+)": rf"{ours}.body.norm.\2",
        rf"{blocks}\.block\.3\.(\w+)": rf"{ours}.body.expand.\2",
        rf"{blocks}\.block\.5\.(\w+)": rf"{ours}.body.project.\2",
        rf"{blocks}\.layer_scale": rf"{ours}.scale",
        rf"features\.{2 * stage}\.0\.(\w+)": rf"features.downsampling{stage}.norm.\1",
        rf"features\.{2 * stage}\.1\.(\w+)": rf"features.downsampling{stage}.conv.\1",
    }


_TORCHVISION_CONVNEXT = {
    r"features\.0\.0\.(\w+)": r"features.stem.conv.\1",
    r"features\.0\.1\.(\w+)": r"features.stem.norm.\1",
    **_torchvision_stage(1),
    **_torchvision_stage(2),
    **_torchvision_stage(3),
    **_torchvision_stage(4),
    r"classifier\.0\.(\w+)": r"head_norm.\1",
    r"classifier\.2\.(\w+)": r"fc.\1",
}

Names = Iterator[tuple[str, str]]


def load_checkpoint(path: str | PathLike[str]) -> dict[str, Any]:
    """What a checkpoint file holds, on the CPU: `.safetensors`, or any other suffix by torch.

    Only tensors, plain containers and `argparse.Namespace` (the published files keep their
    command line in one) are read; nothing in the file is executed.

    Raises:
        ValueError: the file holds other things, which are not read.
    """
    if fspath(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{fspath(path)} is no checkpoint, or holds more than tensors: it was not read"
        ) from error


def convert_norm_torch_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The authors' published KNResNet (13, 18, 34, 50) or kernel-normalized ResNet-8, our keys.

    The net is recognised by its keys. A checkpoint that holds the state dict as "model",
    "model_state_dict" or "model_ema" will do (the first of them that is there), and keys may begin
    with "module.". Tensors stay as they are, so any number of classes and either stem are
    converted alike.

    Raises:
        ValueError: not one of those nets, or not all of it; the message names a key.
    """
    tensors = _unwrap(state_dict)
    if any(key.startswith("features.") for key in tensors):
        raise ValueError("these keys are ours already: load the state dict as it is")
    tables = {net: _tensor_names(names) for net, names in _published_nets()}
    net = max(tables, key=lambda name: len(tables[name].keys() & tensors.keys()))
    table = tables[net]
    missing, extra = sorted(table.keys() - tensors.keys()), sorted(tensors.keys() - table.keys())
    if len(missing) == len(table):
        what = f"none of their keys, but {_some(extra)}" if extra else "there are no keys"
        raise ValueError(f"not a published KNResNet: {what}")
    if missing:
        raise ValueError(f"nearest to {net}, but it lacks {_some(missing)}")
    if extra:
        raise ValueError(f"nearest to {net}, but it also has {_some(extra)}")
    return {table[key]: tensor for key, tensor in tensors.items()}


def convert_torchvision_resnet_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A torchvision ResNet with our keys, for the same ResNet with norm="batch".

    Raises:
        ValueError: a key that torchvision's ResNets do not have.
    """
    return _renamed(_unwrap(state_dict), _TORCHVISION_RESNET, "a torchvision ResNet")


def convert_torchvision_fcn_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A torchvision FCN over a ResNet with our keys, for that of ours with norm="batch".

    Torchvision's have output_stride=8 and, where there are tensors of it, aux=True.

    Raises:
        ValueError: a key that torchvision's FCNs do not have.
    """
    return _renamed(_unwrap(state_dict), _TORCHVISION_FCN, "a torchvision FCN")


def convert_torchvision_convnext_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A torchvision ConvNeXt, or the authors' KNConvNeXt, with our keys and 1x1 convolutions.

    They are for the same ConvNeXt with norm="layer" and norm="kernel".

    Raises:
        ValueError: a key that torchvision's ConvNeXts do not have.
    """
    renamed = _renamed(_unwrap(state_dict), _TORCHVISION_CONVNEXT, "a torchvision ConvNeXt")
    pointwise = ("expand.weight", "project.weight")
    return {
        key: tensor[:, :, None, None] if key.endswith(pointwise) else tensor
        for key, tensor in renamed.items()
    }


def _renamed(
    tensors: Mapping[str, Tensor], table: Mapping[str, str], what: str
) -> dict[str, Tensor]:
    return {_new_name(key, table, what): tensor for key, tensor in tensors.items()}


def _new_name(key: str, table: Mapping[str, str], what: str) -> str:
    for pattern, ours in table.items():
        if match := re.fullmatch(pattern, key):
            return match.expand(ours)
    raise ValueError(f"not {what}: key {key!r}")


def _unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict itself, without "module." before its keys."""
    for name in _WRAPPINGS:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(name), Mapping):
            checkpoint = checkpoint[name]
    if not isinstance(checkpoint, Mapping) or not all(isinstance(key, str) for key in checkpoint):
        raise ValueError(f"a state dict maps names to tensors, got a {type(checkpoint).__name__}")
    tensors = {key.removeprefix("module."): tensor for key, tensor in checkpoint.items()}
    tensors.pop("n_averaged", None)  # an averaged model's count
    return tensors


def _some(keys: list[str]) -> str:
    return repr(keys[0]) if len(keys) == 1 else f"{keys[0]!r} and {len(keys) - 1} more"


def _tensor_names(modules: Names) -> dict[str, str]:
    """Every convolution and linear layer has a weight and a bias."""
    pairs = [(theirs, ours) for theirs, ours in modules]
    return {f"{a}.{kind}": f"{b}.{kind}" for a, b in pairs for kind in ("weight", "bias")}


def _published_nets() -> Iterator[tuple[str, Names]]:
    """Each published net and its modules: the authors' names and ours."""
    yield "knresnet18", _knresnet(depths=(2, 2, 1, 1), num_convs=2)
    yield "knresnet34", _knresnet(depths=(4, 5, 3, 2), num_convs=2)
    yield "knresnet50", _knresnet(depths=(4, 5, 4, 2), num_convs=3)
    yield "knresnet13", _knresnet13()
    yield "resnet8", _resnet8()


def _knresnet(depths: tuple[int, ...], num_convs: int) -> Names:
    """The nets of bottlenecks have 1x1 convolutions, wrapped once more, at the end; no tail."""
    bottlenecks, block = num_convs == 3, 0
    yield "block0.0", "features.stem.unit"
    for stage, depth in enumerate(depths, start=1):
        end = "conv1x1" if bottlenecks and stage == len(depths) else ""
        if stage > 1:
            theirs = f"trans_block{stage - 1}.conv.{end}".rstrip(".")
            yield theirs, f"features.transition{stage - 1}.unit"
        for index in range(depth):
            block += 1
            for conv in range(1, num_convs + 1):
                theirs = f"res_block{block}.conv{conv}.{end if conv != 2 else ''}".rstrip(".")
                yield theirs, f"features.stage{stage}.{index}.body.unit{conv}"
    if not bottlenecks:
        yield "conv_block_f.conv", "features.tail.unit"
    yield "fc", "fc"


def _knresnet13() -> Names:
    yield "conv0", "features.stem.unit"
    for block in (1, 2, 3, 4):
        for conv in (1, 2):
            yield f"res_block{block}.conv{conv}", f"features.block{block}.body.unit{conv}"
    for block in (1, 2, 3):
        yield f"conv_block{block}.1", f"features.transition{block}.unit"
    yield "fc", "fc"


def _resnet8() -> Names:
    yield "conv_block1.0", "features.stem.unit"
    for block in (1, 2):
        yield f"conv_block{block + 1}.0", f"features.transition{block}.unit"
        for conv in (1, 2):
            yield f"res_block{block}.conv{conv}", f"features.block{block}.body.unit{conv}"
    yield "fc", "fc"
