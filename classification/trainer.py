"""The trainer of a run, and how it steps: plainly here, otherwise in other pipelines."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator, DistributedType
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from classification.config import Recipe
from classification.data import Batch, ImageData, training_windows
from classification.task import Classification, make_model
from classification.weights import Weights
from knorm.training.launch import compiled
from knorm.training.loop import Step, Trainer, Window, gradient_step
from knorm.training.mistakes import UserMistakeError, mistakes_of_the_user
from knorm.training.optim import make_optimizer
from knorm.training.run import Run
from knorm.training.sampling import Sampling
from knorm.training.schedule import fraction_at
from knorm.training.study import write_seeds


class Steps(NamedTuple):
    """The steps of a run that has its folder."""

    windows: Callable[[int, int], Iterator[Window[Batch]]]
    """of an epoch, counted from 1, from a step of it on, counted from 0"""
    step: Step[Batch]
    end: Callable[[], None] = lambda: None
    """writes what is to be in the folder before the result is"""


class Way(NamedTuple):
    """How runs step."""

    make_trainer: Callable[..., Trainer]
    """(recipe, data, accelerator, weights or None)"""
    begin: Callable[[Any, Run, Trainer, ImageData, Classification], Steps]
    """(recipe, run, trainer, data, task); the trainer is where the run goes on"""
    sum_up: Callable[[Path, Sequence[dict[str, Any]]], str] = write_seeds
    """writes what several seeds say together, and returns it"""
    unseen: str | None = None
    """a split of which no hash may stand in a checkpoint: it tells who is in"""


def make_trainer(
    recipe: Recipe, data: ImageData, accelerator: Accelerator, weights: Weights | None = None
) -> Trainer:
    """Net and optimizer on the device, and the rate of every step."""
    with mistakes_of_the_user():
        per_epoch = make_sampling(recipe, data).steps
    net = make_net(recipe, data, weights)
    ema = make_ema(recipe, net)
    plain = None
    if accelerator.distributed_type == DistributedType.FSDP:
        if ema is not None:
            raise UserMistakeError("ema_decay needs whole weights on every process, so no FSDP")
        plain = deepcopy(net)
    optimizer = make_optimizer(recipe.optim, net)
    model, optimizer = accelerator.prepare(compiled(net, recipe.launch), optimizer)
    steps = recipe.epochs * per_epoch
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


def make_net(recipe: Recipe, data: ImageData, weights: Weights | None = None) -> nn.Module:
    """The net of the recipe for these data, on their device, with its first weights."""
    net = make_model(
        recipe.model,
        num_classes=len(data.classes),
        in_chans=recipe.data.facts.in_chans,
        seed=recipe.seed,
        weights=weights,
    )
    return net.to(data.accelerator.device).to(memory_format=data.memory_format)


def make_ema(recipe: Recipe, net: nn.Module) -> AveragedModel | None:
    """The moving average of the net's weights, where the recipe asks for one."""
    if recipe.ema_decay is None:
        return None
    averaging = get_ema_multi_avg_fn(recipe.ema_decay)
    return AveragedModel(net, multi_avg_fn=averaging, use_buffers=True)


def rate_of(recipe: Recipe, steps: int, per_epoch: int) -> Callable[[int], float]:
    """The learning rate of every step."""
    schedule, peak = recipe.schedule, recipe.optim.lr
    return lambda step: peak * fraction_at(schedule, step, steps=steps, steps_per_epoch=per_epoch)


def make_sampling(recipe: Recipe, data: ImageData) -> Sampling:
    """How the training set is cut into epochs, steps and passes."""
    return Sampling(
        num_samples=len(data.labels("train")),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        drop_last=recipe.drop_last,
        passes=recipe.accumulation,
        repeats=recipe.augment.repeats,
        together=2 if recipe.augment.mixes else 1,
    )


def gradient_steps(
    recipe: Recipe, run: Run, trainer: Trainer, data: ImageData, task: Classification
) -> Steps:
    """Ordinary steps over the epochs' order."""
    windows = partial(training_windows, data, recipe.augment, make_sampling(recipe, data))
    return Steps(windows, gradient_step(trainer, task.loss, recipe.optim.clip_norm))


PLAIN = Way(make_trainer, gradient_steps)
