"""Tensors as safetensors and the rest as JSON, in a folder that is replaced as a whole."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from knorm.training.files import damaged, flush, read_json
from knorm.training.mistakes import UserMistakeError

Tensors = Mapping[str, Tensor]

STATE = "state.json"
MODEL, EMA, OPTIMIZER = "model", "ema", "optimizer"  # stems of the safetensors files
WEIGHTS = (MODEL, EMA)
WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+|(?<=\.)_orig_mod\.")  # DDP's and torch.compile's


@dataclass
class Checkpoint:
    """What a folder holds."""

    tensors: dict[str, dict[str, Tensor]]
    """by file stem: model, ema where a moving average is kept, optimizer where it can go on"""
    state: dict[str, Any]

    @property
    def evaluated(self) -> dict[str, Tensor]:
        """The weights that numbers are told of: the moving average where there is one."""
        return self.tensors.get(EMA, self.tensors[MODEL])


def clean(tensors: Tensors) -> dict[str, Tensor]:
    """Copies of the tensors on the CPU, under the names they have in the plain net."""
    return {
        WRAPPERS.sub("", name): tensor.detach().cpu().clone().contiguous()
        for name, tensor in tensors.items()
    }


def save(folder: Path, tensors: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
    """Write the tensors, by file stem, and `state`; whoever reads meets the old or the new folder.

    All files are written beside it first. Between the two renames only `<folder>.old` exists,
    which `load` falls back on.
    """
    new, old = folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        for stem, group in tensors.items():
            _save_file(clean(group), new / f"{stem}.safetensors")
        (new / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        for path in (*new.iterdir(), new):
            flush(path)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    os.rename(new, folder)
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint to load."""
    return _place(folder).is_dir()


def load(folder: Path, stems: Sequence[str] = WEIGHTS, shape: Any = dict) -> Checkpoint:
    """What `save` wrote; of the tensors those of `stems` that there are, the net's always.

    `shape` is that of the state, see `knorm.training.files.misfit`. Raises `UserMistakeError` for
    a folder that is no checkpoint or damaged.
    """
    place = _place(folder)
    if not (place / f"{MODEL}.safetensors").is_file():
        raise UserMistakeError(
            f"{folder} holds no {MODEL}.safetensors; give a folder that a run saved"
        )
    files = {stem: place / f"{stem}.safetensors" for stem in stems}
    try:
        tensors = {stem: load_file(path) for stem, path in files.items() if path.is_file()}
    except (OSError, SafetensorError) as error:
        raise damaged(folder, str(error)) from error
    return Checkpoint(tensors, read_json(place / STATE, shape))


def check_fits(folder: Path, weights: Tensors, net: nn.Module) -> None:
    """Raise `UserMistakeError` unless the weights, those in `folder`, are of the net's shapes."""
    had = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    if had != wanted:
        name = next(name for name in had | wanted if had.get(name) != wanted.get(name))
        raise UserMistakeError(f"{folder} holds the weights of another net: {name} differs")


def sha256(folder: Path) -> str:
    """Of the file with the weights that numbers are told of, in hexadecimal digits."""
    paths = [_place(folder) / f"{stem}.safetensors" for stem in (EMA, MODEL)]
    with next(path for path in paths if path.is_file()).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(folder: Path) -> Path:
    """The folder, or its predecessor where the process stopped between the two renames."""
    old = folder.with_name(f"{folder.name}.old")
    return old if old.is_dir() and not folder.is_dir() else folder
