"""Evaluation that is exact for every number of samples and processes.

Every sample is computed once, on one rank, in a batch that does not depend on the number of
ranks; per-sample values are put in the order of the data set before anything is summed.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor, nn

from knorm.training.seeds import seed_torch

Batch = TypeVar("Batch")


def evaluate(
    accelerator: Accelerator,
    net: nn.Module,
    batches: Iterable[tuple[int, Tensor, Batch]],
    per_sample: Callable[[nn.Module, Batch], dict[str, Tensor]],
    *,
    names: Sequence[str],
    num_samples: int,
    seed: int,
) -> dict[str, Tensor]:
    """Per-sample values of the whole split, (num_samples,) float64 on the CPU of every rank.

    `batches` are this rank's (number, sample numbers, batch), see `sampling.evaluation_share`;
    `per_sample` returns one value per sample, exact in float32, for each of `names`. Torch is
    seeded with (seed, batch number) and left as it was, so nets that draw in evaluation repeat
    their numbers too.
    """
    share_buffers(accelerator, net)
    table = torch.zeros(num_samples, len(names), dtype=torch.float64)
    was_training, devices = net.training, _cuda_devices(accelerator)
    net.eval()
    with torch.no_grad(), torch.random.fork_rng(devices), accelerator.autocast():
        for number, positions, batch in batches:
            seed_torch(seed, number)
            values = per_sample(net, batch)
            columns = [values[name].float() for name in names]
            table[positions] = torch.stack(columns, dim=1).cpu().double()
    net.train(was_training)
    return dict(zip(names, sum_over_ranks(accelerator, table).unbind(dim=1), strict=True))


def sum_over_ranks(accelerator: Accelerator, table: Tensor) -> Tensor:
    """The sum of all ranks' tables; exact, since each row is zero on every rank but one."""
    if accelerator.num_processes == 1:
        return table
    summed = accelerator.reduce(table.to(accelerator.device), "sum")
    return torch.as_tensor(summed).cpu()


def share_buffers(accelerator: Accelerator, net: nn.Module) -> None:
    """Give every rank the main process's buffers: running statistics differ between ranks."""
    if accelerator.num_processes > 1:
        for buffer in net.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _cuda_devices(accelerator: Accelerator) -> list[torch.device]:
    return [accelerator.device] if accelerator.device.type == "cuda" else []
