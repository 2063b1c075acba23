"""A submission to the Cityscapes test server: it is written, and one is checked before it is sent.

The server takes a zip of one PNG for each image, found by `<city>_<sequence>_<frame>*.png`: one
channel of 8 bits, as large as the image, whose values are label ids (not train numbers). Sources:
getPrediction and evaluatePair in cityscapesScripts' evalPixelLevelSemanticLabeling.py.
"""

import io
import os
import re
import shutil
import sys
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from knorm.training.files import check_file
from knorm.training.mistakes import UserMistakeError
from knorm.vision.image_files import read_sides
from segmentation.classes import CITYSCAPES, Classes
from segmentation.data_config import Size
from segmentation.prediction import (
    Found,
    Predictor,
    find_images,
    load_predictor,
    predictions,
    write_png,
)

IMAGE = re.compile(r"([^_/]+_\d{6}_\d{6})_leftImg8bit$")
PREDICTION = re.compile(r"([^_/]+_\d{6}_\d{6})[^/]*\.png$")
UNREADABLE = (OSError, SyntaxError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the time of all files of a zip, so that equal ones are equal


def carry_out(options: Namespace) -> None:
    """The plan of `python -m segmentation.submit`."""
    images = images_of(options.images)
    check_file(options.out)
    predictor = load_predictor(options)
    if predictor.classes.names != CITYSCAPES.names:
        raise UserMistakeError(f"{options.run_dir} knows other classes than those of Cityscapes")
    write(predictor, images, options.out)
    if predictor.accelerator.is_main_process:
        check(options.out, options.images)
    predictor.accelerator.end_training()


def check(path: Path, folder: Path) -> None:
    """Print the faults of a submission for a folder of images.

    Raises:
        UserMistakeError: there are any.
    """
    lines = faults(path, images_of(folder))
    for line in lines:
        print(line)
    if lines:
        raise UserMistakeError(f"{path} cannot be sent: {len(lines)} faults, a line for each")
    print(f"{path}: every image has its prediction, nothing is wrong", file=sys.stderr)


def write(predictor: Predictor, images: Mapping[str, Found], path: Path) -> None:
    """The zip of the predictions for these images; all ranks take part."""
    parts, accelerator = path.with_name(f"{path.name}.parts"), predictor.accelerator
    if accelerator.is_main_process:
        shutil.rmtree(parts, ignore_errors=True)  # of a run that was stopped
    accelerator.wait_for_everyone()
    for image, _, labels in predictions(predictor, list(images.values())):
        write_png(label_ids(labels), parts / file_name(key_of(image)))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        pack(parts, path)
        shutil.rmtree(parts)


def images_of(folder: Path) -> dict[str, Found]:
    """<city>_<sequence>_<frame> -> image, of all images in a folder such as leftImg8bit/test.

    Raises `UserMistakeError` for an image with another name, and for two with the same.
    """
    images = dict[str, Found]()
    for image in find_images([folder]):
        first = images.setdefault(key_of(image), image)
        if first is not image:
            raise UserMistakeError(f"{first.path} and {image.path} are named as the same image")
    return images


def key_of(image: Found) -> str:
    """<city>_<sequence>_<frame>; raises `UserMistakeError` where the image is not named so."""
    match = IMAGE.search(image.name)
    if match is None:
        raise UserMistakeError(f"{image.path}: not named <city>_000000_000019_leftImg8bit.png")
    return match[1]


def file_name(key: str) -> str:
    """What a submission calls the prediction for <city>_<sequence>_<frame>."""
    return f"{key}_leftImg8bit.png"


def label_ids(labels: np.ndarray, classes: Classes = CITYSCAPES) -> np.ndarray:
    """Label ids of train numbers, both (H, W) uint8."""
    return np.array(classes.to_file, dtype=np.uint8)[labels]


def pack(folder: Path, path: Path) -> None:
    """Zip all PNGs of a folder; `path` is there as a whole or not at all."""
    new = path.with_name(f".{path.name}.tmp")
    with zipfile.ZipFile(new, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.glob("*.png")):
            archive.writestr(zipfile.ZipInfo(file.name, EARLIEST), file.read_bytes())
    os.replace(new, path)


def faults(path: Path, images: Mapping[str, Found], classes: Classes = CITYSCAPES) -> list[str]:
    """What is wrong with a submission, a zip or a folder, for these images: a line for each file.

    None means that every image has its prediction, and that nothing else is there.
    """
    lines, seen = [], dict[str, str]()
    for name, read in _content(path):
        match = PREDICTION.search(name)
        image = images.get(match[1]) if match else None
        if match is None or image is None:
            lines.append(f"{name}: no prediction for any of the images")
        elif match[1] in seen:
            lines.append(f"{name}: the second for its image, beside {seen[match[1]]}")
        else:
            seen[match[1]] = name
            fault = _fault(read, read_sides(str(image.path)), classes)
            lines += [f"{name}: {fault}"] if fault else []
    missing = [f"{file_name(key)}: missing" for key in images if key not in seen]
    return sorted(lines + missing)


def _content(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name and content of every file in a zip or a folder, at any depth."""
    if path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            yield file.relative_to(path).as_posix(), file.read_bytes
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if not entry.is_dir():
                    yield entry.filename, partial(archive.read, entry)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserMistakeError(f"{path} is neither a folder nor a zip: {error}") from error


def _fault(read: Callable[[], bytes], size: Size, classes: Classes) -> str | None:
    """What is wrong with one file."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(read())) as image:
            if (image.format, image.mode) != ("PNG", "L"):
                return f"{image.format} with {image.mode} pixels; asked for is a grey PNG of 8 bits"
            if (image.height, image.width) != size:
                sides = f"{image.height} x {image.width}"
                return f"{sides} pixels, but the image has {size[0]} x {size[1]}"
            values = np.asarray(image)
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        return f"not an image that can be read: {error}"
    others = np.setdiff1d(values, classes.to_file)
    if len(others):
        hint = "; are these train numbers?" if values.max() < len(classes.names) else ""
        return f"the value {others[0]} is the label id of no class that is evaluated{hint}"
    return None
