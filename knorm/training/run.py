"""The run folder: what was asked for, where it ran, every number, the weights.

config.yaml command.txt environment.json    written at the start
metrics.jsonl metrics.csv last/ best/       after every epoch, last/ now and then within one
curves.png report.md result.json            at the end
"""

import csv
import io
import json
import math
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from knorm.training import checkpoint
from knorm.training.files import damaged, read_text, write_text
from knorm.training.folder import BEST, COMMAND, CONFIG, LAST, METRICS, has_config
from knorm.training.interrupt import Interrupted
from knorm.training.launch import world_size
from knorm.training.lock import locked
from knorm.training.loop import Trainer
from knorm.training.mistakes import UserMistakeError
from knorm.training.settings import Keep
from knorm.training.state import capture, load_evaluated, restore, weights_of

Row = Mapping[str, Any]

GOING_ON = {  # what `resume` needs of last/state.json
    "epoch": int,
    "step": int,
    "rows": [dict],
    "best": {"row": dict | None, "score": list},
    "seconds": float | int,
    "so_far": {"sums": dict, "seconds": float | int, "waited": float | int},
    "optimizer": {"values": dict, "groups": [dict]},
    "scaler": dict | None,
    "averaged": int | None,
}


@dataclass
class Run:
    """A run folder as its run sees it; only the main process writes."""

    folder: Path
    accelerator: Accelerator
    facts: dict[str, Any]
    """what every checkpoint says besides its step: how to build the net, the class names"""
    keep: Keep = field(default_factory=Keep)
    rows: list[Row] = field(default_factory=list)
    best: Row | None = None
    best_score: tuple[float, ...] = ()
    started: float = field(default_factory=time.perf_counter)
    """when the run would have begun, had it never been stopped"""
    saved: float = field(default_factory=time.monotonic)
    """when last/ was written"""

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self.accelerator.is_main_process

    @property
    def seconds(self) -> float:
        """Time that the run has taken, that of earlier processes included."""
        return time.perf_counter() - self.started

    def record(self, trainer: Trainer, row: Row, score: tuple[float, ...] | None) -> None:
        """Keep an epoch's numbers and weights; the first highest `score` also as the best.

        A score that is no number counts as none. A run that is killed before last/ is written goes
        on from the one before and does all of this again; one that is killed before best/ is
        written makes it of last/.
        """
        self.rows.append(row)
        self._write_rows()
        if self.keep.every is not None and trainer.epoch % self.keep.every == 0:
            self.save(f"epoch-{trainer.epoch:04d}", trainer)
        if score is not None and any(map(math.isnan, score)):
            score = None
        is_best = score is not None and (self.best is None or score > self.best_score)
        if score is not None and is_best:
            self.best, self.best_score = row, score
        self.save(LAST, trainer)
        if is_best:
            self.save(BEST, trainer)

    def _write_rows(self) -> None:
        lines = "".join(to_json(row) + "\n" for row in self.rows)
        self.write(METRICS, lines)
        table = io.StringIO()
        writer = csv.DictWriter(table, list(self.rows[0]) if self.rows else [])
        writer.writeheader()
        writer.writerows(self.rows)
        self.write("metrics.csv", table.getvalue())

    def save(self, name: str, trainer: Trainer) -> None:
        """Write the weights as they are now into a folder; into last/ all that going on takes."""
        if not self.writes and trainer.plain is None:  # of a sharded net all ranks have a part
            return
        state = {"epoch": trainer.epoch, "step": trainer.step, "seed": trainer.seed}
        at_epochs_end = bool(self.rows) and self.rows[-1].get("step") == trainer.step
        state |= {"metrics": self.rows[-1] if at_epochs_end else None}
        tensors = weights_of(trainer)
        if name == LAST:
            tensors, going_on = capture(trainer)
            best = {"row": self.best, "score": self.best_score}
            state |= going_on | {"rows": self.rows, "best": best, "seconds": self.seconds}
            self.saved = time.monotonic()
        if self.writes:
            checkpoint.save(self.folder / name, tensors, finite(state | self.facts))

    def after_step(self, trainer: Trainer) -> None:
        """Save last/ when it is time to; nothing that is trained depends on when.

        A sharded net is saved between epochs only, when all ranks know of it.
        """
        if (
            self.writes
            and trainer.plain is None
            and time.monotonic() - self.saved >= 60 * self.keep.minutes
        ):
            self.save(LAST, trainer)

    def resume(self, trainer: Trainer) -> None:
        """Go on from last/, which must be there, on every rank."""
        last = self.folder / LAST
        saved = checkpoint.load(last, (*checkpoint.WEIGHTS, checkpoint.OPTIMIZER), GOING_ON)
        for name, fact in finite(self.facts).items():
            if saved.state.get(name) != fact:
                raise UserMistakeError(
                    f"{self.folder} cannot go on: its {name} was {saved.state.get(name)}, "
                    f"now it is {fact}"
                )
        needed = {checkpoint.MODEL, checkpoint.OPTIMIZER}
        needed |= {checkpoint.EMA} if trainer.ema is not None else set()
        for stem in sorted(needed - saved.tensors.keys()):
            raise damaged(last, f"lacks {stem}.safetensors")
        for stem in needed - {checkpoint.OPTIMIZER}:
            checkpoint.check_fits(last, saved.tensors[stem], trainer.net)
        restore(trainer, saved)
        state = saved.state
        self.rows, self.best = list(state["rows"]), state["best"]["row"]
        score = state["best"]["score"]
        self.best_score = tuple(-math.inf if part is None else part for part in score)
        self.started = time.perf_counter() - state["seconds"]
        self._write_rows()
        if self.best is not None and self.best.get("step") == trainer.step:
            self.save(BEST, trainer)  # perhaps the process was stopped before it could

    def load(self, name: str, net: nn.Module) -> None:
        """Give the net the weights saved as `name`; the main process reads, the others receive."""
        saved = checkpoint.load(self.folder / name) if self.writes else None
        load_evaluated(net, saved, self.accelerator)

    @contextmanager
    def saved_when_stopped(self, trainer: Trainer) -> Iterator[None]:
        """Around the training: a signal's `Interrupted` leaves last/ behind and a line."""
        try:
            yield
        except Interrupted as stop:
            if self.writes and not stop.whole:
                print(f"{stop} at once; {self.folder / LAST} is of an earlier step", flush=True)
            elif self.writes and trainer.plain is None:
                self.save(LAST, trainer)
                print(
                    f"{stop} after step {trainer.step}; saved {self.folder / LAST}; "
                    "the same command with --resume auto goes on",
                    flush=True,
                )
            raise

    def write(self, name: str, text: str) -> None:
        """Write a file of the folder."""
        if self.writes:
            write_text(self.folder / name, text)


@contextmanager
def open_folder(
    accelerator: Accelerator, folder: Path | None, parent: Path, files: Mapping[str, str]
) -> Iterator[Path]:
    """Make `folder`, or the next number in `parent`, with `files` in it; all ranks get it.

    Inside, no other job can open it. A folder that has its config.yaml goes on: only its
    command.txt grows. That file is written last, so that a folder without it has no beginning yet.
    """
    place: list[Any] = [None]
    with ExitStack() as stack:
        if accelerator.is_main_process:
            path = make_folder(folder, parent)
            place = [str(path)]
            stack.enter_context(locked(path))
            if has_config(path):
                files = {COMMAND: read_text(path / COMMAND) + files[COMMAND]}
            for name in sorted(files, key=lambda name: name == CONFIG):
                write_text(path / name, files[name])
        broadcast_object_list(place)
        yield Path(place[0])


def command_line(module: str, argv: Sequence[str]) -> str:
    """What to type to do the same again, with as many processes."""
    started = world_size()
    launcher = ["accelerate", "launch", "--multi_gpu", "--num_processes", str(started)]
    return shlex.join([*(launcher if started > 1 else ["python"]), "-m", module, *argv]) + "\n"


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
