"""Which samples make up which batch: pure functions of (seed, epoch), the same on every rank."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from knorm.training.seeds import mix


class Share(NamedTuple):
    """What one rank computes in one pass."""

    samples: Tensor
    """(n,) numbers, n >= 1; copy c of sample s has the number s + c * num_samples"""
    real: int
    """how many of them count, from the first on; the others only keep the ranks in step"""


class Cut(Protocol):
    """Epochs cut into steps, and each step into the shares of ranks and passes."""

    @property
    def seed(self) -> int:
        """Of what is drawn for samples beside their order."""
        ...

    def windows(
        self, epoch: int, rank: int, num_ranks: int, first_step: int = 0
    ) -> Iterator[tuple[list[Share], int]]:
        """For every step from `first_step` on: this rank's shares, and the size of the batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How an epoch is cut into steps, and each step into the shares of ranks and passes."""

    num_samples: int
    batch_size: int
    """samples of a step, all ranks and passes together"""
    seed: int
    drop_last: bool = True
    """leave out the short batch at the end of an epoch's order"""
    repeats: int = 1
    """copies of a sample in a row, or of a group of `together`; an epoch is as long as without"""
    passes: int = 1
    """forward and backward passes that every rank makes for a step"""
    together: int = 1
    """samples that must not be parted, such as the pairs of mixup"""

    def __post_init__(self) -> None:
        if self.num_samples < self.batch_size and self.drop_last:
            raise ValueError(
                f"batch_size {self.batch_size} is more than the {self.num_samples} training "
                "samples; lower it"
            )

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def batches(self, epoch: int) -> list[Tensor]:
        """The numbers of every global batch of an epoch, in an order drawn from (seed, epoch)."""
        generator = torch.Generator().manual_seed(mix(self.seed, epoch))
        order = torch.randperm(self.num_samples, generator=generator)
        copies = torch.arange(self.repeats)[:, None] * self.num_samples
        whole = self.num_samples // self.together * self.together
        groups = order[:whole].view(-1, 1, self.together) + copies
        order = torch.cat([groups.flatten(), order[whole:]])[: self.num_samples]
        return list(order.split(self.batch_size)[: self.steps])

    def shares(self, batch: Tensor, rank: int, num_ranks: int) -> list[Share]:
        """This rank's part of a global batch, one share for each pass.

        All ranks' shares in their order make up the batch. A rank for which a short batch leaves
        nothing gets samples that do not count.
        """
        num_shares, units = num_ranks * self.passes, -(-len(batch) // self.together)
        cuts = [
            min(len(batch), units * share // num_shares * self.together)
            for share in range(num_shares + 1)
        ]
        parts = [batch[first:end] for first, end in itertools.pairwise(cuts)]
        mine = parts[rank * self.passes : (rank + 1) * self.passes]
        return [Share(part if len(part) else batch[: self.together], len(part)) for part in mine]

    def windows(
        self, epoch: int, rank: int, num_ranks: int, first_step: int = 0
    ) -> Iterator[tuple[list[Share], int]]:
        """For every step from `first_step` on: this rank's shares, and the size of the batch."""
        for batch in self.batches(epoch)[first_step:]:
            yield self.shares(batch, rank, num_ranks), len(batch)


def evaluation_share(
    num_samples: int, batch_size: int, rank: int, num_ranks: int
) -> list[tuple[int, Tensor]]:
    """(number, sample numbers) of the batches this rank evaluates; no sample twice, none left out.

    The batches are the same for every number of ranks, which only deals them out, so that a
    value computed in one of them never depends on how many processes there are.
    """
    batches = torch.arange(num_samples).split(batch_size)
    return list(enumerate(batches))[rank::num_ranks]
