"""Settings of the data set: which one, how it is split, read and scaled."""

from dataclasses import dataclass, field, replace
from typing import Literal

from knorm.training.mistakes import check_positive, check_range
from knorm.training.settings import MOST_THREADS
from knorm.vision.scaling import check_scaling

MOST_PIXELS = 16384  # of an image's side
MOST_CLASSES, MOST_VALUES = 10**5, 10**10  # of the synthetic set


@dataclass(frozen=True)
class DataFacts:
    """What is known of a data set before it is read."""

    num_classes: int | None
    """None: as many as there are class folders"""
    image_size: int | None
    """side of the images that nets are trained on; None: the settings say it"""
    in_chans: int
    crop_padding: int
    """the usual augmentation: pixels around an image before it is cropped to its size again"""
    flip: bool
    """the usual augmentation: whether mirror images belong to the same class"""


DATA_FACTS = {
    "digits": DataFacts(num_classes=10, image_size=8, in_chans=1, crop_padding=0, flip=False),
    "mnist": DataFacts(num_classes=10, image_size=28, in_chans=1, crop_padding=0, flip=False),
    "cifar10": DataFacts(num_classes=10, image_size=32, in_chans=3, crop_padding=4, flip=True),
    "cifar100": DataFacts(num_classes=100, image_size=32, in_chans=3, crop_padding=4, flip=True),
    "imagefolder": DataFacts(
        num_classes=None, image_size=None, in_chans=3, crop_padding=4, flip=True
    ),
    "synthetic": DataFacts(num_classes=10, image_size=None, in_chans=3, crop_padding=0, flip=False),
}


PACKAGES = {  # what reading a set imports
    "digits": "sklearn",
    "mnist": "torchvision",
    "cifar10": "torchvision",
    "cifar100": "torchvision",
    "imagefolder": "PIL",
}


@dataclass(kw_only=True)
class Synthetic:
    """Sizes of the synthetic set: one smooth pattern for each class, and noise on it."""

    train: int = 1000
    """training images, validation included"""
    test: int = 200
    """test images"""
    classes: int = 10
    """as many classes, all equally frequent"""
    channels: int = 3
    """channels of an image"""
    image_size: int = 32
    """side of an image"""
    noise: float = 0.2
    """deviation of the noise, pixels in [0, 1]; that of the patterns is 0.2"""
    seed: int = 0
    """of patterns and noise"""

    def __post_init__(self) -> None:
        for name in ("train", "test", "channels", "image_size"):
            check_positive(f"data.synthetic.{name}", getattr(self, name))
        check_range("data.synthetic.classes", self.classes, 2, MOST_CLASSES)
        images = max(self.train + self.test, self.classes)
        values = images * self.channels * self.image_size**2
        if values > MOST_VALUES:
            raise ValueError(
                f"data.synthetic would keep {values:.1e} pixels in memory, "
                f"more than {MOST_VALUES:.0e}: make it smaller"
            )
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"data.synthetic.noise must not be negative, got {self.noise}")


@dataclass(kw_only=True)
class Data:
    """Images and labels, and how they are split."""

    name: Literal["digits", "mnist", "cifar10", "cifar100", "imagefolder", "synthetic"]
    """data set; imagefolder is any tree root/train/<class>/ with root/val or root/test beside it"""
    root: str = "data"
    """folder of the data set; mnist and cifar are downloaded into it where they are missing"""
    image_size: int | None = None
    """imagefolder: side of the squares that images are resized and cropped to"""
    eval_size: int | None = None
    """imagefolder: side of the squares in validation and test; null: image_size"""
    eval_resize: int | None = None
    """imagefolder: shorter side of val and test images before the square is cropped; null: same"""
    resident: bool | Literal["auto"] = "auto"
    """imagefolder: keep all images decoded in memory, which augment.resized_crop then crops from;
    auto: below 2 GiB and without augment.resized_crop"""
    workers: int = 8
    """imagefolder: threads that read images"""
    scaling: Literal["scale", "standard", "fixed"] = "scale"
    """pixels to [0, 1], or further to mean 0 and deviation 1 per channel of the training set,
    or minus data.mean over data.std"""
    mean: list[float] | None = None
    """scaling fixed: subtracted from pixels in [0, 1], a number in [0, 1] for each channel"""
    std: list[float] | None = None
    """scaling fixed: what they are then divided by, a number for each channel"""
    val_fraction: float = 0.1
    """part of the training set that is kept for validation; 0: no validation, no best weights"""
    split_seed: int = 0
    """which samples are kept for validation, and which ones data.limit takes"""
    limit: int | None = None
    """use at most this many samples of every split, the classes in proportion; null: all"""
    synthetic: Synthetic = field(default_factory=Synthetic)

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"data.val_fraction must lie in [0, 1), got {self.val_fraction}")
        for name in ("image_size", "eval_size", "eval_resize"):
            if getattr(self, name) is not None:
                check_range(f"data.{name}", getattr(self, name), 1, MOST_PIXELS)
        if self.limit is not None:
            check_positive("data.limit", self.limit)
        check_range("data.workers", self.workers, 1, MOST_THREADS)
        self._check_owners()
        check_scaling(self.scaling, self.mean, self.std, self.facts.in_chans)

    def _check_owners(self) -> None:
        """Options of one data set are not given with another."""
        folder = self.name == "imagefolder"
        if folder != (self.image_size is not None):
            raise ValueError(
                "data.image_size belongs to data.name imagefolder, which needs one, "
                f"got {self.image_size} with {self.name}"
            )
        if self.resident != "auto" and not folder:
            raise ValueError(f"data.resident is for imagefolder; {self.name} always is in memory")
        for name in ("eval_size", "eval_resize"):
            if getattr(self, name) is not None and not folder:
                raise ValueError(f"data.{name} is for imagefolder, not for {self.name}")
        if folder and self.eval_geometry[0] > self.eval_geometry[1]:
            raise ValueError(
                f"data.eval_resize must not be less than the side of the square, "
                f"{self.eval_geometry[0]}, got {self.eval_geometry[1]}"
            )
        if self.name != "synthetic" and self.synthetic != Synthetic():
            raise ValueError(f"data.synthetic is for data.name synthetic, not for {self.name}")

    @property
    def facts(self) -> DataFacts:
        """What is known of the data set."""
        facts, made = DATA_FACTS[self.name], self.synthetic
        if self.name == "synthetic":
            return replace(
                facts,
                num_classes=made.classes,
                image_size=made.image_size,
                in_chans=made.channels,
            )
        return replace(facts, image_size=self.image_size) if self.image_size else facts

    @property
    def eval_geometry(self) -> tuple[int, int]:
        """imagefolder: side of the squares in evaluation, shorter side they are cropped from."""
        assert self.image_size is not None
        size = self.eval_size or self.image_size
        return size, self.eval_resize or size
