"""Chances of every class at every pixel of one image, by as many views of it as the settings ask.

A view is the image at one scale, or its mirror image; it is seen as a whole or in windows. Averaged
are chances (softmax), never logits: of overlapping windows, of an image and its mirror image, of
scales. Windows lie a stride apart from the top left corner on, the last ones flush with the border,
so all have the size asked for. Where an image is smaller than they are, or than what the net can
take, 0 is put below and to the right of it and cut off again: black of pixels that are only scaled,
the mean color of others.

Memory: besides what the net needs for `windows` windows, a few (K, H, W) float32 of the size of the
image and of the scale under way; nothing grows with the number of windows or views.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from knorm.training.nets import check_takes, smallest_side
from segmentation.config import Recipe
from segmentation.inference_config import Inference, Sides

ANY_SIZE = (1021, 1531)  # stands for all sizes that images can have


def least_side(recipe: Recipe, *, num_classes: int, in_chans: int) -> int:
    """The least height and width that the net of a recipe takes.

    Raises:
        UserMistakeError: it does not take the recipe's windows or, where it is to see whole images,
            those of the data.
    """
    model, windows, trained = recipe.model, recipe.inference.crop, recipe.augment.crop
    assert trained is not None  # as the recipe sees to it
    shape = {"num_classes": num_classes, "in_chans": in_chans}
    least = smallest_side(model, **shape, known=min(trained))
    height, width = windows or (max(side, least) for side in recipe.data.facts.size or ANY_SIZE)
    what = "windows (inference.crop)" if windows else "whole images, without inference.crop,"
    check_takes(model, what, **shape, height=height, width=width)
    return least


@torch.no_grad()
def probabilities(
    net: nn.Module, inputs: Tensor, settings: Inference, num_classes: int, least: int = 1
) -> Tensor:
    """(1, K, H, W) float32, sums of 1 over K, of inputs (1, 3, H, W).

    `net` is in evaluation and maps (N, 3, h, w) to logits (N, K, h, w), h and w being `least` or
    more. The windows that it sees at a time depend on the size of the image alone.
    """
    size = (inputs.shape[2], inputs.shape[3])
    total = inputs.new_zeros((1, num_classes, *size), dtype=torch.float32)
    for scale in settings.scales:
        image = _scaled(inputs, scale)
        height, width = image.shape[2:]
        image = filled_up(image, settings.crop or (least, least))
        chances = _at_one_scale(net, image, settings, num_classes)
        total += _resized(chances[:, :, :height, :width], size)
    return total.div_(len(settings.scales))


def filled_up(inputs: Tensor, size: Sides) -> Tensor:
    """Inputs (N, C, H, W) that are that large at least, by 0 below and to the right."""
    missing = [max(least - side, 0) for least, side in zip(size, inputs.shape[2:], strict=True)]
    return F.pad(inputs, (0, missing[1], 0, missing[0])) if any(missing) else inputs


def origins(length: int, side: int, step: int) -> list[int]:
    """Where windows of `side` begin along `length` pixels, the last one flush with the end."""
    last = max(length - side, 0)
    return [*range(0, last, step), last]


def _at_one_scale(net: nn.Module, image: Tensor, settings: Inference, num_classes: int) -> Tensor:
    if settings.crop is None:
        return _chances(net, image, settings.flip)
    total = image.new_zeros((1, num_classes, *image.shape[2:]), dtype=torch.float32)
    covered = image.new_zeros(image.shape[2:], dtype=torch.float32)
    for windows in _groups(image, settings.crop, settings):
        seen = torch.cat([image[:, :, window.rows, window.columns] for window in windows])
        for window, chances in zip(windows, _chances(net, seen, settings.flip), strict=True):
            total[0, :, window.rows, window.columns] += chances
            covered[window.rows, window.columns] += 1
    return total.div_(covered)


class Window(NamedTuple):
    """A part of an image."""

    rows: slice
    columns: slice


def _groups(image: Tensor, crop: Sides, settings: Inference) -> Iterator[list[Window]]:
    """All windows, as many at a time as the net is to see."""
    axes = [
        [slice(start, start + side) for start in origins(length, side, step)]
        for length, side, step in zip(image.shape[2:], crop, settings.steps, strict=True)
    ]
    windows = [Window(*slices) for slices in product(*axes)]
    for first in range(0, len(windows), settings.windows):
        yield windows[first : first + settings.windows]


def _chances(net: nn.Module, inputs: Tensor, flip: bool) -> Tensor:
    """(N, K, h, w) float32; with `flip` the mean with those of the mirror images."""
    chances = net(inputs).float().softmax(1)
    if flip:
        chances = (chances + net(inputs.flip(3)).float().softmax(1).flip(3)) / 2
    return chances


def _scaled(inputs: Tensor, scale: float) -> Tensor:
    """Bilinear, and smaller ones antialiased, as training images are made."""
    if scale == 1:
        return inputs
    size = [max(1, round(side * scale)) for side in inputs.shape[2:]]
    return F.interpolate(inputs, size, mode="bilinear", align_corners=False, antialias=True)


def _resized(chances: Tensor, size: Sides) -> Tensor:
    if chances.shape[2:] == size:
        return chances
    return F.interpolate(chances, size, mode="bilinear", align_corners=False)
