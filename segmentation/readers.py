"""Data sets by name: which image belongs to which label file. Nothing is decoded here."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from knorm.training.mistakes import UserMistakeError
from knorm.vision.image_files import files_in
from segmentation.class_list import read_class_list
from segmentation.classes import CAMVID, CITYSCAPES, TRAIN_IDS, lookup_table
from segmentation.data_config import SPLIT, Data
from segmentation.scenes import write_scenes

IMAGE_END = "_leftImg8bit.png"
LABEL_KINDS = {  # endings of Cityscapes' label files -> what their values mean
    "_gtFine_labelIds.png": CITYSCAPES.file_values,
    "_gtFine_labelTrainIds.png": TRAIN_IDS,
}


@dataclass(frozen=True)
class Files:
    """Images and their label files, in the order of their names."""

    names: tuple[str, ...]
    """below the split's folder, without suffix"""
    images: tuple[str, ...]
    labels: tuple[str, ...]
    table: bytes
    """value in a label file -> train number, see `classes.lookup_table`"""
    groups: tuple[str, ...]
    """what must not be parted by a split: an image's city, or the image alone"""


@dataclass(frozen=True)
class Source:
    """A data set as it is published; `val` is None where it is to be taken from train."""

    train: Files
    test: Files
    val: Files | None = None


def read_cityscapes(data: Data) -> Source:
    """root/leftImg8bit and root/gtFine; the published val is the test."""
    root = Path(data.root)
    missing = [name for name in ("leftImg8bit", "gtFine") if not (root / name).is_dir()]
    if missing:
        raise UserMistakeError(
            f"{' and '.join(missing)} not found, data.root {root} {_content(root)}"
        )
    return Source(cityscapes_files(root, "train"), cityscapes_files(root, "val"))


def cityscapes_files(root: Path, split: str) -> Files:
    """<city>/*_leftImg8bit.png of a split with *_labelIds.png, or else *_labelTrainIds.png."""
    images, labels = root / "leftImg8bit" / split, root / "gtFine" / split
    kinds = {ending: _by_name(labels, ending) for ending in LABEL_KINDS}
    ending = next((ending for ending, masks in kinds.items() if masks), None)
    if ending is None:
        wanted = " or ".join(f"*{ending}" for ending in LABEL_KINDS)
        raise UserMistakeError(f"{labels} holds no <city>/{wanted}")
    pictures = _by_name(images, IMAGE_END)
    files = _paired(images, pictures, labels, kinds[ending], LABEL_KINDS[ending])
    cities = tuple(name.split("/")[0] for name in files.names)
    return Files(files.names, files.images, files.labels, files.table, cities)


def read_scenes(data: Data) -> Source:
    """Street scenes, made if they are not there yet; from then on as Cityscapes."""
    root = write_scenes(Path(data.root), data.scenes)
    return Source(cityscapes_files(root, "train"), cityscapes_files(root, "val"))


def read_camvid(data: Data) -> Source:
    """SegNet's split: root/train and root/trainannot, and so on."""
    splits = {}
    for split in ("train", "val", "test"):
        images, labels = (Path(data.root, split + ending) for ending in ("", "annot"))
        splits[split] = _folder_pairs(data.root, images, labels, CAMVID.file_values)
    return Source(**splits)


def read_pairs(data: Data) -> Source:
    """Folders of images and masks; a val without a test is the test."""
    assert data.pairs.classes is not None
    file_values, splits = read_class_list(data.pairs.classes).file_values, {}
    for split in ("train", "val", "test"):
        images, masks = (
            Path(data.root, folder.replace(SPLIT, split))
            for folder in (data.pairs.images, data.pairs.masks)
        )
        if images.is_dir() or split == "train":
            splits[split] = _folder_pairs(data.root, images, masks, file_values)
    if len(splits) == 1:
        places = [data.pairs.images.replace(SPLIT, split) for split in ("val", "test")]
        raise UserMistakeError(
            f"data.root {data.root} must hold {' or '.join(places)} beside the training images"
        )
    test = splits.get("test") or splits.pop("val")
    return Source(splits["train"], test, splits.get("val"))


def _folder_pairs(root: str, images: Path, masks: Path, file_values: Mapping[int, int]) -> Files:
    for folder in (images, masks):
        if not folder.is_dir():
            raise UserMistakeError(
                f"{folder} is no folder; data.root {root} {_content(Path(root))}"
            )
    return _paired(images, _by_name(images), masks, _by_name(masks), file_values)


def _content(folder: Path) -> str:
    """What is there, for one who took the wrong folder."""
    if not folder.is_dir():
        return "is no folder"
    names = sorted(path.name for path in folder.iterdir())
    return f"holds {', '.join(names[:8]) or 'nothing'}{', ...' if len(names) > 8 else ''}"


def _by_name(folder: Path, ending: str | None = None) -> dict[str, str]:
    """Name below the folder without its ending -> path; `ending` None: any image's suffix."""
    found: dict[str, str] = {}
    for path in sorted(os.fsdecode(path) for path in files_in(folder)):
        name = Path(path).relative_to(folder).as_posix()
        if ending is not None and not name.endswith(ending):
            continue
        name = name.removesuffix(ending or os.path.splitext(name)[1])
        if name in found:
            raise UserMistakeError(f"{path}: another image of that name is {found[name]}")
        found[name] = path
    return found


def _paired(
    images: Path,
    pictures: dict[str, str],
    labels: Path,
    masks: dict[str, str],
    file_values: Mapping[int, int],
) -> Files:
    """Every picture with its mask; one without the other is a mistake."""
    for folder, found in ((images, pictures), (labels, masks)):
        if not found:
            raise UserMistakeError(f"{folder} holds no images")
    alone = sorted(pictures.keys() ^ masks.keys())
    if alone:
        path = pictures.get(alone[0]) or masks[alone[0]]
        what, where = ("label file", labels) if alone[0] in pictures else ("image", images)
        more = f" ({len(alone) - 1} more stand alone)" if len(alone) > 1 else ""
        raise UserMistakeError(f"{path}: no {what} of that name in {where}{more}")
    names = tuple(pictures)
    label_paths = tuple(masks[name] for name in names)
    return Files(names, tuple(pictures.values()), label_paths, lookup_table(file_values), names)


READERS: dict[str, Callable[[Data], Source]] = {
    "scenes": read_scenes,
    "cityscapes": read_cityscapes,
    "camvid": read_camvid,
    "pairs": read_pairs,
}
