"""Penalties on the weights and the activations of a net, as terms of its loss.

The layers of a net are the parts of its `features` after the first, as published studies of KAN
convolutions have it. Weights are those of convolutions and products; scales and shifts of norms,
biases and the numbers of a basis go free.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from knorm.models.common import Classifier
from knorm.training.mistakes import UserMistakeError
from knorm.training.sharding import is_sharded


@dataclass(frozen=True)
class Amounts:
    """Factors of a sum of absolute values and of a sum of squares."""

    l1: float = 0.0
    l2: float = 0.0

    def __bool__(self) -> bool:
        return self.l1 > 0 or self.l2 > 0


@dataclass
class Seen:
    """What the layers of a net gave in one forward pass."""

    activations: list[Tensor] = field(default_factory=list)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of the net in `model`, whatever wraps it for several processes.

    Raises UserMistakeError for nets without `features` or without layers, and for sharded ones.
    """
    net = next((m for m in model.modules() if isinstance(m, Classifier)), None)
    if net is None:
        raise UserMistakeError("penalty is for nets of `knorm models`, whose layers are known")
    if is_sharded(net):
        raise UserMistakeError("penalty needs whole weights on every process, so no FSDP")
    layers = [layer for layer in [*net.features][1:] if next(layer.parameters(), None) is not None]
    if not weights_of(layers):
        raise UserMistakeError(
            f"penalty: {type(net).__name__} has no layer that it counts, those after the first"
        )
    return layers


def weights_of(layers: Sequence[nn.Module]) -> list[nn.Parameter]:
    """The weights of the layers' convolutions and products."""
    return [
        parameter
        for layer in layers
        for name, parameter in layer.named_parameters()
        if name.split(".")[-1] == "weight" and parameter.dim() > 1
    ]


def weight_penalty(layers: Sequence[nn.Module], amounts: Amounts) -> Tensor:
    """l1 times the sum of |w| plus l2 times that of w^2, over the weights of the layers."""
    weights = weights_of(layers)
    total = torch.zeros((), device=weights[0].device)
    if amounts.l1:
        total = total + amounts.l1 * torch.stack([w.abs().sum() for w in weights]).sum()
    if amounts.l2:
        total = total + amounts.l2 * torch.stack([w.square().sum() for w in weights]).sum()
    return total


@contextmanager
def watched(layers: Sequence[nn.Module]) -> Iterator[Seen]:
    """Inside, what the layers give is kept; nothing is afterwards."""
    seen = Seen()

    def keep(module: nn.Module, args: Any, out: Tensor) -> None:
        seen.activations.append(out)

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def activation_penalty(seen: Seen, amounts: Amounts, real: int) -> Tensor:
    """Sum over the first `real` samples of l1 mean |a| + l2 mean a^2, layer by layer."""
    total = torch.zeros((), device=seen.activations[0].device)
    for activations in seen.activations:
        values = activations[:real].float().flatten(1)
        if amounts.l1:
            total = total + amounts.l1 * values.abs().mean(1).sum()
        if amounts.l2:
            total = total + amounts.l2 * values.square().mean(1).sum()
    return total
