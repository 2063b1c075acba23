"""From a data set's name to batches: splits, scaling, and what each rank reads when."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from knorm.training.evaluate import sum_over_ranks
from knorm.training.loop import Window
from knorm.training.mistakes import UserMistakeError
from knorm.training.sampling import Cut, Share
from knorm.vision.operations import to_input
from segmentation.augment import Crop, Draws, cropped, distorted, draw_crops
from segmentation.augment_config import Augment, Distortion
from segmentation.classes import Classes
from segmentation.data_config import Data
from segmentation.readers import READERS
from segmentation.splits import Split, evenly, in_order, keep_resident, make_splits

AHEAD = 3  # batches that are being read while one is used
IMAGES_AHEAD = 8  # the same of images as they are evaluated
STATISTICS_IMAGES = 500  # of the training set
SMALLEST_VARIANCE = 1e-12  # less is rounding


class Batch(NamedTuple):
    """What the task gets, on the device."""

    inputs: Tensor
    """(N, 3, H, W) float32"""
    labels: Tensor
    """(N, H, W) int64 train numbers, 255 where ignored"""
    real: int
    """the first `real` samples count, the others only keep the ranks in step"""
    mean_weight: Tensor | None = None
    """what an image of the whole step weighs on average, where the loss asks for it"""


@dataclass(frozen=True)
class SegmentationData:
    """The splits of a run: train, val unless there is none, and test for the very end."""

    splits: dict[str, Split]
    classes: Classes
    mean: Tensor
    """(3, 1, 1) of pixels in [0, 1], subtracted; 0 where pixels are only scaled"""
    std: Tensor
    accelerator: Accelerator
    memory_format: torch.memory_format

    def first(self, split: str, count: int) -> "SegmentationData":
        """The same data with at most `count` samples of that split."""
        whole = self.splits[split]
        return replace(
            self, splits=self.splits | {split: whole.subset(range(min(count, len(whole))))}
        )

    def inputs(self, images: Tensor) -> Tensor:
        """uint8 images (N, 3, H, W) on the device to what the net gets."""
        return to_input(images, self.mean, self.std, self.memory_format)


def load_data(
    data: Data,
    accelerator: Accelerator,
    *,
    channels_last: bool,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> SegmentationData:
    """Find the files, or make them, split them and look at some of them.

    `statistics` are mean and deviation of an earlier run; otherwise data.scaling decides.
    """
    classes = data.read_classes()
    with accelerator.local_main_process_first():
        source = READERS[data.name](data)
    splits = make_splits(source, data)
    check_files(splits, accelerator)
    if keep_resident(splits.values(), data.resident):
        splits = {name: split.decoded() for name, split in splits.items()}
    mean, std = statistics or SCALINGS[data.scaling](data, splits["train"])
    return SegmentationData(
        splits=splits,
        classes=classes,
        mean=mean.to(accelerator.device),
        std=std.to(accelerator.device),
        accelerator=accelerator,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def check_files(splits: Mapping[str, Split], accelerator: Accelerator) -> None:
    """Labels of some files are right, not all ignored, and all files that are read late are whole.

    Those of the training set all come in the first epoch.
    """
    rank, num_ranks = accelerator.process_index, accelerator.num_processes
    for name, split in splits.items():
        labeled = torch.tensor(split.check_labels(rank, num_ranks))
        if not sum_over_ranks(accelerator, labeled):
            raise UserMistakeError(
                f"{split.files.labels[0]}: not one pixel of the {name} split's label files that "
                "were looked at, this one among them, belongs to a class: all are ignored"
            )
        if name != "train":
            split.check_ends(rank, num_ranks)


def pixel_statistics(split: Split) -> tuple[Tensor, Tensor]:
    """Mean and deviation (3, 1, 1) of each channel, pixels in [0, 1], over some images."""

    def sums(number: int) -> np.ndarray:
        values = np.arange(256) / 255
        image = split.pair(number)[0].reshape(-1, 3)
        counts = np.stack([np.bincount(channel, minlength=256) for channel in image.T])
        return np.stack([counts @ np.ones(256), counts @ values, counts @ values**2])

    numbers = evenly(len(split), STATISTICS_IMAGES)
    count, total, squares = sum(
        in_order(split.pool, sums, numbers, ahead=IMAGES_AHEAD), np.zeros((3, 3))
    )
    mean = total / count
    variance = squares / count - mean**2
    if (variance < SMALLEST_VARIANCE).any():
        raise UserMistakeError(
            f"data.scaling standard: channel {int(variance.argmin())} of the training images is "
            "the same everywhere; take scale"
        )
    return _by_channel(mean), _by_channel(np.sqrt(variance))


def _by_channel(numbers: np.ndarray | list[float] | None) -> Tensor:
    return torch.tensor(np.asarray(numbers), dtype=torch.float32)[:, None, None]


SCALINGS: dict[str, Callable[[Data, Split], tuple[Tensor, Tensor]]] = {
    "scale": lambda data, train: (torch.zeros(3, 1, 1), torch.ones(3, 1, 1)),
    "standard": lambda data, train: pixel_statistics(train),
    "fixed": lambda data, train: (_by_channel(data.mean), _by_channel(data.std)),
}


def training_windows(
    data: SegmentationData, augment: Augment, sampling: Cut, epoch: int, first_step: int = 0
) -> Iterator[Window[Batch]]:
    """What this rank computes in the steps of an epoch, augmented.

    Sample numbers beyond the split are copies, see `Share.samples`, each with draws of its own.
    """
    rank, num_ranks = data.accelerator.process_index, data.accelerator.num_processes
    windows = list(sampling.windows(epoch, rank, num_ranks, first_step))
    split, fill = data.splits["train"], mean_color(data)
    keyed = {"seed": sampling.seed, "epoch": epoch}

    def draws() -> Iterator[tuple[int, Draws]]:
        for share in (share for shares, _ in windows for share in shares):
            drawn = draw_crops(share.samples, augment, **keyed)
            yield from zip((share.samples % len(split)).tolist(), drawn, strict=True)

    def crop(sample: tuple[int, Draws]) -> Crop:
        number, drawn = sample
        return cropped(*split.pair(number), drawn, augment, fill)

    largest = max((len(share.samples) for shares, _ in windows for share in shares), default=0)
    crops = in_order(split.pool, crop, draws(), ahead=AHEAD * largest)
    for shares, size in windows:
        batches = []
        for share in shares:
            read = [next(crops) for _ in share.samples]
            batches.append(batch_of(data, read, share, augment.distortion, **keyed))
        yield Window(batches, size)


def batch_of(
    data: SegmentationData,
    crops: Sequence[Crop],
    share: Share,
    distortion: Distortion,
    *,
    seed: int,
    epoch: int,
) -> Batch:
    """Crops on the device, their colors changed and pixels scaled; 0 outside the images."""
    device = data.accelerator.device
    images = torch.from_numpy(np.stack([crop.image for crop in crops])).to(device)
    labels = torch.from_numpy(np.stack([crop.labels for crop in crops])).to(device)
    images = images.permute(0, 3, 1, 2).contiguous()
    inputs = data.inputs(distorted(images, share.samples, distortion, seed=seed, epoch=epoch))
    for place, crop in enumerate(crops):
        inputs[place, :, crop.height :] = 0
        inputs[place, :, :, crop.width :] = 0
    return Batch(inputs, labels.long(), share.real)


def mean_color(data: SegmentationData) -> np.ndarray:
    """The color (3,) uint8 that the net sees as 0, up to rounding."""
    return (data.mean * 255).round().to(torch.uint8).flatten().cpu().numpy()


def evaluation_images(data: SegmentationData, split: str) -> Iterator[tuple[int, Tensor, Tensor]]:
    """This rank's (number, image (3, H, W), labels (H, W)) of a split, uint8 on the device.

    The images have their own sizes; the labels are 255 where ignored.
    """
    rank, num_ranks = data.accelerator.process_index, data.accelerator.num_processes
    whole, device = data.splits[split], data.accelerator.device
    numbers = range(len(whole))[rank::num_ranks]
    found = in_order(whole.pool, whole.read, numbers, ahead=IMAGES_AHEAD)
    for number, (image, labels) in zip(numbers, found, strict=True):
        yield number, image.to(device), labels.to(device)
