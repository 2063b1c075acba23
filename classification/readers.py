"""Data sets by name. Each reader gives its splits behind the same small interface.

A split has `labels` (int64), `device` (where its images come out) and
`images(samples) -> uint8 (N, C, H, W)`; `subset(samples)` and `to(device)` make others of it.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from classification.data_config import Data
from classification.synthetic import synthetic_images
from knorm.training.mistakes import OneRankMistakeError, UserMistakeError
from knorm.vision.image_files import check_end, files_in, read_box, read_middle, read_sides

AUTO_RESIDENT = 2 * 2**30  # bytes of decoded images
DECODE_CHUNK = 4096  # images decoded between two copies
STAT_PARTS = 64  # of a split, which threads look up


class Split(Protocol):
    """Images and their labels."""

    labels: Tensor
    device: torch.device

    def __len__(self) -> int: ...
    def images(self, samples: Tensor) -> Tensor: ...
    def subset(self, samples: Tensor) -> "Split": ...
    def fingerprint(self) -> str: ...
    def to(self, device: torch.device) -> "Split": ...


def digest(*tensors: Tensor) -> str:
    """SHA-256 of what the tensors hold, the first 16 digits."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


class ResidentSplit:
    """All images in memory, decoded."""

    def __init__(self, pixels: Tensor, labels: Tensor):
        assert len(pixels) == len(labels)
        self.pixels, self.labels, self.device = pixels, labels, pixels.device

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, samples: Tensor) -> Tensor:
        return self.pixels[samples]

    def subset(self, samples: Tensor) -> "ResidentSplit":
        return ResidentSplit(self.pixels[samples], self.labels[samples])

    def fingerprint(self) -> str:
        return digest(self.labels, self.pixels)

    def to(self, device: torch.device) -> "ResidentSplit":
        return ResidentSplit(self.pixels.to(device), self.labels.to(device))


Boxes = Callable[[Tensor], Tensor]  # sides of images (N, 2) to boxes of them (N, 4)


class FolderSplit:
    """Image files, read by threads when they are asked for."""

    device = torch.device("cpu")

    def __init__(
        self,
        paths: np.ndarray,
        labels: Tensor,
        geometry: tuple[int, int],
        pool: ThreadPoolExecutor,
    ):
        """`geometry`: side of the squares, shorter side of the images they are cropped from."""
        self.paths, self.labels, self.geometry, self.pool = paths, labels, geometry, pool

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, samples: Tensor) -> Tensor:
        return self._stacked(lambda path: read_middle(path, *self.geometry), self._paths(samples))

    def crops(self, samples: Tensor, boxes: Boxes) -> Tensor:
        """Boxes of the whole images instead of their middle, resized to the squares."""
        paths = self._paths(samples)
        sides = torch.tensor(list(self.pool.map(read_sides, paths)))
        read = partial(read_box, size=self.geometry[0])
        return self._stacked(read, paths, boxes(sides).tolist())

    def _paths(self, samples: Tensor) -> list[str]:
        return [os.fsdecode(path) for path in self.paths[samples.numpy()]]

    def _stacked(self, read: Callable[..., np.ndarray], *arguments: Sequence[Any]) -> Tensor:
        pixels = list(self.pool.map(read, *arguments))
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()

    def subset(self, samples: Tensor) -> "FolderSplit":
        paths, labels = self.paths[samples.numpy()], self.labels[samples]
        return FolderSplit(paths, labels, self.geometry, self.pool)

    def fingerprint(self) -> str:
        """Of labels, sizes and the last two parts of every path: the files are not read."""
        names = b"\n".join(b"/".join(path.split(b"/")[-2:]) for path in self.paths.tolist())
        parts = np.array_split(self.paths, STAT_PARTS)
        sizes = torch.tensor([size for part in self.pool.map(sizes_of, parts) for size in part])
        return digest(self.labels, sizes, torch.frombuffer(bytearray(names), dtype=torch.uint8))

    def check_ends(self, first: int, step: int) -> None:
        """Raise `OneRankMistakeError` if one of the files first, first + step, ... was cut off."""
        paths = [os.fsdecode(path) for path in self.paths[first::step]]
        try:
            deque(self.pool.map(check_end, paths), maxlen=0)
        except UserMistakeError as broken:
            raise OneRankMistakeError(str(broken)) from broken

    def to(self, device: torch.device) -> "FolderSplit":
        return self

    def with_geometry(self, geometry: tuple[int, int]) -> "FolderSplit":
        """The same files, read in another way."""
        return FolderSplit(self.paths, self.labels, geometry, self.pool)

    def decoded(self) -> ResidentSplit:
        """The same split in memory."""
        chunks = [self.images(part) for part in torch.arange(len(self.labels)).split(DECODE_CHUNK)]
        return ResidentSplit(torch.cat(chunks), self.labels)


def sizes_of(paths: np.ndarray) -> list[int]:
    """Bytes of every file."""
    return [os.path.getsize(path) for path in paths.tolist()]


@dataclass(frozen=True)
class Source:
    """A data set as it is published; `val` is None where it has no validation split."""

    train: Split
    test: Split
    classes: Sequence[str]
    val: Split | None = None


def read_digits(data: Data) -> Source:
    """scikit-learn's 8x8 digits; a fixed fifth of them, the classes in proportion, is the test."""
    from sklearn.datasets import load_digits

    from classification.data import balanced_order

    digits: Any = load_digits()
    pixels = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]
    every = ResidentSplit(pixels, torch.from_numpy(digits.target).long())
    order = balanced_order(every.labels, seed=0)
    num_test = round(len(order) * 0.2)
    classes = [str(name) for name in digits.target_names]
    return Source(every.subset(order[num_test:]), every.subset(order[:num_test]), classes)


def read_synthetic(data: Data) -> Source:
    """Patterns with noise, see `classification.synthetic`."""
    splits = [
        ResidentSplit(*synthetic_images(data.synthetic, train=train)) for train in (True, False)
    ]
    return Source(*splits, classes=[str(label) for label in range(data.synthetic.classes)])


def read_torchvision(name: str) -> Callable[[Data], Source]:
    """A reader of torchvision's data set of that name."""

    def read(data: Data) -> Source:
        from torchvision import datasets

        make = getattr(datasets, name)
        try:
            parts = [make(data.root, train=train, download=True) for train in (True, False)]
        except (OSError, RuntimeError) as error:
            raise UserMistakeError(
                f"{name} is not in data.root {data.root} and cannot be downloaded: {error}"
            ) from error
        splits = [
            ResidentSplit(
                _channels_first(torch.as_tensor(part.data)), torch.as_tensor(part.targets)
            )
            for part in parts
        ]
        return Source(*splits, classes=parts[0].classes)

    return read


def _channels_first(pixels: Tensor) -> Tensor:
    """(N, H, W) or (N, H, W, C) -> (N, C, H, W)."""
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()


def read_imagefolder(data: Data) -> Source:
    """root/train and root/test; root/val is the validation split, or the test if there is none."""
    splits = {split: _read_folder(data, split) for split in folder_splits(data.root)}
    test = splits.get("test") or splits["val"]
    val = splits.get("val") if "test" in splits else None
    return Source(splits["train"], test, folder_classes(data.root), val)


def folder_splits(root: str) -> list[str]:
    """The split folders there are: train and at least one of val and test."""
    found = [split for split in ("train", "val", "test") if Path(root, split).is_dir()]
    if "train" not in found or len(found) == 1:
        raise UserMistakeError(
            f"data.root {root} must hold train/<class>/ and val/<class>/ or test/<class>/; "
            f"it holds {', '.join(found) or 'none of them'}"
        )
    return found


def folder_classes(root: str) -> list[str]:
    """The sorted class folders, which all splits must share."""
    classes = {}
    for split in folder_splits(root):
        with os.scandir(Path(root, split)) as entries:
            names = (entry.name for entry in entries if entry.is_dir())
            classes[split] = sorted(name for name in names if not name.startswith("."))
        different = sorted(set(classes[split]) ^ set(classes["train"]))
        if different:
            raise UserMistakeError(
                f"data.root {root}: train and {split} differ in the class folders "
                + ", ".join(
                    f"{name} (only in {'train' if name in classes['train'] else split})"
                    for name in different[:5]
                )
            )
    if len(classes["train"]) < 2:
        raise UserMistakeError(f"data.root {root}: train needs two class folders or more")
    return classes["train"]


def _read_folder(data: Data, split: str) -> FolderSplit:
    """The images of root/split/<class>, at any depth, in the order of their names."""
    assert data.image_size is not None
    training = (data.image_size, data.image_size)
    paths: list[bytes] = []
    labels: list[int] = []
    for label, name in enumerate(folder_classes(data.root)):
        found = sorted(files_in(Path(data.root, split, name)))
        if not found:
            raise UserMistakeError(f"{Path(data.root, split, name)} holds no images")
        paths += found
        labels += [label] * len(found)
    pool = ThreadPoolExecutor(data.workers, thread_name_prefix="images")
    geometry = training if split == "train" else data.eval_geometry
    return FolderSplit(np.array(paths), torch.tensor(labels), geometry, pool)


def keep_resident(splits: Sequence[FolderSplit], resident: bool | Literal["auto"]) -> bool:
    """Whether these splits are to be decoded into memory."""
    num_bytes = sum(len(split.labels) * 3 * split.geometry[0] ** 2 for split in splits)
    return num_bytes < AUTO_RESIDENT if resident == "auto" else resident


READERS: dict[str, Callable[[Data], Source]] = {
    "digits": read_digits,
    "mnist": read_torchvision("MNIST"),
    "cifar10": read_torchvision("CIFAR10"),
    "cifar100": read_torchvision("CIFAR100"),
    "imagefolder": read_imagefolder,
    "synthetic": read_synthetic,
}
