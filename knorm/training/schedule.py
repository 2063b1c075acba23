"""Learning rates: pure functions of the optimizer step, so resuming them needs no state."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from knorm.training.mistakes import check_positive, check_range, check_unused


@dataclass(kw_only=True)
class Schedule:
    """Learning rate over the run, as a fraction of optim.lr."""

    name: Literal["cosine", "poly", "exponential", "multistep", "constant"] = "cosine"
    """shape of the curve after the warm-up"""
    per_epoch: bool = False
    """hold the rate for an epoch, as it is at its first step; otherwise it moves every step"""
    warmup_epochs: float = 0.0
    """epochs over which the rate rises linearly to its peak"""
    warmup_start: float | None = None
    """fraction of the peak at the first step of the warm-up; null: one step's share"""
    final_fraction: float = 0.0
    """cosine, poly: where the curve ends, as a fraction of the peak"""
    power: float = 0.9
    """poly: exponent of the part of the run that is left"""
    milestones: list[float] = field(default_factory=list)
    """multistep: epochs, counted from the start of the run, at which the rate falls"""
    gamma: float = 0.1
    """multistep, exponential: factor of every fall"""
    decay_epochs: float = 1.0
    """exponential: epochs in which the rate falls by gamma"""

    def __post_init__(self) -> None:
        check_range("schedule.warmup_epochs", self.warmup_epochs, 0, math.inf)
        check_range("schedule.final_fraction", self.final_fraction, 0, 1)
        for name in ("power", "gamma", "decay_epochs"):
            check_positive(f"schedule.{name}", getattr(self, name))
        if self.warmup_start is not None:
            check_range("schedule.warmup_start", self.warmup_start, 0, 1)
            if not self.warmup_epochs:
                raise ValueError("schedule.warmup_start needs schedule.warmup_epochs above 0")
        check_unused("schedule", self, USERS)
        if self.name == "multistep" and not self.milestones:
            raise ValueError("schedule.name multistep needs at least one of schedule.milestones")
        if self.milestones != sorted(self.milestones):
            raise ValueError(f"schedule.milestones must rise, got {self.milestones}")


USERS = {
    "final_fraction": ["cosine", "poly"],
    "power": ["poly"],
    "milestones": ["multistep"],
    "gamma": ["multistep", "exponential"],
    "decay_epochs": ["exponential"],
}


@dataclass(frozen=True)
class Moment:
    """A point of the run after its warm-up."""

    epoch: float
    """epochs done, counted from the start"""
    since_warmup: float
    """epochs done since the warm-up"""
    progress: float
    """part done of what follows the warm-up, in [0, 1]"""


def cosine(schedule: Schedule, moment: Moment) -> float:
    """From 1 to `final_fraction` along half a cosine wave."""
    wave = (1 + math.cos(math.pi * moment.progress)) / 2
    return schedule.final_fraction + (1 - schedule.final_fraction) * wave


def poly(schedule: Schedule, moment: Moment) -> float:
    """From 1 to `final_fraction` along a power of the part that is left."""
    left = (1 - moment.progress) ** schedule.power
    return schedule.final_fraction + (1 - schedule.final_fraction) * left


def exponential(schedule: Schedule, moment: Moment) -> float:
    """By `gamma` in every `decay_epochs` after the warm-up."""
    return schedule.gamma ** (moment.since_warmup / schedule.decay_epochs)


def multistep(schedule: Schedule, moment: Moment) -> float:
    """`gamma` to the power of the number of milestones passed."""
    return schedule.gamma ** sum(moment.epoch >= milestone for milestone in schedule.milestones)


def constant(schedule: Schedule, moment: Moment) -> float:
    """1 throughout."""
    return 1.0


CURVES: dict[str, Callable[[Schedule, Moment], float]] = {
    "cosine": cosine,
    "poly": poly,
    "exponential": exponential,
    "multistep": multistep,
    "constant": constant,
}


def fraction_at(schedule: Schedule, step: int, *, steps: int, steps_per_epoch: int) -> float:
    """Fraction of the peak rate that step `step` of `steps` (counted from 0) uses."""
    tick = steps_per_epoch if schedule.per_epoch else 1  # steps that share a rate
    epoch = step // tick * tick / steps_per_epoch
    since_warmup = epoch - schedule.warmup_epochs
    if since_warmup < 0:
        return warm_up(schedule, epoch, tick / steps_per_epoch)
    rest = max(tick / steps_per_epoch, steps / steps_per_epoch - schedule.warmup_epochs)
    return CURVES[schedule.name](schedule, Moment(epoch, since_warmup, min(1, since_warmup / rest)))


def warm_up(schedule: Schedule, epoch: float, share: float) -> float:
    """From `warmup_start` at epoch 0 in a line to 1 at `warmup_epochs`.

    Without a start the line begins one `share` (in epochs) before the run, with 0.
    """
    if schedule.warmup_start is None:
        return (epoch + share) / (schedule.warmup_epochs + share)
    done = epoch / schedule.warmup_epochs
    return schedule.warmup_start + (1 - schedule.warmup_start) * done
