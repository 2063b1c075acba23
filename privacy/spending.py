"""From the settings and the number of images to steps and noise."""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import get_args

from privacy import accounting
from privacy.config import AccountantName, PrivateRecipe

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

    def epsilon(self, accountant: AccountantName, steps: int | None = None) -> float:
        """What all steps cost, or the first few."""
        return accounting.epsilon(
            accountant,
            sampling_rate=float(self.sampling_rate),
            noise_multiplier=self.noise_multiplier,
            steps=self.steps if steps is None else steps,
            delta=self.delta,
        )

    def epsilons(self, steps: int | None = None) -> dict[str, float]:
        """The same by each accountant."""
        return {name: self.epsilon(name, steps) for name in get_args(AccountantName)}


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


def budget_of(recipe: PrivateRecipe, num_images: int) -> Budget:
    """The budget of a recipe for so many training images.

    Raises:
        ValueError: it cannot be kept, or the batch is larger than the data set.
    """
    privacy = recipe.privacy
    rate = recipe.sampling_rate(num_images)
    per_epoch = max(1, round(1 / rate))
    steps, noise = steps_of(recipe, per_epoch), privacy.noise_multiplier
    if noise is None:
        assert privacy.epsilon is not None
        noise = _noise(privacy.accountant, privacy.epsilon, privacy.delta, rate, steps)
    elif privacy.epsilon is not None:
        most = _steps(privacy.accountant, privacy.epsilon, privacy.delta, rate, noise)
        steps = min(steps, most)
    return Budget(
        num_samples=num_images,
        sampling_rate=rate,
        noise_multiplier=noise,
        steps=steps,
        steps_per_epoch=per_epoch,
        delta=privacy.delta,
    )


def steps_of(recipe: PrivateRecipe, per_epoch: int) -> int:
    """Steps that the recipe asks for, as epochs or by their number."""
    in_epochs = recipe.epochs * per_epoch
    steps = recipe.privacy.steps or in_epochs
    if steps > in_epochs:
        raise ValueError(
            f"privacy.steps {steps} is more than epochs {recipe.epochs} make, which is "
            f"{in_epochs}; raise epochs"
        )
    return steps
