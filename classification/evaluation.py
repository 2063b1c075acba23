"""Evaluation: the net that a run saved, and its numbers on a split."""

import json
import sys
from argparse import Namespace
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from classification.config import Recipe
from classification.data import ImageData, evaluation_batches, load_data
from classification.task import Classification
from classification.weights import read_weights
from knorm.choices import NormKind, Stats
from knorm.training.evaluate import evaluate
from knorm.training.launch import start
from knorm.training.mistakes import (
    UserMistakeError,
    mistakes_of_the_user,
)
from knorm.training.nets import make_model
from knorm.training.weights import check_agree


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
    swap: NormKind | None = None,
    swap_options: dict[str, Any] | None = None,
    seed: int | None = None,
    test_flip: bool = False,
    cpu: bool = False,
) -> Loaded:
    """The net that a run saved; what is None is as in the run, weights the best that there are.

    With `swap` the norms of the loaded net are swapped as `model.swap` does it.
    """
    read = read_weights(run_dir, which=weights)
    recipe, state = deepcopy(read.recipe), read.saved.state
    if eval_stats is not None:
        recipe.model = replace(recipe.model, eval_stats=eval_stats)
    if swap is not None or swap_options:
        recipe.model = replace(recipe.model, swap=swap, swap_options=swap_options or {})
        check_agree(recipe.model, read)
    recipe.seed = recipe.seed if seed is None else seed
    recipe.test_flip = recipe.test_flip or test_flip
    recipe.launch = replace(recipe.launch, cpu=recipe.launch.cpu or cpu, processes=None)
    net = make_model(
        recipe.model,
        num_classes=state["num_classes"],
        in_chans=state["in_chans"],
        seed=recipe.seed,
        weights=read,
    )
    return Loaded(recipe, net, state, read.which)


def show(options: Namespace, state: dict[str, Any], numbers: dict[str, Any]) -> None:
    """Print the numbers, each with its split."""
    about = {
        "run": str(options.run_dir),
        "split": options.split,
        "weights": options.weights,
        "epoch": state["epoch"],
        "step": state["step"],
        "eval_stats": options.eval_stats or state["model"]["eval_stats"],
        "swap": options.swap or state["model"].get("swap"),
        "seed": state["seed"] if options.seed is None else options.seed,
    }
    print(json.dumps(about | numbers))
    print(
        f"{options.split} top1 {100 * numbers['top1']:.2f} % "
        f"({numbers['correct']} of {numbers['count']}), loss {numbers['loss']:.4f}, "
        f"{options.weights} weights ({state['epoch']} epochs, step {state['step']})",
        file=sys.stderr,
    )
