"""Prediction: what a net makes of image files, as maps of classes and laid over the images."""

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from knorm.training.files import check_folder
from knorm.training.launch import start
from knorm.training.mistakes import UserMistakeError, mistakes_of_the_user
from knorm.training.options import loading
from knorm.vision.image_files import SUFFIXES, files_in
from knorm.vision.operations import to_input
from segmentation.classes import Classes
from segmentation.data_config import Size
from segmentation.evaluation import load_net
from segmentation.evaluation_numbers import drawing, evaluating
from segmentation.files import read_image
from segmentation.inference import least_side, probabilities
from segmentation.inference_config import Inference
from segmentation.inference_options import inference_of
from segmentation.pictures import color_table, colored
from segmentation.splits import in_order

if TYPE_CHECKING:
    from PIL import Image

READERS, AHEAD = 4, 8  # threads, and images that they read ahead


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A net of a run, and all that it takes to ask it about an image."""

    accelerator: Accelerator
    net: nn.Module
    """on the device"""
    classes: Classes
    mean: Tensor
    """(3, 1, 1) on the device, as `std`; of pixels in [0, 1]"""
    std: Tensor
    inference: Inference
    least: int = 1
    """the least height and width that the net takes"""
    size: Size | None = None
    """height and width that images are resized to, as those of the run were; None: as they are"""
    memory_format: torch.memory_format = torch.contiguous_format
    seed: int = 0
    """of nets that draw in evaluation"""

    def labels(self, image: np.ndarray, size: Size, number: int) -> np.ndarray:
        """(H, W) uint8 train numbers at `size`, of an image (h, w, 3) uint8; `number` is its own.

        Where the sizes differ, chances are resized, bilinear, not classes.
        """
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(self.accelerator.device)
        inputs = to_input(pixels.contiguous(), self.mean, self.std, self.memory_format)
        with drawing(self.accelerator, self.seed, number):
            chances = probabilities(
                self.net, inputs, self.inference, len(self.classes.names), self.least
            )
        if chances.shape[2:] != size:
            chances = F.interpolate(chances, size, mode="bilinear", align_corners=False)
        return chances.argmax(1)[0].to(torch.uint8).cpu().numpy()


class Found(NamedTuple):
    """An image file."""

    path: Path
    name: str
    """what is made of it is called so: its path below the folder asked for, without suffix"""


def carry_out(options: Namespace) -> None:
    """The plan of `python -m segmentation.predict`."""
    images = find_images(options.images, options.out)
    check_inputs_stay(images, options.out)
    check_folder(options.out)
    predictor = load_predictor(options)
    for image, pixels, labels in predictions(predictor, images):
        mask, overlay = outputs(image, options.out)
        write_mask(labels, predictor.classes, mask)
        write_png(overlaid(pixels, labels, predictor.classes, options.alpha), overlay)
    if predictor.accelerator.is_main_process:
        print(f"{len(images)} images: {options.out}/masks and overlays", file=sys.stderr)
    predictor.accelerator.end_training()


def load_predictor(options: Namespace) -> Predictor:
    """The net of a run, asked as in the run but for what the options say."""
    with mistakes_of_the_user():
        loaded = load_net(options.run_dir, **loading(options))
        inference = inference_of(options, loaded.recipe.inference)
    recipe, state = replace(loaded.recipe, inference=inference), loaded.state
    shape = {name: state[name] for name in ("num_classes", "in_chans")}
    least = least_side(recipe, **shape)
    accelerator = start(recipe.launch)
    mean, std = (part.to(accelerator.device) for part in loaded.statistics)
    channels_last = recipe.launch.channels_last
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    net = loaded.net.to(accelerator.device).to(memory_format=memory_format)
    return Predictor(
        accelerator=accelerator,
        net=accelerator.prepare_model(net, evaluation_mode=True),
        classes=classes_of(state),
        mean=mean,
        std=std,
        inference=inference,
        least=least,
        size=recipe.data.size,
        memory_format=memory_format,
        seed=recipe.seed,
    )


def classes_of(state: Mapping[str, Any]) -> Classes:
    """The classes that a checkpoint names; their numbers in files are their train numbers."""
    names, colors = tuple(state["classes"]), tuple(tuple(color) for color in state["colors"])
    return Classes(names, colors, (), {number: number for number in range(len(names))})


def find_images(asked: Sequence[Path], out: Path | None = None) -> list[Found]:
    """Files as they are asked for, folders with all images at any depth, by name.

    Raises `UserMistakeError` where there is none, where two would have one name, and for a folder
    that holds `out`, whose pictures would be taken for images the next time.
    """
    found: dict[str, Found] = {}
    for place in asked:
        for image in _images_at(place, out):
            if image.name in found:
                raise UserMistakeError(
                    f"{image.path} and {found[image.name].path} would both become {image.name}.png"
                )
            found[image.name] = image
    return list(found.values())


def outputs(image: Found, out: Path) -> tuple[Path, Path]:
    """Where the mask and the overlay of an image go."""
    return out / "masks" / f"{image.name}.png", out / "overlays" / f"{image.name}.png"


def check_inputs_stay(images: Sequence[Found], out: Path) -> None:
    """Raise `UserMistakeError` where an output would take the place of one of the images."""
    inputs = {image.path.resolve() for image in images}
    for path in (path for image in images for path in outputs(image, out)):
        if path.resolve() in inputs:
            raise UserMistakeError(f"{path} is one of the images; write elsewhere by --out")


def predictions(
    predictor: Predictor, images: Sequence[Found]
) -> Iterator[tuple[Found, np.ndarray, np.ndarray]]:
    """This rank's images with their pixels (H, W, 3) and train numbers (H, W), both uint8.

    They are as large as the files. Raises `OneRankMistakeError` for a file that cannot be read.
    """
    rank, num_ranks = predictor.accelerator.process_index, predictor.accelerator.num_processes
    numbers = range(len(images))[rank::num_ranks]

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        path, size = str(images[number].path), predictor.size
        whole = read_image(path)
        return whole, whole if size is None else read_image(path, size)

    with ThreadPoolExecutor(READERS) as pool, evaluating(predictor.net):
        pairs = in_order(pool, read, numbers, ahead=AHEAD)
        for number, (whole, seen) in zip(numbers, pairs, strict=True):
            labels = predictor.labels(seen, (whole.shape[0], whole.shape[1]), number)
            yield images[number], whole, labels


def overlaid(image: np.ndarray, labels: np.ndarray, classes: Classes, alpha: float) -> np.ndarray:
    """(H, W, 3) uint8: the image, of which the classes' colors cover the part `alpha`."""
    colors = colored(torch.from_numpy(labels), classes)
    return ((1 - alpha) * image + alpha * colors).round().astype(np.uint8)


def write_mask(labels: np.ndarray, classes: Classes, path: Path) -> None:
    """A PNG of train numbers (H, W) whose palette has the colors of the classes."""
    from PIL import Image

    mask = Image.fromarray(labels)  # grey, until it gets a palette
    mask.putpalette(color_table(classes).flatten().tolist())
    _save(mask, path)


def write_png(pixels: np.ndarray, path: Path) -> None:
    """(H, W) or (H, W, 3) uint8."""
    from PIL import Image

    _save(Image.fromarray(pixels), path)


def _save(image: "Image.Image", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG")


def _images_at(place: Path, out: Path | None) -> list[Found]:
    if place.is_file():
        return [Found(place, place.stem)]
    if not place.is_dir():
        raise UserMistakeError(f"{place} is neither an image nor a folder")
    if out is not None and out.resolve().is_relative_to(place.resolve()):
        raise UserMistakeError(f"{out} lies in {place}, whose images are read; write elsewhere")
    paths = [Path(os.fsdecode(path)) for path in files_in(place)]
    if not paths:
        raise UserMistakeError(f"{place} holds no image ({', '.join(sorted(SUFFIXES))})")
    named = [Found(path, path.relative_to(place).with_suffix("").as_posix()) for path in paths]
    return sorted(named, key=lambda image: (image.name, str(image.path)))
