"""From a data set's name to batches: splits, scaling, and what each rank reads when."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from classification.augment import augmented, boxes_of
from classification.augment_config import Augment
from classification.config import Recipe
from classification.data_config import PACKAGES, Data
from classification.mixing import erased, mixed
from classification.readers import (
    READERS,
    FolderSplit,
    Source,
    Split,
    folder_classes,
    keep_resident,
)
from classification.scaling import SCALINGS
from knorm.training.loop import Window
from knorm.training.mistakes import OneRankMistakeError, UserMistakeError
from knorm.training.packages import how_to_install
from knorm.training.sampling import Cut, evaluation_share
from knorm.training.seeds import mix
from knorm.vision.operations import to_input

AHEAD = 3  # batches of a streamed split that are being read while one is used


Found = tuple[Tensor, Tensor, Tensor]  # sample numbers, uint8 images, labels


class Batch(NamedTuple):
    """What the task gets, on the device."""

    inputs: Tensor
    """(N, C, H, W) float32"""
    labels: Tensor
    """(N,): the class, of mixed images the one that weighs most"""
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


def check_packages(data: Data, augment: Augment) -> None:
    """Raise `UserMistakeError` unless all that a run imports late is installed."""
    needed = {"a run's picture": "matplotlib"}
    if data.name in PACKAGES:
        needed[f"data.name {data.name}"] = PACKAGES[data.name]
    if augment.policies:
        needed[f"augment.policy {', '.join(augment.policies)}"] = "torchvision"
    for what, module in needed.items():
        if find_spec(module) is None:
            raise UserMistakeError(f"{what} needs {module}: {how_to_install(module)}")


def count_classes(data: Data) -> int:
    """Number of classes, known before any image is read."""
    return data.facts.num_classes or len(folder_classes(data.root))


def load_data(
    recipe: Recipe, accelerator: Accelerator, statistics: tuple[Tensor, Tensor] | None = None
) -> ImageData:
    """Read, and where needed download, the data set and split it.

    `statistics` are mean and deviation of an earlier run; otherwise data.scaling decides.
    """
    resident = recipe.data.resident
    with accelerator.local_main_process_first():
        source = READERS[recipe.data.name](recipe.data)
    check_labels(recipe.data.name, source)
    splits = make_splits(source, recipe.data)
    streamed = [split for split in splits.values() if isinstance(split, FolderSplit)]
    whole = recipe.augment.resized_crop is not None  # crops are to come from whole images
    if keep_resident(streamed, False if resident == "auto" and whole else resident):
        splits = {
            name: split.decoded() if isinstance(split, FolderSplit) else split
            for name, split in splits.items()
        }
    check_late(splits, accelerator)
    mean, std = statistics or SCALINGS[recipe.data.scaling](recipe.data, splits["train"])
    channels_last = recipe.launch.channels_last
    return ImageData(
        splits={name: split.to(accelerator.device) for name, split in splits.items()},
        classes=list(source.classes),
        mean=mean.to(accelerator.device),
        std=std.to(accelerator.device),
        accelerator=accelerator,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def check_late(splits: Mapping[str, Split], accelerator: Accelerator) -> None:
    """Files that are read only after an epoch or at the very end are whole; each rank tries some.

    Those of the training set all come in the first epochs, and last/ is saved before.
    """
    for name, split in splits.items():
        if name != "train" and isinstance(split, FolderSplit):
            split.check_ends(accelerator.process_index, accelerator.num_processes)


def check_labels(name: str, source: Source) -> None:
    """Every label is the number of a class."""
    for split in (source.train, source.val, source.test):
        if split is None:
            continue
        wrong = (split.labels < 0) | (split.labels >= len(source.classes))
        if wrong.any():
            sample = int(wrong.nonzero()[0])
            raise UserMistakeError(
                f"{name}: sample {sample} has the label {int(split.labels[sample])}, which is "
                f"none of 0 to {len(source.classes) - 1}"
            )


def make_splits(source: Source, data: Data) -> dict[str, Split]:
    """train, val (a part of the training set, unless published; absent without one) and test."""
    order = balanced_order(source.train.labels, data.split_seed)
    num_val = round(len(order) * data.val_fraction) if source.val is None else 0
    splits = {"train": source.train.subset(order[num_val:].sort().values)}
    if source.val is not None or num_val:
        held_out = source.train.subset(order[:num_val].sort().values)
        splits["val"] = source.val or as_evaluated(held_out, data)
    splits["test"] = source.test
    if data.limit is None:
        return splits
    return {name: limited(split, data.limit, data.split_seed) for name, split in splits.items()}


def as_evaluated(split: Split, data: Data) -> Split:
    """A part of the training set, its images read as those of the test set are."""
    return split.with_geometry(data.eval_geometry) if isinstance(split, FolderSplit) else split


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


def training_windows(
    data: ImageData, augment: Augment, sampling: Cut, epoch: int, first_step: int = 0
) -> Iterator[Window[Batch]]:
    """What this rank computes in the steps of an epoch, augmented."""
    accelerator = data.accelerator
    rank, num_ranks = accelerator.process_index, accelerator.num_processes
    windows = list(sampling.windows(epoch, rank, num_ranks, first_step))
    numbers = (share.samples for shares, _ in windows for share in shares)
    drawn = {"seed": sampling.seed, "epoch": epoch}
    found, rest = read_training(data, augment, numbers, **drawn)
    for shares, size in windows:
        batches = []
        for share, (samples, images, labels) in zip(shares, found, strict=False):
            inputs, targets = data.inputs(augmented(images, samples, rest, **drawn)), labels
            if augment.erasing:
                inputs = erased(inputs, samples, augment.erasing, **drawn)
            if augment.mixes:
                num_classes = len(data.classes)
                pairs = (inputs, labels, samples, augment)
                inputs, labels, targets = mixed(*pairs, num_classes=num_classes, **drawn)
            batches.append(Batch(inputs, labels, targets, share.real))
        yield Window(batches, size)


def read_training(
    data: ImageData, augment: Augment, numbers: Iterable[Tensor], *, seed: int, epoch: int
) -> tuple[Iterator[Found], Augment]:
    """Training images, and what is left to do to them: files are cropped while they are read."""
    split, device = data.splits["train"], data.accelerator.device
    if not isinstance(split, FolderSplit) or augment.resized_crop is None:
        return read(split, numbers, device), augment

    def crops(drawn: Tensor) -> Tensor:
        boxes = partial(boxes_of, drawn, augment=augment, key=mix(seed, epoch))
        return split.crops(drawn % len(split.labels), boxes)

    return read(split, numbers, device, crops), replace(augment, resized_crop=None)


def evaluation_batches(
    data: ImageData, split: str, batch_size: int
) -> Iterator[tuple[int, Tensor, Batch]]:
    """This rank's (batch number, sample numbers, batch) of a split."""
    rank, num_ranks = data.accelerator.process_index, data.accelerator.num_processes
    share = evaluation_share(len(data.labels(split)), batch_size, rank, num_ranks)
    found = read(data.splits[split], (samples for _, samples in share), data.accelerator.device)
    for (number, _), (samples, images, labels) in zip(share, found, strict=True):
        yield number, samples, Batch(data.inputs(images), labels, labels, len(labels))


def read(
    split: Split,
    batches: Iterable[Tensor],
    device: torch.device,
    images: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Found]:
    """(numbers, uint8 images, labels), the latter two on the device; files are read ahead.

    Numbers beyond the split are copies, see `Share.samples`. `images` reads the files of such
    numbers; None: their middle.
    """
    total = len(split.labels)
    if not isinstance(split, FolderSplit):
        for numbers in batches:
            samples = (numbers % total).to(split.device)
            yield numbers, split.images(samples), split.labels[samples]
        return
    images = images or (lambda numbers: split.images(numbers % total))
    with ThreadPoolExecutor(AHEAD) as pool:
        pending: deque[tuple[Tensor, Future[Tensor]]] = deque()
        for numbers in batches:
            pending.append((numbers, pool.submit(images, numbers)))
            if len(pending) > AHEAD:
                yield _arrived(split, pending.popleft(), device)
        while pending:
            yield _arrived(split, pending.popleft(), device)


def _arrived(split: Split, reading: tuple[Tensor, Future[Tensor]], device: torch.device) -> Found:
    numbers, images = reading
    labels = split.labels[numbers % len(split.labels)]
    try:
        return numbers, images.result().to(device), labels.to(device)
    except UserMistakeError as broken:
        raise OneRankMistakeError(str(broken)) from broken
