"""What a pipeline hands to the core, and how its runs step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from knorm.training.loop import Step, Sums, Trainer, Window
from knorm.training.run import Run
from knorm.training.run_settings import RunSettings
from knorm.training.sampling import Cut, Sampling
from knorm.training.study import write_seeds
from knorm.training.weights import Beginning

Numbers = Mapping[str, Any]


class Evaluated(NamedTuple):
    """What an evaluation found on a split."""

    numbers: Numbers
    """scores and the counts that they are made of, "count" among them"""
    details: Any
    """what the pipeline's pictures and tables are made of"""


class Work(Protocol):
    """One recipe with its data: what is learned, and how that is measured."""

    @property
    def recipe(self) -> RunSettings: ...

    @property
    def accelerator(self) -> Accelerator: ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """Samples of each split: train, test, and val unless there is none."""
        ...

    @property
    def scores(self) -> Sequence[str]:
        """Numbers of an evaluation that results tell; the first is told on the screen."""
        ...

    @property
    def logged(self) -> Sequence[str]:
        """The names of the sums that `loss` gives, that of the loss itself first."""
        ...

    @property
    def rehearsed(self) -> int:
        """Samples of a split that a dry run evaluates on each process."""
        ...

    def of(self, recipe: Any) -> Self:
        """The same data with another recipe, one of another seed."""
        ...

    def few(self, count: int) -> Self:
        """The same with at most `count` samples in every split but the training set."""
        ...

    def describe(self) -> str:
        """The data and what is done to them, in a line."""
        ...

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of net and data, besides the splits' sizes and fingerprints."""
        ...

    def fingerprint(self, split: str) -> str:
        """A hash of what the split holds."""
        ...

    def check_net(self) -> None:
        """Raise `UserMistakeError` where the net cannot take the data."""
        ...

    def first_weights(self) -> Beginning | None:
        """What the recipe begins with, None: with weights drawn by its seed."""
        ...

    def make_net(self, weights: Any) -> nn.Module:
        """The net on the device with its first weights."""
        ...

    def doubts(self, net: nn.Module) -> list[str]:
        """What is to be warned of before the net is trained, a line each."""
        ...

    def make_optimizer(self, net: nn.Module) -> Optimizer:
        """Of the net's trainable parameters."""
        ...

    def cut(self) -> Sampling:
        """How the training set is cut into epochs, steps and passes."""
        ...

    def windows(self, cut: Cut, epoch: int, first_step: int = 0) -> Iterator[Window[Any]]:
        """What this rank computes in the steps of an epoch, augmented."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Sums]:
        """The losses of a batch's real samples, summed; sums over them for the log."""
        ...

    def made_up(self, count: int, seed: int) -> Any:
        """A batch of random samples, drawn from a seed; no sample of the data is looked at."""
        ...

    def example(self) -> Tensor:
        """An input of the size that is evaluated, (1, C, H, W) on the device."""
        ...

    def evaluate(self, net: nn.Module, split: str) -> Evaluated:
        """The numbers of a split, the same on every rank and for any number of them."""
        ...

    def score(self, numbers: Numbers) -> tuple[float, ...]:
        """What makes weights the best: the largest."""
        ...

    def write_examples(self, run: Run, epoch: int, details: Any) -> None:
        """Pictures of an epoch's validation, into the folder; on the main process alone."""
        ...

    def write_pictures(self, run: Run, details: Any, weights: str) -> dict[str, Any]:
        """Pictures and tables of the test split, into the folder; what result.json tells of them.

        Only the main process calls this.
        """
        ...


class Steps(NamedTuple):
    """The steps of a run that has its folder."""

    windows: Callable[[int, int], Iterator[Window[Any]]]
    """of an epoch, counted from 1, from a step of it on, counted from 0"""
    step: Step[Any]
    end: Callable[[], None] = lambda: None
    """writes what is to be in the folder before the result is"""


class Way(NamedTuple):
    """How runs step."""

    make_trainer: Callable[[Any, Beginning | None], Trainer]
    """(work, first weights)"""
    begin: Callable[[Any, Run, Trainer], Steps]
    """(work, run, trainer); the trainer is where the run goes on"""
    sum_up: Callable[[Path, Sequence[dict[str, Any]]], str] = write_seeds
    """writes what several seeds say together, and returns it"""
    unseen: str | None = None
    """a split of which no hash may stand in a checkpoint: it tells who is in"""
