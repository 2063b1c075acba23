"""What a run has to remember in order to go on exactly: a trainer as tensors and JSON, and back."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed import broadcast
from torch.optim import Optimizer

from knorm.training.checkpoint import EMA, MODEL, OPTIMIZER, Checkpoint, Tensors
from knorm.training.loop import SoFar, Trainer
from knorm.training.optim import make_optimizer
from knorm.training.settings import Optim
from knorm.training.sharding import load_weights, shard_like, whole

GROUP = "group."
PLAIN = (bool, int, float, str, type(None))


def weights_of(trainer: Trainer) -> dict[str, Tensors]:
    """The net's weights, and their moving average where one is kept; collective if sharded."""
    weights: dict[str, Tensors] = {MODEL: whole(trainer.net.state_dict())}
    if trainer.ema is not None:
        weights[EMA] = trainer.ema.module.state_dict()
    return weights


def capture(trainer: Trainer) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """Everything that the next step depends on: tensors by file stem, and JSON.

    Random numbers, the order of the samples and the learning rate are functions of the step.
    """
    tensors, values = optimizer_state(trainer.optimizer)
    scaler = trainer.accelerator.scaler
    state = {
        "so_far": trainer.so_far.state(),
        "optimizer": values,
        "scaler": scaler.state_dict() if scaler is not None else None,
        "averaged": int(trainer.ema.n_averaged) if trainer.ema is not None else None,
    }
    return weights_of(trainer) | {OPTIMIZER: tensors}, state


def restore(trainer: Trainer, saved: Checkpoint) -> None:
    """Make the trainer what it was when `capture` saw it; every rank gets the same."""
    state = saved.state
    load_weights(trainer.net, saved.tensors[MODEL])
    if trainer.ema is not None:
        trainer.ema.module.load_state_dict(saved.tensors[EMA])
        trainer.ema.n_averaged.fill_(state["averaged"])
    load_optimizer(trainer.optimizer, saved.tensors[OPTIMIZER], state["optimizer"])
    if trainer.accelerator.scaler is not None and state["scaler"] is not None:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    trainer.step = state["step"]
    trainer.so_far = SoFar.restored(state["so_far"], trainer.accelerator.device)


def load_evaluated(net: nn.Module, saved: Checkpoint | None, accelerator: Accelerator) -> None:
    """Give a net that is evaluated the weights of the main process's `saved`."""
    if saved is not None:
        net.load_state_dict(saved.evaluated)
    if accelerator.num_processes > 1:
        for tensor in net.state_dict().values():
            broadcast(tensor, src=0)


def check_resumable(optim: Optim) -> None:
    """Raise `TypeError` for an optimizer whose state cannot be saved, found on a net of a few."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = make_optimizer(optim, net)
    net(torch.ones(2, 2)).sum().backward()
    optimizer.step()
    optimizer_state(optimizer)


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`number.name` -> tensor of every parameter's state, and what is no tensor."""
    saved = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for number, slots in saved["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{name}"] = value
            elif isinstance(value, PLAIN):
                values[f"{number}.{name}"] = value
            else:
                raise TypeError(
                    f"{type(optimizer).__name__} keeps a {type(value).__name__} as {name}, which "
                    "cannot be saved without pickling; choose another optimizer"
                )
    groups = []
    for number, group in enumerate(saved["param_groups"]):
        groups.append({name: value for name, value in group.items() if isinstance(value, PLAIN)})
        tensors |= {
            f"{GROUP}{number}.{name}": value
            for name, value in group.items()
            if isinstance(value, Tensor)
        }
    return whole(tensors), {"values": values, "groups": groups}


def load_optimizer(optimizer: Optimizer, tensors: Tensors, values: dict[str, Any]) -> None:
    """Give the optimizer the state that `optimizer_state` saw in one like it."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    groups = optimizer.state_dict()["param_groups"]
    groups = [group | saved for group, saved in zip(groups, values["groups"], strict=True)]
    for key, value in [*tensors.items(), *values["values"].items()]:
        number, _, name = key.removeprefix(GROUP).partition(".")
        if key.startswith(GROUP):
            groups[int(number)][name] = value
            continue
        if isinstance(value, Tensor):
            value = shard_like(value, parameters[int(number)])
        state.setdefault(int(number), {})[name] = value
    with torch.no_grad():
        optimizer.load_state_dict({"state": state, "param_groups": groups})
