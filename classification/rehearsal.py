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

from classification.config import Recipe
from classification.data import ImageData
from classification.evaluation import evaluate_split
from classification.outcome import plan
from classification.runs import facts_of, parent_of
from classification.task import Classification
from classification.trainer import PLAIN, Steps, Way
from classification.weights import first_weights
from knorm.training.cost import count_macs
from knorm.training.folder import LAST
from knorm.training.loop import Trainer, train_epoch
from knorm.training.mistakes import OneRankMistakeError
from knorm.training.progress import Progress
from knorm.training.run import Run
from knorm.training.state import weights_of

STEPS, EVALUATED = 4, 2  # optimizer steps, and batches of every split
BLOCKS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 60


def rehearse(recipe: Recipe, data: ImageData, accelerator: Accelerator, way: Way = PLAIN) -> None:
    """Print the plan, try everything, print what it costs; keep nothing."""
    say = accelerator.print
    trainer = way.make_trainer(recipe, data, accelerator, first_weights(recipe))
    task = Classification(recipe.loss, len(data.classes), test_flip=recipe.test_flip)
    say(plan(recipe, trainer, data, "nothing is kept, this is a dry run"))
    image = data.splits["test"].images(torch.zeros(1, dtype=torch.long))
    macs = count_macs(trainer.net, data.inputs(image.to(accelerator.device)))
    say(f"MACs   {macs / 1e6:,.1f} million per image in the forward pass")
    say(f"curve  {curve(trainer)}  learning rate over {trainer.epochs} epochs")
    with passing_folder(recipe, accelerator) as folder:
        run = Run(folder, accelerator, facts_of(recipe, data, way.unseen))
        per_step = try_training(trainer, way.begin(recipe, run, trainer, data, task))
        per_image = try_evaluation(recipe, trainer, data, task)
        run.save(LAST, trainer)
        accelerator.wait_for_everyone()
        num_bytes = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
        again = way.make_trainer(recipe, data, accelerator, None)
        run.resume(again)
        check_equal(trainer, again)
    kept = trainer.epochs // recipe.keep.every if recipe.keep.every else 0
    most = recipe.seeds * (3 + kept) * num_bytes
    say(f"disk   {most / 2**20:,.0f} MiB at most, {num_bytes / 2**20:,.1f} a save")
    num_evaluated = trainer.epochs * num_images(data, "val") + 2 * num_images(data, "test")
    seconds = round(recipe.seeds * (trainer.steps * per_step + num_evaluated * per_image))
    runs = f"{recipe.seeds} runs, " if recipe.seeds > 1 else ""
    say(f"time   {runs}about {timedelta(seconds=seconds)}, {1000 * per_step:,.0f} ms a step")
    say("dry run passed: trained, evaluated, saved, resumed")


@contextmanager
def passing_folder(recipe: Recipe, accelerator: Accelerator) -> Iterator[Path]:
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


def num_images(data: ImageData, split: str) -> int:
    """Number of images of a split, 0 where there is none."""
    return len(data.labels(split)) if split in data.splits else 0


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


def try_evaluation(
    recipe: Recipe, trainer: Trainer, data: ImageData, task: Classification
) -> float:
    """Two batches of every split that is evaluated; seconds per image."""
    size = EVALUATED * recipe.eval_batch_size * trainer.accelerator.num_processes
    began, count = time.perf_counter(), 0
    for name in data.splits.keys() - {"train"}:
        few = data.first(name, size)
        values = evaluate_split(trainer.evaluated, few, task, name, recipe)
        task.summary(values, few.labels(name))
        count += len(few.labels(name))
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
