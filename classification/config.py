"""Settings of a classification run; recipes/*.yaml fill them in, digits.yaml when none is named."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from classification.augment_config import Augment
from classification.data_config import Data
from knorm.training.mistakes import check_range
from knorm.training.pipeline_recipes import PipelineRecipes
from knorm.training.run_settings import MOST_COUNT, RunSettings

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "digits"
OURS = PipelineRecipes(
    RECIPES, DEFAULT_RECIPE, "privacy", "python -m privacy.train", "here nothing keeps a guarantee"
)
MOST_PENALTY = 1e6
MOST_RATES = 64  # halvings, after which a rate is none any more


AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")


@dataclass(kw_only=True)
class Loss:
    """Cross-entropy."""

    label_smoothing: float = 0.0
    """part of every target that is spread over all classes, in training only"""

    def __post_init__(self) -> None:
        check_range("loss.label_smoothing", self.label_smoothing, 0, 1)


@dataclass(kw_only=True)
class Penalty:
    """Terms added to the loss, once in a step, over all layers of the net but the first."""

    weight_l1: float = 0.0
    """times the sum of the weights' absolute values"""
    weight_l2: float = 0.0
    """times the sum of the weights' squares"""
    activation_l1: float = 0.0
    """times the mean absolute value of what a layer gives, summed over layers"""
    activation_l2: float = 0.0
    """times the mean square of what a layer gives, summed over layers"""

    def __post_init__(self) -> None:
        for name, amount in vars(self).items():
            check_range(f"penalty.{name}", amount, 0, MOST_PENALTY)


@dataclass(kw_only=True)
class Recipe(RunSettings):
    """A run."""

    data: Data
    eval_batch_size: int = 256
    """samples per batch in evaluation; results do not depend on the number of processes"""
    test_flip: bool = False
    """evaluation also tells top1_flip: top-1 of the mean softmax of image and mirror image"""
    augment: Augment = field(default_factory=Augment)
    loss: Loss = field(default_factory=Loss)
    penalty: Penalty = field(default_factory=Penalty)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.launch.compile and (self.penalty.activation_l1 or self.penalty.activation_l2):
            raise ValueError(
                "penalty.activation_l1 and activation_l2 see nothing of a compiled net; set "
                "launch.compile false"
            )
        check_range("eval_batch_size", self.eval_batch_size, 1, MOST_COUNT)
        self.augment.complete(self.data.facts, self.batch_size)

    def data_name(self) -> str:
        return self.data.name


@dataclass(kw_only=True)
class Search(Recipe):
    """A learning-rate search; all else is as in `classification.train`."""

    rates: int = 12
    """rates to try at most"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.name = f"{str(self.name).removesuffix('-lr')}-lr"
        check_range("rates", self.rates, 1, MOST_RATES)
        if self.data.val_fraction == 0 and self.data.name != "imagefolder":
            raise ValueError(
                "a search needs a validation split: give data.val_fraction, for example 0.1"
            )


@dataclass(kw_only=True)
class PrivateRun(Recipe):
    """What a private run was made of: to be evaluated, never to be trained from here."""

    privacy: dict[str, Any]
    """its section of that name"""
    canaries: dict[str, Any] | None = None
    """that of an audit"""


def parse_recipe(
    argv: Sequence[str],
    cls: type[AnyRecipe] = Recipe,
    prog: str = "python -m classification.train",
    about: str | None = None,
) -> AnyRecipe:
    """The recipe, or a kind of it, that the command line asks for; `about` introduces --help."""
    return OURS.parse(cls, argv, prog, about)


def load_recipe(run_dir: Path) -> Recipe:
    """The recipe that a run has written into its folder."""
    return OURS.load(run_dir, Recipe, PrivateRun)
