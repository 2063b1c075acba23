"""One image and its label file to pixels and train numbers; a mistake names file and value."""

import numpy as np

from knorm.training.mistakes import UserMistakeError
from knorm.vision.image_files import check_end, opened
from segmentation.classes import IGNORE, UNKNOWN
from segmentation.data_config import Size

ONE_NUMBER = ("1", "L", "P")  # Pillow's modes with one number of at most 8 bits a pixel


def read_image(path: str, size: Size | None = None) -> np.ndarray:
    """(H, W, 3) uint8, red, green and blue; resized to `size`: bilinear, antialiased."""
    from PIL import Image

    with opened(path) as image:
        if size is None or size == (image.height, image.width):
            return np.asarray(image.convert("RGB"))
        image.draft("RGB", size[::-1])  # a JPEG is decoded no larger than needed
        return np.asarray(image.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))


def read_labels(path: str, table: bytes) -> np.ndarray:
    """(H, W) uint8 train numbers: the values of the file, looked up in `lookup_table`'s table."""
    with opened(path) as image:
        if image.mode not in ONE_NUMBER:
            raise UserMistakeError(
                f"{path}: {image.mode} pixels; a label file has one channel of 8 bits "
                "(grey, or the numbers of a palette), no colors"
            )
        values = np.asarray(image).astype(np.uint8, copy=False)
    numbers = np.frombuffer(table, np.uint8)[values]
    unknown = numbers == UNKNOWN
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        raise UserMistakeError(
            f"{path}: the value {values[row, column]} (row {row}, column {column}) belongs to no "
            f"class and is not ignored; known are {_in_words(table)}"
        )
    return numbers


def read_pair(
    image_path: str, label_path: str, table: bytes, size: Size | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) and train numbers (H, W), both uint8; labels are resized by the nearest."""
    labels = read_labels(label_path, table)
    check_sizes(image_path, label_path, labels.shape)
    if size is not None and labels.shape != size:
        labels = nearest(labels, np.arange(size[0]), np.arange(size[1]), size)
    return read_image(image_path, size), labels


def nearest(labels: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: Size) -> np.ndarray:
    """Rows and columns of (H, W) labels that are scaled to `size`: each pixel the nearest one."""
    picked = [
        np.minimum((2 * places + 1) * side // (2 * scaled), side - 1)
        for places, side, scaled in zip((rows, columns), labels.shape, size, strict=True)
    ]
    return labels[picked[0][:, None], picked[1]]


def check_sizes(image_path: str, label_path: str, size: tuple[int, ...]) -> None:
    """Raise `UserMistakeError` unless the image has the height and width of its labels."""
    with opened(image_path) as image:
        if size != (image.height, image.width):
            raise UserMistakeError(
                f"{image_path}: {image.height} x {image.width} pixels, but its label file "
                f"{label_path} has {size[0]} x {size[1]}"
            )


def check_pair(image_path: str, label_path: str, table: bytes) -> bool:
    """Whether a pixel has a label.

    Raises `UserMistakeError` unless the labels are right, and the image fits and is whole.
    """
    labels = read_labels(label_path, table)
    check_sizes(image_path, label_path, labels.shape)
    check_end(image_path)
    return bool((labels != IGNORE).any())


def _in_words(table: bytes) -> str:
    """The values that a table knows: `0 to 33, 255`."""
    words, first = [], None
    for value in range(257):
        known = value < 256 and table[value] != UNKNOWN
        if known and first is None:
            first = value
        if not known and first is not None:
            words.append(f"{first} to {value - 1}" if value - 1 > first else f"{first}")
            first = None
    return ", ".join(words)
