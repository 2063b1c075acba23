"""From a data set's name to batches: splits, scaling, and what each rank reads when."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from classification.augment import augmented, to_input
from classification.config import Augment, Data, Recipe
from classification.readers import (
    READERS,
    FolderSplit,
    Source,
    Split,
    folder_classes,
    keep_resident,
)
from knorm.training.loop import Window
from knorm.training.sampling import Sampling, evaluation_share

STATISTICS_IMAGES = 4096  # of a streamed training set, for its mean and deviation
AHEAD = 3  # batches of a streamed split that are being read while one is used


class Batch(NamedTuple):
    """What the task gets, on the device."""

    inputs: Tensor
    """(N, C, H, W) float32"""
    labels: Tensor
    """(N,)"""
    targets: Tensor
    """what the loss asks for: the labels, or probabilities (N, num_classes) of mixed images"""
    real: int
    """the first `real` samples count, the others only keep the ranks in step"""


@dataclass(frozen=True)
class ImageData:
    """The splits of a run: train, val unless there is none, and test for the very end."""

    splits: dict[str, Split]
    classes: list[str]
    mean: Tensor
    """(C, 1, 1) of pixels in [0, 1], subtracted; 0 where pixels are only scaled"""
    std: Tensor
    accelerator: Accelerator
    memory_format: torch.memory_format

    def labels(self, split: str) -> Tensor:
        """Labels of a split, on the CPU."""
        return self.splits[split].labels.cpu()

    def first(self, split: str, count: int) -> "ImageData":
        """The same data with at most `count` samples of that split."""
        whole = self.splits[split]
        samples = torch.arange(min(count, len(whole.labels)), device=whole.device)
        return replace(self, splits=self.splits | {split: whole.subset(samples)})

    def inputs(self, images: Tensor) -> Tensor:
        """uint8 images on the device to what the net gets."""
        return to_input(images, self.mean, self.std, self.memory_format)


def count_classes(data: Data) -> int:
    """Number of classes, known before any image is read."""
    return data.facts.num_classes or len(folder_classes(data.root))


def load_data(
    recipe: Recipe, accelerator: Accelerator, statistics: tuple[Tensor, Tensor] | None = None
) -> ImageData:
    """Read, and where needed download, the data set and split it.

    `statistics` are mean and deviation of an earlier run; otherwise data.scaling decides.
    """
    with accelerator.local_main_process_first():
        source = READERS[recipe.data.name](recipe.data)
    splits = make_splits(source, recipe.data)
    streamed = [split for split in splits.values() if isinstance(split, FolderSplit)]
    if keep_resident(streamed, recipe.data.resident):
        splits = {
            name: split.decoded() if isinstance(split, FolderSplit) else split
            for name, split in splits.items()
        }
    if statistics is None and recipe.data.scaling == "standard":
        statistics = pixel_statistics(splits["train"])
    mean, std = statistics or (torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    channels_last = recipe.launch.channels_last
    return ImageData(
        splits={name: split.to(accelerator.device) for name, split in splits.items()},
        classes=list(source.classes),
        mean=mean.to(accelerator.device),
        std=std.to(accelerator.device),
        accelerator=accelerator,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def make_splits(source: Source, data: Data) -> dict[str, Split]:
    """train, val (a part of the training set, unless published; absent without one) and test."""
    order = balanced_order(source.train.labels, data.split_seed)
    num_val = round(len(order) * data.val_fraction) if source.val is None else 0
    splits = {"train": source.train.subset(order[num_val:].sort().values)}
    if source.val is not None or num_val:
        splits["val"] = source.val or source.train.subset(order[:num_val].sort().values)
    splits["test"] = source.test
    if data.limit is None:
        return splits
    return {name: limited(split, data.limit, data.split_seed) for name, split in splits.items()}


def limited(split: Split, limit: int, seed: int) -> Split:
    """At most `limit` samples, the classes in proportion."""
    return split.subset(balanced_order(split.labels, seed)[:limit].sort().values)


def balanced_order(labels: Tensor, seed: int) -> Tensor:
    """All sample numbers in a drawn order of which every beginning holds the classes in proportion.

    Within a class the order is random; sample k of n in its class stands at (k + 1/2) / n.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = labels.bincount()[labels[by_class]]
    first = labels[by_class].bincount().cumsum(0)[labels[by_class]] - counts
    place = (torch.arange(len(labels)) - first + 0.5) / counts
    return by_class[place.argsort(stable=True)]


def pixel_statistics(split: Split) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, pixels in [0, 1], over all images.

    Over `STATISTICS_IMAGES` of them, evenly spread, where images are read from files.
    """
    total = len(split.labels)
    step = max(1, total // STATISTICS_IMAGES) if isinstance(split, FolderSplit) else 1
    count, sums, squares = 0, torch.zeros(()), torch.zeros(())
    for samples in torch.arange(0, total, step).split(512):
        pixels = split.images(samples).double() / 255
        count += pixels[:, 0].numel()
        sums = sums + pixels.sum((0, 2, 3))
        squares = squares + pixels.square().sum((0, 2, 3))
    mean = sums / count
    std = (squares / count - mean.square()).sqrt()
    return mean.float()[:, None, None], std.float()[:, None, None]


def training_windows(
    data: ImageData, augment: Augment, sampling: Sampling, epoch: int, first_step: int = 0
) -> Iterator[Window[Batch]]:
    """What this rank computes in the steps of an epoch, augmented."""
    accelerator, split = data.accelerator, data.splits["train"]
    rank, num_ranks = accelerator.process_index, accelerator.num_processes
    windows = list(sampling.windows(epoch, rank, num_ranks, first_step))
    numbers = (share.samples.to(split.device) for shares, _ in windows for share in shares)
    found = read(split, numbers, accelerator.device)
    for shares, size in windows:
        batches = []
        for share, (samples, images, labels) in zip(shares, found, strict=False):
            images = augmented(images, samples, augment, seed=sampling.seed, epoch=epoch)
            batches.append(Batch(data.inputs(images), labels, labels, share.real))
        yield Window(batches, size)


def evaluation_batches(
    data: ImageData, split: str, batch_size: int
) -> Iterator[tuple[int, Tensor, Batch]]:
    """This rank's (batch number, sample numbers, batch) of a split."""
    rank, num_ranks = data.accelerator.process_index, data.accelerator.num_processes
    share = evaluation_share(len(data.labels(split)), batch_size, rank, num_ranks)
    found = read(data.splits[split], (samples for _, samples in share), data.accelerator.device)
    for (number, _), (samples, images, labels) in zip(share, found, strict=True):
        yield number, samples.cpu(), Batch(data.inputs(images), labels, labels, len(labels))


def read(
    split: Split, batches: Iterable[Tensor], device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(numbers, uint8 images, labels) on the device; files are read ahead.

    Numbers beyond the split are copies, see `Share.samples`.
    """
    total = len(split.labels)
    if not isinstance(split, FolderSplit):
        for numbers in batches:
            samples = numbers % total
            yield numbers, split.images(samples), split.labels[samples]
        return
    with ThreadPoolExecutor(AHEAD) as pool:
        pending: deque[tuple[Tensor, Future[Tensor]]] = deque()
        for numbers in batches:
            pending.append((numbers, pool.submit(split.images, numbers % total)))
            if len(pending) > AHEAD:
                yield _arrived(split, pending.popleft(), device)
        while pending:
            yield _arrived(split, pending.popleft(), device)


def _arrived(
    split: Split, reading: tuple[Tensor, Future[Tensor]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    numbers, images = reading
    labels = split.labels[numbers % len(split.labels)]
    return numbers, images.result().to(device), labels.to(device)
