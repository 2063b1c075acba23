"""Images a second from a data set in memory, ours and torchvision's one by one, side by side.

    python -m benchmarks.loader --threads 1 --out docs/results/loader

Random 32x32 images, cropped after padding by 4, mirrored, scaled and standardized. First the
batches are checked against a slow reference that follows each sample alone. Then the loaders take
turns, so that a slow moment of the machine falls on all of them; a ratio is the median over the
rounds of the ratio within a round. Further rows are recipes with more augmentation.
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jsonargparse import auto_cli
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.report import publish
from classification.augment import FLIP, HORIZONTAL, VERTICAL
from classification.augment_config import Affine, Augment, Jitter
from classification.data import ImageData, training_windows
from classification.readers import ResidentSplit
from knorm.training.sampling import Sampling
from knorm.training.seeds import draw, mix

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)  # of CIFAR-10
PADDING, SIDE, CLASSES = 4, 32, 10
PLAIN = {"crop_padding": PADDING, "flip": True}
BASE, OURS = "torchvision, 2 workers", "knorm"

RECIPES = {
    OURS: Augment(**PLAIN),
    "knorm, mixup and cutmix": Augment(**PLAIN, mixup=0.2, cutmix=1.0),
    "knorm, erasing 0.1": Augment(**PLAIN, erasing=0.1),
    "knorm, resized crop": Augment(resized_crop=(0.08, 1.0), crop_padding=0, flip=True),
    "knorm, affine": Augment(**PLAIN, affine=Affine(degrees=15, translate=0.1)),
    "knorm, color jitter": Augment(
        **PLAIN, jitter=Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    ),
    "knorm, TrivialAugmentWide": Augment(**PLAIN, policy="trivial_wide"),
    "knorm, AutoAugment": Augment(**PLAIN, policy="cifar10"),
}

Row = dict[str, Any]


class OneByOne(Dataset):
    """Images and labels as torchvision's sets give them: one at a time, each transformed."""

    def __init__(self, pixels: Tensor, labels: Tensor):
        self.pixels, self.labels = pixels, labels
        self.transform = v2.Compose(
            [
                v2.RandomCrop(SIDE, padding=PADDING),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.pixels[index]), self.labels[index]


def resident(images: int) -> ImageData:
    """A training set of random pixels."""
    generator = torch.Generator().manual_seed(0)
    shape = (images, 3, SIDE, SIDE)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return ImageData(
        splits={"train": ResidentSplit(pixels, torch.arange(images) % CLASSES)},
        classes=[str(label) for label in range(CLASSES)],
        mean=torch.tensor(MEAN)[:, None, None],
        std=torch.tensor(STD)[:, None, None],
        accelerator=Accelerator(cpu=True),
        memory_format=torch.contiguous_format,
    )


def batches(data: ImageData, augment: Augment, sampling: Sampling, epoch: int) -> Iterator[Tensor]:
    """What the net would get in an epoch."""
    for window in training_windows(data, augment, sampling, epoch):
        yield from (batch.inputs for batch in window.batches)


def check_against_reference(data: ImageData, sampling: Sampling) -> int:
    """An epoch's first batches, sample by sample; returns how many samples were compared."""
    epoch, checked, split = 1, 0, data.splits["train"]
    found = batches(data, RECIPES[OURS], sampling, epoch)
    for samples, inputs in zip(sampling.batches(epoch)[:2], found, strict=False):
        for sample, ours in zip(samples, inputs, strict=True):
            key, choices = mix(sampling.seed, epoch), 2 * PADDING + 1
            top, left = (
                int(draw(mix(key, purpose), sample, choices)) for purpose in (VERTICAL, HORIZONTAL)
            )
            padded = F.pad(split.images(sample[None])[0], (PADDING,) * 4)
            crop = padded[:, top : top + SIDE, left : left + SIDE]
            crop = crop.flip(2) if draw(mix(key, FLIP), sample, 2) else crop
            expected = v2.functional.normalize(crop / 255, list(MEAN), list(STD))
            torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)
            checked += 1
    return checked


def loaders(
    data: ImageData, sampling: Sampling, fewer: int
) -> dict[str, Callable[[int], Iterator[Any]]]:
    """By name, what yields the batches of an epoch; torchvision's epochs are of `fewer` images."""
    pixels, labels = data.splits["train"].images(torch.arange(fewer)), data.labels("train")[:fewer]
    dataset = OneByOne(pixels, labels)
    options = {"batch_size": sampling.batch_size, "shuffle": True, "drop_last": True}
    alone = DataLoader(dataset, **options)
    workers = DataLoader(dataset, **options, num_workers=2, persistent_workers=True)
    ours = {
        name: lambda epoch, augment=augment: batches(data, augment, sampling, epoch)
        for name, augment in RECIPES.items()
    }
    theirs = {
        "torchvision, 0 workers": lambda epoch: (images for images, _ in alone),
        BASE: lambda epoch: (images for images, _ in workers),
    }
    return theirs | ours


def images_per_second(epoch: Iterator[Tensor]) -> float:
    """Wall clock, from the first request to the last batch."""
    start = time.perf_counter()
    count = sum(len(images) for images in epoch)
    return count / (time.perf_counter() - start)


def measure(data: ImageData, sampling: Sampling, fewer: int, rounds: int) -> list[Row]:
    """A row for each loader: images a second, and that over the base's."""
    sources = loaders(data, sampling, fewer)
    for source in sources.values():
        images_per_second(source(1))  # starts the workers, fills the caches
    rates: dict[str, list[float]] = {name: [] for name in sources}
    for turn in range(rounds):
        for name, source in sources.items():
            rates[name].append(images_per_second(source(turn + 2)))
    rows = []
    for name, mine in rates.items():
        ratios = [rate / base for rate, base in zip(mine, rates[BASE], strict=True)]
        low, *_, high = sorted(mine)
        rows.append(
            {
                "loader": name,
                "images_per_second": statistics.median(mine),
                "lowest": low,
                "highest": high,
                "ratio": statistics.median(ratios),
            }
        )
    return rows


def render(record: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "# Loading images from memory\n",
        "Random {side}x{side} images in batches of {batch_size}, padded by {padding} and cropped, "
        "mirrored, standardized, CPU ({machine}), {threads} thread(s), torch {torch}, torchvision "
        "{torchvision}: median of {rounds} rounds in which the loaders took turns. {checked} "
        "images agreed with a reference that follows each sample alone first.\n".format(**record),
        f"| loader | images / s | lowest - highest | over {BASE} |",
        "| --- | --- | --- | --- |",
    ]
    for row in record["rows"]:
        lines.append(
            "| {loader} | {images_per_second:,.0f} | {lowest:,.0f} - {highest:,.0f} | "
            "{ratio:.1f} |".format(**row)
        )
    lines.append("\n```\n{command}\n```\n".format(**record))
    return "\n".join(lines)


def main(
    images: int = 4096,
    batch_size: int = 256,
    threads: int = 1,
    rounds: int = 5,
    out: Path | None = None,
) -> None:
    """Print the table; with `out` also write OUT.json and OUT.md."""
    import torchvision

    torch.set_num_threads(threads)
    data = resident(images)
    sampling = Sampling(num_samples=images, batch_size=batch_size, seed=0)
    record = {
        "command": f"python -m benchmarks.loader --images {images} --batch_size {batch_size} "
        f"--threads {threads} --rounds {rounds}",
        "images": images,
        "batch_size": batch_size,
        "threads": threads,
        "rounds": rounds,
        "side": SIDE,
        "padding": PADDING,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "machine": platform.machine(),
        "checked": check_against_reference(data, sampling),
        "rows": measure(data, sampling, images // 4, rounds),
    }
    publish(record, render, out)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
