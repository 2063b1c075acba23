"""Settings of a segmentation run; recipes/*.yaml fill them in, scenes.yaml when none is named."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from knorm.choices import Task
from knorm.training.mistakes import check_positive, check_range
from knorm.training.pipeline_recipes import PipelineRecipes
from knorm.training.run_settings import RunSettings
from segmentation.augment_config import Augment
from segmentation.data_config import Data
from segmentation.inference_config import Inference
from segmentation.loss_config import Loss

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "scenes"
OURS = PipelineRecipes(
    RECIPES, DEFAULT_RECIPE, "privacy", "python -m privacy.train", "here nothing keeps a guarantee"
)
MOST_EXAMPLES, MOST_FACTOR = 100, 1000

AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")


@dataclass(kw_only=True)
class Recipe(RunSettings):
    """A run."""

    data: Data
    backbone_weights: str | None = None
    """what the backbone begins with: folder of a run of classification, or a file of weights, such
    as those that the authors of the KNResNets publish; timm's take theirs by backbone_options"""
    head_rate: float = 1.0
    """learning rate of all that is not the backbone, over optim.lr"""
    examples: int = 4
    """images that each evaluation shows: input, truth, prediction and error"""
    augment: Augment = field(default_factory=Augment)
    loss: Loss = field(default_factory=Loss)
    inference: Inference = field(default_factory=Inference)

    task: ClassVar[Task] = "segmentation"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone_weights is not None and self.model.weights is not None:
            raise ValueError("backbone_weights and model.weights both say what to begin with")
        check_positive("head_rate", self.head_rate)
        check_range("head_rate", self.head_rate, 0, MOST_FACTOR)
        check_range("examples", self.examples, 0, MOST_EXAMPLES)
        self.augment.complete(self.data.facts)

    def data_name(self) -> str:
        return self.data.name


@dataclass(kw_only=True)
class PrivateRun(Recipe):
    """What a private run was made of: to be evaluated, never to be trained from here."""

    privacy: dict[str, Any]
    """its section of that name"""


def parse_recipe(
    argv: Sequence[str],
    cls: type[AnyRecipe] = Recipe,
    prog: str = "python -m segmentation.train",
    about: str | None = None,
) -> AnyRecipe:
    """The recipe, or a kind of it, that the command line asks for; `about` introduces --help."""
    return OURS.parse(cls, argv, prog, about)


def load_recipe(run_dir: Path) -> Recipe:
    """The recipe that a run has written into its folder."""
    return OURS.load(run_dir, Recipe, PrivateRun)
