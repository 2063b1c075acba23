"""Settings of augmentation: what may happen to training images and their labels."""

from dataclasses import dataclass, field, fields
from typing import Any

from knorm.training.mistakes import check_positive, check_range
from segmentation.data_config import MOST_PIXELS, DataFacts, Size

Range = tuple[float, float]

SMALLEST_SCALE, LARGEST_SCALE = 1 / 16, 16.0
SMALLEST_STEP = 1e-6
LARGEST_FACTOR = 100.0


def check_interval(name: str, interval: Range, low: float, high: float) -> None:
    """Raise ValueError unless `interval` rises and lies between `low` and `high`."""
    if not low <= interval[0] <= interval[1] <= high:
        raise ValueError(f"{name} must be [low, high] between {low} and {high}, got {interval}")


@dataclass(kw_only=True)
class Distortion:
    """Photometric distortion (SSD, arXiv:1512.02325), in the form of torchvision's.

    Each of the four changes happens with the same probability: brightness, then contrast either
    here or at the end, saturation, hue. Channels are not permuted, as in the field's recipes.
    """

    probability: float = 0.0
    """of each change; 0: none, the usual value is 0.5"""
    brightness: Range = (0.875, 1.125)
    """range of the factor; 0 is black"""
    contrast: Range = (0.5, 1.5)
    """range of the factor; 0 is the mean brightness of the crop, its filling included"""
    saturation: Range = (0.5, 1.5)
    """range of the factor; 0 is grey"""
    hue: Range = (-0.05, 0.05)
    """range of the shift, in parts of the color circle"""

    def __post_init__(self) -> None:
        check_range("augment.distortion.probability", self.probability, 0, 1)
        for name in ("brightness", "contrast", "saturation"):
            limits = getattr(self, name)
            check_interval(f"augment.distortion.{name}", limits, 0, LARGEST_FACTOR)
        check_interval("augment.distortion.hue", self.hue, -0.5, 0.5)


@dataclass(kw_only=True)
class Augment:
    """Random changes of training images, drawn for each sample from (seed, epoch, sample).

    They happen in the order of these options; labels move along.
    """

    scale: Range = (0.5, 2.0)
    """range of the factor of size"""
    scale_step: float | None = None
    """only low, low + step, ... up to high, such as 0.1 of [0.5, 2.1]; null: all between"""
    crop: Size | None = None
    """[height, width] that nets are trained on; where the scaled image is smaller, the mean pixel
    (0 after scaling) and ignored labels fill it; null: 512 x 1024 of Cityscapes as it is, else
    the size of the images"""
    cat_max_ratio: float = 1.0
    """crops are drawn again, up to 10 times, while one class has this part of their labels"""
    flip: bool = True
    """mirror half of the images"""
    distortion: Distortion = field(default_factory=Distortion)

    def __post_init__(self) -> None:
        check_interval("augment.scale", self.scale, SMALLEST_SCALE, LARGEST_SCALE)
        if self.scale_step is not None:
            check_positive("augment.scale_step", self.scale_step)
            check_range("augment.scale_step", self.scale_step, SMALLEST_STEP, LARGEST_SCALE)
        for side in self.crop or ():
            check_range("augment.crop", side, 1, MOST_PIXELS)
        check_positive("augment.cat_max_ratio", self.cat_max_ratio)
        check_range("augment.cat_max_ratio", self.cat_max_ratio, 0, 1)

    def complete(self, facts: DataFacts) -> None:
        """Fill in what is usual for the data set."""
        if self.crop is None:
            self.crop = facts.crop
        if self.crop is None:
            raise ValueError(
                "augment.crop [height, width] must be given where the images may have any size; "
                "so it may be left out with data.size"
            )

    @property
    def num_scales(self) -> int | None:
        """How many factors there are with a step; None without."""
        if self.scale_step is None:
            return None
        low, high = self.scale
        return int((high - low) / self.scale_step + 1e-6) + 1

    def in_words(self) -> str:
        """Everything that is switched on: `scale (0.5, 2.0)  crop (128, 256)  flip`."""
        return "  ".join(_switched_on(self)) or "no augmentation"


def _switched_on(augment: Augment) -> list[str]:
    words = []
    none: dict[str, Any] = {"scale": (1.0, 1.0), "cat_max_ratio": 1.0, "flip": False}
    for option in fields(augment):
        value = getattr(augment, option.name)
        if isinstance(value, Distortion):
            words += [f"distortion {value.probability}"] if value.probability else []
        elif value not in (None, none.get(option.name)):
            words.append(option.name if value is True else f"{option.name} {value}")
    return words
