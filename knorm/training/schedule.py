"""Learning rates: pure functions of the optimizer step, so resuming them needs no state."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from knorm.training.mistakes import check_positive, check_range


@dataclass(kw_only=True)
class Schedule:
    """Learning rate over the run, as a fraction of optim.lr."""

    name: Literal["cosine", "multistep", "constant"] = "cosine"
    """shape of the curve after the warm-up"""
    warmup_epochs: float = 0.0
    """epochs over which the rate rises linearly to its peak"""
    final_fraction: float = 0.0
    """cosine: where the curve ends, as a fraction of the peak"""
    milestones: list[float] = field(default_factory=list)
    """multistep: epochs, counted from the start of the run, at which the rate falls"""
    gamma: float = 0.1
    """multistep: factor of every fall"""

    def __post_init__(self) -> None:
        check_range("schedule.warmup_epochs", self.warmup_epochs, 0, math.inf)
        check_range("schedule.final_fraction", self.final_fraction, 0, 1)
        check_positive("schedule.gamma", self.gamma)
        if (self.name == "multistep") != bool(self.milestones):
            raise ValueError(
                "schedule.milestones belongs to schedule.name multistep, which needs at least one, "
                f"got {self.milestones} with {self.name}"
            )
        if self.milestones != sorted(self.milestones):
            raise ValueError(f"schedule.milestones must rise, got {self.milestones}")


@dataclass(frozen=True)
class Moment:
    """A point of the run."""

    epoch: float
    """epochs done, counted from the start"""
    progress: float
    """part done of what follows the warm-up, in [0, 1]"""


def cosine(schedule: Schedule, moment: Moment) -> float:
    """From 1 to `final_fraction` along half a cosine wave."""
    wave = (1 + math.cos(math.pi * moment.progress)) / 2
    return schedule.final_fraction + (1 - schedule.final_fraction) * wave


def multistep(schedule: Schedule, moment: Moment) -> float:
    """`gamma` to the power of the number of milestones passed."""
    return schedule.gamma ** sum(moment.epoch >= milestone for milestone in schedule.milestones)


def constant(schedule: Schedule, moment: Moment) -> float:
    """1 throughout."""
    return 1.0


CURVES: dict[str, Callable[[Schedule, Moment], float]] = {
    "cosine": cosine,
    "multistep": multistep,
    "constant": constant,
}


def fraction_at(schedule: Schedule, step: int, *, steps: int, steps_per_epoch: int) -> float:
    """Fraction of the peak rate that step `step` of `steps` (counted from 0) uses."""
    warmup = schedule.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, steps - warmup)
    return CURVES[schedule.name](schedule, Moment(step / steps_per_epoch, min(1.0, progress)))
