"""Nets of runs, read again to be evaluated or shipped."""

from argparse import Namespace
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from knorm.choices import NormKind, Stats
from knorm.training.mistakes import UserMistakeError
from knorm.training.nets import make_model
from knorm.training.weights import AnyRecipe, check_agree, read_weights
from knorm.training.work import Evaluated, Work


@dataclass(frozen=True)
class Loaded(Generic[AnyRecipe]):
    """A net of a run, ready to be evaluated."""

    run_dir: Path
    recipe: AnyRecipe
    """as changed by what was asked for"""
    net: nn.Module
    state: dict[str, Any]
    """what the checkpoint says besides the weights"""
    weights: str
    """best or last"""

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (C, 1, 1) of the pixels that the net was trained on."""
        mean, std = (torch.tensor(self.state[name])[:, None, None] for name in ("mean", "std"))
        return mean, std


def load_net(
    run_dir: Path,
    load_recipe: Callable[[Path], AnyRecipe],
    *,
    weights: str | None = None,
    eval_stats: Stats | None = None,
    swap: NormKind | None = None,
    swap_options: dict[str, Any] | None = None,
    seed: int | None = None,
    cpu: bool = False,
) -> Loaded[AnyRecipe]:
    """The net that a run saved; what is None is as in the run, weights the best that there are.

    With `swap` the norms of the loaded net are swapped as `model.swap` does it.

    Raises:
        ValueError: the folder holds no run, or another net than it says.
    """
    read = read_weights(run_dir, load_recipe, weights)
    recipe, state = deepcopy(read.recipe), read.saved.state
    if eval_stats is not None:
        recipe.model = replace(recipe.model, eval_stats=eval_stats)
    if swap is not None or swap_options:
        recipe.model = replace(recipe.model, swap=swap, swap_options=swap_options or {})
        check_agree(recipe.model, read)
    recipe.seed = recipe.seed if seed is None else seed
    recipe.launch = replace(recipe.launch, cpu=recipe.launch.cpu or cpu, processes=None)
    net = make_model(
        recipe.model,
        num_classes=state["num_classes"],
        in_chans=state["in_chans"],
        seed=recipe.seed,
        weights=read,
    )
    return Loaded(run_dir, recipe, net, state, read.which)


def evaluate_again(work: Work, loaded: Loaded[Any], split: str, where: str) -> Evaluated:
    """The numbers of a loaded net on a split of the run's own data, which are at `where`.

    Raises:
        UserMistakeError: there is no such split, or it is not the one of the run.
    """
    if split not in work.sizes:
        raise UserMistakeError(f"{loaded.run_dir} has no {split} split")
    if work.fingerprint(split) != loaded.state["fingerprints"][split]:
        raise UserMistakeError(
            f"data.root {where}: the {split} split is not the one that {loaded.run_dir} was made "
            "with"
        )
    net = loaded.net.to(work.accelerator.device)
    if loaded.recipe.launch.channels_last:
        net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    net = work.accelerator.prepare_model(net, evaluation_mode=True)
    return work.evaluate(net, split)


def about(options: Namespace, loaded: Loaded[Any]) -> dict[str, Any]:
    """What an evaluation tells besides its numbers."""
    state = loaded.state
    return {
        "run": str(loaded.run_dir),
        "split": options.split,
        "weights": loaded.weights,
        "epoch": state["epoch"],
        "step": state["step"],
        "eval_stats": options.eval_stats or state["model"]["eval_stats"],
        "swap": options.swap or state["model"].get("swap"),
        "seed": state["seed"] if options.seed is None else options.seed,
    }
