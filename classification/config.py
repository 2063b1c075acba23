"""Settings of a classification run; recipes/*.yaml fill them in, digits.yaml when none is named."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from classification.augment_config import Augment
from classification.data_config import Data
from knorm.choices import SWAP_OPTIONS, TIMM, NormKind, Stats, check_name, model_names
from knorm.training.config import parse, to_yaml, with_files
from knorm.training.folder import CONFIG, checked, with_resumed_config
from knorm.training.mistakes import UserMistakeError, check_range
from knorm.training.recipes import read_recipe, read_yaml
from knorm.training.schedule import Schedule
from knorm.training.settings import Keep, Launch, Optim, check_trackers

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "digits"
PRIVACY, PRIVATE = "privacy", "python -m privacy.train"  # a section, and whose it is
MOST_EPOCHS, MOST_COUNT, MOST_DECAY = 10**6, 10**7, 0.9999999
MOST_RATES = 64  # halvings, after which a rate is none any more


AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")


@dataclass(kw_only=True)
class Model:
    """The net, see `knorm.list_models()`; what is null is as the net's own default."""

    name: str
    """a name of `knorm.list_models()`, or timm:<name> for one of timm's nets"""
    norm: NormKind | None = None
    """kind of all norms of the net"""
    stem: str | None = None
    """first layers, for small images (cifar) or large ones (imagenet)"""
    activation: str | None = None
    """activation function"""
    dropout_p: float | None = None
    """dropout of the statistics of kernel normalization"""
    eval_stats: Stats | None = None
    """statistics of kernel normalization in evaluation"""
    options: dict[str, Any] = field(default_factory=dict)
    """further options of this net, such as width"""
    weights: str | None = None
    """folder of a run to begin with the weights of, its best where there are such; all settings
    above are as in that run, but for dropout_p and eval_stats"""
    swap: NormKind | None = None
    """kind that `knorm.swap_norm` then gives all norms of the net; null: they stay"""
    swap_options: dict[str, Any] = field(default_factory=dict)
    """options of `knorm.swap_norm`, such as fold or groups"""

    def __post_init__(self) -> None:
        if not self.name.startswith(TIMM):
            check_name("model", self.name, model_names())
        if self.swap_options and self.swap is None:
            raise ValueError("model.swap_options belongs to model.swap, which is not given")
        for option in self.swap_options:
            check_name("model.swap_options", option, SWAP_OPTIONS)

    def in_words(self) -> str:
        """The net, where its weights are from, and what is swapped."""
        begun = f"  weights of {self.weights}" if self.weights else ""
        return f"{self.name}{begun}" + (f"  norms swapped to {self.swap}" if self.swap else "")


@dataclass(kw_only=True)
class Loss:
    """Cross-entropy."""

    label_smoothing: float = 0.0
    """part of every target that is spread over all classes, in training only"""

    def __post_init__(self) -> None:
        check_range("loss.label_smoothing", self.label_smoothing, 0, 1)


@dataclass(kw_only=True)
class Recipe:
    """A run."""

    data: Data
    model: Model
    optim: Optim
    epochs: int
    """passes over the training set"""
    batch_size: int
    """samples per step, all processes together"""
    accumulation: int = 1
    """passes that every process splits its part of a step into, to save memory; the gradient is
    that of the whole batch (batch norm sees one pass at a time)"""
    drop_last: bool = True
    """leave out the short batch at the end of an epoch's order; other samples every epoch"""
    ema_decay: float | None = None
    """evaluate a moving average of the weights: its decay per update; null: no average"""
    ema_every: int = 1
    """steps from one update of the moving average to the next"""
    eval_batch_size: int = 256
    """samples per batch in evaluation; results do not depend on the number of processes"""
    test_flip: bool = False
    """evaluation also tells top1_flip: top-1 of the mean softmax of image and mirror image"""
    seed: int = 0
    """of weights, order, augmentation and dropout"""
    name: str | None = None
    """name of the run; null: that of --config RECIPE, or else data set and net"""
    published: str | None = None
    """the number that the recipe aims at, and where it stands"""
    run_dir: str | None = None
    """new folder for the results; null: the next number in runs/<name>"""
    resume: str | None = None
    """auto: go on with run_dir, or the newest run of this name and these settings, or start one;
    a folder: go on with that run"""
    dry_run: bool = False
    """print the plan and try two steps of everything, saving and resuming too; keep nothing"""
    seeds: int = 1
    """repeat the run with so many seeds, from `seed` on, and report mean and deviation"""
    track: list[str] = field(default_factory=list)
    """trackers that get the numbers of every epoch: tensorboard, wandb, trackio, ..."""
    augment: Augment = field(default_factory=Augment)
    loss: Loss = field(default_factory=Loss)
    schedule: Schedule = field(default_factory=Schedule)
    launch: Launch = field(default_factory=Launch)
    keep: Keep = field(default_factory=Keep)

    def __post_init__(self) -> None:
        check_range("epochs", self.epochs, 1, MOST_EPOCHS)
        for name in ("batch_size", "accumulation", "eval_batch_size", "seeds", "ema_every"):
            check_range(name, getattr(self, name), 1, MOST_COUNT)
        if self.ema_decay is not None:
            check_range("ema_decay", self.ema_decay, 0, MOST_DECAY)
        elif self.ema_every != 1:
            raise ValueError("ema_every needs an ema_decay")
        if self.schedule.warmup_epochs > self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs must not be more than epochs, got "
                f"{self.schedule.warmup_epochs} and {self.epochs}"
            )
        self.name = self.name or f"{self.data.name}-{self.model.name.replace(':', '-')}"
        if Path(self.name).name != self.name or self.name == ".." or "\0" in self.name:
            raise ValueError(f"name must be a plain folder name, got {self.name!r}")
        past = [m for m in self.schedule.milestones if not 0 < m < self.epochs]
        if past:
            raise ValueError(
                f"schedule.milestones must lie between 0 and epochs {self.epochs}, got {past[0]:g}"
            )
        check_trackers(self.track)
        self.augment.complete(self.data.facts, self.batch_size)


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
    argv = with_resumed_config(argv)
    refuse_private(argv)
    return parse(cls, argv, prog=prog, about=about, recipes=RECIPES, default=DEFAULT_RECIPE)


def refuse_private(argv: Sequence[str]) -> None:
    """Raise `UserMistakeError` for settings of a private run, which would train plainly here."""
    for word in with_files(argv, RECIPES, DEFAULT_RECIPE):
        name, _, value = word.partition("=")
        if name.split(".")[0] == f"--{PRIVACY}":
            raise UserMistakeError(f"{name} is for {PRIVATE}; here nothing keeps a guarantee")
        if name == "--config" and is_private(read_recipe(Path(value))):
            raise UserMistakeError(
                f"{value} is of a private run; train it with {PRIVATE}, for here nothing keeps "
                "its guarantee"
            )


def is_private(settings: Any) -> bool:
    """Whether they are those of a private run."""
    return isinstance(settings, dict) and PRIVACY in settings


def settings_of(recipe: Recipe) -> str:
    """The recipe as config.yaml holds it: all that says what is trained, not where or how often."""
    return to_yaml(replace(recipe, run_dir=None, resume=None, dry_run=False))


def load_recipe(run_dir: Path) -> Recipe:
    """The recipe that a run has written into its folder."""
    file = checked(run_dir) / CONFIG
    cls = PrivateRun if is_private(read_yaml(file)) else Recipe
    return parse(cls, [f"--config={file}"], prog="", recipes=RECIPES, default=DEFAULT_RECIPE)
