"""Mean and deviation (C, 1, 1) that pixels in [0, 1] are standardized with, by data.scaling."""

from collections.abc import Callable

import torch
from torch import Tensor

from classification.data_config import Data
from classification.readers import FolderSplit, Split
from knorm.training.mistakes import UserMistakeError

STATISTICS_IMAGES = 4096  # of a streamed training set
SMALLEST_VARIANCE = 1e-12  # less is rounding


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
    variance = squares / count - mean.square()
    if (variance < SMALLEST_VARIANCE).any():
        channel = int(variance.argmin())
        raise UserMistakeError(
            f"data.scaling standard: channel {channel} of the training images is the same "
            "everywhere; take scale"
        )
    std = variance.sqrt()
    return mean.float()[:, None, None], std.float()[:, None, None]


def _by_channel(numbers: list[float] | None) -> Tensor:
    return torch.tensor(numbers)[:, None, None]


SCALINGS: dict[str, Callable[[Data, Split], tuple[Tensor, Tensor]]] = {
    "scale": lambda data, train: (torch.zeros(1, 1, 1), torch.ones(1, 1, 1)),
    "standard": lambda data, train: pixel_statistics(train),
    "fixed": lambda data, train: (_by_channel(data.mean), _by_channel(data.std)),
}
