"""Image files to pixels; a file that cannot be read is the user's mistake, told with its name.

Every file is read as RGB, 8 bits a channel. An orientation that a camera has noted in it (EXIF) is
ignored, as in torchvision and Pillow, by which most published numbers were made. Resizing is
Pillow's, bilinear and antialiased; JPEG files are decoded at a half, a quarter, ... of their size
where that is still enough.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from knorm.training.mistakes import UserMistakeError

ENDS = (b"\xff\xd9", b"IEND\xaeB`\x82")  # of JPEG, by its specification, and of PNG
MOST_TAIL = 8  # bytes
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def files_in(folder: Path) -> Iterator[bytes]:
    """Paths of all image files at any depth, by their suffix, in no order; links are followed."""
    seen: set[str] = set()
    for place, inner, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above it
            inner.clear()
            continue
        seen.add(real)
        for name in names:
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.fsencode(os.path.join(place, name))


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """The file as a Pillow image, its pixels not decoded yet."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise UserMistakeError(
                    f"{path}: {image.mode} pixels; only those of 8 bits are read"
                )
            yield image
    except UserMistakeError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserMistakeError(f"{path}: not an image that can be read: {error}") from error


def check_end(path: str) -> None:
    """Raise `UserMistakeError` for a file that was cut off, at the price of reading its last bytes.

    One that does not end as JPEG and PNG do is decoded: a few whole ones have other bytes behind.
    """
    try:
        with open(path, "rb") as file:
            file.seek(-min(MOST_TAIL, os.fstat(file.fileno()).st_size), os.SEEK_END)
            tail = file.read()
    except OSError as error:
        raise UserMistakeError(f"{path}: {error.strerror}") from error
    if not tail.endswith(ENDS):
        with opened(path) as image:
            image.load()


def read_sides(path: str) -> tuple[int, int]:
    """Height and width; nothing is decoded."""
    with opened(path) as image:
        return image.height, image.width


def read_middle(path: str, size: int, shorter: int) -> np.ndarray:
    """The middle of an image, (size, size, 3) uint8: `shorter` side first resized to that.

    Where `size` is all of the shorter side, the middle is cut out first, without rounding.
    """
    from PIL import Image, ImageOps

    with opened(path) as image:
        sides = [int(shorter * side / min(image.size)) for side in image.size]  # torchvision's
        image.draft("RGB", (shorter, shorter))
        whole = image.convert("RGB")
        if size == shorter:
            return np.asarray(ImageOps.fit(whole, (size, size), Image.Resampling.BILINEAR))
        left, top = (round((side - size) / 2) for side in sides)
        whole = whole.resize(tuple(sides), Image.Resampling.BILINEAR)
        return np.asarray(whole.crop((left, top, left + size, top + size)))


def read_box(path: str, box: Sequence[int], size: int) -> np.ndarray:
    """The box (top, left, height, width) of an image, resized to (size, size, 3) uint8."""
    from PIL import Image

    top, left, height, width = box
    with opened(path) as image:
        sides = image.size
        enough = [
            math.ceil(side * size / part) for side, part in zip(sides, (width, height), strict=True)
        ]
        image.draft("RGB", tuple(enough))
        across, down = (now / before for now, before in zip(image.size, sides, strict=True))
        edges = (left * across, top * down, (left + width) * across, (top + height) * down)
        crop = image.convert("RGB").crop(tuple(round(edge) for edge in edges))
        return np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR))
