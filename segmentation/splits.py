"""A split of a data set: images and labels by number, from files or from memory."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from knorm.training.mistakes import OneRankMistakeError, UserMistakeError
from knorm.training.seeds import mix
from knorm.vision.image_files import check_end, read_sides
from segmentation.data_config import Data, Size
from segmentation.files import check_pair, read_pair
from segmentation.readers import Files, Source

AUTO_RESIDENT = 2 * 2**30  # bytes of decoded images and labels
CHECKED_LABELS = 64  # files of a split whose labels are looked at before training

Pair = tuple[np.ndarray, np.ndarray]  # (H, W, 3) and (H, W), uint8
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Split:
    """Images with their train numbers. Its threads read ahead of who asks for them in order."""

    files: Files
    size: Size | None
    pool: ThreadPoolExecutor
    kept: tuple[Pair, ...] | None = None
    """all of them, where they are in memory"""

    def __len__(self) -> int:
        return len(self.files.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Paths below the split's folder, without suffix."""
        return self.files.names

    def pair(self, number: int) -> Pair:
        """Image (H, W, 3) and train numbers (H, W), uint8, 255 where ignored."""
        if self.kept is not None:
            return self.kept[number]
        files = self.files
        return read_pair(files.images[number], files.labels[number], files.table, self.size)

    def read(self, number: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) and train numbers (H, W), uint8, 255 where ignored."""
        image, labels = (torch.from_numpy(part.copy()) for part in self.pair(number))
        return image.permute(2, 0, 1).contiguous(), labels

    def subset(self, numbers: Iterable[int]) -> "Split":
        """The same split with only these samples."""
        chosen = [int(number) for number in numbers]
        kept = None if self.kept is None else tuple(self.kept[number] for number in chosen)
        return replace(self, files=chosen_files(self.files, chosen), kept=kept)

    def decoded(self) -> "Split":
        """The same split in memory."""
        return replace(self, kept=tuple(self.pool.map(self.pair, range(len(self)))))

    def fingerprint(self) -> str:
        """Of the names and of the sizes of all files, which are not read; 16 digits."""
        paths = self.files.images + self.files.labels
        sizes = [str(size) for size in self.pool.map(os.path.getsize, paths)]
        return hashlib.sha256("\n".join((*self.names, *sizes)).encode()).hexdigest()[:16]

    def check_labels(self, rank: int, num_ranks: int) -> int:
        """How many of some files, of which each rank has some, have a labeled pixel.

        They are spread evenly over the split. Raises `OneRankMistakeError` for wrong labels.
        """
        numbers = evenly(len(self), CHECKED_LABELS)[rank::num_ranks]
        files = self.files

        def check(number: int) -> bool:
            return check_pair(files.images[number], files.labels[number], files.table)

        return sum(in_order(self.pool, check, numbers, ahead=CHECKED_LABELS))

    def check_ends(self, rank: int, num_ranks: int) -> None:
        """Raise `OneRankMistakeError` if a file was cut off; each rank looks at some."""
        paths = (self.files.images + self.files.labels)[rank::num_ranks]
        deque(in_order(self.pool, check_end, paths, ahead=CHECKED_LABELS), maxlen=0)


def chosen_files(files: Files, numbers: Sequence[int]) -> Files:
    """Some of them, in that order."""
    return Files(
        names=tuple(files.names[number] for number in numbers),
        images=tuple(files.images[number] for number in numbers),
        labels=tuple(files.labels[number] for number in numbers),
        table=files.table,
        groups=tuple(files.groups[number] for number in numbers),
    )


def in_order(
    pool: ThreadPoolExecutor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    ahead: int,
) -> Iterator[Result]:
    """`function` of every item, computed by threads that are at most `ahead` items in front.

    A mistake in one of the files is met by this rank alone.
    """
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except UserMistakeError as broken:
        raise OneRankMistakeError(str(broken)) from broken
    finally:
        for future in pending:
            future.cancel()


def make_splits(source: Source, data: Data) -> dict[str, Split]:
    """train, val (published, or a part of train; absent without one) and test."""
    pool = ThreadPoolExecutor(data.workers, thread_name_prefix="images")
    files = {"train": source.train}
    if source.val is not None:
        files["val"] = source.val
    elif data.val_fraction:
        held_out = hold_out(source.train.groups, data.val_fraction, data.split_seed)
        rest = sorted(set(range(len(source.train.names))) - set(held_out))
        files["train"] = chosen_files(source.train, rest)
        files["val"] = chosen_files(source.train, held_out)
    files["test"] = source.test
    splits = {name: Split(found, data.size, pool) for name, found in files.items()}
    if data.limit is None:
        return splits
    return {name: part.subset(evenly(len(part), data.limit)) for name, part in splits.items()}


def hold_out(groups: Sequence[str], fraction: float, seed: int) -> list[int]:
    """Numbers of whole groups, drawn, that make up no more than this part of the samples.

    At least one group, and if there is only one group then samples of it.
    """
    if len(set(groups)) == 1:
        groups = [str(number) for number in range(len(groups))]
    members: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    generator = torch.Generator().manual_seed(mix(seed))
    order = torch.randperm(len(members), generator=generator).tolist()
    drawn = [list(members.values())[place] for place in order]
    room, held_out = round(fraction * len(groups)), list[int]()
    for numbers in drawn:
        if len(numbers) <= room - len(held_out):
            held_out += numbers
    if len(held_out) == len(groups) or len(members) == 1:
        raise UserMistakeError(
            f"data.val_fraction {fraction} of {len(groups)} training images leaves none to train on"
        )
    return sorted(held_out or min(drawn, key=len))


def evenly(total: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 to total - 1, evenly spread."""
    count = min(total, most)
    return [number * total // count for number in range(count)]


def keep_resident(splits: Iterable[Split], resident: bool | Literal["auto"]) -> bool:
    """Whether to decode these splits into memory; images are taken to be as large as the first."""
    if resident != "auto":
        return resident
    num_bytes = 0
    for split in splits:
        height, width = split.size or read_sides(split.files.images[0])
        num_bytes += len(split) * height * width * 4
    return num_bytes < AUTO_RESIDENT
