"""Settings of a private run: those of a classification run, and the budget."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import segmentation.config
import segmentation.data_config
from classification.config import Recipe
from knorm.training.config import parse, section, with_files
from knorm.training.folder import with_resumed_config
from knorm.training.mistakes import check_positive, check_range
from knorm.training.recipes import flat, read_recipe
from knorm.training.run_settings import RunSettings

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "digits"
DATA = "data.name"
MOST_VIEWS, MOST_NOISE = 256, 10**6
FEWEST_CANARIES, MOST_CANARIES = 8, 10**6

AccountantName = Literal["pld", "prv", "rdp"]
ClippingName = Literal["flat", "per_layer", "automatic"]

Decided = Mapping[str, tuple[tuple[Any, ...], str]]
TAKEN: Decided = {  # of an ordinary run's options, and why no more
    "steps": ((None,), "is for ordinary runs; use privacy.steps"),
    "accumulation": ((1,), "splits no private step; use privacy.physical_batch"),
    "drop_last": ((True,), "means nothing: steps are drawn, there is no short one; set true"),
    "optim.clip_norm": ((None,), "clips the sum; privacy.max_norm clips every image"),
    "data.scaling": (
        ("scale", "fixed"),
        "tells mean and deviation of the training images, which no guarantee covers; use scale, "
        "or fixed with public numbers",
    ),
    "launch.mixed_precision": (
        ("no", "bf16"),
        "scales losses, so that max_norm means something else; use bf16",
    ),
    "launch.compile": ((False,), "cannot follow the gradients of single images; set false"),
}


@dataclass(kw_only=True)
class Privacy:
    """The guarantee, for adding or removing one training image, and how it is kept."""

    epsilon: float | None = None
    """budget: noise is calibrated to it, or, where noise is given, the run stops before it"""
    delta: float
    """probability with which the guarantee may fail; well below one over the training images"""
    noise_multiplier: float | None = None
    """deviation of the noise over max_norm; null: the least that keeps to epsilon"""
    steps: int | None = None
    """steps in all, where epochs end too late; null: as many as the epochs have"""
    max_norm: float = 1.0
    """norm C to which every image's gradient is clipped"""
    clipping: ClippingName = "flat"
    """flat, per_layer (each with its part of max_norm) or automatic (all to about max_norm)"""
    views: int = 1
    """augmented copies of an image whose mean gradient is clipped as one (augmentation
    multiplicity, arXiv:2204.13650)"""
    trained: list[str] = field(default_factory=lambda: ["*"])
    """names of the parameters that are trained, * standing for any letters; others are frozen"""
    physical_batch: int | None = None
    """images, views counted, whose gradients are computed at once, a matter of memory; null: 256,
    or the half, a quarter, ... that fits, see physical_batch.json of the run"""
    ghost: bool = True
    """norms without gradients for the layers where that is cheaper (mixed ghost clipping)"""
    accountant: AccountantName = "pld"
    """whose epsilon is claimed; all of them are reported"""
    train_metrics: bool = True
    """log loss and accuracy on the training images, which the guarantee does not cover"""
    checks: bool = True
    """prove on a few made-up images that gradients are the images' own, before training"""

    def __post_init__(self) -> None:
        if self.epsilon is None and self.noise_multiplier is None:
            raise ValueError("give privacy.epsilon, privacy.noise_multiplier or both")
        if self.epsilon is not None:
            check_positive("privacy.epsilon", self.epsilon)
        if not 0 < self.delta < 1:
            raise ValueError(f"privacy.delta must lie in (0, 1), got {self.delta}")
        if self.noise_multiplier is not None:
            check_range("privacy.noise_multiplier", self.noise_multiplier, 0, MOST_NOISE)
            if self.epsilon is not None and self.noise_multiplier == 0:
                raise ValueError("privacy.noise_multiplier 0 keeps to no privacy.epsilon")
        if self.steps is not None:
            check_positive("privacy.steps", self.steps)
        check_positive("privacy.max_norm", self.max_norm)
        check_range("privacy.views", self.views, 1, MOST_VIEWS)
        if self.physical_batch is not None:
            check_positive("privacy.physical_batch", self.physical_batch)
        if not self.trained:
            raise ValueError("privacy.trained [] freezes the whole net; name what is trained")


@dataclass(kw_only=True)
class Private(RunSettings, ABC):
    """What makes a pipeline's recipe one of private runs."""

    privacy: Privacy = field(default_factory=lambda: Privacy(delta=1e-5, epsilon=3.0))

    refused: ClassVar[Decided] = {}
    """further options of this pipeline that are decided here"""

    def __post_init__(self) -> None:
        for name, (taken, why) in {**TAKEN, **self.refused}.items():
            value = attrgetter(name)(self)
            if value not in taken:
                raise ValueError(f"{name} {why} (got {value})")
        super().__post_init__()

    @abstractmethod
    def choices(self) -> list[str]:
        """What was chosen by looking at training images, in words."""

    def begins_with(self) -> str | None:
        """The folder or file of the first weights; None: they are drawn, or timm's."""
        return self.model.weights

    def sampling_rate(self, num_images: int) -> Fraction:
        """Probability with which an image is in a step: batch_size / num_images, exactly."""
        if self.batch_size > num_images:
            raise ValueError(
                f"batch_size {self.batch_size} is more than the {num_images} training images"
            )
        return Fraction(self.batch_size, num_images)


@dataclass(kw_only=True)
class PrivateRecipe(Private, Recipe):
    """A private run of classification."""

    refused: ClassVar[Decided] = {
        "augment.mixup": ((0,), "mixes images, which no guarantee covers; set 0"),
        "augment.cutmix": ((0,), "mixes images, which no guarantee covers; set 0"),
        "augment.repeats": ((1,), "would count an image several times; use privacy.views"),
        "penalty.weight_l1": ((0,), "is part of no single image's loss; set 0"),
        "penalty.weight_l2": ((0,), "is part of no single image's loss; set 0"),
        "penalty.activation_l1": ((0,), "has no rule for gradients of single images; set 0"),
        "penalty.activation_l2": ((0,), "has no rule for gradients of single images; set 0"),
    }

    def choices(self) -> list[str]:
        made = {
            "which images were kept for validation: the cut looks at all labels": (
                self.data.val_fraction
            ),
            "which images data.limit left: the choice looks at all labels": self.data.limit,
        }
        return [what for what, is_so in made.items() if is_so]


@dataclass(kw_only=True)
class PrivateSegmentation(Private, segmentation.config.Recipe):
    """A private run of segmentation; an image with all its labels is the unit."""

    refused: ClassVar[Decided] = {
        "loss.mean": (
            ("image",),
            "divides by the pixels of the whole batch, so that an image changes the gradients of "
            "others; set image",
        ),
    }

    def choices(self) -> list[str]:
        return []  # splits look at names alone

    def begins_with(self) -> str | None:
        return self.model.weights or self.backbone_weights


@dataclass(kw_only=True)
class Canaries:
    """Records of an audit, of which a coin each decides whether they are trained on."""

    gradients: int = 1000
    """canaries whose gradient is one parameter of their own, hidden by nothing but the noise"""
    images: int = 200
    """canaries of random pixels and classes"""
    significance: float = 0.05
    """probability with which any of the lower bounds may be too high"""

    def __post_init__(self) -> None:
        for name in ("gradients", "images"):
            check_range(f"canaries.{name}", getattr(self, name), FEWEST_CANARIES, MOST_CANARIES)
        if not 0 < self.significance < 0.5:
            raise ValueError(f"canaries.significance must lie in (0, 0.5), got {self.significance}")


@dataclass(kw_only=True)
class Audited(PrivateRecipe):
    """An audit of a recipe; all else is as in `privacy.train`."""

    canaries: Canaries = field(default_factory=Canaries)

    def __post_init__(self) -> None:
        for name, none in (("resume", None), ("dry_run", False), ("seeds", 1)):
            if getattr(self, name) != none:
                raise ValueError(f"an audit is one run from its beginning; leave {name} out")
        super().__post_init__()
        self.name = f"{str(self.name).removesuffix('-audit')}-audit"


AnyRecipe = TypeVar("AnyRecipe", bound=Private)


DEFAULT_OF: dict[type[Private], str] = {PrivateSegmentation: "scenes"}


def parse_recipe(
    argv: Sequence[str],
    cls: type[AnyRecipe] = PrivateRecipe,
    prog: str = "python -m privacy.train",
    about: str | None = None,
) -> AnyRecipe:
    """The recipe, or a kind of it, that the command line asks for; `about` introduces --help."""
    argv = with_resumed_config(argv)
    default = DEFAULT_OF.get(cls, DEFAULT_RECIPE)
    return parse(cls, argv, prog=prog, about=about, recipes=RECIPES, default=default)


def kind_of(argv: Sequence[str]) -> type[Private]:
    """Of which pipeline the recipe is: the one that the data set belongs to."""
    words, name = with_files(with_resumed_config(argv), RECIPES, DEFAULT_RECIPE), None
    for word, follower in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option == "--config":
            name = dict(flat(read_recipe(Path(value)), value)).get(DATA, name)
        elif option == f"--{DATA}":
            name = value if equals else follower
        elif option == "--data":
            name = section("data", value if equals else follower).get("name", name)
    return PrivateSegmentation if name in segmentation.data_config.DATA_FACTS else PrivateRecipe
