"""Augmentation of images and labels together, drawn for each sample.

What happens to a sample is a function of (seed, epoch, sample number): the same in every batch, in
every thread, on every rank and for every number of processes. Scale and crop are one resampling of
the part of the image that is kept, by threads; colors are changed in batches on the device.
Shapes: N sample, H W pixels of the image, h w of the crop.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from knorm.training.seeds import draw, mix, uniform
from knorm.vision import operations
from segmentation.augment_config import Augment, Distortion
from segmentation.classes import IGNORE
from segmentation.data_config import Size
from segmentation.files import nearest

SCALE, TOP, LEFT, FLIP, HAPPENS, STRENGTH, LATE = range(7)  # what a draw is for
ATTEMPTS = 10  # crops that are drawn again while one class has too much of them, as mmseg's
Box = tuple[int, int, int, int]  # top, left, height, width, in the scaled image

MARGIN = 2  # pixels around a box that a bilinear filter may reach, at scale 1


class Draws(NamedTuple):
    """What is drawn for the crop of one sample."""

    scale: float
    places: list[tuple[float, float]]
    """top and left of each attempt, as parts of the room there is"""
    mirrored: bool


class Crop(NamedTuple):
    """A crop, filled up on the right and at the bottom where the image is too small for it."""

    image: np.ndarray
    """(h, w, 3) uint8"""
    labels: np.ndarray
    """(h, w) uint8, 255 where ignored"""
    height: int
    """rows that come from the image"""
    width: int
    """columns that come from the image"""


def draw_crops(samples: Tensor, augment: Augment, *, seed: int, epoch: int) -> list[Draws]:
    """For every sample number (N,) what is to happen to it."""
    key, steps = mix(seed, epoch), augment.num_scales
    if steps is None:
        scales = uniform(mix(key, SCALE), samples, *augment.scale)
    else:
        scales = augment.scale[0] + draw(mix(key, SCALE), samples, steps) * (
            augment.scale_step or 0.0
        )
    attempts = 1 + (ATTEMPTS if augment.cat_max_ratio < 1 else 0)
    tops, lefts = (
        torch.stack([uniform(mix(key, axis, turn), samples) for turn in range(attempts)], dim=1)
        for axis in (TOP, LEFT)
    )
    places = torch.stack([tops, lefts], dim=2).tolist()  # N attempt 2
    mirrored = draw(mix(key, FLIP), samples, 2).bool() & augment.flip
    return [
        Draws(scale, [(top, left) for top, left in tried], flip)
        for scale, tried, flip in zip(scales.tolist(), places, mirrored.tolist(), strict=True)
    ]


def cropped(
    image: np.ndarray, labels: np.ndarray, drawn: Draws, augment: Augment, fill: np.ndarray
) -> Crop:
    """Image (H, W, 3) and labels (H, W) scaled, cropped and mirrored as drawn.

    `fill` (3,) uint8 is the color, and 255 the label, of what lies outside the image.
    """
    assert augment.crop is not None
    scaled = scaled_size(labels.shape, drawn.scale)
    box, found = chosen_box(labels, drawn, augment.crop, scaled, augment.cat_max_ratio)
    pixels, (height, width) = resampled(image, box, scaled), box[2:]
    if drawn.mirrored:
        pixels, found = pixels[:, ::-1], found[:, ::-1]
    if (height, width) == augment.crop:
        return Crop(np.ascontiguousarray(pixels), np.ascontiguousarray(found), height, width)
    whole = np.broadcast_to(fill, (*augment.crop, 3)).copy()
    numbers = np.full(augment.crop, IGNORE, np.uint8)
    whole[:height, :width], numbers[:height, :width] = pixels, found
    return Crop(whole, numbers, height, width)


def scaled_size(sides: tuple[int, ...], scale: float) -> Size:
    """Height and width of an image times `scale`."""
    height, width = (max(1, round(side * scale)) for side in sides)
    return height, width


def chosen_box(
    labels: np.ndarray, drawn: Draws, crop: Size, scaled: Size, most: float
) -> tuple[Box, np.ndarray]:
    """The first box that no class fills to the part `most`, or else the last, and its labels."""
    height, width = (min(pair) for pair in zip(crop, scaled, strict=True))
    room = (scaled[0] - height + 1, scaled[1] - width + 1)
    box, found = (0, 0, height, width), labels[:0]
    for place in drawn.places:
        top, left = (min(int(u * free), free - 1) for u, free in zip(place, room, strict=True))
        rows, columns = np.arange(top, top + height), np.arange(left, left + width)
        box, found = (top, left, height, width), nearest(labels, rows, columns, scaled)
        if not one_class_fills(found, most):
            break
    return box, found


def one_class_fills(labels: np.ndarray, most: float) -> bool:
    """Whether one class has the part `most`, or more, of the labels that count."""
    if most == 1:
        return False
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return bool(counts.max() >= most * counts.sum())


def resampled(image: np.ndarray, box: Box, scaled: Size) -> np.ndarray:
    """The box of the image (H, W, 3) as if all of it were `scaled`.

    Pillow's, bilinear and antialiased; only the pixels that the box needs are touched.
    """
    from PIL import Image

    top, left, height, width = box
    sides = image.shape[:2]
    if scaled == sides:
        return image[top : top + height, left : left + width]
    edges: list[float] = []  # of the box within the part that is cut out: first, last of each axis
    cuts = []
    for first, length, side, new in zip((top, left), (height, width), sides, scaled, strict=True):
        ratio = side / new
        start, end = first * ratio, min((first + length) * ratio, side)
        margin = math.ceil(MARGIN * max(ratio, 1))
        cut = max(0, math.floor(start) - margin)
        cuts.append(slice(cut, math.ceil(end) + margin))
        edges += [start - cut, end - cut]
    part = Image.fromarray(np.ascontiguousarray(image[cuts[0], cuts[1]]))
    within = (edges[2], edges[0], edges[3], edges[1])
    return np.asarray(part.resize((width, height), Image.Resampling.BILINEAR, box=within))


def distorted(
    images: Tensor, samples: Tensor, distortion: Distortion, *, seed: int, epoch: int
) -> Tensor:
    """uint8 images (N, 3, h, w) with sample numbers (N,): brightness, contrast, saturation, hue.

    Half of the samples have their contrast changed at the end instead.
    """
    if not distortion.probability:
        return images
    samples, key = samples.cpu(), mix(seed, epoch)
    late = draw(mix(key, LATE), samples, 2).bool()
    always = torch.ones_like(late)
    turns = (  # each kind of change has one draw, whenever it happens
        (0, operations.brightness, distortion.brightness, always),
        (1, operations.contrast, distortion.contrast, ~late),
        (2, operations.saturation, distortion.saturation, always),
        (3, operations.hue, distortion.hue, always),
        (1, operations.contrast, distortion.contrast, late),
    )
    for kind, operation, limits, now in turns:
        happens = uniform(mix(key, HAPPENS, kind), samples) < distortion.probability
        chosen = torch.where(happens & now, 0, -1)
        strengths = uniform(mix(key, STRENGTH, kind), samples, *limits)
        images = operations.apply([operation], images, chosen, strengths)
    return images
