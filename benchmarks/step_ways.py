"""Ways to one step of training, private or not, for `benchmarks.private_step`.

A private step clips every record's gradient to `MAX_NORM`, adds noise to the sum, divides by the
number of records and lets SGD step. Ours is that of `privacy.step` without its ledger, ranks and
log; Opacus's is that of its own optimizers.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn

from privacy.clipping import clipped_sums
from privacy.noise import add_noise
from privacy.per_record import Recorder, trainable
from privacy.rules import RULES
from privacy.secret import Secret

Step = Callable[[], None]
MAX_NORM = 1.0
RATE = 1e-3


class Way:
    """What makes steps for a net and a batch (x, labels); they leave their gradient in the net.

    A step raises what the library raises for nets that it cannot take.
    """

    def __init__(self, name: str, make: Callable[..., Step], **options: Any):
        self.name, self.make, self.options = name, make, options

    def step(self, net: nn.Module, x: Tensor, labels: Tensor, *, sigma: float) -> Step:
        """With noise of standard deviation `sigma * MAX_NORM`, which a plain step has none of."""
        return self.make(net.train(), x, labels, sigma, **self.options)


def plain(net: nn.Module, x: Tensor, labels: Tensor, sigma: float) -> Step:
    """Without privacy."""
    optimizer = torch.optim.SGD(net.parameters(), RATE)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimizer.step()

    return step


def ours(net: nn.Module, x: Tensor, labels: Tensor, sigma: float, *, ghost: bool) -> Step:
    """The records' gradients by `privacy.per_record`; with `ghost` kept thin where smaller."""
    optimizer, recorder = torch.optim.SGD(net.parameters(), RATE), Recorder(net, RULES, thin=ghost)
    secret, steps = Secret(bytes(32)), count()

    def step() -> None:
        optimizer.zero_grad()
        with recorder.recording(len(labels)) as tape:
            loss = F.cross_entropy(recorder(x), labels, reduction="sum")
        loss.backward()
        sums = clipped_sums(recorder.gradients(tape), "flat", MAX_NORM).sums
        released = add_noise(sums, secret, next(steps), sigma * MAX_NORM)
        for name, parameter in trainable(net):
            parameter.grad = released[name] / len(labels)
        optimizer.step()

    return step


def opacus_hooks(net: nn.Module, x: Tensor, labels: Tensor, sigma: float) -> Step:
    """Opacus's gradients of every record."""
    wrapped = GradSampleModule(net)
    optimizer = DPOptimizer(
        torch.optim.SGD(net.parameters(), RATE),
        noise_multiplier=sigma, max_grad_norm=MAX_NORM, expected_batch_size=len(labels),
    )  # fmt: skip

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(wrapped(x), labels).backward()
        optimizer.step()

    return step


def opacus_ghost(net: nn.Module, x: Tensor, labels: Tensor, sigma: float) -> Step:
    """Opacus's fast gradient clipping: norms, then a second backward pass."""
    bound: Any = MAX_NORM  # its annotation says int
    wrapped = GradSampleModuleFastGradientClipping(net, max_grad_norm=bound)
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(net.parameters(), RATE),
        noise_multiplier=sigma, max_grad_norm=MAX_NORM, expected_batch_size=len(labels),
    )  # fmt: skip
    criterion = DPLossFastGradientClipping(wrapped, optimizer, nn.CrossEntropyLoss())

    def step() -> None:
        optimizer.zero_grad()
        criterion(wrapped(x), labels).backward()
        optimizer.step()

    return step


PLAIN = Way("no privacy", plain)
PRIVATE = (
    Way("ours, hooks", ours, ghost=False),
    Way("ours, ghost", ours, ghost=True),
    Way("Opacus, hooks", opacus_hooks),
    Way("Opacus, ghost", opacus_ghost),
)


def one_by_one(net: nn.Module, x: Tensor, labels: Tensor) -> Iterator[dict[str, Tensor]]:
    """Every record's gradient, dropout as in the whole batch."""
    parameters = dict(trainable(net))
    for loss in F.cross_entropy(net.train()(x), labels, reduction="none"):
        grads = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        yield dict(zip(parameters, grads, strict=True))


def clipped_mean(net: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What a private step without noise leaves in the net, by the definition."""
    mean = {name: torch.zeros_like(parameter) for name, parameter in trainable(net)}
    for grads in one_by_one(net, x, labels):
        norm = torch.stack([grad.norm() for grad in grads.values()]).norm().item()
        for name, grad in grads.items():
            mean[name] += grad * min(1.0, MAX_NORM / norm) / len(labels)
    return mean
