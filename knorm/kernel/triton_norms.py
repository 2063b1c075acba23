"""The passes of `KernelNorm` on a GPU, as Triton kernels: units side by side, and back.

Activations lie as `triton_loops` says, but there is one map for each sample in both layouts. The
output has `shape` units of kernel size each; words are those of `triton_windows`.
"""

import triton
import triton.language as tl

from knorm.kernel.triton_loops import pixels_of
from knorm.kernel.triton_windows import element_of, unit_of


@triton.jit
def split(place, shape, window: tl.constexpr):
    """The unit that a place of the output belongs to, and the number of its element there."""
    unit, element, units, elements = place * 0, place * 0, 1, 1
    for i in tl.static_range(3):
        size = window[2 - i][0]
        at = place % (shape[2 - i] * size)
        unit += at // size * units
        element += at % size * elements
        place, units = place // (shape[2 - i] * size), units * shape[2 - i]
        elements *= size
    return unit, element


@triton.jit
def place_of(unit, k, shape, window: tl.constexpr):
    """The place of element k of a unit in the output."""
    place, step = unit * 0, 1
    for i in tl.static_range(3):
        size = window[2 - i][0]
        place += (unit % shape[2 - i] * size + k % size) * step
        unit, k, step = unit // shape[2 - i], k // size, step * shape[2 - i] * size
    return place


@triton.jit
def offsets(m, pixel, c, channels, pixels, is_last: tl.constexpr):
    """Of channels `c` at pixels of map m."""
    if is_last:
        at = (m * pixels + pixel)[:, None] * channels + c[None, :]
    else:
        at = (m * channels + c)[None, :] * pixels + pixel[:, None]
    return at


@triton.jit
def unit_maps(units, m, unit, known, count, drops: tl.constexpr):
    """rstd, shift and offset of units of map m."""
    units += m * ((5 if drops else 3) * count) + unit
    rstd = tl.load(units, mask=known, other=0)
    shift = tl.load(units + count, mask=known, other=0)
    return rstd, shift, tl.load(units + 2 * count, mask=known, other=0)


@triton.jit
def gather(
    x,
    out,
    units,
    levels,
    channels,
    is_last: tl.constexpr,
    space,
    shape,
    window: tl.constexpr,
    elements: tl.constexpr,
    drops: tl.constexpr,
    index: tl.constexpr,
    block_p: tl.constexpr,
    block_c: tl.constexpr,
):
    """Every element of a unit, less the unit's mean, times rstd: one read and one write."""
    size, count = space[0] * space[1] * space[2], shape[0] * shape[1] * shape[2]
    m, place = pixels_of(tl.program_id(0), count * elements, block_p, index)
    known = place < count * elements
    unit, k = split(place, shape, window)
    pixel, inside = element_of(unit, k, space, shape, window)
    inside &= known
    rstd, shift, offset = unit_maps(units, m, unit, known, count, drops)
    level = tl.load(levels + m * ((6 if drops else 3) * size) + pixel, mask=inside, other=0)
    rest = (level - shift) - offset
    for start in range(0, channels, block_c):
        c = start + tl.arange(0, block_c).to(index)
        exists = (c < channels)[None, :]
        at = offsets(m, pixel, c, channels, size, is_last)
        v = tl.load(x + at, mask=inside[:, None] & exists, other=0).to(rstd.dtype)
        y = ((v - level[:, None]) + rest[:, None]) * rstd[:, None]
        to = offsets(m, place, c, channels, count * elements, is_last)
        tl.store(out + to, y.to(out.dtype.element_ty), mask=known[:, None] & exists)


@triton.jit
def of_pixels(
    grad,
    of_x,
    units,
    levels,
    channels,
    is_last: tl.constexpr,
    space,
    shape,
    window: tl.constexpr,
    elements: tl.constexpr,
    drops: tl.constexpr,
    index: tl.constexpr,
    block_p: tl.constexpr,
    block_c: tl.constexpr,
):
    """Back through `gather` to x: of every pixel the sum over its units of grad * rstd."""
    size, count = space[0] * space[1] * space[2], shape[0] * shape[1] * shape[2]
    m, pixel = pixels_of(tl.program_id(0), size, block_p, index)
    known = pixel < size
    kind = units.dtype.element_ty
    for start in range(0, channels, block_c):
        c = start + tl.arange(0, block_c).to(index)
        exists = (c < channels)[None, :]
        total = tl.zeros([block_p, block_c], kind)
        for k in range(elements):
            unit, found = unit_of(pixel, k, space, shape, window)
            found &= known
            rstd, _, _ = unit_maps(units, m, unit, found, count, drops)
            place = place_of(unit, k, shape, window)
            at = offsets(m, place, c, channels, count * elements, is_last)
            g = tl.load(grad + at, mask=found[:, None] & exists, other=0).to(kind)
            total += g * rstd[:, None]
        to = offsets(m, pixel, c, channels, size, is_last)
        tl.store(of_x + to, total.to(of_x.dtype.element_ty), mask=known[:, None] & exists)


@triton.jit
def of_units(
    grad,
    x,
    grads,
    units,
    levels,
    channels,
    is_last: tl.constexpr,
    space,
    shape,
    window: tl.constexpr,
    elements: tl.constexpr,
    drops: tl.constexpr,
    index: tl.constexpr,
    block_p: tl.constexpr,
    block_c: tl.constexpr,
):
    """Back through `gather` to the units, `grads` as those of `triton_convs.unscale`."""
    size, count = space[0] * space[1] * space[2], shape[0] * shape[1] * shape[2]
    m, unit = pixels_of(tl.program_id(0), count, block_p, index)
    known = unit < count
    rstd, shift, offset = unit_maps(units, m, unit, known, count, drops)
    levels += m * ((6 if drops else 3) * size)
    of_rstd, total = tl.zeros_like(rstd), tl.zeros_like(rstd)
    for k in range(elements):
        pixel, inside = element_of(unit, k, space, shape, window)
        inside &= known
        place = place_of(unit, k, shape, window)
        level = tl.load(levels + pixel, mask=inside, other=0)
        rest = (level - shift) - offset
        for start in range(0, channels, block_c):
            c = start + tl.arange(0, block_c).to(index)
            exists = (c < channels)[None, :]
            at = offsets(m, place, c, channels, count * elements, is_last)
            g = tl.load(grad + at, mask=known[:, None] & exists, other=0).to(rstd.dtype)
            at = offsets(m, pixel, c, channels, size, is_last)
            v = tl.load(x + at, mask=inside[:, None] & exists, other=0).to(rstd.dtype)
            of_rstd += tl.sum(g * ((v - level[:, None]) + rest[:, None]), 1)
            total += tl.sum(g, 1)
    grads += m * (2 * count) + unit
    tl.store(grads, of_rstd, mask=known)
    tl.store(grads + count, -rstd * total, mask=known)
