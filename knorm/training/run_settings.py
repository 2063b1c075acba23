"""Settings that every pipeline's runs have in common."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from knorm.choices import Task
from knorm.training.config import to_yaml
from knorm.training.mistakes import check_range
from knorm.training.model_settings import Model
from knorm.training.schedule import Schedule
from knorm.training.settings import Keep, Launch, Optim, check_trackers

MAY_DIFFER = (  # what no number depends on
    "data.root",
    "data.workers",
    "keep",
    "launch.processes",
    "rates",
    "seeds",
    "track",
)
MOST_EPOCHS, MOST_COUNT, MOST_DECAY = 10**6, 10**7, 0.9999999


@dataclass(kw_only=True)
class RunSettings(ABC):
    """A run, whatever it is that is learned; pipelines add their data, augmentation and loss."""

    model: Model
    optim: Optim
    epochs: int | None = None
    """passes over the training set; null: as many as `steps` make"""
    steps: int | None = None
    """steps in all, in place of epochs"""
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
    schedule: Schedule = field(default_factory=Schedule)
    launch: Launch = field(default_factory=Launch)
    keep: Keep = field(default_factory=Keep)

    task: ClassVar[Task] = "classification"

    def __post_init__(self) -> None:
        self.model.check_task(self.task)
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                "give epochs or steps, and null for the other, got "
                f"epochs {self.epochs} and steps {self.steps}"
            )
        if self.epochs is not None:
            check_range("epochs", self.epochs, 1, MOST_EPOCHS)
        if self.steps is not None:
            check_range("steps", self.steps, 1, MOST_COUNT)
        for name in ("batch_size", "accumulation", "seeds", "ema_every"):
            check_range(name, getattr(self, name), 1, MOST_COUNT)
        if self.ema_decay is not None:
            check_range("ema_decay", self.ema_decay, 0, MOST_DECAY)
        elif self.ema_every != 1:
            raise ValueError("ema_every needs an ema_decay")
        if self.epochs is not None:
            self.check_schedule(self.epochs)
        if self.name is None:
            self.name = f"{self.data_name()}-{self.model.name.replace(':', '-')}"
        if Path(self.name).name != self.name or self.name == ".." or "\0" in self.name:
            raise ValueError(f"name must be a plain folder name, got {self.name!r}")
        check_trackers(self.track)

    @abstractmethod
    def data_name(self) -> str:
        """What the data set is called."""

    def check_schedule(self, epochs: float) -> None:
        """Raise ValueError where warm-up or milestones lie beyond the end of the run."""
        if self.schedule.warmup_epochs > epochs:
            raise ValueError(
                f"schedule.warmup_epochs must not be more than epochs, got "
                f"{self.schedule.warmup_epochs} and {epochs:g}"
            )
        past = [m for m in self.schedule.milestones if not 0 < m < epochs]
        if past:
            raise ValueError(
                f"schedule.milestones must lie between 0 and epochs {epochs:g}, got {past[0]:g}"
            )

    def total_steps(self, per_epoch: int) -> int:
        """Steps of the run, of which so many make an epoch."""
        if self.steps is None:
            assert self.epochs is not None
            return self.epochs * per_epoch
        self.check_schedule(self.steps / per_epoch)
        return self.steps


def settings_of(recipe: RunSettings) -> str:
    """The recipe as config.yaml holds it: all that says what is trained, not where or how often."""
    return to_yaml(replace(recipe, run_dir=None, resume=None, dry_run=False))


def parent_of(recipe: RunSettings) -> Path:
    """Where runs of this name are numbered."""
    return Path("runs", recipe.name or "")
