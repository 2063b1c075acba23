"""The passes of `KernelNorm` over activations on a CPU, compiled by numba; arrays as in `loops`.

Normalized units lie side by side: L lines of J elements. Line l holds elements of the line
`pixel_lines[l]` of pixels, W of them, or -1 for padding, and of the line `unit_lines[l]` of units;
they are the elements from `firsts[l]` on of these. Element j of a line is that of pixel
`columns[j]`, or -1, and the element j % along of unit j // along.
"""

import numpy as np

from knorm.kernel.loops import compiled


@compiled
def lay_line(by, shift, level, rstd, rows, levels, unit_line, first, columns, along):
    """What the elements of a line are scaled by, shifted by, and less of: each (J,)."""
    units = len(columns) // along
    for j in range(len(columns)):
        unit = unit_line * units + j // along
        by[j], shift[j] = rstd[unit], rows[first + j % along, unit]
        level[j] = levels[max(columns[j], 0)]


@compiled
def gather_first(start, stop, x, out, moments, rstd, rows, width, along, where, columns):
    """out = v * rstd + rows, (M, C, L * J), of samples from `start` to `stop`; where: (3, L)."""
    zero, length = x.dtype.type(0), len(columns)
    lines = np.empty((3, length), x.dtype)
    by, shift, level = lines[0], lines[1], lines[2]
    for m in range(start, stop):
        for line in range(where.shape[1]):
            pixels, at = where[0, line] * width, line * length
            left = max(pixels, 0)
            levels = moments[m, 0, left : left + width]
            lay_line(
                by, shift, level, rstd[m], rows[m], levels, where[1, line], where[2, line],
                columns, along,
            )  # fmt: skip
            for c in range(x.shape[1]):
                row, into = x[m, c, left : left + width], out[m, c, at : at + length]
                for j in range(length):
                    inside = pixels >= 0 and columns[j] >= 0
                    v = row[columns[j]] - level[j] if inside else zero
                    into[j] = v * by[j] + shift[j]


@compiled
def gather_last(start, stop, x, out, moments, rstd, rows, width, along, where, columns):
    """`gather_first` of channels last: (M, L * J, C)."""
    units = len(columns) // along
    for m in range(start, stop):
        for line in range(where.shape[1]):
            pixels, first = where[0, line] * width, where[2, line]
            for j in range(len(columns)):
                unit = where[1, line] * units + j // along
                by, shift = rstd[m, unit], rows[m, first + j % along, unit]
                into = out[m, line * len(columns) + j]
                if pixels >= 0 and columns[j] >= 0:
                    row, level = x[m, pixels + columns[j]], moments[m, 0, pixels + columns[j]]
                    for c in range(len(into)):
                        into[c] = (row[c] - level) * by + shift
                else:
                    into[:] = shift


@compiled
def ungather_first(
    start, stop, x, grad, of_x, moments, rstd, rows, of_rstd, of_rows, width, along, where, columns
):
    """Back through `gather_first`: of_x, of_rstd and of_rows are set."""
    zero, length = x.dtype.type(0), len(columns)
    lines = np.empty((5, length), x.dtype)
    by, shift, level, total, met = lines[0], lines[1], lines[2], lines[3], lines[4]
    units = length // along
    for m in range(start, stop):
        of_x[m] = zero
        of_rstd[m] = zero
        for line in range(where.shape[1]):
            pixels, first, at = where[0, line] * width, where[2, line], line * length
            left = max(pixels, 0)
            levels = moments[m, 0, left : left + width]
            lay_line(
                by, shift, level, rstd[m], rows[m], levels, where[1, line], first, columns, along
            )
            total[:] = met[:] = zero
            for c in range(x.shape[1]):
                row, into = x[m, c, left : left + width], of_x[m, c, left : left + width]
                g = grad[m, c, at : at + length]
                for j in range(length):
                    total[j] += g[j]
                if pixels >= 0:
                    for j in range(length):
                        if columns[j] >= 0:
                            met[j] += g[j] * (row[columns[j]] - level[j])
                            into[columns[j]] += g[j] * by[j]
            for j in range(length):
                unit = where[1, line] * units + j // along
                of_rows[m, first + j % along, unit] = total[j]
                of_rstd[m, unit] += met[j]


@compiled
def ungather_last(
    start, stop, x, grad, of_x, moments, rstd, rows, of_rstd, of_rows, width, along, where, columns
):
    """`ungather_first` of channels last."""
    zero, units = x.dtype.type(0), len(columns) // along
    for m in range(start, stop):
        of_x[m] = zero
        of_rstd[m] = zero
        for line in range(where.shape[1]):
            pixels, first = where[0, line] * width, where[2, line]
            for j in range(len(columns)):
                unit = where[1, line] * units + j // along
                g, by = grad[m, line * len(columns) + j], rstd[m, unit]
                total, met = zero, zero
                for c in range(len(g)):
                    total += g[c]
                if pixels >= 0 and columns[j] >= 0:
                    row, into = x[m, pixels + columns[j]], of_x[m, pixels + columns[j]]
                    level = moments[m, 0, pixels + columns[j]]
                    for c in range(len(g)):
                        met += g[c] * (row[c] - level)
                        into[c] += g[c] * by
                of_rows[m, first + j % along, unit] = total
                of_rstd[m, unit] += met
