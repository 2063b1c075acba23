"""Chances of every class at every pixel of one image, by as many views of it as the settings ask.

A view is the image at one scale, or its mirror image; it is seen as a whole or in windows. Averaged
are chances (softmax), never logits: of overlapping windows, of an image and its mirror image, of
scales. Windows lie a stride apart from the top left corner on, the last ones flush with the border,
so all have the size asked for; where an image is smaller, 0 is put below and to the right of it,
which is the mean color, and cut off again.

Memory: besides what the net needs for `windows` windows, a few (K, H, W) float32 of the size of the
image and of the scale under way; nothing grows with the number of windows or views.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmentation.inference_config import Inference, Sides


@torch.no_grad()
def probabilities(net: nn.Module, inputs: Tensor, settings: Inference, num_classes: int) -> Tensor:
    """(1, K, H, W) float32, sums of 1 over K, of inputs (1, 3, H, W).

    `net` is in evaluation and maps (N, 3, h, w) to logits (N, K, h, w). The windows that it sees at
    a time depend on the size of the image alone.
    """
    size = (inputs.shape[2], inputs.shape[3])
    total = inputs.new_zeros((1, num_classes, *size), dtype=torch.float32)
    for scale in settings.scales:
        total += _resized(_at_one_scale(net, _scaled(inputs, scale), settings, num_classes), size)
    return total.div_(len(settings.scales))


def origins(length: int, side: int, step: int) -> list[int]:
    """Where windows of `side` begin along `length` pixels, the last one flush with the end."""
    last = max(length - side, 0)
    return [*range(0, last, step), last]


def _at_one_scale(net: nn.Module, image: Tensor, settings: Inference, num_classes: int) -> Tensor:
    if settings.crop is None:
        return _chances(net, image, settings.flip)
    height, width = image.shape[2:]
    crop = settings.crop
    image = F.pad(image, (0, max(crop[1] - width, 0), 0, max(crop[0] - height, 0)))
    total = image.new_zeros((1, num_classes, *image.shape[2:]), dtype=torch.float32)
    covered = image.new_zeros(image.shape[2:], dtype=torch.float32)
    for windows in _groups(image, crop, settings):
        seen = torch.cat([image[:, :, window.rows, window.columns] for window in windows])
        for window, chances in zip(windows, _chances(net, seen, settings.flip), strict=True):
            total[0, :, window.rows, window.columns] += chances
            covered[window.rows, window.columns] += 1
    return total.div_(covered)[:, :, :height, :width]


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
