"""Statistics of units from the moments of pixels on a GPU, and back, as Triton kernels.

Maps lie (samples times groups, kinds, pixels or units). `space` and `shape` are the sizes of the
input and of the output in three dimensions, and `window` has kernel size, stride, padding and
dilation of each: fewer dimensions have sizes of 1 before them.

A mean is kept as a level of one of its pixels, the shift, and the little that is missing, the
offset. The kinds of units: rstd, shift, offset; with dropout, the offset without it and whether the
variance is held at its bound. Of their gradients: rstd, mean.
"""

import triton
import triton.language as tl


@triton.jit
def element_of(unit, k, space, shape, window: tl.constexpr):
    """The pixel that is element k of a unit, and whether it is inside, not in the padding."""
    place, inside, step = unit * 0, unit >= 0, 1
    for i in tl.static_range(3):
        size = window[2 - i][0]
        at = unit % shape[2 - i] * window[2 - i][1] + k % size * window[2 - i][3] - window[2 - i][2]
        place += at * step
        inside &= (at >= 0) & (at < space[2 - i])
        unit, k, step = unit // shape[2 - i], k // size, step * space[2 - i]
    return place, inside


@triton.jit
def unit_of(pixel, k, space, shape, window: tl.constexpr):
    """The unit whose element k a pixel is, and whether there is one."""
    place, found, step = pixel * 0, pixel >= 0, 1
    for i in tl.static_range(3):
        size, stride = window[2 - i][0], window[2 - i][1]
        at = pixel % space[2 - i] + window[2 - i][2] - k % size * window[2 - i][3]
        place += at // stride * step
        found &= (at >= 0) & (at % stride == 0) & (at // stride < shape[2 - i])
        pixel, k, step = pixel // space[2 - i], k // size, step * shape[2 - i]
    return place, found


@triton.jit
def center_of(unit, space, shape, window: tl.constexpr):
    """A pixel near the middle of a unit."""
    place, step = unit * 0, 1
    for i in tl.static_range(3):
        middle = window[2 - i][0] // 2 * window[2 - i][3] - window[2 - i][2]
        at = unit % shape[2 - i] * window[2 - i][1] + middle
        place += tl.minimum(tl.maximum(at, 0), space[2 - i] - 1) * step
        unit, step = unit // shape[2 - i], step * space[2 - i]
    return place


@triton.jit
def kept_channels(maps, size, known, channels):
    """Of the channels that a pixel keeps: their part, number, mean, that less the level, variance.

    No less than one is counted.
    """
    level = tl.load(maps, mask=known, other=0)
    rest = tl.load(maps + size, mask=known, other=0)
    square = tl.load(maps + 2 * size, mask=known, other=0)
    kept = channels - tl.load(maps + 3 * size, mask=known, other=0)
    some = tl.maximum(kept, 1)
    above = (channels * rest - tl.load(maps + 4 * size, mask=known, other=0)) / some
    among = (channels * square - tl.load(maps + 5 * size, mask=known, other=0)) / some
    return kept / channels, some, level + above, above, among - above * above


@triton.jit
def whole_pixel(maps, size, known, shift):
    """Mean less a shift, and variance, of all channels of a pixel."""
    level = tl.load(maps, mask=known, other=0)
    rest = tl.load(maps + size, mask=known, other=0)
    square = tl.load(maps + 2 * size, mask=known, other=0)
    return (level - shift) + rest, square - rest * rest


@triton.jit
def kept_pixel(maps, size, known, shift, channels, growth: tl.constexpr):
    """The same after dropout: of those that are kept, times `growth`, and of the zeros."""
    part, _, mean, _, among = kept_channels(maps, size, known, channels)
    within = growth * growth * part * (tl.maximum(among, 0) + (1 - part) * mean * mean)
    return growth * part * mean - shift, within


@triton.jit
def unit_statistics(
    maps,
    units,
    number_of_units,
    channels,
    space,
    shape,
    window: tl.constexpr,
    elements: tl.constexpr,
    growth: tl.constexpr,
    bound: tl.constexpr,
    eps: tl.constexpr,
    drops: tl.constexpr,
    index: tl.constexpr,
    block: tl.constexpr,
):
    """Kinds of units from moments `maps`.

    growth: with dropout, what is kept is multiplied by it; without, a variance V at a mean M
    becomes growth * V + (growth - 1) * M**2. bound: least variance as a part of the mean square.
    """
    at = tl.program_id(0).to(index) * block + tl.arange(0, block)
    known = at < number_of_units
    size, count = space[0] * space[1] * space[2], shape[0] * shape[1] * shape[2]
    m, unit = at // count, at % count
    maps += m * ((6 if drops else 3) * size)
    shift = tl.load(maps + center_of(unit, space, shape, window), mask=known, other=0)
    offset, within = tl.zeros_like(shift), tl.zeros_like(shift)
    kept_offset, kept_within = offset, within
    for k in range(elements):
        pixel, inside = element_of(unit, k, space, shape, window)
        mean, var = whole_pixel(maps + pixel, size, inside & known, shift)
        offset += mean / elements
        within += var / elements
        if drops:
            mean, var = kept_pixel(maps + pixel, size, inside & known, shift, channels, growth)
            kept_offset += mean / elements
            kept_within += var / elements
    for k in range(elements):
        pixel, inside = element_of(unit, k, space, shape, window)
        mean, _ = whole_pixel(maps + pixel, size, inside & known, shift)
        within += (mean - offset) * (mean - offset) / elements
        if drops:
            mean, _ = kept_pixel(maps + pixel, size, inside & known, shift, channels, growth)
            kept_within += (mean - kept_offset) * (mean - kept_offset) / elements
    units += m * ((5 if drops else 3) * count) + unit
    tl.store(units + count, shift, mask=known)
    if drops:
        apart = offset - kept_offset
        least = bound * (within + apart * apart)
        var = tl.maximum(kept_within, least)
        tl.store(units + 2 * count, kept_offset, mask=known)
        tl.store(units + 3 * count, offset, mask=known)
        tl.store(units + 4 * count, (least > kept_within).to(shift.dtype), mask=known)
    else:
        var = growth * within + (growth - 1) * (shift + offset) * (shift + offset)
        tl.store(units + 2 * count, offset, mask=known)
    tl.store(units, 1 / tl.sqrt(var + eps), mask=known)


@triton.jit
def through_statistics(
    grads,
    units,
    maps,
    slopes,
    number_of_pixels,
    channels,
    space,
    shape,
    window: tl.constexpr,
    elements: tl.constexpr,
    growth: tl.constexpr,
    bound: tl.constexpr,
    drops: tl.constexpr,
    index: tl.constexpr,
    block: tl.constexpr,
):
    """From the gradients of units to the slopes of pixels: each gathers from the units it is in.

    A unit's variance is that within its pixels and between them: with the mean e of one of K
    pixels and the mean M of the unit, d M / d e = 1 / K and d var / d e = 2 (e - M) / K.
    """
    at = tl.program_id(0).to(index) * block + tl.arange(0, block)
    known = at < number_of_pixels
    size, count = space[0] * space[1] * space[2], shape[0] * shape[1] * shape[2]
    m, pixel = at // size, at % size
    grads += m * (2 * count)
    units += m * ((5 if drops else 3) * count)
    maps += m * ((6 if drops else 3) * size) + pixel
    level = tl.load(maps, mask=known, other=0)
    rest = tl.load(maps + size, mask=known, other=0)
    zero = tl.zeros_like(level)
    of_mean, of_within, of_kept, of_kept_within = zero, zero, zero, zero
    if drops:
        part, some, mean, above, _ = kept_channels(maps, size, known, channels)
    for k in range(elements):
        unit, found = unit_of(pixel, k, space, shape, window)
        found &= known
        rstd = tl.load(units + unit, mask=found, other=0)
        shift = tl.load(units + count + unit, mask=found, other=0)
        offset = tl.load(units + 2 * count + unit, mask=found, other=0)
        of_var = tl.load(grads + unit, mask=found, other=0) * rstd * rstd * rstd * -0.5
        of_unit = tl.load(grads + count + unit, mask=found, other=0)
        if drops:
            whole = tl.load(units + 3 * count + unit, mask=found, other=0)
            held = tl.load(units + 4 * count + unit, mask=found, other=0)
            of_bound = bound * held * of_var
            of_var -= held * of_var
            apart = 2 * of_bound * (whole - offset)
            of_mean += apart + 2 * of_bound * ((level - shift) + rest - whole)
            of_within += of_bound
            of_kept += of_unit - apart + 2 * of_var * (growth * part * mean - shift - offset)
            of_kept_within += of_var
        else:
            of_unit += 2 * (growth - 1) * of_var * (shift + offset)
            of_var *= growth
            of_mean += of_unit + 2 * of_var * ((level - shift) + rest - offset)
            of_within += of_var
    slopes += m * ((4 if drops else 2) * size) + pixel
    of_rest = (of_mean - 2 * rest * of_within) / (elements * channels)
    of_square = of_within / (elements * channels)
    if drops:
        of_kept += 2 * growth * (1 - part) * mean * of_kept_within
        of_among = growth * growth * part * of_kept_within / elements
        of_above = growth * part * of_kept / elements - 2 * above * of_among
        of_rest += of_above / some
        of_square += of_among / some
        tl.store(slopes + 2 * size, -of_above / some, mask=known)
        tl.store(slopes + 3 * size, -2 * of_among / some, mask=known)
    tl.store(slopes, of_rest, mask=known)
    tl.store(slopes + size, 2 * of_square, mask=known)
