"""DP-SGD put together in the obvious way from Opacus and Accelerate, as defects are shown on it."""

from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from accelerate.data_loader import BatchSamplerShard
from opacus import GradSampleModule, PrivacyEngine
from opacus.accountants.utils import get_noise_multiplier
from opacus.data_loader import CollateFnWithEmpty, DPDataLoader
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import AdaClipDPOptimizer, DPOptimizer
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from opacus.utils.batch_memory_manager import BatchMemoryManager
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from opacus.utils.uniform_sampler import (
    DistributedUniformWithReplacementSampler,
    UniformWithReplacementSampler,
)
from opacus.validators import ModuleValidator
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset, default_collate


def gradients(net, x, loss_of):
    """Per-sample gradients of Opacus's hooks."""
    hooked = GradSampleModule(net, loss_reduction="sum", strict=False)
    loss_of(hooked(x)).backward()
    return {name: p.grad_sample.detach() for name, p in net.named_parameters()}


def refuses(net, x, loss_of):
    """Whether Opacus's validator or its hooks find fault with the net."""
    if ModuleValidator.validate(net, strict=False):
        return True
    gradients(net, x, loss_of)
    return False


def ghost_gradients(net, x, _):
    """The sum of clipped gradients in ghost mode, of a loss over all pixels."""
    reduction = {"loss_reduction": "sum"}
    hooked = GradSampleModuleFastGradientClipping(
        net, max_grad_norm=1e6, use_ghost_clipping=True, **reduction
    )
    plain, bounds = SGD(hooked.parameters(), lr=1.0), {"max_grad_norm": 1e6, "noise_multiplier": 0}
    optimizer = DPOptimizerFastGradientClipping(
        plain, expected_batch_size=len(x), **bounds, **reduction
    )
    criterion = nn.CrossEntropyLoss(reduction="sum")
    labels = x.new_zeros(len(x), *x.shape[2:], dtype=torch.long)
    loss = DPLossFastGradientClipping(hooked, optimizer, criterion, "sum")(hooked(x), labels)
    loss.backward()
    return {name: p.grad[None] for name, p in net.named_parameters()}


def optimizer_of(module, *, noise=0.0, expected=4, **adaptive):
    """Opacus's optimizer around SGD, with C = 1."""
    kind = AdaClipDPOptimizer if adaptive else DPOptimizer
    plain = SGD(module.parameters(), lr=1.0)
    return kind(
        plain, noise_multiplier=noise, max_grad_norm=1.0, expected_batch_size=expected, **adaptive
    )


@contextmanager
def as_rank(rank, num_ranks):
    """Where torch.distributed is asked, this is one of several ranks."""
    with (
        patch("torch.distributed.get_rank", lambda: rank),
        patch("torch.distributed.get_world_size", lambda: num_ranks),
    ):
        yield


def dealt(records, rate, steps, *, seeds=(0, 0), prepared=False):
    """Every step's records for each of two ranks."""
    ranks = []
    for rank, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        if prepared:  # by Accelerate, which deals out whole batches
            both = UniformWithReplacementSampler(
                num_samples=records, sample_rate=rate, steps=2 * steps, generator=generator
            )
            sampler = BatchSamplerShard(both, 2, rank, even_batches=False)
        else:
            with as_rank(rank, 2):
                sampler = DistributedUniformWithReplacementSampler(
                    total_size=records, sample_rate=rate, steps=steps, generator=generator
                )
        ranks.append([torch.as_tensor(batch) for batch in sampler])
    return ranks


def left_after_break():
    """What is left in the parameters where a loop stops within a logical batch."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(40, 8), torch.arange(40) % 3)
    net = nn.Linear(8, 3)
    net, optimizer, loader = PrivacyEngine().make_private(
        module=net,
        optimizer=SGD(net.parameters(), lr=0.1),
        data_loader=DataLoader(data, batch_size=20),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )
    with BatchMemoryManager(
        data_loader=loader, max_physical_batch_size=3, optimizer=optimizer
    ) as chunks:
        x, y = next(iter(chunks))
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.summed_grad for p in net.parameters() if p.summed_grad is not None]


def linear():
    """A hooked linear layer, always the same, and a batch."""
    torch.manual_seed(0)
    hooked = GradSampleModule(nn.Linear(8, 3), loss_reduction="sum")
    return hooked, torch.randn(4, 8), torch.arange(4) % 3


def summed(logits, labels):
    """The sum of the losses, as in our steps."""
    return F.cross_entropy(logits, labels, reduction="sum")


def weights_of_two_ranks():
    """Each rank clips, adds noise and steps by itself, whatever is averaged before."""
    for rank in range(2):
        hooked, x, labels = linear()
        optimizer = optimizer_of(hooked, noise=1.0)
        summed(hooked(x + rank), labels).backward()
        optimizer.step()
        yield hooked._module.weight


def weights_after_nan():
    """After a step with one record that is no number."""
    hooked, x, labels = linear()
    optimizer = optimizer_of(hooked)
    x[0] = torch.nan
    summed(hooked(x), labels).backward()
    optimizer.step()
    return hooked._module.weight


def empty_batch():
    """The images of a step in which there is no record."""
    collate = CollateFnWithEmpty(default_collate, rand_on_empty=True)
    collate([(torch.zeros(3), 1)])
    return collate([])[0]


def sampling_rate(batch_size, records):
    """Of a loader that was made for batches of that size."""
    loader = DataLoader(TensorDataset(torch.zeros(records, 1)), batch_size=batch_size)
    return DPDataLoader.from_data_loader(loader).sample_rate


def noise_for(epsilon):
    """By the RDP accountant."""
    return get_noise_multiplier(
        target_epsilon=epsilon, target_delta=1e-5, sample_rate=0.01, steps=100, accountant="rdp"
    )


def adapted(x):
    """The clipping norm after a step on these records, with next to no noise on it."""
    hooked, *_ = linear()
    optimizer = optimizer_of(
        hooked,
        noise=1e-6,
        target_unclipped_quantile=0.5,
        clipbound_learning_rate=1.0,
        max_clipbound=100.0,
        min_clipbound=1e-3,
        unclipped_num_std=1e-4,
    )
    summed(hooked(x), torch.arange(len(x))).backward()
    optimizer.step()
    return None, float(optimizer.max_grad_norm)


def norm(x, accelerator):
    """Of the per-sample gradients that are there to be clipped, all together."""
    hooked, _, labels = linear()
    accelerator.backward(summed(hooked(x), labels))
    return float(hooked._module.weight.grad_sample.norm())
