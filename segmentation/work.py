"""Segmentation as work for the core: images, their labels, and how well they overlap."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from knorm.training.data_work import DataWork
from knorm.training.loop import Sums, Window
from knorm.training.optim import make_optimizer
from knorm.training.run import Run
from knorm.training.sampling import Cut
from knorm.training.weights import Weights
from knorm.training.work import Evaluated, Numbers
from segmentation.classes import IGNORE
from segmentation.config import AnyRecipe, Recipe
from segmentation.data import Batch, SegmentationData, evaluation_images, training_windows
from segmentation.evaluation_numbers import evaluate_images
from segmentation.inference import filled_up, least_side
from segmentation.losses import Criterion
from segmentation.outcome import write_examples, write_pictures
from segmentation.pictures import Example
from segmentation.task import BACKBONE, loss_of, score, weighed
from segmentation.weights import Backbone, first_weights

REHEARSED = 2  # images of a split that a dry run evaluates
IN_CHANS = 3
VOID = 0.1  # part of made-up labels that is ignored


class Details(NamedTuple):
    """What pictures and tables are made of."""

    matrix: Tensor
    """(K, K + 1) int64, see `metrics.confusion_matrix`"""
    examples: list[Example]


@dataclass(frozen=True)
class SegmentationWork(DataWork[AnyRecipe, SegmentationData]):
    """A recipe with its data, see `knorm.training.work.Work`."""

    scores = ("miou", "pixel_accuracy", "mean_accuracy", "category_miou", "loss")
    rehearsed = REHEARSED

    @property
    def logged(self) -> tuple[str, ...]:
        return (self.loss_name, "pixel_accuracy", "count")

    @property
    def loss_name(self) -> str:
        """What the log calls the training loss: "loss" only where evaluation measures the same."""
        aux = self.recipe.model.options.get("aux") and self.recipe.loss.aux
        return "loss" if self.recipe.loss.is_plain and not aux else "objective"

    @cached_property
    def criterion(self) -> Criterion:
        """The loss of images."""
        return Criterion(self.recipe.loss, len(self.classes), self.accelerator.device)

    @cached_property
    def least(self) -> int:
        """The least height and width that the net takes; smaller images are filled up."""
        return least_side(self.recipe, **self.shape)

    @property
    def classes(self) -> list[str]:
        return list(self.data.classes.names)

    @property
    def in_chans(self) -> int:
        return IN_CHANS

    @property
    def image_size(self) -> tuple[int, int]:
        assert self.recipe.augment.crop is not None  # as the recipe sees to it
        return self.recipe.augment.crop

    def describe(self) -> str:
        settings = self.recipe.data
        sizes = "  ".join(f"{name} {size}" for name, size in self.sizes.items())
        augment = self.recipe.augment.in_words()
        return f"{settings.name}  {sizes}  {settings.scaling}  {augment}"

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"colors": [list(color) for color in self.data.classes.colors]}

    def check_net(self) -> None:
        super().check_net()
        _ = self.least

    def first_weights(self) -> Weights[Recipe] | Backbone | None:
        return first_weights(self.recipe)

    def make_optimizer(self, net: nn.Module) -> Optimizer:
        head = self.recipe.head_rate
        return make_optimizer(
            self.recipe.optim, net, lambda name: 1.0 if name.startswith(BACKBONE) else head
        )

    def windows(self, cut: Cut, epoch: int, first_step: int = 0) -> Iterator[Window[Batch]]:
        windows = training_windows(self.data, self.recipe.augment, cut, epoch, first_step)
        for window in windows:
            yield weighed(window, self.criterion, self.accelerator)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Sums]:
        return loss_of(self.criterion, model, batch, self.loss_name)

    def made_up(self, count: int, seed: int) -> Batch:
        generator, size = torch.Generator().manual_seed(seed), (count, *self.image_size)
        pixels = self.made_up_pixels(count, generator)
        labels = torch.randint(0, len(self.classes), size, generator=generator)
        labels[torch.rand(size, generator=generator) < VOID] = IGNORE
        return Batch(self.data.inputs(pixels), labels.to(pixels.device), count)

    def example(self) -> Tensor:
        image, _ = self.data.splits["test"].read(0)
        inputs = self.data.inputs(image[None].to(self.accelerator.device))
        return filled_up(inputs, (self.least, self.least))

    def evaluate(self, net: nn.Module, split: str) -> Evaluated:
        data, recipe = self.data, self.recipe
        found = evaluate_images(
            self.accelerator,
            net,
            evaluation_images(data, split),
            data.inputs,
            num_images=self.sizes[split],
            num_classes=len(self.classes),
            settings=recipe.inference,
            seed=recipe.seed,
            least=self.least,
            kept=recipe.examples,
        )
        whole = data.splits[split]
        examples = [
            Example(whole.names[number], *whole.read(number), predicted)
            for number, predicted in enumerate(found.first)
        ]
        numbers = found.numbers(data.classes) | {"count": self.sizes[split]}
        return Evaluated(numbers, Details(found.matrix, examples))

    def score(self, numbers: Numbers) -> tuple[float, ...]:
        return score(numbers)

    def write_examples(self, run: Run, epoch: int, details: Details) -> None:
        write_examples(run.folder, epoch, details.examples, self.data.classes)

    def write_pictures(self, run: Run, details: Details, weights: str) -> dict[str, Any]:
        classes = self.data.classes
        return write_pictures(run, details.matrix, details.examples, classes, weights)
