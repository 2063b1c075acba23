"""Which samples make up which batch: pure functions of (seed, epoch), the same on every rank."""

import torch
from torch import Tensor

from knorm.training.seeds import mix


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Global batches in an epoch; the last one, if short, is dropped."""
    if num_samples < batch_size:
        raise ValueError(
            f"batch_size {batch_size} is more than the {num_samples} training samples; lower it"
        )
    return num_samples // batch_size


def epoch_batches(num_samples: int, batch_size: int, *, seed: int, epoch: int) -> Tensor:
    """Sample numbers of an epoch, (steps, batch_size), in an order drawn from (seed, epoch).

    The `num_samples % batch_size` samples at the end of that order are left out of this epoch.
    """
    steps = steps_per_epoch(num_samples, batch_size)
    generator = torch.Generator().manual_seed(mix(seed, epoch))
    order = torch.randperm(num_samples, generator=generator)
    return order[: steps * batch_size].view(steps, batch_size)


def share_of_rank(batches: Tensor, rank: int, num_ranks: int) -> Tensor:
    """This rank's equal part of every global batch, (steps, batch_size / num_ranks)."""
    return batches.chunk(num_ranks, dim=1)[rank]


def evaluation_share(
    num_samples: int, batch_size: int, rank: int, num_ranks: int
) -> list[tuple[int, Tensor]]:
    """(number, sample numbers) of the batches this rank evaluates; no sample twice, none left out.

    The batches are the same for every number of ranks, which only deals them out, so that a
    value computed in one of them never depends on how many processes there are.
    """
    batches = torch.arange(num_samples).split(batch_size)
    return list(enumerate(batches))[rank::num_ranks]
