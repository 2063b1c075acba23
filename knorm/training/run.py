"""The run folder: what was asked for, where it ran, every number, the weights.

config.yaml command.txt environment.json    written at the start
metrics.jsonl metrics.csv last/ best/       after every epoch
curves.png result.json report.md            at the end
"""

import csv
import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.distributed import broadcast

from knorm.training import checkpoint
from knorm.training.interrupt import Interrupted
from knorm.training.launch import world_size
from knorm.training.loop import Trainer
from knorm.training.mistakes import UserMistakeError

Row = Mapping[str, Any]
LAST, BEST = "last", "best"


@dataclass
class Run:
    """A run folder as its run sees it; only the main process writes."""

    folder: Path
    accelerator: Accelerator
    facts: dict[str, Any]
    """what every checkpoint says besides its step: how to build the net, the class names"""
    rows: list[Row] = field(default_factory=list)
    best: Row | None = None
    best_score: tuple[float, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self.accelerator.is_main_process

    def record(self, trainer: Trainer, row: Row, score: tuple[float, ...] | None) -> None:
        """Keep an epoch's numbers and weights; the first highest `score` also as the best."""
        self.rows.append(row)
        if self.writes:
            self._append(row)
        self.save(LAST, trainer)
        if score is not None and (self.best is None or score > self.best_score):
            self.best, self.best_score = row, score
            self.save(BEST, trainer)

    def _append(self, row: Row) -> None:
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(to_json(row) + "\n")
        path = self.folder / "metrics.csv"
        is_new = not path.exists()
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if is_new:
                writer.writeheader()
            writer.writerow(row)

    def save(self, name: str, trainer: Trainer) -> None:
        """Write the weights as they are now into last/ or best/."""
        if not self.writes:
            return
        state = {"epoch": trainer.epoch, "step": trainer.step, "seed": trainer.seed}
        at_epochs_end = bool(self.rows) and self.rows[-1].get("step") == trainer.step
        metrics = self.rows[-1] if at_epochs_end else None
        checkpoint.save(
            self.folder / name, trainer.net, finite(state | {"metrics": metrics} | self.facts)
        )

    def load(self, name: str, trainer: Trainer) -> None:
        """Give the net the weights saved as `name`; the main process reads, the others receive."""
        if self.writes:
            weights, _ = checkpoint.load(self.folder / name)
            trainer.net.load_state_dict(weights)
        if self.accelerator.num_processes > 1:
            for tensor in trainer.net.state_dict().values():
                broadcast(tensor, src=0)

    @contextmanager
    def saved_when_stopped(self, trainer: Trainer) -> Iterator[None]:
        """Around the training: a signal's `Interrupted` leaves last/ behind and a line."""
        try:
            yield
        except Interrupted as stop:
            self.save(LAST, trainer)
            if self.writes:
                print(f"{stop} after step {trainer.step}; saved {self.folder / LAST}", flush=True)
            raise

    def write(self, name: str, text: str) -> None:
        """Write a file of the folder."""
        if self.writes:
            (self.folder / name).write_text(text, encoding="utf-8")


def create_run(
    accelerator: Accelerator,
    folder: Path | None,
    parent: Path,
    *,
    files: Mapping[str, str],
    facts: dict[str, Any],
) -> Run:
    """Make `folder`, or the next number in `parent`, with `files` in it; all ranks get it."""
    place: list[Any] = [None]
    if accelerator.is_main_process:
        place = [str(make_folder(folder, parent))]
    broadcast_object_list(place)
    run = Run(Path(place[0]), accelerator, facts)
    for name, text in files.items():
        run.write(name, text)
    return run


def command_line(module: str, argv: Sequence[str]) -> str:
    """What to type to do the same again, with as many processes."""
    started = world_size()
    launcher = ["accelerate", "launch", "--multi_gpu", "--num_processes", str(started)]
    return shlex.join([*(launcher if started > 1 else ["python"]), "-m", module, *argv]) + "\n"


def check_folder(folder: str | None) -> Path | None:
    """The folder asked for, unless something is in it already: runs are never overwritten."""
    if folder is None:
        return None
    path = Path(folder)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserMistakeError(f"run_dir {folder} exists already; give another one or remove it")
    return path


def make_folder(folder: Path | None, parent: Path) -> Path:
    """Create `folder`, or the first free number after the highest in `parent`."""
    try:
        (folder or parent).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserMistakeError(f"{folder or parent} cannot be made: {error.strerror}") from error
    if folder is not None:
        return folder
    while True:
        numbers = [int(path.name) for path in parent.iterdir() if path.name.isdecimal()]
        new = parent / f"{max(numbers, default=-1) + 1:04d}"
        try:
            os.mkdir(new)
        except FileExistsError:  # another run took it between the two lines
            continue
        return new


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON: numbers that are not finite become null."""
    return json.dumps(finite(value), indent=indent, allow_nan=False)


def finite(value: Any) -> Any:
    """`value` with None in place of every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
