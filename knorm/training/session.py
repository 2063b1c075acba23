"""Training runs: what happens between a pipeline's work and a run folder."""

import math
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from knorm.training.cost import peak_memory
from knorm.training.environment import describe_environment
from knorm.training.folder import AUTO, BEST, COMMAND, CONFIG, ENVIRONMENT, LAST, read_result
from knorm.training.interrupt import stop_on_signal
from knorm.training.launch import check_launch, stays_on_cpu, world_size
from knorm.training.loop import Trainer, train_epoch
from knorm.training.mistakes import (
    DivergedError,
    UserMistakeError,
    mistakes_of_the_user,
)
from knorm.training.optim import check_optimizer
from knorm.training.outcome import data_of, plan, result_of, write_beginning, write_outcome
from knorm.training.progress import SPEED, Progress
from knorm.training.resume import Place, changed_surroundings, find_place
from knorm.training.run import Run, open_folder, to_json
from knorm.training.run_settings import RunSettings, parent_of, settings_of
from knorm.training.state import check_resumable
from knorm.training.track import start_tracking, track
from knorm.training.trainer import PLAIN
from knorm.training.work import Evaluated, Numbers, Steps, Way, Work

Result = dict[str, Any]


def check_recipe(recipe: RunSettings, together: int = 1) -> None:
    """Raise for what is wrong whatever the data; `together` samples are never parted."""
    check_launch(recipe.launch, batch_size=recipe.batch_size)
    check_passes(recipe, together)
    with mistakes_of_the_user():
        check_optimizer(recipe.optim)
        check_resumable(recipe.optim)
    norms = (recipe.model.norm, recipe.model.swap)
    if "sync_batch" in norms and world_size() > 1 and stays_on_cpu(recipe.launch):
        raise UserMistakeError("norms of kind sync_batch share statistics between GPUs only")


def check_passes(recipe: RunSettings, together: int) -> None:
    """Every process has a sample, or so many to mix, for each of its passes."""
    least = world_size() * recipe.accumulation * together
    if recipe.batch_size < least:
        raise UserMistakeError(
            f"accumulation {recipe.accumulation} needs a batch_size of {least} or more, so that "
            f"every pass has images, got {recipe.batch_size}"
        )


def place_of(recipe: RunSettings) -> Place:
    """Where the run happens, new or to go on with."""
    return find_place(recipe.resume, recipe.run_dir, parent_of(recipe), settings_of(recipe))


def train_or_rehearse(work: Work, place: Place, command: str, way: Way = PLAIN) -> None:
    """What a training program does once its data are there; `command` is what was typed."""
    if work.recipe.dry_run:
        from knorm.training.rehearsal import rehearse

        rehearse(work, way)
    else:
        train_seeds(work, place, command, way)
    work.accelerator.end_training()


def train_seeds(work: Work, place: Place, command: str, way: Way = PLAIN) -> list[Result]:
    """The run, or one for every seed, in folders of a common one with the mean in it."""
    recipe, accelerator = work.recipe, work.accelerator
    if recipe.seeds == 1:
        return [train(work, place, command, way)]
    results = []
    with open_run_folder(recipe, place, accelerator, command) as folder:
        for seed in range(recipe.seed, recipe.seed + recipe.seeds):
            one = replace(recipe, seed=seed, seeds=1, run_dir=str(folder / f"seed-{seed}"))
            inner = find_place(AUTO, one.run_dir, folder, settings_of(one))
            results.append(train(work.of(one), inner, command, way))
            accelerator.free_memory()
        if accelerator.is_main_process:
            text = way.sum_up(folder, results)
            print(f"{text}\n{folder}", flush=True)
    return results


def train(work: Work, place: Place, command: str, way: Way = PLAIN) -> Result:
    """One run, from its first step or from where it was stopped."""
    recipe, accelerator = work.recipe, work.accelerator
    if place.finished and place.folder is not None:
        if accelerator.is_main_process:
            print(f"{place.folder} is finished already", flush=True)
        return read_result(place.folder)
    work.check_net()
    weights = None if place.saved else work.first_weights()
    trainer = way.make_trainer(work, weights)
    with open_run_folder(recipe, place, accelerator, command) as folder:
        run = Run(folder, accelerator, facts_of(work, way.unseen), recipe.keep)
        if place.saved:
            run.resume(trainer)
        else:
            write_beginning(recipe.model, run, weights)
        start_tracking(accelerator, recipe.track, run.folder, asdict(recipe))
        steps = way.begin(work, run, trainer)
        doubts = tell_doubts(work, trainer)
        fit(work, trainer, run, steps)
        tested = test(work, trainer, run)
        result = result_of(work, trainer, run, tested)
        result |= {"warnings": doubts} if doubts else {}
        if way.unseen is None:  # sizes of a private training set are for its card to tell
            result["data"] = data_of(work)
        steps.end()
        write_outcome(work, run, result, tested)
    return result


def tell_doubts(work: Work, trainer: Trainer) -> list[str]:
    """What is to be warned of, printed; on every rank."""
    doubts = work.doubts(trainer.plain or trainer.net)
    for line in doubts if work.accelerator.is_main_process else ():
        print(f"warning: {line}", file=sys.stderr, flush=True)
    return doubts


def facts_of(work: Work, unseen: str | None = None) -> dict[str, Any]:
    """What a checkpoint says of its net and its data; of the split `unseen` no fingerprint."""
    prints = {name: work.fingerprint(name) for name in work.sizes if name != unseen}
    return work.facts() | {"num_samples": dict(work.sizes), "fingerprints": prints}


def open_run_folder(
    recipe: RunSettings, place: Place, accelerator: Accelerator, command: str
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


def fit(work: Work, trainer: Trainer, run: Run, steps: Steps) -> None:
    """Train epoch by epoch; validate, record and save after each."""
    progress = Progress(
        epochs=trainer.epochs,
        steps=trainer.steps_per_epoch,
        unit="img",
        enabled=run.writes,
        first_epoch=trainer.current_epoch,
        first_step=trainer.steps_into(trainer.current_epoch),
        device=work.accelerator.device,
    )
    with (
        stop_on_signal(leader=run.writes) as trainer.stop,
        run.saved_when_stopped(trainer),
        progress,
    ):
        progress.print(plan(work, trainer, str(run.folder)))
        for epoch in range(trainer.current_epoch, trainer.epochs + 1):
            left = steps.windows(epoch, trainer.steps_into(epoch))
            train = train_epoch(
                trainer, left, steps.step, progress, lambda: run.after_step(trainer)
            )
            if not math.isfinite(train.get(work.logged[0], 0.0)):
                raise DivergedError(f"the loss left all bounds in epoch {epoch}: lower optim.lr")
            val = validate(work, trainer, run)
            row = row_of(trainer, train, val)
            run.record(trainer, row, work.score(val) if val else None)
            track(trainer.accelerator, row)
            progress.end_epoch(row)


def validate(work: Work, trainer: Trainer, run: Run) -> Numbers:
    """Numbers of the validation split; none where there is no such split."""
    if "val" not in work.sizes:
        return {}
    found = work.evaluate(trainer.evaluated, "val")
    if run.writes:
        work.write_examples(run, trainer.epoch, found.details)
    return found.numbers


def row_of(trainer: Trainer, train: Mapping[str, float], val: Numbers) -> dict[str, float]:
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


def test(work: Work, trainer: Trainer, run: Run) -> dict[str, Evaluated]:
    """By weights, what the test split says; it is looked at here and nowhere else."""
    net, tested = trainer.evaluated, {}
    for weights in (LAST, BEST) if run.best else (LAST,):
        if weights == BEST:
            run.load(BEST, net)
        tested[weights] = work.evaluate(net, "test")
    return tested
