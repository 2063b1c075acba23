"""The passes of kernel normalization for a CPU: numba's loops on the memory of torch's tensors."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from knorm.kernel import loops, norm_loops, unit_loops, window_loops
from knorm.kernel.dropout import threshold_of
from knorm.kernel.passes import MAX_RMS, Dropout, Geometry, Rule, Units, Unscaled, new_like
from knorm.kernel.threads import share_out

CACHED = 2**18  # elements of activations that a core keeps close by
SLICES = 64  # partial sums over samples, at most: however many threads there are


class Blocks(NamedTuple):
    """Activations as loops see them, and how they are worked on."""

    last: bool
    """whether channels are"""
    size: int
    """pixels of a block"""
    number: int
    """of all samples together"""

    def view(self, x: Tensor, num_stats: int) -> np.ndarray:
        """(N, S * C, *space) as (N * S, C, P) or, channels last, (N, P, C)."""
        array = x.detach().numpy()
        samples, channels, *space = array.shape
        if self.last:
            return array.transpose(0, *range(2, array.ndim), 1).reshape(
                samples, math.prod(space), channels
            )
        return array.reshape(samples * num_stats, channels // num_stats, math.prod(space))


def blocks_of(x: Tensor, num_stats: int) -> Blocks:
    samples, channels, *space = x.shape
    pixels = math.prod(space)
    size = min(max(CACHED // max(channels, 1), 64), 1024)
    last = num_stats == 1 and channels > 1 and x.movedim(1, -1).is_contiguous()
    return Blocks(last, size, samples * num_stats * -(-pixels // size))


def maps(values: Tensor, dims: int) -> np.ndarray:
    """(N, S, ...) as (N * S, ...) with the last so many dimensions as one."""
    array = values.numpy()
    samples, num_stats, *between = array.shape[:-dims]
    return array.reshape(samples * num_stats, *between, math.prod(array.shape[-dims:]))


def moments(
    x: Tensor, num_stats: int, dropout: Dropout | None, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor | None]:
    samples, _, *space = x.shape
    found = x.new_empty((samples, num_stats, 6 if dropout else 3, *space))
    centred = torch.empty_like(x) if dtype is not None else None
    blocks = blocks_of(x, num_stats)
    view = blocks.view(x, num_stats)
    loop = loops.moments_last if blocks.last else loops.moments_first
    into = view[:0] if centred is None else blocks.view(centred, num_stats)
    args = (view, into, maps(found, len(space)), num_stats, *drawn(dropout))
    share_out(loop, blocks.number, x.numel(), blocks.size, *args)
    return found, centred


def drawn(dropout: Dropout | None) -> tuple[int, np.uint32]:
    """Seed and threshold."""
    if dropout is None:
        return 0, np.uint32(0)
    return dropout.seed, np.uint32(threshold_of(dropout.p))


class Lines(NamedTuple):
    """Where pixels and units lie in a padded, flat map, see `window_loops`."""

    size: int
    pixel_lines: np.ndarray
    unit_lines: np.ndarray
    step: int
    offsets: np.ndarray


@lru_cache(256)
def lines_of(space: tuple[int, ...], geometry: tuple[tuple[int, ...], ...]) -> Lines:
    kernel_size, stride, padding, dilation = geometry
    sizes = [n + 2 * p for n, p in zip(space, padding, strict=True)]
    steps = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    out = out_sizes(space, Geometry(*geometry))

    def places(counts: Sequence[int], apart: Sequence[int]) -> np.ndarray:
        """Of all elements of a grid."""
        found = np.zeros((), np.int64)
        for count, distance, step in zip(counts, apart, steps, strict=True):
            found = np.add.outer(found, np.arange(count) * distance * step)
        return found.ravel()

    first = sum(p * step for p, step in zip(padding, steps, strict=True))
    ones = [1] * len(space)
    return Lines(
        math.prod(sizes),
        first + places((*space[:-1], 1), ones),
        places((*out[:-1], 1), stride),
        stride[-1],
        places(kernel_size, dilation),
    )


@lru_cache(256)
def lines_side_by_side(
    space: tuple[int, ...], geometry: tuple[tuple[int, ...], ...]
) -> tuple[int, int, np.ndarray, np.ndarray]:
    """`width`, `along`, `where` and `columns`, see `norm_loops`."""
    kernel_size, stride, padding, _ = geometry
    out = out_sizes(space, Geometry(*geometry))
    along = [
        np.arange(o)[:, None] * s + np.arange(k) - p
        for k, s, p, o in zip(kernel_size, stride, padding, out, strict=True)
    ]
    *leading, columns = [
        np.where((places >= 0) & (places < n), places, -1).ravel()
        for n, places in zip(space, along, strict=True)
    ]
    pixels = units = elements = np.zeros((), np.int64)
    for n, k, o, places in zip(space, kernel_size, out, leading, strict=False):
        outside = (pixels[..., None] < 0) | (places < 0)
        pixels = np.where(outside, -1, pixels[..., None] * n + places)
        units = np.add.outer(units * o, np.arange(o * k) // k)
        elements = np.add.outer(elements * k, np.arange(o * k) % k)
    where = np.stack([part.ravel() for part in (pixels, units, elements * kernel_size[-1])])
    return space[-1], kernel_size[-1], where, columns


def out_sizes(space: Sequence[int], geometry: Geometry) -> list[int]:
    """Windows along each dimension."""
    each = zip(space, *geometry, strict=True)
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in each]


def unit_statistics(moments: Tensor, channels: int, geometry: Geometry, rule: Rule) -> Units:
    samples, num_stats, _, *space = moments.shape
    out, size = out_sizes(space, geometry), math.prod(geometry.kernel_size)
    units = Units(
        moments.new_empty((samples, num_stats, *out)),
        moments.new_empty((samples, num_stats, size, *out)),
    )
    lines = lines_of(tuple(space), tuple(map(tuple, geometry)))
    views = (maps(part, len(space)) for part in units)
    args = (maps(moments, len(space)), *settings(rule), rule.eps, *lines, channels, *views)
    work = units.rows.numel() + moments.numel()
    share_out(window_loops.statistics, samples * num_stats, work, *args)
    return units


def settings(rule: Rule) -> tuple[float, float, float]:
    """Scale of what is kept (0 without dropout), growth, bound (0 for none)."""
    scale = 1 / (1 - rule.dropout_p) if rule.dropout_p else 0.0
    return scale, rule.growth, 1 / MAX_RMS**2 if rule.bounded else 0.0


def scale(conv: Tensor, units: Units, sums: Tensor, bias: Tensor | None, out: Tensor) -> None:
    num_stats, dims = len(sums), conv.dim() - 2
    blocks = blocks_of(conv, num_stats)
    loop = unit_loops.scale_last if blocks.last else unit_loops.scale_first
    views = (blocks.view(part, num_stats) for part in (conv, out))
    bias = sums.new_zeros(sums.shape[:2]) if bias is None else bias.contiguous()
    args = (*views, *(maps(part, dims) for part in units), weights(sums, blocks), bias.numpy())
    share_out(loop, blocks.number, conv.numel(), blocks.size, *args)


def weights(sums: Tensor, blocks: Blocks) -> np.ndarray:
    """(S, O, K) or, channels last, (S, K, O)."""
    return (sums.mT if blocks.last else sums).contiguous().numpy()


def unscale(grad: Tensor, conv: Tensor, units: Units, sums: Tensor) -> Unscaled:
    num_stats, dims = len(sums), conv.dim() - 2
    blocks = blocks_of(conv, num_stats)
    loop = unit_loops.unscale_last if blocks.last else unit_loops.unscale_first
    slices = min(blocks.number, SLICES)
    scaled, grads = torch.empty_like(conv), Units(*map(torch.empty_like, units))
    laid = weights(sums, blocks)
    of_sums, of_bias = (sums.new_zeros((slices, *shape)) for shape in (laid.shape, sums.shape[:2]))
    views = (blocks.view(part, num_stats) for part in (grad, conv, scaled))
    flat = (maps(part, dims) for part in units)
    into = (maps(part, dims) for part in grads)
    args = (*views, *flat, laid, *into, of_sums.numpy(), of_bias.numpy())
    share_out(loop, slices, conv.numel(), blocks.size, *args)
    total = of_sums.sum(0)
    return Unscaled(scaled, grads, total.mT if blocks.last else total, of_bias.sum(0))


def through_statistics(
    grads: Units, units: Units, moments: Tensor, channels: int, geometry: Geometry, rule: Rule
) -> Tensor:
    samples, num_stats, _, *space = moments.shape
    slopes = moments.new_empty((samples, num_stats, 4 if rule.dropout_p else 2, *space))
    lines = lines_of(tuple(space), tuple(map(tuple, geometry)))
    views = (maps(part, len(space)) for part in (*units, *grads, slopes))
    args = (maps(moments, len(space)), *settings(rule), *lines, channels, *views)
    work = units.rows.numel() + moments.numel()
    share_out(window_loops.through_statistics, samples * num_stats, work, *args)
    return slopes


def add(out: Tensor, x: Tensor, moments: Tensor, slopes: Tensor, dropout: Dropout | None) -> None:
    num_stats, dims = moments.shape[1], x.dim() - 2
    blocks = blocks_of(x, num_stats)
    loop = loops.add_last if blocks.last else loops.add_first
    views = (blocks.view(part, num_stats) for part in (out, x))
    args = (*views, maps(moments, dims), maps(slopes, dims), num_stats, *drawn(dropout))
    share_out(loop, blocks.number, x.numel(), blocks.size, *args)


def gather(x: Tensor, moments: Tensor, units: Units, geometry: Geometry) -> Tensor:
    dims = x.dim() - 2
    sizes = [k * n for k, n in zip(geometry.kernel_size, units.rstd.shape[2:], strict=True)]
    blocks = blocks_of(x, 1)
    out = new_like(x, sizes, blocks.last)
    loop = norm_loops.gather_last if blocks.last else norm_loops.gather_first
    views = (*(blocks.view(part, 1) for part in (x, out)), maps(moments, dims))
    lines = lines_side_by_side(tuple(x.shape[2:]), tuple(map(tuple, geometry)))
    share_out(loop, len(x), out.numel(), *views, *(maps(part, dims) for part in units), *lines)
    return out


def ungather(
    grad: Tensor, x: Tensor, moments: Tensor, units: Units, geometry: Geometry
) -> tuple[Tensor, Units]:
    dims, blocks = x.dim() - 2, blocks_of(x, 1)
    of_x, grads = torch.empty_like(x), Units(*map(torch.empty_like, units))
    loop = norm_loops.ungather_last if blocks.last else norm_loops.ungather_first
    views = (*(blocks.view(part, 1) for part in (x, grad, of_x)), maps(moments, dims))
    flat = (maps(part, dims) for part in (*units, *grads))
    lines = lines_side_by_side(tuple(x.shape[2:]), tuple(map(tuple, geometry)))
    share_out(loop, len(x), grad.numel(), *views, *flat, *lines)
    return of_x, grads
