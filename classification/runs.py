"""Training runs: what happens from a recipe to a run folder."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from classification.config import Recipe, settings_of
from classification.data import (
    Batch,
    ImageData,
    check_packages,
    count_classes,
    load_data,
    training_windows,
)
from classification.evaluation import evaluate_split
from classification.outcome import plan, result_of, test_numbers, write_beginning, write_outcome
from classification.task import Classification, check_images, complete, make_model, score
from classification.weights import Weights, first_weights
from knorm.training.cost import peak_memory
from knorm.training.environment import describe_environment
from knorm.training.folder import AUTO, COMMAND, CONFIG, ENVIRONMENT, read_result
from knorm.training.interrupt import stop_on_signal
from knorm.training.launch import check_launch, compiled, start, stays_on_cpu, world_size
from knorm.training.loop import Step, Trainer, Window, gradient_step, train_epoch
from knorm.training.mistakes import (
    DivergedError,
    UserMistakeError,
    mistakes_of_the_user,
)
from knorm.training.optim import check_optimizer, make_optimizer
from knorm.training.progress import SPEED, Progress
from knorm.training.resume import Place, changed_surroundings, find_place
from knorm.training.run import Run, command_line, open_folder, to_json
from knorm.training.sampling import Sampling
from knorm.training.schedule import fraction_at
from knorm.training.state import check_resumable
from knorm.training.study import write_seeds
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
    recipe: Recipe, place: Place, data: ImageData, accelerator: Accelerator, command: str
) -> list[Result]:
    """The run, or one for every seed, in folders of a common one with the mean in it."""
    if recipe.seeds == 1:
        return [train(recipe, place, data, accelerator, command)]
    results = []
    with open_run_folder(recipe, place, accelerator, command) as folder:
        for seed in range(recipe.seed, recipe.seed + recipe.seeds):
            one = replace(recipe, seed=seed, seeds=1, run_dir=str(folder / f"seed-{seed}"))
            inner = find_place(AUTO, one.run_dir, folder, settings_of(one))
            results.append(train(one, inner, data, accelerator, command))
            accelerator.free_memory()
        if accelerator.is_main_process:
            text = write_seeds(folder, results)
            print(f"{text}\n{folder}", flush=True)
    return results


def train(
    recipe: Recipe, place: Place, data: ImageData, accelerator: Accelerator, command: str
) -> Result:
    """One run, from its first step or from where it was stopped."""
    if place.finished and place.folder is not None:
        if accelerator.is_main_process:
            print(f"{place.folder} is finished already", flush=True)
        return read_result(place.folder)
    check_images(recipe.model, data)
    task = Classification(recipe.loss, len(data.classes), test_flip=recipe.test_flip)
    weights = None if place.saved else first_weights(recipe)
    trainer = make_trainer(recipe, data, accelerator, weights)
    sampling = make_sampling(recipe, data)
    windows = partial(training_windows, data, recipe.augment, sampling)
    step = gradient_step(trainer, task.loss, recipe.optim.clip_norm)
    with open_run_folder(recipe, place, accelerator, command) as folder:
        run = Run(folder, accelerator, facts_of(recipe, data), recipe.keep)
        if place.saved:
            run.resume(trainer)
        else:
            write_beginning(recipe, run, weights)
        start_tracking(accelerator, recipe.track, run.folder, asdict(recipe))
        fit(recipe, trainer, run, data, task, windows, step)
        tested, matrix = test_numbers(recipe, trainer, run, data, task)
        result = result_of(recipe, trainer, run, data, tested)
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


def make_trainer(
    recipe: Recipe, data: ImageData, accelerator: Accelerator, weights: Weights | None = None
) -> Trainer:
    """Net and optimizer on the device, and the rate of every step."""
    with mistakes_of_the_user():
        per_epoch = make_sampling(recipe, data).steps
    net = make_net(recipe, data, weights)
    ema = make_ema(recipe, net)
    plain = None
    if accelerator.distributed_type == DistributedType.FSDP:
        if ema is not None:
            raise UserMistakeError("ema_decay needs whole weights on every process, so no FSDP")
        plain = deepcopy(net)
    optimizer = make_optimizer(recipe.optim, net)
    model, optimizer = accelerator.prepare(compiled(net, recipe.launch), optimizer)
    steps = recipe.epochs * per_epoch
    return Trainer(
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        rate_at=rate_of(recipe, steps, per_epoch),
        seed=recipe.seed,
        steps_per_epoch=per_epoch,
        steps=steps,
        ema=ema,
        ema_every=recipe.ema_every,
        plain=plain,
    )


def make_net(recipe: Recipe, data: ImageData, weights: Weights | None = None) -> nn.Module:
    """The net of the recipe for these data, on their device, with its first weights."""
    net = make_model(
        recipe.model,
        num_classes=len(data.classes),
        in_chans=recipe.data.facts.in_chans,
        seed=recipe.seed,
        weights=weights,
    )
    return net.to(data.accelerator.device).to(memory_format=data.memory_format)


def make_ema(recipe: Recipe, net: nn.Module) -> AveragedModel | None:
    """The moving average of the net's weights, where the recipe asks for one."""
    if recipe.ema_decay is None:
        return None
    averaging = get_ema_multi_avg_fn(recipe.ema_decay)
    return AveragedModel(net, multi_avg_fn=averaging, use_buffers=True)


def rate_of(recipe: Recipe, steps: int, per_epoch: int) -> Callable[[int], float]:
    """The learning rate of every step."""
    schedule, peak = recipe.schedule, recipe.optim.lr
    return lambda step: peak * fraction_at(schedule, step, steps=steps, steps_per_epoch=per_epoch)


def make_sampling(recipe: Recipe, data: ImageData) -> Sampling:
    """How the training set is cut into epochs, steps and passes."""
    return Sampling(
        num_samples=len(data.labels("train")),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        drop_last=recipe.drop_last,
        passes=recipe.accumulation,
        repeats=recipe.augment.repeats,
        together=2 if recipe.augment.mixes else 1,
    )


def facts_of(recipe: Recipe, data: ImageData) -> dict[str, Any]:
    """What a checkpoint says of its net and its data."""
    return {
        "model": asdict(recipe.model),
        "num_classes": len(data.classes),
        "in_chans": recipe.data.facts.in_chans,
        "classes": data.classes,
        "num_samples": {name: len(split.labels) for name, split in data.splits.items()},
        "mean": data.mean.flatten().tolist(),
        "std": data.std.flatten().tolist(),
        "fingerprints": {name: split.fingerprint() for name, split in data.splits.items()},
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
    windows: Callable[[int, int], Iterator[Window[Batch]]],
    step: Step[Batch],
) -> None:
    """Train epoch by epoch; validate, record and save after each.

    `windows` gives those of an epoch, counted from 1, from a step of it on, counted from 0.
    """
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
            left = windows(epoch, trainer.steps_into(epoch))
            train = train_epoch(trainer, left, step, progress, lambda: run.after_step(trainer))
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
