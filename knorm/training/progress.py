"""How far a run is: a bar on a terminal, plain lines elsewhere; the main process only."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

from knorm.training.cost import peak_memory

PLAIN_SECONDS = 30.0  # between two lines within a long epoch
BAR_SECONDS = 1.0
WIDE = 130  # columns of a terminal that has room for the bar itself
LONG_WAIT = 0.2  # part of an epoch spent waiting for data above which there is a hint
HINT = (
    "hint: {wait:.0f} % of the time is spent waiting for data; "
    "more workers, or a data set that is kept in memory, would help"
)
SPEED = ("seconds", "samples_per_second", "data_wait")

Row = Mapping[str, float]


class Progress:
    """Shows the steps of an epoch and one line per epoch.

    `first_epoch` and, of it, `first_step` steps are where a resumed run goes on. Peak memory is
    told for a `device`.
    """

    def __init__(
        self,
        *,
        epochs: int,
        steps: int,
        unit: str,
        enabled: bool,
        first_epoch: int = 1,
        first_step: int = 0,
        device: torch.device | None = None,
    ):
        self.epochs, self.steps, self.unit, self.enabled = epochs, steps, unit, enabled
        self.epoch, self.step_in_epoch, self.device = first_epoch, first_step, device
        self.done_before = (first_epoch - 1) * steps + first_step
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        interactive = self.console.is_terminal and not {"CI", "NO_COLOR"} & os.environ.keys()
        self.bar = self._make_bar() if enabled and interactive else None
        self.interval = BAR_SECONDS if self.bar else PLAIN_SECONDS
        self.now = self.shown = time.monotonic()
        self.stepping = self.between = 0.0  # seconds of steps, and from an epoch's last to its line
        self.ended = 0  # epochs whose end this process has seen
        self.hinted = False

    def _make_bar(self) -> Bar:
        title = Column(min_width=len(self._title()), no_wrap=True)
        count = Column(min_width=len(f"{self.steps}/{self.steps}"), no_wrap=True)
        columns: list[ProgressColumn] = [TextColumn("{task.description}", table_column=title)]
        if self.console.width >= WIDE:
            columns.append(BarColumn(30))
        columns += [MofNCompleteColumn(table_column=count), TextColumn("{task.fields[note]}")]
        bar = Bar(*columns, console=self.console, transient=True)
        bar.add_task(self._title(), total=self.steps, completed=self.step_in_epoch, note="")
        return bar

    def __enter__(self) -> "Progress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def step(self, row: Callable[[], Row]) -> None:
        """One step is done; `row`, the epoch so far, is asked only when shown, for it waits."""
        self.step_in_epoch += 1
        self.stepping += self._passed()
        if not self.enabled or self.now - self.shown < self.interval:
            return
        self.shown = self.now
        values = row()
        means = {name: value for name, value in values.items() if name not in SPEED}
        note, left = f"{in_words(means)}  {self._speed(values)}", f"ETA {self.time_left()}"
        if self.bar:  # a narrow terminal cuts the end off
            task = self.bar.task_ids[0]
            self.bar.update(task, completed=self.step_in_epoch, note=f"{left}  {note}")
        else:
            self.print(f"{self._title()} step {self.step_in_epoch}/{self.steps}  {note}  {left}")

    def end_epoch(self, row: Row) -> None:
        """Show the epoch's line and go on to the next epoch."""
        means = {
            name: value
            for name, value in row.items()
            if name.startswith(("train.", "val.")) and not name.endswith(("count", "correct"))
        }
        title = self._title()
        self.between += self._passed()
        self.ended += 1
        self.epoch, self.step_in_epoch, self.shown = self.epoch + 1, 0, self.now
        speed = f"{self._speed(row)}  ETA {self.time_left()}"
        self.print(f"{title}  {in_words(means)}  lr {row['lr']:.4g}  {speed}")
        if row["data_wait"] > LONG_WAIT and not self.hinted:
            self.print(HINT.format(wait=100 * row["data_wait"]))
            self.hinted = True
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=0, description=self._title(), note="")

    def print(self, text: str) -> None:
        """A line, above the bar where there is one."""
        if self.enabled:
            self.console.print(text, markup=False)

    def time_left(self) -> str:
        """Time to the end, of steps and of epochs' ends as long as this process has seen them take.

        A question mark before its first step.
        """
        done = (self.epoch - 1) * self.steps + self.step_in_epoch
        here, left = done - self.done_before, self.epochs * self.steps - done
        if not here:
            return "?"
        seconds = self.stepping / here * left
        seconds += self.between / max(self.ended, 1) * (self.epochs - self.epoch + 1)
        return str(timedelta(seconds=round(seconds)))

    def _passed(self) -> float:
        """Seconds since this was last asked."""
        before, self.now = self.now, time.monotonic()
        return self.now - before

    def _speed(self, row: Row) -> str:
        """Samples per second, the part spent waiting, memory."""
        words = [
            f"{row['samples_per_second']:.0f} {self.unit}/s",
            f"data wait {100 * row['data_wait']:.0f} %",
        ]
        if self.device is not None:
            words.append(f"{peak_memory(self.device) / 2**20:.0f} MiB")
        return "  ".join(words)

    def _title(self) -> str:
        width = len(str(self.epochs))
        return f"epoch {min(self.epoch, self.epochs):{width}}/{self.epochs}"


def in_words(means: Row) -> str:
    """`train loss 1.234 top1 0.912  val loss 1.3 top1 0.9`, each split named once."""
    words, current = [], ""
    for name, value in means.items():
        split, dot, metric = name.rpartition(".")
        if dot and split != current:
            words.append(f" {split}" if words else split)
            current = split
        words.append(f"{metric} {value:.4f}")
    return " ".join(words)
