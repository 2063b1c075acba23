"""Settings of a classification run; recipes/*.yaml fill them in, digits.yaml when none is named."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from knorm.kernel.ops import Stats
from knorm.norms import NormKind
from knorm.training.config import parse
from knorm.training.launch import Launch
from knorm.training.mistakes import check_positive, check_range
from knorm.training.optim import Optim
from knorm.training.schedule import Schedule
from knorm.training.track import check_trackers

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "digits"


@dataclass(frozen=True)
class DataFacts:
    """What is known of a data set before it is read."""

    num_classes: int | None
    """None: as many as there are class folders"""
    in_chans: int
    crop_padding: int
    """the usual augmentation: pixels around an image before it is cropped to its size again"""
    flip: bool
    """the usual augmentation: whether mirror images belong to the same class"""


DATA_FACTS = {
    "digits": DataFacts(num_classes=10, in_chans=1, crop_padding=0, flip=False),
    "mnist": DataFacts(num_classes=10, in_chans=1, crop_padding=0, flip=False),
    "cifar10": DataFacts(num_classes=10, in_chans=3, crop_padding=4, flip=True),
    "cifar100": DataFacts(num_classes=100, in_chans=3, crop_padding=4, flip=True),
    "imagefolder": DataFacts(num_classes=None, in_chans=3, crop_padding=4, flip=True),
}


@dataclass(kw_only=True)
class Data:
    """Images and labels, and how they are split."""

    name: Literal["digits", "mnist", "cifar10", "cifar100", "imagefolder"]
    """data set; imagefolder is any tree root/train/<class>/ with root/val or root/test beside it"""
    root: str = "data"
    """folder of the data set; mnist and cifar are downloaded into it where they are missing"""
    image_size: int | None = None
    """imagefolder: side of the squares that images are resized and cropped to"""
    resident: bool | Literal["auto"] = "auto"
    """imagefolder: keep all images decoded in memory; auto: below 2 GiB"""
    workers: int = 8
    """imagefolder: threads that read images"""
    scaling: Literal["scale", "standard"] = "scale"
    """pixels to [0, 1], or further to mean 0 and deviation 1 per channel of the training set"""
    val_fraction: float = 0.1
    """part of the training set that is kept for validation; 0: no validation, no best weights"""
    split_seed: int = 0
    """which samples are kept for validation, and which ones data.limit takes"""
    limit: int | None = None
    """use at most this many samples of every split, the classes in proportion; null: all"""

    def __post_init__(self) -> None:
        folder = self.name == "imagefolder"
        if folder != (self.image_size is not None):
            raise ValueError(
                "data.image_size belongs to data.name imagefolder, which needs one, "
                f"got {self.image_size} with {self.name}"
            )
        if self.resident != "auto" and not folder:
            raise ValueError(f"data.resident is for imagefolder; {self.name} always is in memory")
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"data.val_fraction must lie in [0, 1), got {self.val_fraction}")
        for name in ("image_size", "workers", "limit"):
            if getattr(self, name) is not None:
                check_positive(f"data.{name}", getattr(self, name))

    @property
    def facts(self) -> DataFacts:
        """What is known of the data set."""
        return DATA_FACTS[self.name]


@dataclass(kw_only=True)
class Augment:
    """Random changes of training images, drawn for each sample from (seed, epoch, sample)."""

    crop_padding: int | None = None
    """black pixels put around an image, of which its size is cropped; null: 4, or 0 for digits"""
    flip: bool | None = None
    """mirror half of the images; null: yes, but not for digits"""

    def __post_init__(self) -> None:
        if self.crop_padding is not None:
            check_range("augment.crop_padding", self.crop_padding, 0, math.inf)


@dataclass(kw_only=True)
class Model:
    """The net, see `knorm.list_models()`; what is null is as the net's own default."""

    name: str
    """a name of `knorm.list_models()`"""
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
    eval_batch_size: int = 256
    """samples per batch in evaluation; results do not depend on the number of processes"""
    seed: int = 0
    """of weights, order, augmentation and dropout"""
    name: str | None = None
    """name of the run; null: data set and net"""
    run_dir: str | None = None
    """new folder for the results; null: the next number in runs/<name>"""
    track: list[str] = field(default_factory=list)
    """trackers that get the numbers of every epoch: tensorboard, wandb, trackio, ..."""
    augment: Augment = field(default_factory=Augment)
    loss: Loss = field(default_factory=Loss)
    schedule: Schedule = field(default_factory=Schedule)
    launch: Launch = field(default_factory=Launch)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "eval_batch_size"):
            check_positive(name, getattr(self, name))
        if self.schedule.warmup_epochs > self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs must not be more than epochs, got "
                f"{self.schedule.warmup_epochs} and {self.epochs}"
            )
        self.name = self.name or f"{self.data.name}-{self.model.name}"
        if Path(self.name).name != self.name:
            raise ValueError(f"name must be a plain folder name, got {self.name!r}")
        check_trackers(self.track)
        usual = self.data.facts
        if self.augment.crop_padding is None:
            self.augment.crop_padding = usual.crop_padding
        if self.augment.flip is None:
            self.augment.flip = usual.flip


def parse_recipe(argv: Sequence[str]) -> Recipe:
    """The recipe that the command line asks for."""
    prog = "python -m classification.train"
    return parse(Recipe, argv, prog=prog, recipes=RECIPES, default=DEFAULT_RECIPE)


def load_recipe(run_dir: Path) -> Recipe:
    """The recipe that a run has written into its folder."""
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{run_dir} is no run folder: it holds no config.yaml")
    return parse_recipe([f"--config={os.fspath(path)}"])
