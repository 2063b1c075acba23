"""Poisson sampling: which records make up a step, a pure function of (secret, step).

Privacy is amplified by sampling only if every record is in or out of every step on its own, with
exactly the probability that is accounted. So the whole step is drawn, the same on every rank, and
then dealt out; an empty step is a step as any other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from privacy.secret import Secret

WORD = 1 << 64


@dataclass(frozen=True, kw_only=True)
class PoissonSampling:
    """Steps that each take every record with the same probability, all choices independent."""

    num_samples: int
    sampling_rate: Fraction
    """q in (0, 1], exact: Fraction(4096, 50_000) for an expected batch of 4096 of 50 000"""
    steps: int
    secret: Secret

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.steps < 0:
            raise ValueError(
                f"sampling takes records and steps, got {self.num_samples} and {self.steps}"
            )
        if not isinstance(self.sampling_rate, Fraction):
            raise ValueError(
                "sampling_rate must be exact, such as Fraction(4096, 50_000), "
                f"got {self.sampling_rate!r}"
            )
        if not Fraction(1, WORD) <= self.sampling_rate <= 1:
            raise ValueError(f"sampling_rate must lie in (0, 1], got {self.sampling_rate}")

    def batch(self, step: int) -> Tensor:
        """The numbers of the step's records, ascending, of all ranks together; (n,), n >= 0.

        A record is in where its 64-bit word is below q * 2^64 rounded down: the probability is
        never above q, and below it by less than 2^-64.
        """
        if not 0 <= step < self.steps:
            raise ValueError(f"step {step} is none of the {self.steps} from 0 on")
        words = self.secret.words(self.num_samples, "mask", step)
        highest = int(self.sampling_rate * WORD) - 1  # q = 1 takes every word
        return torch.from_numpy(np.flatnonzero(words <= np.uint64(highest)))

    def share(self, step: int, rank: int, num_ranks: int) -> Tensor:
        """This rank's records of a step; those of all ranks make up the batch, none twice."""
        return self.batch(step)[rank::num_ranks]

    def shares(self, rank: int, num_ranks: int, first_step: int = 0) -> Iterator[Tensor]:
        """This rank's records of every step from `first_step` on, empty ones too."""
        for step in range(first_step, self.steps):
            yield self.share(step, rank, num_ranks)


def chunks(share: Tensor, physical_batch_size: int) -> list[Tensor]:
    """The share in parts that fit into memory, none of them empty.

    Ranks may have different numbers of them, so between two parts no rank may wait for another.
    """
    if physical_batch_size < 1:
        raise ValueError(f"physical_batch_size must be positive, got {physical_batch_size}")
    return list(share.split(physical_batch_size)) if len(share) else []
