"""What the numbers of a budget may be; nothing heavy is imported: a wrong one is told at once."""

import math
from collections.abc import Callable
from fractions import Fraction

Number = float | Fraction
MAX_STEPS = 10**8

RANGES: dict[str, tuple[str, Callable[[Number], bool]]] = {
    "epsilon": ("a finite number above 0", lambda value: 0 < value < math.inf),
    "delta": ("above 0 and below 1", lambda value: 0 < value < 1),
    "sampling_rate": ("above 0 and at most 1", lambda value: 0 < value <= 1),
    "noise_multiplier": ("a finite number, 0 or above", lambda value: 0 <= value < math.inf),
    "steps": (
        f"a whole number from 0 to {MAX_STEPS}",
        lambda value: isinstance(value, int) and 0 <= value <= MAX_STEPS,
    ),
}


def steps_per_epoch(sampling_rate: Fraction) -> int:
    """Steps that make up an epoch: as many as see every image about once."""
    return max(1, round(1 / sampling_rate))


def steps_in(epochs: Number, sampling_rate: Fraction) -> int:
    """Steps in so many epochs, a part of a step rounded up."""
    return math.ceil(epochs * steps_per_epoch(sampling_rate))


def delta_warning(delta: float, num_images: int) -> str | None:
    """A line where delta allows more than it should."""
    if delta * num_images < 1:
        return None
    return (
        f"delta {delta:g} is not below 1 / {num_images} images: publishing one image whole "
        "would be within it"
    )


def check_budget(**values: Number) -> None:
    """Each of `values` is what a number of its name may be.

    Args:
        values: Some of `epsilon`, `delta`, `sampling_rate` (q), `noise_multiplier` (sigma, the
            noise's standard deviation over the clipping norm) and `steps`.

    Raises:
        ValueError: one is out of its range; the message names it, the range and the value.
    """
    for name, value in values.items():
        rule, holds = RANGES[name]
        if not holds(value):
            raise ValueError(f"{name} must be {rule}, got {value}")
