"""Searches of the learning rate: which rates, and what is told of them."""

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from classification.config import Recipe, Search
from classification.data import ImageData, load_data
from classification.runs import prepare
from classification.work import ClassificationWork
from knorm.training.files import read_text, write_text
from knorm.training.folder import AUTO, COMMAND, RESULT
from knorm.training.launch import start
from knorm.training.mistakes import DivergedError, UserMistakeError
from knorm.training.rehearsal import rehearse
from knorm.training.resume import find_place
from knorm.training.run import command_line, to_json
from knorm.training.run_settings import parent_of, settings_of
from knorm.training.session import open_run_folder, train_seeds
from knorm.training.study import values_of
from knorm.training.tables import mean_and_sd, spread

Trial = dict[str, Any]
SCORE = ("val", "last", "top1")
TESTED = ("test", "last", "top1")


def carry_out(search: Search, argv: Sequence[str]) -> None:
    """The plan of a search; `argv` is what its command line said."""
    place = prepare(search)
    accelerator = start(search.launch)
    data = load_data(search, accelerator)
    if "val" not in data.splits:
        raise UserMistakeError("a search needs a validation split: give data.val_fraction")
    if search.dry_run:
        rehearse(ClassificationWork(search, data))
        accelerator.end_training()
        return
    command = command_line("classification.study", argv)
    with open_run_folder(search, place, accelerator, command) as folder:
        trials = search_rates(search, folder, data, command)
        if accelerator.is_main_process:
            print(f"{write_study(folder, trials)}\n{folder}", flush=True)
    accelerator.end_training()


def search_rates(search: Search, folder: Path, data: ImageData, command: str) -> list[Trial]:
    """Halve the rate until the score no longer rises; rates that are done are not done again."""
    trials: list[Trial] = []
    for halvings in range(search.rates):
        rate = search.optim.lr / 2**halvings
        recipe = recipe_at(search, rate, folder / f"lr-{rate:g}")
        place = find_place(AUTO, recipe.run_dir, parent_of(recipe), settings_of(recipe))
        try:
            values = values_of(train_seeds(ClassificationWork(recipe, data), place, command))
        except DivergedError:
            values = {SCORE: [-math.inf], TESTED: []}
        trials.append({"lr": rate, "scores": values[SCORE], "tested": values[TESTED]})
        if len(trials) > 1 and score(trials[-1]) <= score(trials[-2]) > guessing(data):
            break
    return trials


def guessing(data: ImageData) -> float:
    """Top-1 of always naming the most frequent class of the validation split."""
    counts = data.labels("val").bincount()
    return (counts.max() / counts.sum()).item()


def recipe_at(search: Search, rate: float, folder: Path) -> Recipe:
    """The search's recipe with that rate, in that folder."""
    settings = {field.name: getattr(search, field.name) for field in fields(Recipe)}
    optim = replace(search.optim, lr=rate)
    return Recipe(**settings | {"optim": optim, "run_dir": str(folder), "resume": None})


def score(trial: Trial) -> float:
    """What the search compares."""
    return mean_and_sd(trial["scores"])[0]


def write_study(folder: Path, trials: Sequence[Trial]) -> str:
    """result.json and study.md of the search; returns the latter."""
    best = max(trials, key=score)
    command = read_text(folder / COMMAND).strip()
    lines = [
        f"# {folder.parent.name} {folder.name}: learning rates",
        "",
        "| learning rate | val top-1 (last weights), mean ± SD | runs |",
        "| --- | --- | --- |",
        *(
            f"| {trial['lr']:g}{' (chosen)' if trial is best else ''} "
            f"| {in_percent(trial['scores'])} | {len(trial['scores'])} |"
            for trial in trials
        ),
    ]
    ends = (
        ""
        if trials[-1] is not best
        else ("\nThe last rate that was tried is the best so far: raise `rates` to go on.\n")
    )
    text = "\n".join(lines) + (
        f"\n\nTest top-1 at the chosen rate {best['lr']:g}: {in_percent(best['tested'])}.\n{ends}"
        f"\n```\n{command}\n```\n"
    )
    write_text(folder / "study.md", text)
    summary = {
        "chosen": best["lr"],
        "test.top1": best["tested"],
        "trials": [{name: trial[name] for name in ("lr", "scores")} for trial in trials],
    }
    write_text(folder / RESULT, to_json(summary, indent=2) + "\n")
    return text


def in_percent(values: Sequence[float]) -> str:
    """`70.84 ± 0.02 %`."""
    if not all(map(math.isfinite, values)):
        return "the loss left all bounds"
    return f"{spread([100 * value for value in values], 2)} %"
