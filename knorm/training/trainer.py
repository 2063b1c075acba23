"""The trainer of a run, and how it steps plainly."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import islice
from typing import Any

from accelerate import DistributedType
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from knorm.training.launch import compiled
from knorm.training.loop import Trainer, Window, gradient_step
from knorm.training.mistakes import UserMistakeError, mistakes_of_the_user
from knorm.training.run import Run
from knorm.training.run_settings import RunSettings
from knorm.training.schedule import fraction_at
from knorm.training.weights import Beginning
from knorm.training.work import Steps, Way, Work


def make_trainer(work: Work, weights: Beginning | None = None) -> Trainer:
    """Net and optimizer on the device, and the rate of every step."""
    recipe, accelerator = work.recipe, work.accelerator
    with mistakes_of_the_user():
        per_epoch = work.cut().steps
        steps = recipe.total_steps(per_epoch)
    net = work.make_net(weights)
    ema = make_ema(recipe, net)
    plain = None
    if accelerator.distributed_type == DistributedType.FSDP:
        if ema is not None:
            raise UserMistakeError("ema_decay needs whole weights on every process, so no FSDP")
        plain = deepcopy(net)
    optimizer = work.make_optimizer(net)
    model, optimizer = accelerator.prepare(compiled(net, recipe.launch), optimizer)
    return Trainer(
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        rate_at=rate_of(recipe, steps, per_epoch),
        seed=recipe.seed,
        steps_per_epoch=per_epoch,
        steps=steps,
        ema=ema,
        ema_every=recipe.ema_every,
        plain=plain,
    )


def make_ema(recipe: RunSettings, net: nn.Module) -> AveragedModel | None:
    """The moving average of the net's weights, where the recipe asks for one."""
    if recipe.ema_decay is None:
        return None
    averaging = get_ema_multi_avg_fn(recipe.ema_decay)
    return AveragedModel(net, multi_avg_fn=averaging, use_buffers=True)


def rate_of(recipe: RunSettings, steps: int, per_epoch: int) -> Callable[[int], float]:
    """The learning rate of every step."""
    schedule, peak = recipe.schedule, recipe.optim.lr
    return lambda step: peak * fraction_at(schedule, step, steps=steps, steps_per_epoch=per_epoch)


def gradient_steps(work: Work, run: Run, trainer: Trainer) -> Steps:
    """Ordinary steps over the epochs' order, as many as the run has."""
    cut = work.cut()

    def windows(epoch: int, first_step: int) -> Iterator[Window[Any]]:
        left = trainer.steps - (epoch - 1) * trainer.steps_per_epoch - first_step
        return islice(work.windows(cut, epoch, first_step), left)

    return Steps(windows, gradient_step(trainer, work.loss, work.recipe.optim.clip_norm))


PLAIN = Way(make_trainer, gradient_steps)
