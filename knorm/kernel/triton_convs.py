"""The passes over convolutions on a GPU, as Triton kernels; they lie as `triton_loops` says.

What a unit's elements are in place of: their levels less the unit's mean, its deviations, are
gathered from the levels of pixels; they are stored nowhere.
"""

import triton
import triton.language as tl

from knorm.kernel.triton_loops import pixels_of
from knorm.kernel.triton_windows import element_of


@triton.jit
def deviations(
    units,
    levels,
    at,
    known,
    space,
    shape,
    window: tl.constexpr,
    elements: tl.constexpr,
    drops: tl.constexpr,
    block_k: tl.constexpr,
):
    """(pixels, block_k), zeros past the last element, and rstd (pixels) of units `at`."""
    size, count = space[0] * space[1] * space[2], shape[0] * shape[1] * shape[2]
    m, unit = at // count, at % count
    units += m * ((5 if drops else 3) * count) + unit
    levels += m * ((6 if drops else 3) * size)
    rstd = tl.load(units, mask=known, other=0)
    shift = tl.load(units + count, mask=known, other=0)[:, None]
    offset = tl.load(units + 2 * count, mask=known, other=0)[:, None]
    k = tl.arange(0, block_k)[None, :]
    wanted = known[:, None] & (k < elements)
    pixel, inside = element_of(unit[:, None], k, space, shape, window)
    level = tl.load(levels[:, None] + pixel, mask=wanted & inside, other=0)
    return tl.where(wanted, (level - shift) - offset, 0), rstd


@triton.jit
def product(a, b, precision: tl.constexpr):
    """Of matrices; of a column and a row where there is one column."""
    return a * b if a.shape[1] == 1 else tl.dot(a, b, input_precision=precision, out_dtype=a.dtype)


@triton.jit
def scale(
    conv,
    out,
    units,
    levels,
    sums,
    bias,
    outputs,
    pixels,
    stride_c,
    stride_p,
    groups,
    space,
    shape,
    window: tl.constexpr,
    elements: tl.constexpr,
    drops: tl.constexpr,
    precision: tl.constexpr,
    index: tl.constexpr,
    block_p: tl.constexpr,
    block_c: tl.constexpr,
    block_k: tl.constexpr,
):
    """out = rstd * (conv + deviations @ sums) + bias; it may be `conv`. `levels`: the moments."""
    m, p = pixels_of(tl.program_id(0), pixels, block_p, index)
    base, inside, k = m * outputs * pixels + p * stride_p, p < pixels, tl.arange(0, block_k)
    rows, rstd = deviations(
        units, levels, m * pixels + p, inside, space, shape, window, elements, drops, block_k
    )
    for start in range(0, outputs, block_c):
        o = start + tl.arange(0, block_c)
        of = m % groups * outputs + o
        weights = tl.load(
            sums + (of * elements)[None, :] + k[:, None],
            mask=(o < outputs)[None, :] & (k < elements)[:, None],
            other=0,
        ).to(rstd.dtype)
        known = inside[:, None] & (o < outputs)[None, :]
        at = base[:, None] + (o.to(index) * stride_c)[None, :]
        z = tl.load(conv + at, mask=known, other=0).to(rstd.dtype)
        y = (z + product(rows, weights, precision)) * rstd[:, None]
        if bias is not None:
            y += tl.load(bias + of, mask=o < outputs, other=0).to(rstd.dtype)[None, :]
        tl.store(out + at, y.to(out.dtype.element_ty), mask=known)


@triton.jit
def unscale(
    grad,
    conv,
    scaled,
    units,
    levels,
    sums,
    of_units,
    of_sums,
    of_bias,
    outputs,
    pixels,
    stride_c,
    stride_p,
    samples,
    groups,
    slices,
    space,
    shape,
    window: tl.constexpr,
    elements: tl.constexpr,
    drops: tl.constexpr,
    precision: tl.constexpr,
    index: tl.constexpr,
    block_p: tl.constexpr,
    block_c: tl.constexpr,
    block_k: tl.constexpr,
):
    """Back through `scale`: of the convolution, the units, the sums and the bias.

    A program takes one slice of the blocks of pixels of a group, for one block of outputs. of_units
    (blocks of outputs, samples * groups, 2, units), of_sums (slices, groups, outputs, elements) and
    of_bias (slices, groups, outputs) are parts to be added up. `samples`: maps of a group.
    """
    slice_, part, group = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    count = shape[0] * shape[1] * shape[2]
    o, k = part * block_c + tl.arange(0, block_c), tl.arange(0, block_k)
    exists, of = o < outputs, group * outputs + o
    kind = of_units.dtype.element_ty
    which = (of * elements)[None, :] + k[:, None]
    known = exists[None, :] & (k < elements)[:, None]
    weights = tl.load(sums + which, mask=known, other=0).to(kind)
    total = tl.sum(weights, 0)[None, :]
    of_weights = tl.zeros([block_k, block_c], kind)
    of_levels = tl.zeros([block_c], kind)
    blocks = tl.cdiv(pixels, block_p)
    of_units += part.to(index) * samples * groups * pixels * 2
    for block in range(slice_, samples * blocks, slices):
        number, p = pixels_of(block, pixels, block_p, index)
        m = number * groups + group
        inside = p < pixels
        rows, rstd = deviations(
            units, levels, m * pixels + p, inside, space, shape, window, elements, drops, block_k
        )
        valid = inside[:, None] & exists[None, :]
        at = (m * outputs * pixels + p * stride_p)[:, None] + (o.to(index) * stride_c)[None, :]
        g = tl.load(grad + at, mask=valid, other=0).to(kind)
        z = tl.load(conv + at, mask=valid, other=0).to(kind)
        y = z + product(rows, weights, precision)
        through = g * rstd[:, None]
        tl.store(scaled + at, through.to(scaled.dtype.element_ty), mask=valid)
        unit = (m * pixels + p) // count * (2 * count) + (m * pixels + p) % count
        tl.store(of_units + unit, tl.sum(g * y, 1), mask=inside)
        tl.store(of_units + count + unit, -tl.sum(through * total, 1), mask=inside)
        of_levels += tl.sum(g, 0)
        if block_k == 1:
            of_weights += tl.sum(through * rows, 0)[None, :]
        else:
            of_weights += tl.dot(tl.trans(rows), through, input_precision=precision, out_dtype=kind)
    of_sums += slice_.to(index) * (groups * outputs * elements)
    of_bias += slice_.to(index) * (groups * outputs)
    tl.store(of_sums + which, of_weights, mask=known)
    tl.store(of_bias + of, of_levels, mask=exists)
