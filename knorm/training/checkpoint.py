"""Weights as safetensors and the rest as JSON, in a folder that is replaced as a whole."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS, STATE = "model.safetensors", "state.json"
WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+|(?<=\.)_orig_mod\.")  # DDP's and torch.compile's


def clean(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors on the CPU, under the names they have in the plain net."""
    return {
        WRAPPERS.sub("", name): tensor.detach().cpu().clone().contiguous()
        for name, tensor in state_dict.items()
    }


def save(folder: Path, net: nn.Module, state: Mapping[str, Any]) -> None:
    """Write the net and `state` into `folder`; whoever reads meets the old or the new one.

    Both files are written beside it first. Between the two renames only `<folder>.old` exists,
    which `load` falls back on.
    """
    new, old = folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_file(clean(net.state_dict()), new / WEIGHTS)
    (new / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    os.rename(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and state of a folder that `save` wrote."""
    old = folder.with_name(f"{folder.name}.old")
    if not folder.is_dir() and old.is_dir():
        folder = old
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} holds no {WEIGHTS}; give a folder that a run has saved")
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return load_file(folder / WEIGHTS), state
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} is damaged: {error}") from error
