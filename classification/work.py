"""Classification as work for the core: images, labels, and how often they agree."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Generic, Self

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from classification.config import AnyRecipe, Recipe
from classification.data import Batch, ImageData, training_windows
from classification.outcome import write_pictures
from classification.task import Classification, evaluate_split, score
from classification.weights import first_weights
from knorm.training.loop import Sums, Window
from knorm.training.nets import check_takes, make_model
from knorm.training.optim import make_optimizer
from knorm.training.run import Run
from knorm.training.sampling import Cut, Sampling
from knorm.training.weights import Weights
from knorm.training.work import Evaluated, Numbers

REHEARSED = 2  # batches of a split that a dry run evaluates


@dataclass(frozen=True)
class ClassificationWork(Generic[AnyRecipe]):
    """A recipe with its data, see `knorm.training.work.Work`."""

    recipe: AnyRecipe
    data: ImageData

    scores = ("top1", "top1_flip", "top5", "loss")
    logged = ("loss", "top1", "count")

    @property
    def accelerator(self) -> Accelerator:
        return self.data.accelerator

    @cached_property
    def task(self) -> Classification:
        """Loss and measures."""
        recipe = self.recipe
        return Classification(recipe.loss, len(self.data.classes), test_flip=recipe.test_flip)

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(split.labels) for name, split in self.data.splits.items()}

    @property
    def rehearsed(self) -> int:
        return REHEARSED * self.recipe.eval_batch_size

    def of(self, recipe: AnyRecipe) -> Self:
        return replace(self, recipe=recipe)

    def few(self, count: int) -> Self:
        data = self.data
        for split in data.splits.keys() - {"train"}:
            data = data.first(split, count)
        return replace(self, data=data)

    def describe(self) -> str:
        settings = self.recipe.data
        sizes = "  ".join(f"{name} {size}" for name, size in self.sizes.items())
        augment = self.recipe.augment.in_words()
        return f"{settings.name}  {sizes}  {settings.scaling}  {augment}"

    def facts(self) -> dict[str, Any]:
        data = self.data
        return {
            "model": asdict(self.recipe.model),
            "num_classes": len(data.classes),
            "in_chans": self.recipe.data.facts.in_chans,
            "classes": data.classes,
            "mean": data.mean.flatten().tolist(),
            "std": data.std.flatten().tolist(),
        }

    def fingerprint(self, split: str) -> str:
        return self.data.splits[split].fingerprint()

    def check_net(self) -> None:
        height, width = self.data.splits["train"].images(FIRST).shape[2:]
        check_takes(self.recipe.model, **self._shape(), height=height, width=width)

    def first_weights(self) -> Weights[Recipe] | None:
        return first_weights(self.recipe)

    def make_net(self, weights: Weights[Any] | None) -> nn.Module:
        recipe, data = self.recipe, self.data
        net = make_model(recipe.model, **self._shape(), seed=recipe.seed, weights=weights)
        return net.to(data.accelerator.device).to(memory_format=data.memory_format)

    def make_optimizer(self, net: nn.Module) -> Optimizer:
        return make_optimizer(self.recipe.optim, net)

    def cut(self) -> Sampling:
        recipe = self.recipe
        return Sampling(
            num_samples=self.sizes["train"],
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            drop_last=recipe.drop_last,
            passes=recipe.accumulation,
            repeats=recipe.augment.repeats,
            together=recipe.augment.together,
        )

    def windows(self, cut: Cut, epoch: int, first_step: int = 0) -> Iterator[Window[Batch]]:
        return training_windows(self.data, self.recipe.augment, cut, epoch, first_step)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Sums]:
        return self.task.loss(model, batch)

    def made_up(self, count: int, seed: int) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        shape = self.data.splits["train"].images(FIRST).shape[1:]
        pixels = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, len(self.data.classes), (count,), generator=generator)
        device = self.accelerator.device
        labels = labels.to(device)
        return Batch(self.data.inputs(pixels.to(device)), labels, labels, count)

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

    def _shape(self) -> dict[str, int]:
        """Of what goes into the net and what comes out."""
        in_chans = self.recipe.data.facts.in_chans
        return {"num_classes": len(self.data.classes), "in_chans": in_chans}


FIRST = torch.zeros(1, dtype=torch.long)
