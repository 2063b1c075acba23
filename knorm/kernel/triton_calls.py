"""How activations are cut into tiles for Triton kernels, and how these are started."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from knorm.kernel.passes import Geometry

TILE = 2048  # elements of activations that a program holds
ALONG = 64  # of them side by side in memory, at most
ACROSS = 128  # and in the other direction
NARROW = 2**31  # elements that offsets of 32 bits reach

Sizes = tuple[int, ...]


class View(NamedTuple):
    """Activations (N, S * C, *space) as kernels see them, see `triton_loops`."""

    maps: int
    channels: int
    pixels: int
    stride_c: int
    stride_p: int

    def tile(self, least: int = 1, most: int = TILE) -> tuple[int, int]:
        """Pixels and channels of a program: no less than `least` and no more than `most`."""
        ends = (self.pixels, self.channels)
        sizes = [max(triton.next_power_of_2(end), least) for end in ends]
        last = self.stride_c == 1
        sizes[last] = max(min(sizes[last], ALONG, most), least)
        sizes[not last] = max(min(sizes[not last], TILE // sizes[last], ACROSS, most), least)
        return sizes[0], sizes[1]


def view_of(x: Tensor, num_stats: int, flat: bool = True) -> View:
    """Of all samples as one map, where channels are last, if they may be `flat`."""
    samples, channels, *space = x.shape
    pixels = math.prod(space)
    if x.is_contiguous():
        return View(samples * num_stats, channels // num_stats, pixels, pixels, 1)
    maps = 1 if flat else samples
    return View(maps, channels, samples // maps * pixels, 1, channels)


def launch(kernel: Any, grid: Sizes, *tensors: Tensor | None, **settings: Any) -> None:
    """A kernel on the device of its tensors, with offsets that are wide enough for them."""
    given = [t for t in tensors if t is not None]
    index = tl.int64 if any(t.numel() >= NARROW for t in given) else tl.int32
    if math.prod(grid) > 0:
        with torch.cuda.device_of(given[0]):
            kernel[grid](*tensors, **settings, index=index, enable_fp_fusion=True)


def three(sizes: Sequence[int]) -> Sizes:
    """Sizes in three dimensions."""
    return (1,) * (3 - len(sizes)) + tuple(sizes)


def windows_of(geometry: Geometry) -> tuple[Sizes, ...]:
    """Kernel size, stride, padding and dilation of three dimensions."""
    each = tuple(zip(*geometry, strict=True))
    return ((1, 1, 0, 1),) * (3 - len(each)) + each
