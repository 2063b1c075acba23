"""From the settings and the number of images to steps and noise."""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import get_args

from privacy import accounting
from privacy.budget import steps_in, steps_per_epoch
from privacy.config import AccountantName, Private

DECIMALS = 4  # of calibrated noise, rounded up: the same digits whatever the libraries' versions


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a run spends; adding or removing one training image is what it hides."""

    num_samples: int
    sampling_rate: Fraction
    noise_multiplier: float
    steps: int
    steps_per_epoch: int
    """steps after which there is an evaluation: about as many as see every image once"""
    delta: float
    accountant: AccountantName
    """whose epsilon is claimed"""

    def epsilon(self, runs: int = 1) -> float:
        """What is claimed for all steps of so many runs; ValueError where it cannot be told."""
        return _epsilon(self.accountant, self, runs)

    def epsilons(self, runs: int = 1) -> dict[str, float | str]:
        """The same by each accountant, or why one refuses."""
        found: dict[str, float | str] = {}
        for name in get_args(AccountantName):
            try:
                found[name] = _epsilon(name, self, runs)
            except ValueError as error:
                found[name] = str(error)
        return found


@lru_cache(maxsize=16)
def _epsilon(accountant: AccountantName, budget: Budget, runs: int) -> float:
    return accounting.epsilon(
        accountant,
        sampling_rate=float(budget.sampling_rate),
        noise_multiplier=budget.noise_multiplier,
        steps=budget.steps * runs,
        delta=budget.delta,
    )


@lru_cache(maxsize=8)
def _noise(accountant: AccountantName, epsilon: float, delta: float, q: Fraction, t: int) -> float:
    noise = accounting.noise_multiplier_for(
        accountant, epsilon=epsilon, delta=delta, sampling_rate=float(q), steps=t
    )
    return math.ceil(noise * 10**DECIMALS) / 10**DECIMALS


@lru_cache(maxsize=8)
def _steps(accountant: AccountantName, epsilon: float, delta: float, q: Fraction, s: float) -> int:
    return accounting.steps_for(
        accountant, epsilon=epsilon, delta=delta, sampling_rate=float(q), noise_multiplier=s
    )


def budget_of(recipe: Private, num_images: int) -> Budget:
    """The budget of a recipe for so many training images.

    Raises:
        ValueError: it cannot be kept or not be told, or the batch is larger than the data set.
    """
    privacy = recipe.privacy
    rate = recipe.sampling_rate(num_images)
    steps, noise = steps_of(recipe, rate), privacy.noise_multiplier
    if noise is None:
        assert privacy.epsilon is not None
        noise = _noise(privacy.accountant, privacy.epsilon, privacy.delta, rate, steps)
    elif privacy.epsilon is not None:
        most = _steps(privacy.accountant, privacy.epsilon, privacy.delta, rate, noise)
        steps = min(steps, most)
    budget = Budget(
        num_samples=num_images,
        sampling_rate=rate,
        noise_multiplier=noise,
        steps=steps,
        steps_per_epoch=steps_per_epoch(rate),
        delta=privacy.delta,
        accountant=privacy.accountant,
    )
    budget.epsilon()  # what cannot be claimed at the end is refused at the beginning
    return budget


def steps_of(recipe: Private, rate: Fraction) -> int:
    """Steps that the recipe asks for, as epochs or by their number."""
    assert recipe.epochs is not None  # as `Private` sees to it
    in_epochs = steps_in(recipe.epochs, rate)
    steps = recipe.privacy.steps or in_epochs
    if steps > in_epochs:
        raise ValueError(
            f"privacy.steps {steps} is more than epochs {recipe.epochs} make, which is "
            f"{in_epochs}; raise epochs"
        )
    return steps
