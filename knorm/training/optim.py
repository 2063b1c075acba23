"""Optimizers by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from knorm.training.mistakes import check_positive, check_range


@dataclass(kw_only=True)
class Optim:
    """Optimizer. Rates are for the global batch, whatever the number of processes."""

    lr: float
    """peak learning rate"""
    name: Literal["sgd", "adam", "adamw"] = "sgd"
    """which optimizer"""
    momentum: float = 0.9
    """momentum of sgd"""
    nesterov: bool = False
    """Nesterov's momentum, sgd only"""
    betas: tuple[float, float] = (0.9, 0.999)
    """decay of the running moments of adam and adamw"""
    weight_decay: float = 0.0
    """weight decay: an L2 term for sgd and adam, decoupled for adamw"""
    decay_vectors: bool = True
    """also decay biases and norm weights, i.e. parameters of one dimension"""
    clip_norm: float | None = None
    """largest norm of the whole gradient; null: no clipping"""

    def __post_init__(self) -> None:
        check_positive("optim.lr", self.lr)
        check_range("optim.momentum", self.momentum, 0, 1)
        check_range("optim.weight_decay", self.weight_decay, 0, 1)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optim.betas must lie in [0, 1), got {self.betas}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("optim.nesterov needs an optim.momentum above 0")
        if self.clip_norm is not None:
            check_positive("optim.clip_norm", self.clip_norm)


Groups = list[dict[str, Any]]
OPTIMIZERS: dict[str, Callable[[Groups, Optim], Optimizer]] = {
    "sgd": lambda groups, optim: SGD(
        groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov
    ),
    "adam": lambda groups, optim: Adam(groups, lr=optim.lr, betas=optim.betas),
    "adamw": lambda groups, optim: AdamW(groups, lr=optim.lr, betas=optim.betas),
}


def make_optimizer(optim: Optim, model: nn.Module) -> Optimizer:
    """The optimizer of that name over the trainable parameters of `model`."""
    return OPTIMIZERS[optim.name](parameter_groups(optim, model), optim)


def parameter_groups(optim: Optim, model: nn.Module) -> Groups:
    """Parameters that decay and parameters that do not, empty groups left out."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decays = [optim.decay_vectors or parameter.ndim > 1 for parameter in parameters]
    pairs = list(zip(parameters, decays, strict=True))
    groups: Groups = [
        {"params": [p for p, decay in pairs if decay], "weight_decay": optim.weight_decay},
        {"params": [p for p, decay in pairs if not decay], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
