"""What works of any pipeline on images with splits have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from knorm.training.nets import check_takes, make_model
from knorm.training.run_settings import RunSettings
from knorm.training.sampling import Sampling
from knorm.training.weights import Beginning


class Split(Protocol):
    """Samples in an order."""

    def __len__(self) -> int: ...
    def fingerprint(self) -> str: ...


class Data(Protocol):
    """The splits of a run: train, val unless there is none, and test for the very end."""

    @property
    def splits(self) -> Mapping[str, Split]: ...
    @property
    def accelerator(self) -> Accelerator: ...
    @property
    def mean(self) -> Tensor: ...
    @property
    def std(self) -> Tensor: ...
    @property
    def memory_format(self) -> torch.memory_format: ...
    def first(self, split: str, count: int) -> Self: ...


AnyRecipe = TypeVar("AnyRecipe", bound=RunSettings)
AnyData = TypeVar("AnyData", bound=Data)


@dataclass(frozen=True)
class DataWork(ABC, Generic[AnyRecipe, AnyData]):
    """A recipe with its data: the part of `knorm.training.work.Work` that pipelines share."""

    recipe: AnyRecipe
    data: AnyData

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """Names of the classes."""

    @property
    @abstractmethod
    def in_chans(self) -> int:
        """Channels of the images."""

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Height and width of what the net is trained on."""

    @property
    def accelerator(self) -> Accelerator:
        return self.data.accelerator

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(split) for name, split in self.data.splits.items()}

    @property
    def shape(self) -> dict[str, int]:
        """Of what goes into the net and what comes out."""
        return {"num_classes": len(self.classes), "in_chans": self.in_chans}

    def of(self, recipe: AnyRecipe) -> Self:
        return replace(self, recipe=recipe)

    def few(self, count: int) -> Self:
        data = self.data
        for split in data.splits.keys() - {"train"}:
            data = data.first(split, count)
        return replace(self, data=data)

    def facts(self) -> dict[str, Any]:
        return {
            "model": asdict(self.recipe.model),
            **self.shape,
            "classes": self.classes,
            "mean": self.data.mean.flatten().tolist(),
            "std": self.data.std.flatten().tolist(),
        }

    def fingerprint(self, split: str) -> str:
        return self.data.splits[split].fingerprint()

    def check_net(self) -> None:
        height, width = self.image_size
        check_takes(self.recipe.model, **self.shape, height=height, width=width)

    def make_net(self, weights: Beginning | None) -> nn.Module:
        recipe, data = self.recipe, self.data
        net = make_model(recipe.model, **self.shape, seed=recipe.seed, weights=weights)
        net = net.to(data.accelerator.device)
        return net.to(memory_format=data.memory_format)  # pyright: ignore[reportCallIssue]

    def doubts(self, net: nn.Module) -> list[str]:
        return []

    def cut(self) -> Sampling:
        recipe = self.recipe
        return Sampling(
            num_samples=self.sizes["train"],
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            drop_last=recipe.drop_last,
            passes=recipe.accumulation,
        )

    def made_up_pixels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, C, height, width) uint8 on the device: random pixels, none of the data's."""
        shape = (count, self.in_chans, *self.image_size)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return pixels.to(self.accelerator.device)
