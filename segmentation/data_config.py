"""Settings of the data set: which one, how it is split, read and scaled."""

from dataclasses import dataclass, field
from typing import Literal

from knorm.training.mistakes import check_positive, check_range
from knorm.training.settings import MOST_THREADS
from knorm.vision.scaling import check_scaling
from segmentation.class_list import read_class_list
from segmentation.classes import CAMVID, CITYSCAPES, Classes

Size = tuple[int, int]  # height, width

MOST_PIXELS = 16384  # of an image's side
SMALLEST_SCENE, MOST_SCENES = 32, 10**6
SPLIT = "{split}"  # what stands for train, val and test in a folder's name


@dataclass(frozen=True)
class DataFacts:
    """What is known of a data set before it is read."""

    classes: Classes | None
    """None: the class list says them"""
    size: Size | None
    """usual height and width of its images; None: any"""
    crop: Size | None
    """the usual augmentation: height and width of crops"""


DATA_FACTS = {
    "scenes": DataFacts(CITYSCAPES, size=None, crop=None),
    "cityscapes": DataFacts(CITYSCAPES, size=(1024, 2048), crop=(512, 1024)),
    "camvid": DataFacts(CAMVID, size=(360, 480), crop=(360, 480)),
    "pairs": DataFacts(None, size=None, crop=None),
}


@dataclass(kw_only=True)
class Scenes:
    """Made-up street scenes, written once as Cityscapes' own folders and files."""

    train: int = 300
    """training images, validation included"""
    val: int = 60
    """images of the published val, on which the numbers at the end are told"""
    test: int = 10
    """images without labels, as those of Cityscapes' test server"""
    height: int = 128
    """height of an image"""
    width: int = 256
    """width of an image"""
    seed: int = 0
    """of everything that is drawn"""

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            check_range(f"data.scenes.{name}", getattr(self, name), 1, MOST_SCENES)
        for name in ("height", "width"):
            check_range(f"data.scenes.{name}", getattr(self, name), SMALLEST_SCENE, MOST_PIXELS)
        if self.seed < 0:
            raise ValueError(f"data.scenes.seed must not be negative, got {self.seed}")


@dataclass(kw_only=True)
class Pairs:
    """Images and masks of one's own; an image and its mask have the same name but for the suffix.

    In a folder's name `{split}` stands for train, val and test. train must be there, and val or
    test; a val without a test is the test.
    """

    images: str = "{split}/images"
    """folder of the images, below data.root"""
    masks: str = "{split}/masks"
    """folder of the masks, below data.root: of one channel, 8 bits, or a palette's numbers"""
    classes: str | None = None
    """the class list: a text file of lines `value name #rrggbb`, the color may be left out"""

    def __post_init__(self) -> None:
        for name in ("images", "masks"):
            if SPLIT not in getattr(self, name):
                raise ValueError(
                    f"data.pairs.{name} must say where the split's name belongs, such as "
                    f"{SPLIT}/{name}, got {getattr(self, name)}"
                )
        if self.images == self.masks:
            raise ValueError(f"data.pairs.images and data.pairs.masks are both {self.images}")


@dataclass(kw_only=True)
class Data:
    """Images and their labels, and how they are split.

    Of Cityscapes, and of scenes, the published val is the test: its numbers are told at the end,
    and a part of train, whole cities, is kept for validation. CamVid has all three splits.
    """

    name: Literal["scenes", "cityscapes", "camvid", "pairs"] = "scenes"
    """data set; scenes are made where they are missing, pairs are images and masks of one's own"""
    root: str = "data"
    """folder of the data set, which holds leftImg8bit and gtFine of Cityscapes, train and
    trainannot of CamVid (SegNet's split), the folders of pairs; scenes are written into it"""
    size: Size | None = None
    """[height, width] that images and labels are resized to when read; null: as they are"""
    resident: bool | Literal["auto"] = "auto"
    """keep all images and labels decoded in memory; auto: below 2 GiB"""
    workers: int = 8
    """threads that read images"""
    scaling: Literal["scale", "standard", "fixed"] = "scale"
    """pixels to [0, 1], or further to mean 0 and deviation 1 per channel of the training set,
    or minus data.mean over data.std"""
    mean: list[float] | None = None
    """scaling fixed: subtracted from pixels in [0, 1], a number in [0, 1] for each channel"""
    std: list[float] | None = None
    """scaling fixed: what they are then divided by, a number for each channel"""
    val_fraction: float = 0.1
    """part of the training set that is kept for validation, unless val and test are published;
    whole cities where there are any; 0: no validation, no best weights"""
    split_seed: int = 0
    """which samples or cities are kept for validation"""
    limit: int | None = None
    """use at most this many samples of every split, evenly spread; null: all"""
    scenes: Scenes = field(default_factory=Scenes)
    pairs: Pairs = field(default_factory=Pairs)

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"data.val_fraction must lie in [0, 1), got {self.val_fraction}")
        for side in self.size or ():
            check_range("data.size", side, 1, MOST_PIXELS)
        if self.limit is not None:
            check_positive("data.limit", self.limit)
        check_range("data.workers", self.workers, 1, MOST_THREADS)
        check_scaling(self.scaling, self.mean, self.std, channels=3)
        for name, unchanged in (("scenes", Scenes()), ("pairs", Pairs())):
            if self.name != name and getattr(self, name) != unchanged:
                raise ValueError(f"data.{name} is for data.name {name}, not for {self.name}")
        if self.name == "pairs" and self.pairs.classes is None:
            raise ValueError(
                "data.name pairs needs data.pairs.classes, a text file of lines `value name`"
            )

    @property
    def facts(self) -> DataFacts:
        """What is known of the data set, as it is read."""
        facts = DATA_FACTS[self.name]
        own = (self.scenes.height, self.scenes.width) if self.name == "scenes" else facts.size
        size = self.size or own
        return DataFacts(facts.classes, size, facts.crop if size == facts.size else size)

    def read_classes(self) -> Classes:
        """The classes; those of pairs are read from their list, whose mistakes come out here."""
        known = DATA_FACTS[self.name].classes
        if known is not None:
            return known
        assert self.pairs.classes is not None
        return read_class_list(self.pairs.classes)
