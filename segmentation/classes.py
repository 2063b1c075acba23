"""Classes of the data sets: their names, colors and categories, and their values in label files.

Nets and losses know train numbers 0, 1, ...; what a label file says instead stands here alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

Color = tuple[int, int, int]

IGNORE = 255  # train number of pixels that do not count
UNKNOWN = 254  # what a value that a set does not have becomes, only to be refused
MOST_CLASSES = 254


@dataclass(frozen=True)
class Classes:
    """The classes of a data set; a class's train number is its place here."""

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    """red, green and blue of each class in pictures"""
    categories: tuple[str, ...]
    """the category of each class; empty where a set has none"""
    file_values: Mapping[int, int]
    """value in a label file -> train number, or `IGNORE`; other values are mistakes"""

    @property
    def to_file(self) -> tuple[int, ...]:
        """The way back: the first value in a label file of each train number."""
        values = sorted(self.file_values, reverse=True)
        first = {self.file_values[value]: value for value in values}
        return tuple(first[number] for number in range(len(self.names)))

    @property
    def num_classes(self) -> int:
        return len(self.names)


def lookup_table(file_values: Mapping[int, int]) -> bytes:
    """256 train numbers, one for each value in a label file; `UNKNOWN` where there is none."""
    return bytes(file_values.get(value, UNKNOWN) for value in range(256))


class Label(NamedTuple):
    """A row of the label table that Cityscapes publishes."""

    id: int
    """the value in *_labelIds.png"""
    name: str
    train_id: int
    """the value in *_labelTrainIds.png; 255 or -1: not evaluated"""
    category: str
    color: Color


CITYSCAPES_LABELS = [  # cityscapesscripts/helpers/labels.py, 2.3.0
    Label(0, "unlabeled", 255, "void", (0, 0, 0)),
    Label(1, "ego vehicle", 255, "void", (0, 0, 0)),
    Label(2, "rectification border", 255, "void", (0, 0, 0)),
    Label(3, "out of roi", 255, "void", (0, 0, 0)),
    Label(4, "static", 255, "void", (0, 0, 0)),
    Label(5, "dynamic", 255, "void", (111, 74, 0)),
    Label(6, "ground", 255, "void", (81, 0, 81)),
    Label(7, "road", 0, "flat", (128, 64, 128)),
    Label(8, "sidewalk", 1, "flat", (244, 35, 232)),
    Label(9, "parking", 255, "flat", (250, 170, 160)),
    Label(10, "rail track", 255, "flat", (230, 150, 140)),
    Label(11, "building", 2, "construction", (70, 70, 70)),
    Label(12, "wall", 3, "construction", (102, 102, 156)),
    Label(13, "fence", 4, "construction", (190, 153, 153)),
    Label(14, "guard rail", 255, "construction", (180, 165, 180)),
    Label(15, "bridge", 255, "construction", (150, 100, 100)),
    Label(16, "tunnel", 255, "construction", (150, 120, 90)),
    Label(17, "pole", 5, "object", (153, 153, 153)),
    Label(18, "polegroup", 255, "object", (153, 153, 153)),
    Label(19, "traffic light", 6, "object", (250, 170, 30)),
    Label(20, "traffic sign", 7, "object", (220, 220, 0)),
    Label(21, "vegetation", 8, "nature", (107, 142, 35)),
    Label(22, "terrain", 9, "nature", (152, 251, 152)),
    Label(23, "sky", 10, "sky", (70, 130, 180)),
    Label(24, "person", 11, "human", (220, 20, 60)),
    Label(25, "rider", 12, "human", (255, 0, 0)),
    Label(26, "car", 13, "vehicle", (0, 0, 142)),
    Label(27, "truck", 14, "vehicle", (0, 0, 70)),
    Label(28, "bus", 15, "vehicle", (0, 60, 100)),
    Label(29, "caravan", 255, "vehicle", (0, 0, 90)),
    Label(30, "trailer", 255, "vehicle", (0, 0, 110)),
    Label(31, "train", 16, "vehicle", (0, 80, 100)),
    Label(32, "motorcycle", 17, "vehicle", (0, 0, 230)),
    Label(33, "bicycle", 18, "vehicle", (119, 11, 32)),
    Label(-1, "license plate", -1, "vehicle", (0, 0, 142)),  # 255 in files of 8 bits
]
EVALUATED = [label for label in CITYSCAPES_LABELS if 0 <= label.train_id < IGNORE]

CITYSCAPES = Classes(
    names=tuple(label.name for label in EVALUATED),
    colors=tuple(label.color for label in EVALUATED),
    categories=tuple(label.category for label in EVALUATED),
    file_values={label.id % 256: label.train_id % 256 for label in CITYSCAPES_LABELS},
)
TRAIN_IDS = {**{number: number for number in range(len(EVALUATED))}, IGNORE: IGNORE}
"""`file_values` of *_labelTrainIds.png"""

CAMVID_COLORS = {  # of the SegNet split (arXiv:1511.00561), in the order of its values
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
CAMVID_VOID = len(CAMVID_COLORS)  # the value of what belongs to none of them

CAMVID = Classes(
    names=tuple(CAMVID_COLORS),
    colors=tuple(CAMVID_COLORS.values()),
    categories=(),
    file_values={**{value: value for value in range(CAMVID_VOID)}, CAMVID_VOID: IGNORE},
)
