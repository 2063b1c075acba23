"""Which run folder a command goes on with, and whether it may."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from knorm.training import checkpoint
from knorm.training.folder import (
    AUTO,
    COMMAND,
    CONFIG,
    ENVIRONMENT,
    LAST,
    LOCK,
    METRICS,
    RESULT,
    existing,
    has_config,
    read_environment,
)
from knorm.training.launch import command_hint, world_size
from knorm.training.mistakes import UserMistakeError
from knorm.training.recipes import is_part, leaves, read_yaml
from knorm.training.run_settings import MAY_DIFFER

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a run happens."""

    folder: Path | None
    """None: the next number"""
    begun: bool = False
    """it holds a run of this configuration"""
    finished: bool = False

    @property
    def saved(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.begun and self.folder is not None and checkpoint.exists(self.folder / LAST)


def find_place(resume: str | None, run_dir: str | None, parent: Path, settings: str) -> Place:
    """The folder for the run of `settings` (YAML, as config.yaml holds them).

    Args:
        resume: None starts a new run; "auto" goes on with `run_dir`, or else with the newest
            run in `parent` that has these settings, and starts a new one where there is none;
            a path goes on with that folder.

    Raises `UserMistakeError` for a folder that holds anything else.
    """
    wanted = leaves(yaml.safe_load(settings), CONFIG)
    if resume is None:
        return Place(new_folder(run_dir))
    if resume != AUTO:
        if run_dir is not None and Path(run_dir) != Path(resume):
            raise UserMistakeError(f"--resume {resume} and --run_dir {run_dir} differ; give one")
        return place_of(existing(resume), wanted)
    if run_dir is not None:
        folder = Path(run_dir)
        return place_of(folder, wanted) if (folder / CONFIG).is_file() else Place(unbegun(folder))
    runs = [path for path in parent.glob("*") if path.name.isdecimal() and has_config(path)]
    for folder in sorted(runs, key=lambda path: int(path.name), reverse=True):
        if not differences(folder, wanted):
            return place_of(folder, wanted)
    return Place(None)


def place_of(folder: Path, wanted: Settings) -> Place:
    """The place that holds a run of these settings, made by as many processes."""
    different = differences(folder, wanted)
    if different:
        raise UserMistakeError(
            f"{folder} was made with other settings: {'; '.join(different[:3])}; "
            "give those, or start a new run without --resume"
        )
    environment = read_environment(folder)
    if environment["processes"] != world_size():
        raise UserMistakeError(
            f"{folder} was made by {environment['processes']} process(es), this is "
            f"{world_size()}: its numbers would change; {command_hint(environment['processes'])}"
        )
    log = folder / METRICS  # only counted: what goes on is in last/
    epochs = log.read_bytes().count(b"\n") if log.is_file() else 0
    if epochs > 1 and not checkpoint.exists(folder / LAST):
        raise UserMistakeError(f"{folder} has {epochs} epochs but no {LAST}/ to go on from")
    return Place(folder, begun=True, finished=(folder / RESULT).is_file())


def differences(folder: Path, wanted: Settings) -> list[str]:
    """`optim.lr was 0.1, now 0.2` for every setting in which the folder's run is another."""
    had = leaves(read_yaml(folder / CONFIG), str(folder / CONFIG))
    if (had.get("seeds", 1) != 1) != (wanted.get("seeds", 1) != 1):  # one run, or a folder of runs
        return [f"seeds was {had.get('seeds', 1)}, now {wanted.get('seeds', 1)}"]
    return [
        f"{name} was {had.get(name)}, now {wanted.get(name)}"
        for name in sorted(had.keys() | wanted.keys())
        if had.get(name) != wanted.get(name) and not any(is_part(name, free) for free in MAY_DIFFER)
    ]


def new_folder(run_dir: str | None) -> Path | None:
    """The folder asked for, unless something is in it already: runs are never overwritten."""
    if run_dir is None:
        return None
    path = Path(run_dir)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        way = "add --resume auto to go on with it, or " if has_config(path) else ""
        raise UserMistakeError(f"run_dir {run_dir} exists already; {way}give another one")
    return path


def unbegun(folder: Path) -> Path:
    """The folder, if it holds nothing but what a run writes before its config.yaml."""
    ours = {COMMAND, ENVIRONMENT, LOCK}
    if folder.is_dir() and all(
        path.name in ours or path.suffix == ".tmp" for path in folder.iterdir()
    ):
        return folder
    return new_folder(str(folder)) or folder


def changed_surroundings(folder: Path, now: Mapping[str, Any]) -> list[str]:
    """`torch 2.13.0 -> 2.15.0` for everything that is not what it was when the run began."""
    before = read_environment(folder)
    pairs = {name: (before.get(name), now.get(name)) for name in ("device", "threads")}
    pairs |= {
        name: (version, now["versions"].get(name)) for name, version in before["versions"].items()
    }
    commits = [(place.get("git") or {}).get("commit") for place in (before, now)]
    pairs["commit"] = (commits[0], commits[1])
    return [f"{name} {old} -> {new}" for name, (old, new) in pairs.items() if old != new]
