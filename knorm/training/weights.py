"""The weights of a run, read again: to evaluate them, to ship them, to begin another run with them.

    python -m classification.train --config RUN_DIR/config.yaml --model.weights RUN_DIR \
        --model.swap kernel --epochs 2 --optim.lr 0.01
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import nn

from knorm.training import checkpoint
from knorm.training.folder import BEST, CONFIG, LAST
from knorm.training.mistakes import UserMistakeError
from knorm.training.model_settings import Model
from knorm.training.run_settings import RunSettings

AnyRecipe = TypeVar("AnyRecipe", bound=RunSettings)

MUST_AGREE = ("name", "norm", "stem", "activation", "options")
SWAPPING = ("swap", "swap_options")
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


class Beginning(Protocol):
    """What the weights of a run begin as."""

    @property
    def swapped(self) -> bool:
        """Whether they are of a net whose norms `model.swap` had swapped already."""
        ...

    def fill(self, net: nn.Module) -> None:
        """Give them to a net; `UserMistakeError` where they are of another one."""
        ...

    def facts(self) -> dict[str, Any]:
        """Where they are from, as source.json tells it."""
        ...


@dataclass(frozen=True)
class Weights(Generic[AnyRecipe]):
    """What a run saved."""

    run_dir: Path
    which: str
    """best or last"""
    recipe: AnyRecipe
    """of that run"""
    saved: checkpoint.Checkpoint

    @property
    def swapped(self) -> bool:
        return self.recipe.model.swap is not None

    def fill(self, net: nn.Module) -> None:
        """Give them to a net made like the run's.

        Raises:
            UserMistakeError: it is another net.
        """
        checkpoint.check_fits(self.run_dir / self.which, self.saved.evaluated, net)
        net.load_state_dict(self.saved.evaluated)

    def facts(self) -> dict[str, Any]:
        """Where they are from, as source.json of a run that begins with them tells it."""
        state = self.saved.state
        return {
            "run": str(self.run_dir),
            "weights": self.which,
            **{name: state[name] for name in ("epoch", "step", "seed", "classes", "fingerprints")},
            "sha256": checkpoint.sha256(self.run_dir / self.which),
        }


def read_weights(
    run_dir: Path, load_recipe: Callable[[Path], AnyRecipe], which: str | None = None
) -> Weights[AnyRecipe]:
    """The weights of that name in a run folder, or its best, or where there are none its last.

    `load_recipe` reads the recipe of the folder.

    Raises:
        ValueError: the folder holds no run, several, or a damaged one.
    """
    recipe = load_recipe(run_dir)
    inside = sorted(path.parent.name for path in run_dir.glob("*/config.yaml"))
    if inside:
        raise ValueError(f"{run_dir} holds several runs, give one of {', '.join(inside)}")
    which = which or (BEST if checkpoint.exists(run_dir / BEST) else LAST)
    saved = checkpoint.load(run_dir / which, shape=NEEDED)
    return Weights(run_dir, which, recipe, saved)


def first_weights(
    model: Model,
    load_recipe: Callable[[Path], AnyRecipe],
    *,
    data_name: str,
    num_classes: int,
    in_chans: int,
) -> Weights[AnyRecipe] | None:
    """What `model.weights` names, None where it names nothing.

    Raises:
        UserMistakeError: it does not fit the net or the data; the message names the difference.
    """
    if model.weights is None:
        return None
    try:
        weights = read_weights(Path(model.weights), load_recipe)
    except ValueError as error:
        raise UserMistakeError(f"model.weights: {error}") from error
    check_agree(model, weights)
    state, now = weights.saved.state, {"num_classes": num_classes, "in_chans": in_chans}
    for name, what in {"num_classes": "classes", "in_chans": "channels"}.items():
        if state[name] != now[name]:
            raise UserMistakeError(
                f"the weights of {model.weights} are of a net for {state[name]} {what}, "
                f"{data_name} has {now[name]}"
            )
    return weights


def check_agree(model: Model, weights: Weights[Any]) -> None:
    """Raise `UserMistakeError` unless the net is that of the run, or that with norms swapped."""
    source = weights.recipe.model
    for name in MUST_AGREE if source.swap is None else (*MUST_AGREE, *SWAPPING):
        settings = getattr(model, name), getattr(source, name)
        if settings[0] != settings[1]:
            now, had = ("null" if setting is None else setting for setting in settings)
            ways = {
                "norm": f"--model.norm {had} --model.swap {now} swaps them after loading",
                "swap": "its norms are swapped already: take the run that it began with",
            }
            way = f"--config {weights.run_dir / CONFIG} gives them as they were"
            raise UserMistakeError(
                f"the weights of {weights.run_dir} are of a net with model.{name} {had}, "
                f"not {now}; {way if now == 'null' else ways.get(name, way)}"
            )
