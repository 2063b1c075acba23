"""The training loop: steps in an order, with a rate, a seed and running sums for each.

What a step does is handed in. It gets one batch of whatever the pipeline trains on and returns
sums over its samples, "count" (the number of samples) among them.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from knorm.training.interrupt import Stop
from knorm.training.optim import set_rate
from knorm.training.progress import Progress
from knorm.training.seeds import seed_torch

Batch = TypeVar("Batch")
Sums = dict[str, Tensor]
Step = Callable[[Batch], Sums]


@dataclass(kw_only=True)
class Trainer:
    """What a run moves forward, and what it needs for that."""

    accelerator: Accelerator
    model: nn.Module
    """the net as prepared by the accelerator"""
    optimizer: Optimizer
    rate_at: Callable[[int], float]
    """learning rate of a step, counted from 0"""
    seed: int
    steps_per_epoch: int
    """optimizer steps that make up an epoch"""
    stop: Stop = field(default_factory=Stop)
    epoch: int = 0
    """epochs completed"""
    step: int = 0
    """steps completed"""

    @property
    def net(self) -> nn.Module:
        """The net itself, without what wraps it for several processes."""
        return self.accelerator.unwrap_model(self.model)


def train_epoch(
    trainer: Trainer, batches: Iterable[Batch], step: Step[Batch], progress: Progress
) -> dict[str, float]:
    """Train on every batch; means over the samples of all ranks, rate and speed.

    Step k seeds torch with (seed, k, rank) before anything else, so dropout is a function of
    these alone and evaluation between epochs cannot change what follows.
    """
    trainer.model.train()
    clock = Clock()
    totals = Totals(trainer.accelerator)
    for batch in clock.timed(batches):
        seed_torch(trainer.seed, trainer.step, trainer.accelerator.process_index)
        set_rate(trainer.optimizer, trainer.rate_at(trainer.step))
        totals.add(step(batch))
        trainer.step += 1
        progress.step(totals.means)
        trainer.stop.check()
    trainer.epoch += 1
    return totals.over_ranks() | clock.speed(totals.count)


def gradient_step(
    trainer: Trainer,
    loss_of: Callable[[nn.Module, Batch], tuple[Tensor, Sums]],
    clip_norm: float | None = None,
) -> Step[Batch]:
    """The ordinary step: mean loss of the batch, its gradient over all ranks, one update."""
    accelerator, model, optimizer = trainer.accelerator, trainer.model, trainer.optimizer

    def step(batch: Batch) -> Sums:
        with accelerator.autocast():
            loss, sums = loss_of(model, batch)
        accelerator.backward(loss)
        if clip_norm is not None:
            accelerator.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        return sums

    return step


class Totals:
    """Running sums of the steps, kept on the device so that no step waits for them."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.names: list[str] = []
        device = accelerator.device
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(0, device=device, dtype=self.dtype)
        self.count = 0.0

    def add(self, sums: Sums) -> None:
        """Add the sums of one step; all steps have the same names."""
        values = torch.stack([value.detach().to(self.dtype) for value in sums.values()])
        self.names = list(sums)
        self.sums = self.sums + values if len(self.sums) else values

    def means(self) -> dict[str, float]:
        """Means over this rank's samples so far; waits for the device."""
        values = dict(zip(self.names, self.sums.tolist(), strict=True))
        self.count = values.pop("count")
        return {name: value / self.count for name, value in values.items()}

    def over_ranks(self) -> dict[str, float]:
        """Means over the samples of all ranks."""
        self.sums = torch.as_tensor(self.accelerator.reduce(self.sums, "sum"))
        return self.means()


class Clock:
    """Time of an epoch, and how much of it went into waiting for data."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.waited = 0.0

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, with the time until each one came added up."""
        asked = time.perf_counter()
        for batch in batches:
            self.waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    def speed(self, count: float) -> dict[str, float]:
        """Seconds, samples per second of all ranks together, and the part spent waiting."""
        seconds = time.perf_counter() - self.start
        return {
            "seconds": seconds,
            "samples_per_second": count / seconds,
            "data_wait": self.waited / seconds,
        }
