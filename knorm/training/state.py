"""What a run has to remember in order to go on exactly: a trainer as tensors and JSON, and back."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed import broadcast
from torch.optim import Optimizer

from knorm.training.checkpoint import EMA, MODEL, OPTIMIZER, Checkpoint, Tensors
from knorm.training.loop import SoFar, Trainer

PLAIN = (bool, int, float, str, type(None))


def weights_of(trainer: Trainer) -> dict[str, Tensors]:
    """The net's weights, and their moving average where one is kept."""
    weights: dict[str, Tensors] = {MODEL: trainer.net.state_dict()}
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
        "processes": trainer.accelerator.num_processes,
        "so_far": trainer.so_far.state(),
        "optimizer": values,
        "scaler": scaler.state_dict() if scaler is not None else None,
        "averaged": int(trainer.ema.n_averaged) if trainer.ema is not None else None,
    }
    return weights_of(trainer) | {OPTIMIZER: tensors}, state


def restore(trainer: Trainer, saved: Checkpoint) -> None:
    """Make the trainer what it was when `capture` saw it; every rank gets the same."""
    state = saved.state
    trainer.net.load_state_dict(saved.tensors[MODEL])
    if trainer.ema is not None:
        trainer.ema.module.load_state_dict(saved.tensors[EMA])
        trainer.ema.n_averaged.fill_(state["averaged"])
    load_optimizer(trainer.optimizer, saved.tensors.get(OPTIMIZER, {}), state["optimizer"])
    if trainer.accelerator.scaler is not None and state["scaler"] is not None:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    trainer.step = state["step"]
    trainer.so_far = SoFar.restored(state["so_far"], trainer.accelerator.device)


def load_evaluated(trainer: Trainer, saved: Checkpoint | None) -> None:
    """Give the net that is evaluated the weights of the main process's `saved`."""
    net = trainer.evaluated
    if saved is not None:
        net.load_state_dict(saved.evaluated)
    if trainer.accelerator.num_processes > 1:
        for tensor in net.state_dict().values():
            broadcast(tensor, src=0)


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
    groups = [
        {name: value for name, value in group.items() if isinstance(value, PLAIN)}
        for group in saved["param_groups"]
    ]
    return tensors, {"values": values, "groups": groups}


def load_optimizer(optimizer: Optimizer, tensors: Tensors, values: dict[str, Any]) -> None:
    """Give the optimizer the state that `optimizer_state` saw in one like it."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *values["values"].items()]:
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    groups = [group | saved for group, saved in zip(groups, values["groups"], strict=True)]
    with torch.no_grad():
        optimizer.load_state_dict({"state": state, "param_groups": groups})
