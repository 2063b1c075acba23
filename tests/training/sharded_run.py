"""Trains a net that is sharded over the ranks, saves it and goes on; launched with 2 processes."""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import AdamW

from knorm.training import checkpoint
from knorm.training.folder import LAST
from knorm.training.loop import Trainer, Window, gradient_step, train_epoch
from knorm.training.progress import Progress
from knorm.training.run import Run
from knorm.training.sharding import is_sharded
from knorm.training.state import weights_of


def make_net() -> nn.Module:
    """The same weights whenever asked."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 1))


def make_trainer(accelerator: Accelerator) -> Trainer:
    """A trainer of a sharded net."""
    net = make_net()
    fully_shard(net, mesh=init_device_mesh("cpu", (accelerator.num_processes,)))
    assert is_sharded(net)
    return Trainer(
        accelerator=accelerator,
        model=net,
        optimizer=AdamW(net.parameters()),
        rate_at=lambda step: 0.1,
        seed=0,
        steps_per_epoch=2,
        steps=1000,
        plain=make_net(),
    )


def train(trainer: Trainer, epochs: int) -> None:
    """Epochs of two steps on numbers of this rank."""
    rank = trainer.accelerator.process_index
    for epoch in range(epochs):
        windows = [
            Window([torch.full((2, 3), 1.0 + rank + step + 10 * epoch)], 4) for step in range(2)
        ]
        progress = Progress(epochs=1, steps=2, unit="number", enabled=False)
        train_epoch(trainer, windows, gradient_step(trainer, loss_of), progress)


def loss_of(model, batch):
    losses = model(batch).square().flatten()
    return losses.sum(), {"loss": losses.sum(), "count": losses.new_full((), len(losses))}


def main() -> None:
    """Four steps at once, and two steps, a file, and two steps by another trainer."""
    folder = Path(sys.argv[1])
    accelerator = Accelerator(cpu=True)
    first, again = make_trainer(accelerator), make_trainer(accelerator)
    train(first, 1)
    run = Run(folder, accelerator, {})
    run.save(LAST, first)
    accelerator.wait_for_everyone()
    run.resume(again)
    for trainer in (first, again):
        train(trainer, 1)
    weights = [weights_of(trainer)[checkpoint.MODEL] for trainer in (first, again)]
    saved = checkpoint.load(folder / LAST).evaluated
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
        assert tensor.shape == saved[name].shape
        assert not torch.equal(tensor, saved[name]), name
        assert torch.equal(tensor, first.evaluated.state_dict()[name])
    if accelerator.is_main_process:
        print("equal")
    accelerator.end_training()


if __name__ == "__main__":
    main()
