"""Settings of augmentation: what may happen to training images, and how strongly."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from classification.data_config import DataFacts
from knorm.training.mistakes import check_positive, check_range

PolicyName = Literal["cifar10", "imagenet", "svhn", "trivial_wide"]
Range = tuple[float, float]

LARGEST = 100  # of factors and paddings: far beyond what makes sense, yet finite


def check_interval(name: str, interval: Range, low: float, high: float) -> None:
    """Raise ValueError unless `interval` rises and lies between `low` and `high`."""
    if not low <= interval[0] <= interval[1] <= high:
        raise ValueError(f"{name} must be [low, high] between {low} and {high}, got {interval}")


@dataclass(kw_only=True)
class Affine:
    """A random map that keeps lines straight, about the middle of the image; black outside."""

    degrees: float = 0.0
    """rotation of at most so much, either way"""
    translate: float = 0.0
    """shift along each axis, at most this part of the side"""
    scale: Range = (1.0, 1.0)
    """range of the factor of size"""
    shear: float = 0.0
    """horizontal shear of at most so many degrees, either way"""

    def __post_init__(self) -> None:
        check_range("augment.affine.degrees", self.degrees, 0, 180)
        check_range("augment.affine.translate", self.translate, 0, 1)
        check_range("augment.affine.shear", self.shear, 0, 89)
        check_positive("augment.affine.scale", self.scale[0])
        check_interval("augment.affine.scale", self.scale, 0, LARGEST)


@dataclass(kw_only=True)
class Jitter:
    """Random changes of color, in an order that is drawn too."""

    brightness: float = 0.0
    """factor from [1 - brightness, 1 + brightness], not below 0"""
    contrast: float = 0.0
    """factor from [1 - contrast, 1 + contrast], not below 0"""
    saturation: float = 0.0
    """factor from [1 - saturation, 1 + saturation], not below 0; not for grey images"""
    hue: float = 0.0
    """shift by at most this part of the color circle, either way; not for grey images"""

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            check_range(f"augment.jitter.{name}", getattr(self, name), 0, LARGEST)
        check_range("augment.jitter.hue", self.hue, 0, 0.5)


@dataclass(kw_only=True)
class Augment:
    """Random changes of training images, drawn for each sample from (seed, epoch, sample).

    They happen in the order of these options.
    """

    repeats: int = 1
    """augmented copies of an image in a row; an epoch is as long as without (arXiv:1901.09335)"""
    resized_crop: Range | None = None
    """crop this part of the area, such as [0.08, 1], and resize it; null: no, see crop_padding"""
    resized_crop_ratio: Range = (3 / 4, 4 / 3)
    """range of width over height of these crops"""
    crop_padding: int | None = None
    """black pixels put around an image, of which its size is cropped; null: 4, or 0 for digits"""
    flip: bool | None = None
    """mirror half of the images; null: yes, but not for digits"""
    policy: PolicyName | list[PolicyName] | None = None
    """AutoAugment's policy of that name (arXiv:1805.09501) or TrivialAugmentWide (2103.10158); of
    several each image draws one"""
    affine: Affine = field(default_factory=Affine)
    jitter: Jitter = field(default_factory=Jitter)
    erasing: float = 0.0
    """probability that a rectangle becomes 0, which is black or the mean (arXiv:1708.04896)"""
    mixup: float = 0.0
    """alpha of Beta(alpha, alpha) of mixup between neighbors (arXiv:1710.09412); 0: none; the last
    image of an odd batch stays as it is"""
    cutmix: float = 0.0
    """the same of cutmix (arXiv:1905.04899); with both, each pair of images draws one of them"""

    def __post_init__(self) -> None:
        check_range("augment.repeats", self.repeats, 1, LARGEST)
        if self.crop_padding is not None:
            check_range("augment.crop_padding", self.crop_padding, 0, LARGEST)
        if self.resized_crop is not None:
            check_positive("augment.resized_crop", self.resized_crop[0])
            check_interval("augment.resized_crop", self.resized_crop, 0, 1)
            if self.crop_padding:
                raise ValueError(
                    "augment.resized_crop and augment.crop_padding are two ways to crop; give one"
                )
        check_positive("augment.resized_crop_ratio", self.resized_crop_ratio[0])
        check_interval("augment.resized_crop_ratio", self.resized_crop_ratio, 0, LARGEST)
        if self.policy == []:
            raise ValueError("augment.policy needs at least one policy; null: none")
        check_range("augment.erasing", self.erasing, 0, 1)
        for name in ("mixup", "cutmix"):
            check_range(f"augment.{name}", getattr(self, name), 0, LARGEST)

    @property
    def policies(self) -> list[PolicyName]:
        """Of which each image draws one; empty where there is none."""
        return [self.policy] if isinstance(self.policy, str) else self.policy or []

    @property
    def mixes(self) -> bool:
        """Whether images are mixed in pairs."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def together(self) -> int:
        """Images that must not be parted: the pairs that are mixed."""
        return 2 if self.mixes else 1

    def complete(self, facts: DataFacts, batch_size: int) -> None:
        """Fill in what is usual for the data set, and check what depends on it."""
        if self.crop_padding is None:
            self.crop_padding = 0 if self.resized_crop else facts.crop_padding
        if facts.image_size is not None and self.crop_padding >= facts.image_size:
            raise ValueError(
                f"augment.crop_padding must be less than the side of the images, "
                f"{facts.image_size}, got {self.crop_padding}: a crop could be all black"
            )
        if self.flip is None:
            self.flip = facts.flip
        for name in ("saturation", "hue"):
            if getattr(self.jitter, name) and facts.in_chans != 3:
                raise ValueError(
                    f"augment.jitter.{name} needs images of 3 channels, not {facts.in_chans}"
                )
        if self.policy and facts.in_chans not in (1, 3):
            raise ValueError(
                f"augment.policy needs images of 1 or 3 channels, not {facts.in_chans}"
            )
        if self.mixes and batch_size < 2:
            raise ValueError(
                f"augment.mixup and augment.cutmix mix pairs, so batch_size {batch_size} is too low"
            )

    def in_words(self) -> str:
        """Everything that is switched on: `crop_padding 4  flip  mixup 0.2`."""
        return "  ".join(_switched_on(self)) or "no augmentation"


def _switched_on(settings: Any) -> list[str]:
    words = []
    for option in fields(settings):
        value = getattr(settings, option.name)
        if isinstance(value, Affine | Jitter):
            words += _switched_on(value)
        elif value not in (None, False, 0, option.default):
            words.append(option.name if value is True else f"{option.name} {value}")
    return words
