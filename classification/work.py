"""Classification as work for the core: images, labels, and how often they agree."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from classification.config import AnyRecipe, Recipe
from classification.data import Batch, ImageData, training_windows
from classification.outcome import write_pictures
from classification.task import Classification, evaluate_split, score
from classification.weights import first_weights
from knorm.training.data_work import DataWork
from knorm.training.features import features_are_constant
from knorm.training.loop import Sums, Window
from knorm.training.optim import make_optimizer
from knorm.training.run import Run
from knorm.training.sampling import Cut, Sampling
from knorm.training.weights import Weights
from knorm.training.work import Evaluated, Numbers

CONSTANT = (
    "{} gives its classifier the same features of every image and cannot learn: such is a norm of "
    "every channel of one image right before global pooling; take another norm, or an activation "
    "between the two"
)
REHEARSED = 2  # batches of a split that a dry run evaluates


@dataclass(frozen=True)
class ClassificationWork(DataWork[AnyRecipe, ImageData]):
    """A recipe with its data, see `knorm.training.work.Work`."""

    scores = ("top1", "top1_flip", "top5", "loss")
    logged = ("loss", "top1", "count")

    @cached_property
    def task(self) -> Classification:
        """Loss and measures."""
        recipe = self.recipe
        return Classification(
            recipe.loss,
            len(self.data.classes),
            penalty=recipe.penalty,
            test_flip=recipe.test_flip,
        )

    @property
    def classes(self) -> list[str]:
        return self.data.classes

    @property
    def in_chans(self) -> int:
        return self.recipe.data.facts.in_chans

    @property
    def image_size(self) -> tuple[int, int]:
        height, width = self.data.splits["train"].images(FIRST).shape[2:]
        return height, width

    @property
    def rehearsed(self) -> int:
        return REHEARSED * self.recipe.eval_batch_size

    def describe(self) -> str:
        settings = self.recipe.data
        sizes = "  ".join(f"{name} {size}" for name, size in self.sizes.items())
        augment = self.recipe.augment.in_words()
        return f"{settings.name}  {sizes}  {settings.scaling}  {augment}"

    def first_weights(self) -> Weights[Recipe] | None:
        return first_weights(self.recipe)

    def make_optimizer(self, net: nn.Module) -> Optimizer:
        return make_optimizer(self.recipe.optim, net)

    def doubts(self, net: nn.Module) -> list[str]:
        inputs = self.made_up(2, seed=0).inputs
        constant = features_are_constant(net, inputs)
        return [CONSTANT.format(self.recipe.model.name)] if constant else []

    def cut(self) -> Sampling:
        augment = self.recipe.augment
        return replace(super().cut(), repeats=augment.repeats, together=augment.together)

    def windows(self, cut: Cut, epoch: int, first_step: int = 0) -> Iterator[Window[Batch]]:
        return training_windows(self.data, self.recipe.augment, cut, epoch, first_step)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Sums]:
        return self.task.loss(model, batch)

    def made_up(self, count: int, seed: int) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        pixels = self.made_up_pixels(count, generator)
        labels = torch.randint(0, len(self.classes), (count,), generator=generator)
        labels = labels.to(pixels.device)
        return Batch(self.data.inputs(pixels), labels, labels, count)

    def example(self) -> Tensor:
        image = self.data.splits["test"].images(FIRST)
        return self.data.inputs(image.to(self.accelerator.device))

    def evaluate(self, net: nn.Module, split: str) -> Evaluated:
        values = evaluate_split(net, self.data, self.task, split, self.recipe)
        labels = self.data.labels(split)
        matrix = self.task.confusion_matrix(values, labels)
        return Evaluated(self.task.summary(values, labels), matrix)

    def score(self, numbers: Numbers) -> tuple[float, ...]:
        return score(numbers)

    def write_examples(self, run: Run, epoch: int, details: Tensor) -> None:
        """None: thumbnails would tell little."""

    def write_pictures(self, run: Run, details: Tensor, weights: str) -> dict[str, Any]:
        return write_pictures(run, details, weights)


FIRST = torch.zeros(1, dtype=torch.long)
