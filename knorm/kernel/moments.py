"""Per-pixel moments over channels, and their adjoint: the passes over whole activations.

On a CPU both go a few samples at a time, so that all after the first read happens in the cache.
Dropped elements are a list of positions, drawn again from the same seed in the backward pass: no
mask is ever stored, and what dropout costs is in proportion to its probability.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from knorm.kernel.autograd import statistics_dtype

CACHED = 2**16  # elements of activations that a CPU core keeps close by


class Moments(NamedTuple):
    """Of every pixel over the C channels of its group, each (N, S, *space)."""

    level: Tensor
    """about the mean: as near as a number of that size can be"""
    rest: Tensor
    """the mean less the level"""
    square: Tensor
    """mean of the squares of v, which is x less the level"""
    count: Tensor | None = None
    """dropped channels"""
    first: Tensor | None = None
    """sum of v over them"""
    second: Tensor | None = None
    """sum of its squares over them"""


class MomentGrads(NamedTuple):
    """Gradients of those that are not counted; the level is a constant, as it is everywhere."""

    rest: Tensor
    square: Tensor
    first: Tensor | None = None
    second: Tensor | None = None


class Pixels:
    """Activations (N, C, *space) as pixels of S groups, in the order in which they are stored."""

    def __init__(self, x: Tensor, num_groups: int):
        samples, channels, *space = x.shape
        self.shape = (samples, num_groups, *space)
        self.last = num_groups == 1 and is_channels_last(x)
        self.channels = channels // num_groups
        self.count = math.prod(space)
        self.num_groups = num_groups
        self.dim = 2 if self.last else 1

    def view(self, x: Tensor) -> Tensor:
        """(N, S * C, *space) as (N, P * S, C), or as (N * S, C, P)."""
        samples = x.shape[0]
        if self.last:
            return x.movedim(1, -1).reshape(samples, -1, self.channels)
        return x.reshape(samples * self.num_groups, self.channels, self.count)

    def maps(self, values: Tensor) -> Tensor:
        """A value for every pixel, (N, P * S, 1) or (N * S, 1, P), as (N, S, *space)."""
        _, groups, *space = self.shape
        if self.last:
            return values.reshape(-1, *space, groups).movedim(-1, 1)
        return values.reshape(-1, groups, *space)

    def unmaps(self, maps: Tensor) -> Tensor:
        """The reverse of `maps`."""
        samples = maps.shape[0]
        if self.last:
            return maps.movedim(1, -1).reshape(samples, -1, 1)
        return maps.reshape(samples * self.num_groups, 1, self.count)

    def of(self, positions: Tensor) -> Tensor:
        """The pixels that elements at these positions of the memory belong to."""
        if self.last:
            return positions // self.channels
        pixels = positions % self.count
        return pixels.add_((positions // (self.channels * self.count)).mul_(self.count))


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of (N, C, *space) are side by side in memory."""
    return x.shape[1] > 1 and x.movedim(1, -1).is_contiguous()


def chunks(x: Tensor) -> Iterator[slice]:
    """Samples that are worked on together."""
    samples = x.shape[0]
    step = samples if x.device.type != "cpu" else max(CACHED * samples // max(x.numel(), 1), 1)
    for start in range(0, samples, max(step, 1)):
        yield slice(start, min(start + step, samples))


class Dropout:
    """Which elements are dropped, drawn chunk by chunk: every element with probability p.

    The gaps between dropped elements are geometric; so many numbers are drawn, not one for each
    element.
    """

    def __init__(self, p: float, seed: int, device: torch.device):
        self.p, self.device = p, device
        self.generator = torch.Generator(device).manual_seed(seed)

    def positions(self, size: int) -> Tensor:
        """Ascending positions in [0, size) of the dropped elements, (D,) int64."""
        found, start = [], -1
        while start < size:
            left = (size - start) * self.p
            draws = int(left + 6 * math.sqrt(left) + 8)
            gaps = torch.rand(draws, generator=self.generator, device=self.device)
            gaps = gaps.neg_().log1p_().mul_(1 / math.log1p(-self.p)).to(torch.int64).add_(1)
            gaps[0] += start
            found.append(gaps.cumsum(0))
            start = int(found[-1][-1])
        ends = torch.cat(found) if len(found) > 1 else found[0]
        return ends[: int(torch.searchsorted(ends, size))]


def pixel_moments(
    x: Tensor, num_groups: int, dropout: Dropout | None, centred: Tensor | None = None
) -> tuple[Moments, list[Tensor]]:
    """The moments of (N, C, *space), and the positions that were dropped in every chunk.

    `centred`, of the shape and strides of x, receives x less every pixel's level.
    """
    pixels = Pixels(x, num_groups)
    found: list[list[Tensor]] = []
    dropped = []
    for chunk in chunks(x):
        part = pixels.view(x[chunk]).to(statistics_dtype(x))
        level = part.mean(pixels.dim, keepdim=True)
        if centred is None or centred.dtype != part.dtype:
            v = part - level
        else:
            v = torch.sub(part, level, out=pixels.view(centred[chunk]))
        if centred is not None and centred.dtype != part.dtype:
            pixels.view(centred[chunk]).copy_(v)
        rest, square = (m.mean(pixels.dim, keepdim=True) for m in (v, v * v))
        maps = [level, rest, square]
        if dropout is not None:
            positions = dropout.positions(v.numel())
            dropped.append(positions)
            maps += dropped_sums(v, positions, pixels, level)
        found.append([pixels.maps(m) for m in maps])
    return Moments(*(torch.cat(maps) for maps in zip(*found, strict=True))), dropped


def dropped_sums(v: Tensor, positions: Tensor, pixels: Pixels, like: Tensor) -> list[Tensor]:
    """How many elements of every pixel are dropped, their sum and that of their squares."""
    index, values = pixels.of(positions), v.view(-1)[positions]
    sums = []
    for part in (torch.ones_like(values), values, values * values):
        total = torch.zeros_like(like)
        total.view(-1).index_add_(0, index, part)
        sums.append(total)
    return sums


def add_moment_grads(
    out: Tensor, x: Tensor, moments: Moments, grads: MomentGrads, dropped: list[Tensor]
) -> None:
    """Add to `out`, of the strides of x, what flows back into x from its moments.

    With v = x - level over C channels, of which the set D is dropped, and the level a constant:
    d rest = 1 / C, d square = 2 v / C, d first = [D], d second = 2 v [D].
    """
    pixels = Pixels(x, moments.level.shape[1])
    slope = grads.square * (2 / pixels.channels)
    constant = grads.rest / pixels.channels - slope * moments.level
    for i, chunk in enumerate(chunks(x)):
        part, into = pixels.view(x[chunk]), pixels.view(out[chunk])
        rise, base = pixels.unmaps(slope[chunk]), pixels.unmaps(constant[chunk])
        into.add_(base.to(into.dtype)).addcmul_(rise.to(into.dtype), part.to(into.dtype))
        if dropped:
            at, index = dropped[i], pixels.of(dropped[i])
            first, second, level = (
                pixels.unmaps(m[chunk]).reshape(-1)
                for m in (grads.first, grads.second, moments.level)
            )
            v = part.reshape(-1)[at] - level[index]
            values = torch.addcmul(first[index], second[index], v, value=2)
            into.view(-1).index_add_(0, at, values.to(into.dtype))


def keep_mask(x: Tensor, num_groups: int, dropout: Dropout) -> Tensor:
    """What `pixel_moments` keeps, as a mask (N, S, C, *space), True for what is kept."""
    pixels, keep = Pixels(x, num_groups), torch.ones_like(x, dtype=torch.bool)
    for chunk in chunks(x):
        part = pixels.view(keep[chunk])
        part.view(-1)[dropout.positions(part.numel())] = False
    return keep.unflatten(1, (num_groups, -1))
