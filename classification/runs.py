"""Training runs: what happens from a recipe to a run folder."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from classification.config import Recipe, settings_of
from classification.data import ImageData, check_packages, count_classes, load_data
from classification.evaluation import evaluate_split
from classification.outcome import plan, result_of, test_numbers, write_beginning, write_outcome
from classification.task import Classification, check_images, complete, make_model, score
from classification.trainer import PLAIN, Steps, Way
from classification.weights import first_weights
from knorm.training.cost import peak_memory
from knorm.training.environment import describe_environment
from knorm.training.folder import AUTO, COMMAND, CONFIG, ENVIRONMENT, read_result
from knorm.training.interrupt import stop_on_signal
from knorm.training.launch import check_launch, start, stays_on_cpu, world_size
from knorm.training.loop import Trainer, train_epoch
from knorm.training.mistakes import (
    DivergedError,
    UserMistakeError,
    mistakes_of_the_user,
)
from knorm.training.optim import check_optimizer
from knorm.training.progress import SPEED, Progress
from knorm.training.resume import Place, changed_surroundings, find_place
from knorm.training.run import Run, command_line, open_folder, to_json
from knorm.training.state import check_resumable
from knorm.training.track import start_tracking, track

Result = dict[str, Any]


def carry_out(recipe: Recipe, argv: Sequence[str]) -> None:
    """The plan of a training run; `argv` is what its command line said."""
    place = prepare(recipe)  # the last place for mistakes before any process group
    accelerator = start(recipe.launch)
    data = load_data(recipe, accelerator)
    command = command_line("classification.train", argv)
    if recipe.dry_run:
        from classification.rehearsal import rehearse

        rehearse(recipe, data, accelerator)
    else:
        train_seeds(recipe, place, data, accelerator, command)
    accelerator.end_training()


def train_seeds(
    recipe: Recipe,
    place: Place,
    data: ImageData,
    accelerator: Accelerator,
    command: str,
    way: Way = PLAIN,
) -> list[Result]:
    """The run, or one for every seed, in folders of a common one with the mean in it."""
    if recipe.seeds == 1:
        return [train(recipe, place, data, accelerator, command, way)]
    results = []
    with open_run_folder(recipe, place, accelerator, command) as folder:
        for seed in range(recipe.seed, recipe.seed + recipe.seeds):
            one = replace(recipe, seed=seed, seeds=1, run_dir=str(folder / f"seed-{seed}"))
            inner = find_place(AUTO, one.run_dir, folder, settings_of(one))
            results.append(train(one, inner, data, accelerator, command, way))
            accelerator.free_memory()
        if accelerator.is_main_process:
            text = way.sum_up(folder, results)
            print(f"{text}\n{folder}", flush=True)
    return results


def train(
    recipe: Recipe,
    place: Place,
    data: ImageData,
    accelerator: Accelerator,
    command: str,
    way: Way = PLAIN,
) -> Result:
    """One run, from its first step or from where it was stopped."""
    if place.finished and place.folder is not None:
        if accelerator.is_main_process:
            print(f"{place.folder} is finished already", flush=True)
        return read_result(place.folder)
    check_images(recipe.model, data)
    task = Classification(recipe.loss, len(data.classes), test_flip=recipe.test_flip)
    weights = None if place.saved else first_weights(recipe)
    trainer = way.make_trainer(recipe, data, accelerator, weights)
    with open_run_folder(recipe, place, accelerator, command) as folder:
        run = Run(folder, accelerator, facts_of(recipe, data, way.unseen), recipe.keep)
        if place.saved:
            run.resume(trainer)
        else:
            write_beginning(recipe, run, weights)
        start_tracking(accelerator, recipe.track, run.folder, asdict(recipe))
        steps = way.begin(recipe, run, trainer, data, task)
        fit(recipe, trainer, run, data, task, steps)
        tested, matrix = test_numbers(recipe, trainer, run, data, task)
        result = result_of(recipe, trainer, run, data, tested)
        steps.end()
        write_outcome(run, result, matrix)
    return result


def prepare(recipe: Recipe) -> Place:
    """Check what can be checked without data, and find the folder of the run."""
    check_launch(recipe.launch, batch_size=recipe.batch_size)
    check_packages(recipe.data, recipe.augment)
    check_passes(recipe)
    with mistakes_of_the_user():
        check_optimizer(recipe.optim)
        check_resumable(recipe.optim)
        complete(recipe.model, recipe.data)
    norms = (recipe.model.norm, recipe.model.swap)
    if "sync_batch" in norms and world_size() > 1 and stays_on_cpu(recipe.launch):
        raise UserMistakeError("norms of kind sync_batch share statistics between GPUs only")
    with mistakes_of_the_user(), torch.device("meta"):
        make_model(
            recipe.model,
            num_classes=count_classes(recipe.data),
            in_chans=recipe.data.facts.in_chans,
            seed=recipe.seed,
        )
    place = find_place(recipe.resume, recipe.run_dir, parent_of(recipe), settings_of(recipe))
    if not place.saved:
        first_weights(recipe)
    return place


def check_passes(recipe: Recipe) -> None:
    """Every process has a sample, or a pair to mix, for each of its passes."""
    least = world_size() * recipe.accumulation * (2 if recipe.augment.mixes else 1)
    if recipe.batch_size < least:
        raise UserMistakeError(
            f"accumulation {recipe.accumulation} needs a batch_size of {least} or more, so that "
            f"every pass has images, got {recipe.batch_size}"
        )


def parent_of(recipe: Recipe) -> Path:
    """Where runs of this name are numbered."""
    return Path("runs", recipe.name or "")


def facts_of(recipe: Recipe, data: ImageData, unseen: str | None = None) -> dict[str, Any]:
    """What a checkpoint says of its net and its data; of the split `unseen` no fingerprint."""
    seen = {name: split for name, split in data.splits.items() if name != unseen}
    return {
        "model": asdict(recipe.model),
        "num_classes": len(data.classes),
        "in_chans": recipe.data.facts.in_chans,
        "classes": data.classes,
        "num_samples": {name: len(split.labels) for name, split in data.splits.items()},
        "mean": data.mean.flatten().tolist(),
        "std": data.std.flatten().tolist(),
        "fingerprints": {name: split.fingerprint() for name, split in seen.items()},
    }


def open_run_folder(
    recipe: Recipe, place: Place, accelerator: Accelerator, command: str
) -> AbstractContextManager[Path]:
    """The folder, this job's alone, with the recipe, the command and the surroundings in it."""
    environment = describe_environment(accelerator, Path(__file__).parent)
    if place.begun and place.folder is not None:
        changed = changed_surroundings(place.folder, environment)
        if changed and accelerator.is_main_process:
            print(f"note: bits may differ from here on: {', '.join(changed)}", flush=True)
    files = {
        CONFIG: settings_of(recipe),
        COMMAND: command,
        ENVIRONMENT: to_json(environment, indent=2) + "\n",
    }
    return open_folder(accelerator, place.folder, parent_of(recipe), files)


def fit(
    recipe: Recipe,
    trainer: Trainer,
    run: Run,
    data: ImageData,
    task: Classification,
    steps: Steps,
) -> None:
    """Train epoch by epoch; validate, record and save after each."""
    progress = Progress(
        epochs=trainer.epochs,
        steps=trainer.steps_per_epoch,
        unit="img",
        enabled=run.writes,
        first_epoch=trainer.current_epoch,
        first_step=trainer.steps_into(trainer.current_epoch),
        device=data.accelerator.device,
    )
    with (
        stop_on_signal(leader=run.writes) as trainer.stop,
        run.saved_when_stopped(trainer),
        progress,
    ):
        progress.print(plan(recipe, trainer, data, str(run.folder)))
        for epoch in range(trainer.current_epoch, trainer.epochs + 1):
            left = steps.windows(epoch, trainer.steps_into(epoch))
            train = train_epoch(
                trainer, left, steps.step, progress, lambda: run.after_step(trainer)
            )
            if not math.isfinite(train.get("loss", 0.0)):
                raise DivergedError(f"the loss left all bounds in epoch {epoch}: lower optim.lr")
            val = validate(recipe, trainer, data, task)
            row = row_of(trainer, train, val)
            run.record(trainer, row, score(val) if val else None)
            track(trainer.accelerator, row)
            progress.end_epoch(row)


def validate(
    recipe: Recipe, trainer: Trainer, data: ImageData, task: Classification
) -> dict[str, float]:
    """Numbers of the validation split; none where there is no such split."""
    if "val" not in data.splits:
        return {}
    values = evaluate_split(trainer.evaluated, data, task, "val", recipe)
    return task.summary(values, data.labels("val"))


def row_of(trainer: Trainer, train: dict[str, float], val: dict[str, float]) -> dict[str, float]:
    """An epoch in the log."""
    return {
        "epoch": trainer.epoch,
        "step": trainer.step,
        "lr": trainer.rate_at(trainer.step - 1),
        **{f"train.{name}": value for name, value in train.items() if name not in SPEED},
        **{f"val.{name}": value for name, value in val.items()},
        **{name: train[name] for name in SPEED},
        "memory_bytes": peak_memory(trainer.accelerator.device),
    }
