"""A dry run: the plan of a run, and a few steps of all that it will do, on its data and nets."""

import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from knorm.training.cost import count_macs
from knorm.training.folder import LAST
from knorm.training.loop import Trainer, train_epoch
from knorm.training.mistakes import OneRankMistakeError
from knorm.training.outcome import plan
from knorm.training.progress import Progress
from knorm.training.run import Run
from knorm.training.run_settings import RunSettings, parent_of
from knorm.training.session import facts_of, tell_doubts
from knorm.training.state import weights_of
from knorm.training.trainer import PLAIN
from knorm.training.work import Steps, Way, Work

STEPS = 4  # of the optimizer
BLOCKS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 60


def rehearse(work: Work, way: Way = PLAIN) -> None:
    """Print the plan, try everything, print what it costs; keep nothing."""
    recipe, accelerator, say = work.recipe, work.accelerator, work.accelerator.print
    trainer = way.make_trainer(work, work.first_weights())
    say(plan(work, trainer, "nothing is kept, this is a dry run"))
    tell_doubts(work, trainer)
    macs = count_macs(trainer.net, work.example())
    say(f"MACs   {macs / 1e6:,.1f} million per image in the forward pass")
    say(f"curve  {curve(trainer)}  learning rate over {trainer.epochs} epochs")
    with passing_folder(recipe, accelerator) as folder:
        run = Run(folder, accelerator, facts_of(work, way.unseen))
        per_step = try_training(trainer, way.begin(work, run, trainer))
        per_image = try_evaluation(work, trainer)
        run.save(LAST, trainer)
        accelerator.wait_for_everyone()
        num_bytes = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
        again = way.make_trainer(work, None)
        run.resume(again)
        check_equal(trainer, again)
    kept = trainer.epochs // recipe.keep.every if recipe.keep.every else 0
    most = recipe.seeds * (3 + kept) * num_bytes
    say(f"disk   {most / 2**20:,.0f} MiB at most, {num_bytes / 2**20:,.1f} a save")
    num_evaluated = trainer.epochs * work.sizes.get("val", 0) + 2 * work.sizes["test"]
    seconds = round(recipe.seeds * (trainer.steps * per_step + num_evaluated * per_image))
    runs = f"{recipe.seeds} runs, " if recipe.seeds > 1 else ""
    say(f"time   {runs}about {timedelta(seconds=seconds)}, {1000 * per_step:,.0f} ms a step")
    say("dry run passed: trained, evaluated, saved, resumed")


@contextmanager
def passing_folder(recipe: RunSettings, accelerator: Accelerator) -> Iterator[Path]:
    """A folder that all ranks see and that is gone afterwards, on the disk of the run's own."""
    wanted = Path(recipe.run_dir) if recipe.run_dir else parent_of(recipe)
    near = next(place for place in wanted.absolute().parents if place.is_dir())
    place: list[Any] = [None]
    with ExitStack() as stack:
        if accelerator.is_main_process:
            made = tempfile.TemporaryDirectory(prefix=".dry-run-", dir=near)
            place = [stack.enter_context(made)]
        broadcast_object_list(place)
        folder = Path(place[0])
        if not folder.is_dir():
            here = f"process {accelerator.process_index} on {socket.gethostname()}"
            raise OneRankMistakeError(
                f"{here} does not see {near} as the first process does; a run needs a folder that "
                "all nodes see: give --run_dir"
            )
        yield folder
        accelerator.wait_for_everyone()


def try_training(trainer: Trainer, steps: Steps) -> float:
    """A few steps; seconds of one after the first."""
    progress = Progress(epochs=1, steps=STEPS, unit="img", enabled=False)
    ends: list[float] = []
    train_epoch(
        trainer,
        islice(steps.windows(1, 0), STEPS),
        steps.step,
        progress,
        lambda: ends.append(time.perf_counter()),
    )
    return median(end - begin for begin, end in pairwise(ends)) if len(ends) > 1 else 0.0


def try_evaluation(work: Work, trainer: Trainer) -> float:
    """Some images of every split that is evaluated; seconds per image."""
    few = work.few(work.rehearsed * trainer.accelerator.num_processes)
    began, count = time.perf_counter(), 0
    for name in few.sizes.keys() - {"train"}:
        few.evaluate(trainer.evaluated, name)
        count += few.sizes[name]
    return (time.perf_counter() - began) / max(count, 1)


def check_equal(one: Trainer, other: Trainer) -> None:
    """A run that goes on must have the very weights that were saved."""
    weights, restored = weights_of(one), weights_of(other)
    for stem in weights:
        for name, tensor in weights[stem].items():
            if not torch.equal(tensor, restored[stem][name]):
                raise RuntimeError(f"{name} did not come back from the checkpoint as it was")


def curve(trainer: Trainer) -> str:
    """The learning rate over the run as a line of blocks."""
    width = min(CURVE_WIDTH, trainer.steps)
    rates = [trainer.rate_at(place * trainer.steps // width) for place in range(width)]
    top = max(rates)
    return "".join(BLOCKS[min(7, int(8 * rate / top))] for rate in rates)
