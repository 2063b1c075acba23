"""Evaluation: the net that a run saved, and its numbers on a split."""

import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from classification.config import Recipe, load_recipe
from classification.data import ImageData, evaluation_batches, load_data
from classification.task import Classification, make_model
from knorm.choices import Stats
from knorm.training import checkpoint
from knorm.training.evaluate import evaluate
from knorm.training.folder import BEST, LAST
from knorm.training.launch import start
from knorm.training.mistakes import (
    UserMistakeError,
    mistakes_of_the_user,
)

NEEDED = {  # of a checkpoint's state, in order to build the net and to tell of it
    "epoch": int,
    "step": int,
    "seed": int,
    "model": {"eval_stats": str | None},
    "num_classes": int,
    "in_chans": int,
    "classes": list,
    "mean": [float | int],
    "std": [float | int],
    "fingerprints": {"test": str},
}


def carry_out(options: Namespace) -> None:
    """The plan of an evaluation."""
    with mistakes_of_the_user():
        asked = {name: value for name, value in vars(options).items() if name != "split"}
        recipe, net, state, options.weights = load_net(**asked)
    accelerator = start(recipe.launch)
    mean, std = (torch.tensor(state[name])[:, None, None] for name in ("mean", "std"))
    data = load_data(recipe, accelerator, statistics=(mean, std))
    task = Classification(recipe.loss, len(data.classes), test_flip=recipe.test_flip)
    net = accelerator.prepare_model(net.to(memory_format=data.memory_format), evaluation_mode=True)
    if options.split not in data.splits:
        raise UserMistakeError(f"{options.run_dir} has no {options.split} split")
    if data.splits[options.split].fingerprint() != state["fingerprints"][options.split]:
        raise UserMistakeError(
            f"data.root {recipe.data.root}: the {options.split} split is not the one that "
            f"{options.run_dir} was made with"
        )
    values = evaluate_split(net, data, task, options.split, recipe)
    if accelerator.is_main_process:
        show(options, state, task.summary(values, data.labels(options.split)))
    accelerator.end_training()


def evaluate_split(
    net: nn.Module, data: ImageData, task: Classification, split: str, recipe: Recipe
) -> dict[str, Tensor]:
    """Per-sample values of a split, in its order, on every rank."""
    return evaluate(
        data.accelerator,
        net,
        evaluation_batches(data, split, recipe.eval_batch_size),
        task.per_sample,
        names=task.names,
        num_samples=len(data.labels(split)),
        seed=recipe.seed,
    )


class Loaded(NamedTuple):
    """A net of a run, ready to be evaluated."""

    recipe: Recipe
    """as changed by what was asked for"""
    net: nn.Module
    state: dict[str, Any]
    """what the checkpoint says besides the weights"""
    weights: str
    """best or last"""


def load_net(
    run_dir: Path,
    *,
    weights: str | None = None,
    eval_stats: Stats | None = None,
    seed: int | None = None,
    test_flip: bool = False,
    cpu: bool = False,
) -> Loaded:
    """The net that a run saved; what is None is as in the run, weights the best that there are."""
    recipe = load_recipe(run_dir)
    weights = weights or (BEST if checkpoint.exists(run_dir / BEST) else LAST)
    inside = sorted(path.parent.name for path in run_dir.glob("*/config.yaml"))
    if inside:
        raise ValueError(f"{run_dir} holds several runs, give one of {', '.join(inside)}")
    saved = checkpoint.load(run_dir / weights, shape=NEEDED)
    state = saved.state
    if eval_stats is not None:
        recipe.model = replace(recipe.model, eval_stats=eval_stats)
    recipe.seed = recipe.seed if seed is None else seed
    recipe.test_flip = recipe.test_flip or test_flip
    recipe.launch = replace(recipe.launch, cpu=recipe.launch.cpu or cpu, processes=None)
    net = make_model(
        recipe.model,
        num_classes=state["num_classes"],
        in_chans=state["in_chans"],
        seed=recipe.seed,
    )
    checkpoint.check_fits(run_dir / weights, saved.evaluated, net)
    net.load_state_dict(saved.evaluated)
    return Loaded(recipe, net, state, weights)


def show(options: Namespace, state: dict[str, Any], numbers: dict[str, Any]) -> None:
    """Print the numbers, each with its split."""
    about = {
        "run": str(options.run_dir),
        "split": options.split,
        "weights": options.weights,
        "epoch": state["epoch"],
        "step": state["step"],
        "eval_stats": options.eval_stats or state["model"]["eval_stats"],
        "seed": state["seed"] if options.seed is None else options.seed,
    }
    print(json.dumps(about | numbers))
    print(
        f"{options.split} top1 {100 * numbers['top1']:.2f} % "
        f"({numbers['correct']} of {numbers['count']}), loss {numbers['loss']:.4f}, "
        f"{options.weights} weights ({state['epoch']} epochs, step {state['step']})",
        file=sys.stderr,
    )
