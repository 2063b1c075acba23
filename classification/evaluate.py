"""Evaluate what a run saved; with the defaults this repeats the run's numbers to the last digit.

    python -m classification.evaluate runs/digits-knresnet13/0000
    python -m classification.evaluate runs/digits-knresnet13/0000 --split val --weights last

Prints one line of JSON on standard output, and the same in words on standard error.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from classification.config import Recipe, load_recipe
from classification.data import ImageData, evaluation_batches, load_data
from classification.task import Classification, make_model
from knorm.kernel.ops import Stats
from knorm.training import checkpoint
from knorm.training.evaluate import evaluate
from knorm.training.launch import start
from knorm.training.mistakes import (
    OneLineParser,
    UserMistakeError,
    mistakes_of_the_user,
    run_program,
)
from knorm.training.run import BEST, LAST


def main(argv: Sequence[str] | None = None) -> None:
    """The plan of an evaluation."""
    options = parse_options(argv)
    with mistakes_of_the_user():
        recipe, net, state = load_net(options)
    accelerator = start(recipe.launch)
    mean, std = (torch.tensor(state[name])[:, None, None] for name in ("mean", "std"))
    data = load_data(recipe, accelerator, statistics=(mean, std))
    task = Classification(recipe.loss, len(data.classes))
    net = accelerator.prepare_model(net.to(memory_format=data.memory_format), evaluation_mode=True)
    if options.split not in data.splits:
        raise UserMistakeError(f"{options.run_dir} has no {options.split} split")
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


def parse_options(argv: Sequence[str] | None) -> Namespace:
    """What is to be evaluated."""
    parser = OneLineParser(prog="python -m classification.evaluate", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="folder of a run")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--weights", choices=(BEST, LAST), help="best where there are such")
    parser.add_argument("--eval_stats", choices=get_args(Stats), help="instead of the recipe's")
    parser.add_argument("--seed", type=int, help="of nets that draw in evaluation (sampled)")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU")
    return parser.parse_args(argv)


def load_net(options: Namespace) -> tuple[Recipe, nn.Module, dict[str, Any]]:
    """The recipe as changed by the options, the net with its weights, their state."""
    recipe = load_recipe(options.run_dir)
    if options.weights is None:
        options.weights = BEST if checkpoint.exists(options.run_dir / BEST) else LAST
    saved = checkpoint.load(options.run_dir / options.weights)
    state = saved.state
    missing = [name for name in ("mean", "std", "num_classes", "in_chans") if name not in state]
    if missing:
        raise ValueError(f"{options.run_dir / options.weights} does not say {missing[0]}")
    if options.eval_stats is not None:
        recipe.model = replace(recipe.model, eval_stats=options.eval_stats)
    if options.seed is not None:
        recipe = replace(recipe, seed=options.seed)
    recipe.launch = replace(recipe.launch, cpu=recipe.launch.cpu or options.cpu, processes=None)
    net = make_model(
        recipe.model,
        num_classes=state["num_classes"],
        in_chans=state["in_chans"],
        seed=recipe.seed,
    )
    try:
        net.load_state_dict(saved.evaluated)
    except RuntimeError as error:
        raise ValueError(f"{options.run_dir} holds the weights of another net") from error
    return recipe, net, state


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


if __name__ == "__main__":
    sys.exit(run_program(main))
