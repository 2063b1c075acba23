"""Evaluation: the net that a run saved, and its numbers on a split."""

import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from classification.config import Recipe, load_recipe
from classification.data import load_data
from classification.work import ClassificationWork
from knorm.training import loading
from knorm.training.launch import start
from knorm.training.loading import Loaded
from knorm.training.mistakes import mistakes_of_the_user
from knorm.training.options import loading as asked_for


def carry_out(options: Namespace) -> None:
    """The plan of an evaluation."""
    with mistakes_of_the_user():
        loaded = load_net(options.run_dir, **asked_for(options), test_flip=options.test_flip)
    recipe = loaded.recipe
    accelerator = start(recipe.launch)
    data = load_data(recipe, accelerator, statistics=loaded.statistics)
    work = ClassificationWork(recipe, data)
    found = loading.evaluate_again(work, loaded, options.split, recipe.data.root)
    if accelerator.is_main_process:
        show(options, loaded, dict(found.numbers))
    accelerator.end_training()


def load_net(run_dir: Path, *, test_flip: bool = False, **asked: Any) -> Loaded[Recipe]:
    """`knorm.training.loading.load_net` of a run of classification."""
    loaded = loading.load_net(run_dir, load_recipe, **asked)
    recipe = loaded.recipe
    return replace(loaded, recipe=replace(recipe, test_flip=recipe.test_flip or test_flip))


def show(options: Namespace, loaded: Loaded[Recipe], numbers: dict[str, Any]) -> None:
    """Print the numbers, each with its split."""
    state = loaded.state
    print(json.dumps(loading.about(options, loaded) | numbers))
    print(
        f"{options.split} top1 {100 * numbers['top1']:.2f} % "
        f"({numbers['correct']} of {numbers['count']}), loss {numbers['loss']:.4f}, "
        f"{loaded.weights} weights ({state['epoch']} epochs, step {state['step']})",
        file=sys.stderr,
    )
