"""The training loop: steps in an order, with a rate, a seed and running sums for each.

What a step does is handed in. It gets a `Window`, all that an optimizer step trains on, and
returns sums over the samples of this rank, "count" (their number) among them.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import nan
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from knorm.training.interrupt import Stop
from knorm.training.optim import set_rate
from knorm.training.progress import Progress
from knorm.training.seeds import seed_torch
from knorm.training.sharding import whole

Batch = TypeVar("Batch")
Sums = dict[str, Tensor]


class Window(NamedTuple, Generic[Batch]):
    """What one optimizer step trains on, as far as this rank computes it."""

    batches: Sequence[Batch]
    """one for each forward and backward pass; all ranks have as many"""
    size: int
    """samples of the step, all passes and ranks together"""


Step = Callable[[Window[Batch]], Sums]


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
    steps: int
    """optimizer steps of the run; the last epoch may have fewer than the others"""
    ema: AveragedModel | None = None
    """moving average of the weights, which is what gets evaluated where there is one"""
    ema_every: int = 1
    """steps from one update of the average to the next; the first step makes the first"""
    plain: nn.Module | None = None
    """where the net is sharded: a whole one on every rank, which gets its weights for evaluation"""
    stop: Stop = field(default_factory=Stop)
    step: int = 0
    """steps completed"""
    so_far: "SoFar" = field(default_factory=lambda: SoFar())
    """of the epoch that is under way"""

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return (
            -(-self.step // self.steps_per_epoch)
            if self.done
            else (self.step // self.steps_per_epoch)
        )

    @property
    def done(self) -> bool:
        """Whether all steps are completed."""
        return self.step >= self.steps

    @property
    def epochs(self) -> int:
        """Epochs of the run."""
        return -(-self.steps // self.steps_per_epoch)

    @property
    def current_epoch(self) -> int:
        """The epoch under way, counted from 1; one that is trained but not recorded still is."""
        return (self.step - 1) // self.steps_per_epoch + 1 if self.so_far.sums else self.epoch + 1

    def steps_into(self, epoch: int) -> int:
        """Steps of this epoch, counted from 1, that are completed."""
        return max(0, self.step - (epoch - 1) * self.steps_per_epoch)

    @property
    def net(self) -> nn.Module:
        """The net itself, without what wraps it for several processes."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def evaluated(self) -> nn.Module:
        """The net that numbers are told of; asking is a collective where the net is sharded."""
        if self.plain is not None:
            self.plain.load_state_dict(whole(self.net.state_dict()))
            return self.plain
        return self.net if self.ema is None else self.ema.module


@dataclass
class SoFar:
    """Sums over the samples of all ranks since the epoch began, and its time."""

    sums: Sums = field(default_factory=dict)
    """on the device, so that no step waits for them"""
    seconds: float = 0.0
    waited: float = 0.0
    """seconds spent waiting for data"""
    clock: float | None = None
    """when `seconds` was brought up to date; None: the clock stands"""

    def tick(self) -> float:
        """Bring `seconds` up to date; returns what was added."""
        now = time.perf_counter()
        passed = 0.0 if self.clock is None else now - self.clock
        self.seconds, self.clock = self.seconds + passed, now
        return passed

    def add(self, sums: Sums, accelerator: Accelerator) -> None:
        """Add the sums of one step of this rank; all steps have the same names."""
        dtype = torch.float32 if accelerator.device.type == "mps" else torch.float64
        values = torch.stack([value.detach().to(dtype) for value in sums.values()])
        if accelerator.num_processes > 1:
            values = torch.as_tensor(accelerator.reduce(values, "sum"))
        for name, value in zip(sums, values.unbind(), strict=True):
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def means(self) -> dict[str, float]:
        """Means over the samples; waits for the device."""
        values = {name: value.item() for name, value in self.sums.items()}
        count = values.pop("count") or nan
        return {name: value / count for name, value in values.items()}

    def row(self) -> dict[str, float]:
        """Means, seconds, samples per second of all ranks together, and the part spent waiting."""
        self.tick()
        return self.means() | {
            "seconds": self.seconds,
            "samples_per_second": self.sums["count"].item() / self.seconds,
            "data_wait": self.waited / self.seconds,
        }

    def state(self) -> dict[str, Any]:
        """What `restored` makes this of again."""
        sums = {name: value.item() for name, value in self.sums.items()}
        return {"sums": sums, "seconds": self.seconds, "waited": self.waited}

    @classmethod
    def restored(cls, state: dict[str, Any], device: torch.device) -> "SoFar":
        """From what `state` gave, with None for what is no number."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        sums = {
            name: torch.tensor(nan if value is None else value, dtype=dtype, device=device)
            for name, value in state["sums"].items()
        }
        return cls(sums, state["seconds"], state["waited"])


def train_epoch(
    trainer: Trainer,
    windows: Iterable[Window[Batch]],
    step: Step[Batch],
    progress: Progress,
    after_step: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Train on every window that is left of an epoch; the epoch's means, rate and speed.

    Step k seeds torch with (seed, k, rank) before anything else, so dropout is a function of
    these alone and evaluation between epochs cannot change what follows.
    """
    trainer.model.train()
    so_far = trainer.so_far
    for window in timed(windows, so_far):
        seed_torch(trainer.seed, trainer.step, trainer.accelerator.process_index)
        set_rate(trainer.optimizer, trainer.rate_at(trainer.step))
        so_far.add(step(window), trainer.accelerator)
        if trainer.ema is not None and trainer.step % trainer.ema_every == 0:
            trainer.ema.update_parameters(trainer.net)
        trainer.step += 1
        progress.step(so_far.row)
        trainer.stop.check()
        after_step()
    row = so_far.row()
    trainer.so_far = SoFar()
    return row


def timed(windows: Iterable[Window[Batch]], so_far: SoFar) -> Iterator[Window[Batch]]:
    """The windows; adds the time that passes to the epoch's, and the time until each one came."""
    so_far.tick()
    for window in windows:
        so_far.waited += so_far.tick()
        yield window
        so_far.tick()


def gradient_step(
    trainer: Trainer,
    loss_of: Callable[[nn.Module, Batch], tuple[Tensor, Sums]],
    clip_norm: float | None = None,
) -> Step[Batch]:
    """The ordinary step: the gradient of the mean loss of a whole window, one update.

    `loss_of` returns the sum of the losses of a batch and sums for the log. A sample weighs the
    same whatever the sizes of the batches that a window is cut into.
    """
    accelerator, model, optimizer = trainer.accelerator, trainer.model, trainer.optimizer

    def step(window: Window[Batch]) -> Sums:
        totals: Sums = {}
        share = accelerator.num_processes / window.size  # ranks' gradients are averaged
        last = len(window.batches) - 1
        for number, batch in enumerate(window.batches):
            with nullcontext() if number == last else accelerator.no_sync(model):
                with accelerator.autocast():
                    loss, sums = loss_of(model, batch)
                accelerator.backward(loss * share)
            for name, value in sums.items():
                totals[name] = totals[name] + value if name in totals else value
        if clip_norm is not None:
            accelerator.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        return totals

    return step
