"""Train a net to classify images.

    python -m classification.train
    python -m classification.train --config mnist-knresnet13 --optim.lr 0.1
    accelerate launch --quiet --config_file launch/cpu2.yaml -m classification.train

Without arguments: a kernel-normalized net on scikit-learn's digits, nothing to download.
"""

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from accelerate import Accelerator
from torch import nn

from classification.config import Recipe, parse_recipe
from classification.data import ImageData, count_classes, load_data, training_windows
from classification.evaluate import evaluate_split
from classification.outcome import plan, result_of, test_numbers, write_outcome
from classification.task import Classification, make_model, score
from knorm.training.config import to_yaml
from knorm.training.environment import describe_environment
from knorm.training.interrupt import stop_on_signal
from knorm.training.launch import check_launch, compiled, start, world_size
from knorm.training.loop import Trainer, gradient_step, train_epoch
from knorm.training.mistakes import UserMistakeError, mistakes_of_the_user, run_program
from knorm.training.optim import make_optimizer
from knorm.training.progress import Progress
from knorm.training.run import Run, check_folder, command_line, create_run, to_json
from knorm.training.sampling import Sampling
from knorm.training.schedule import fraction_at
from knorm.training.track import start_tracking, track


def main(argv: Sequence[str] | None = None) -> None:
    """The plan of a training run."""
    started, argv = time.perf_counter(), sys.argv[1:] if argv is None else argv
    recipe = parse_recipe(argv)
    model = prepare(recipe)  # the last place for mistakes before any process group
    accelerator = start(recipe.launch)
    data = load_data(recipe, accelerator)
    task = Classification(recipe.loss, len(data.classes))
    trainer = make_trainer(recipe, model, data, accelerator)
    run = open_run(recipe, data, accelerator, argv)
    start_tracking(accelerator, recipe.track, run.folder, asdict(recipe))
    fit(recipe, trainer, run, data, task)
    tested, matrix = test_numbers(recipe, trainer, run, data, task)
    write_outcome(run, result_of(recipe, trainer, run, data, tested), matrix, started)
    accelerator.end_training()


def prepare(recipe: Recipe) -> nn.Module:
    """Check what can be checked without data, and build the net."""
    check_launch(recipe.launch, batch_size=recipe.batch_size)
    check_folder(recipe.run_dir)
    if recipe.model.norm == "sync_batch" and recipe.launch.on_cpu and world_size() > 1:
        raise UserMistakeError("model.norm sync_batch shares statistics between GPUs only")
    with mistakes_of_the_user():
        return make_model(
            recipe.model,
            num_classes=count_classes(recipe.data),
            in_chans=recipe.data.facts.in_chans,
            seed=recipe.seed,
        )


def make_trainer(
    recipe: Recipe, model: nn.Module, data: ImageData, accelerator: Accelerator
) -> Trainer:
    """Net and optimizer on the device, and the rate of every step."""
    with mistakes_of_the_user():
        per_epoch = make_sampling(recipe, data).steps
    steps = recipe.epochs * per_epoch
    model = model.to(memory_format=data.memory_format)
    optimizer = make_optimizer(recipe.optim, model)
    model, optimizer = accelerator.prepare(compiled(model, recipe.launch), optimizer)
    schedule, peak = recipe.schedule, recipe.optim.lr
    return Trainer(
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        rate_at=lambda step: (
            peak * fraction_at(schedule, step, steps=steps, steps_per_epoch=per_epoch)
        ),
        seed=recipe.seed,
        steps_per_epoch=per_epoch,
    )


def make_sampling(recipe: Recipe, data: ImageData) -> Sampling:
    """How the training set is cut into epochs, steps and passes."""
    return Sampling(
        num_samples=len(data.labels("train")), batch_size=recipe.batch_size, seed=recipe.seed
    )


def open_run(recipe: Recipe, data: ImageData, accelerator: Accelerator, argv: Sequence[str]) -> Run:
    """The run folder, with everything in it that is known before the first step."""
    environment = describe_environment(accelerator, Path(__file__).parent)
    facts = {
        "model": asdict(recipe.model),
        "num_classes": len(data.classes),
        "in_chans": recipe.data.facts.in_chans,
        "classes": data.classes,
        "mean": data.mean.flatten().tolist(),
        "std": data.std.flatten().tolist(),
    }
    return create_run(
        accelerator,
        Path(recipe.run_dir) if recipe.run_dir else None,
        Path("runs", recipe.name or ""),
        files={
            "config.yaml": to_yaml(replace(recipe, run_dir=None)),
            "command.txt": command_line("classification.train", argv),
            "environment.json": to_json(environment, indent=2) + "\n",
        },
        facts=facts,
    )


def fit(recipe: Recipe, trainer: Trainer, run: Run, data: ImageData, task: Classification) -> None:
    """Train epoch by epoch; validate, record and save after each."""
    sampling = make_sampling(recipe, data)
    step = gradient_step(trainer, task.loss, recipe.optim.clip_norm)
    progress = Progress(
        epochs=recipe.epochs, steps=trainer.steps_per_epoch, unit="img", enabled=run.writes
    )
    with (
        stop_on_signal(leader=run.writes) as trainer.stop,
        run.saved_when_stopped(trainer),
        progress,
    ):
        progress.print(plan(recipe, trainer, run, data))
        for epoch in range(1, recipe.epochs + 1):
            windows = training_windows(data, recipe.augment, sampling, epoch)
            train = train_epoch(trainer, windows, step, progress)
            val = validate(recipe, trainer, data, task)
            row = row_of(trainer, train, val)
            run.record(trainer, row, score(val) if val else None)
            track(trainer.accelerator, row)
            progress.end_epoch(row)
            if not math.isfinite(train["loss"]):
                raise FloatingPointError(
                    f"the loss left all bounds in epoch {epoch}: lower optim.lr"
                )


def validate(
    recipe: Recipe, trainer: Trainer, data: ImageData, task: Classification
) -> dict[str, float]:
    """Numbers of the validation split; none where there is no such split."""
    if "val" not in data.splits:
        return {}
    values = evaluate_split(trainer.net, data, task, "val", recipe)
    return task.summary(values, data.labels("val"))


def row_of(trainer: Trainer, train: dict[str, float], val: dict[str, float]) -> dict[str, float]:
    """An epoch in the log."""
    return {
        "epoch": trainer.epoch,
        "step": trainer.step,
        "lr": trainer.rate_at(trainer.step - 1),
        "train.loss": train["loss"],
        "train.top1": train["top1"],
        **{f"val.{name}": value for name, value in val.items()},
        **{name: train[name] for name in ("seconds", "samples_per_second", "data_wait")},
    }


if __name__ == "__main__":
    sys.exit(run_program(main))
