"""Statistics of units from the moments of pixels on a CPU, and back, compiled by numba.

Maps of pixels are padded and flat here, Q pixels. M samples times groups, J moments, P pixels or
units, K elements of a unit. Pixels lie in lines of the padded map that begin at `pixel_lines`,
units in lines of `width`: the elements of unit j in line l are at unit_lines[l] + j * step +
offsets.
"""

import numpy as np

from knorm.kernel.loops import compiled, inlined

MEAN, WITHIN, KEPT, KEPT_WITHIN, LEVEL = range(5)  # maps of pixels; all means less a constant


@inlined
def kept_channels(level, rest, square, count, first, second, channels):
    """Of the channels that are kept: part, mean, mean less level, variance, number (from 1)."""
    kept = channels - count
    some = max(kept, channels / channels)
    above = (channels * rest - first) / some
    among = (channels * square - second) / some - above * above
    return kept / channels, level + above, above, among, some


@compiled
def lay_out(maps, moments, channels, scale, pixel_lines):
    """The maps (5, Q) of pixels with these moments (J, P); returns what is taken off the means.

    scale: of what is kept, 0 without dropout.
    """
    one = channels / channels
    center = np.sum(moments[0]) / moments.shape[1]
    maps[:] = -center  # the padding
    maps[WITHIN] = maps[KEPT_WITHIN] = center - center
    width = moments.shape[1] // len(pixel_lines)
    for line in range(len(pixel_lines)):
        at, left, right = pixel_lines[line], line * width, (line + 1) * width
        levels, rests, squares = (
            moments[0, left:right],
            moments[1, left:right],
            moments[2, left:right],
        )
        level_map, means, within = maps[LEVEL, at:], maps[MEAN, at:], maps[WITHIN, at:]
        for i in range(width):
            level_map[i] = levels[i] - center
            means[i] = (levels[i] - center) + rests[i]
            within[i] = squares[i] - rests[i] * rests[i]
        if scale:
            counts, firsts, seconds = (
                moments[3, left:right],
                moments[4, left:right],
                moments[5, left:right],
            )
            kept, kept_within = maps[KEPT, at:], maps[KEPT_WITHIN, at:]
            for i in range(width):
                part, mean, _, among, _ = kept_channels(
                    levels[i], rests[i], squares[i], counts[i], firsts[i], seconds[i], channels
                )
                among = max(among, one - one) + (one - part) * mean * mean
                kept[i] = scale * part * mean - center
                kept_within[i] = scale * scale * part * among
    return center


@inlined
def add_line(total, values, base, step):
    """What neighbours are above the base; those apart from others are added one at a time."""
    if step == 1:
        for i in range(len(total)):
            total[i] += values[i] - base[i]
    else:
        for i in range(len(total)):
            total[i] += values[i * step] - base[i * step]


@compiled
def spread(means, within, at, step, offsets, offset, var):
    """Mean and variance of a line of units, of the means of their pixels and of those variances.

    Above the first pixel's, so that equal pixels have that mean to the last digit, and no variance.
    """
    share = means.dtype.type(1 / len(offsets))
    offset[:] = var[:] = share - share
    first = means[at + offsets[0] :]
    for k in range(len(offsets)):
        add_line(offset, means[at + offsets[k] :], first, step)
        inside = within[at + offsets[k] :]
        for i in range(len(var)):
            var[i] += inside[i * step]
    for i in range(len(offset)):
        offset[i] = offset[i] * share + first[i * step]
    for k in range(len(offsets)):
        pixels = means[at + offsets[k] :]
        if step == 1:
            for i in range(len(offset)):
                deviation = pixels[i] - offset[i]
                var[i] += deviation * deviation
        else:
            for i in range(len(offset)):
                deviation = pixels[i * step] - offset[i]
                var[i] += deviation * deviation
    for i in range(len(offset)):
        var[i] *= share


@compiled
def through_spread(means, at, step, offsets, offset, of_offset, of_var, of_means, of_within):
    """Back through `spread`; adds to the gradients of the maps."""
    share = means.dtype.type(1 / len(offsets))
    for k in range(len(offsets)):
        pixels = means[at + offsets[k] :]
        into, inside = of_means[at + offsets[k] :], of_within[at + offsets[k] :]
        for i in range(len(offset)):
            rise = of_var[i] * share
            deviation = pixels[i * step] - offset[i]
            into[i * step] += of_offset[i] * share + (rise + rise) * deviation
            inside[i * step] += rise


@compiled
def statistics(
    start, stop, moments, scale, growth, bound, eps, size, pixel_lines, unit_lines, step, offsets,
    channels, rstd, rows,
):  # fmt: skip
    """rstd (M, P) and rows (M, K, P) of the units of samples from `start` to `stop`.

    bound: least variance as a part of the mean square, 0 for none. size: Q.
    """
    number = moments.dtype.type
    scale, growth, bound, eps = number(scale), number(growth), number(bound), number(eps)
    channels, one = number(channels), number(1)
    width = rstd.shape[1] // len(unit_lines)
    maps, lines = np.empty((5, size), moments.dtype), np.empty((4, width), moments.dtype)
    offset, var, true_offset, true_var = lines[0], lines[1], lines[2], lines[3]
    means, within = (maps[KEPT], maps[KEPT_WITHIN]) if scale else (maps[MEAN], maps[WITHIN])
    for m in range(start, stop):
        center = lay_out(maps, moments[m], channels, scale, pixel_lines)
        for line in range(len(unit_lines)):
            at, left = unit_lines[line], line * width
            spread(means, within, at, step, offsets, offset, var)
            if growth != one:
                for i in range(width):
                    mean = center + offset[i]
                    var[i] = growth * var[i] + (growth - one) * mean * mean
            if bound and scale:
                spread(maps[MEAN], maps[WITHIN], at, step, offsets, true_offset, true_var)
                for i in range(width):
                    apart = true_offset[i] - offset[i]
                    var[i] = max(var[i], bound * (true_var[i] + apart * apart))
            by = rstd[m, left : left + width]
            for i in range(width):
                by[i] = one / np.sqrt(var[i] + eps)
            for k in range(len(offsets)):
                levels, into = maps[LEVEL, at + offsets[k] :], rows[m, k, left : left + width]
                for i in range(width):
                    into[i] = (levels[i * step] - offset[i]) * by[i]


@inlined
def through_bound(
    bound, offset, var, true_offset, true_var, of_offset, of_var, of_true_offset, of_true_var
):
    """Sets the gradients of what is true and changes the others; whether a unit is bounded."""
    found, zero = False, bound - bound
    for i in range(len(offset)):
        apart = true_offset[i] - offset[i]
        is_bound = bound * (true_var[i] + apart * apart) > var[i]
        found |= is_bound
        of_true_var[i] = bound * of_var[i] if is_bound else zero
        of_var[i] = zero if is_bound else of_var[i]
        of_true_offset[i] = (apart + apart) * of_true_var[i]
        of_offset[i] -= of_true_offset[i]
    return found


@compiled
def through_statistics(
    start, stop, moments, scale, growth, bound, size, pixel_lines, unit_lines, step, offsets,
    channels, rstd, rows, of_rstd, of_rows, slopes,
):  # fmt: skip
    """Back through `statistics`: slopes (M, 2 or 4, P), see `passes`."""
    number = moments.dtype.type
    scale, growth, bound, channels = number(scale), number(growth), number(bound), number(channels)
    zero, one, half = number(0), number(1), number(0.5)
    width = rstd.shape[1] // len(unit_lines)
    maps, grads = np.empty((5, size), moments.dtype), np.empty((4, size), moments.dtype)
    lines = np.empty((8, width), moments.dtype)
    offset, var, true_offset, true_var = lines[0], lines[1], lines[2], lines[3]
    of_offset, of_var, of_true_offset, of_true_var = lines[4], lines[5], lines[6], lines[7]
    here = KEPT if scale else MEAN
    for m in range(start, stop):
        center = lay_out(maps, moments[m], channels, scale, pixel_lines)
        grads[:] = zero
        for line in range(len(unit_lines)):
            at, left = unit_lines[line], line * width
            spread(maps[here], maps[here + 1], at, step, offsets, offset, var)
            by, of_by = rstd[m, left : left + width], of_rstd[m, left : left + width]
            of_offset[:] = of_var[:] = zero
            for k in range(len(offsets)):
                row, of_row = rows[m, k, left : left + width], of_rows[m, k, left : left + width]
                for i in range(width):
                    of_offset[i] -= of_row[i]
                    of_var[i] += of_row[i] * row[i]
            for i in range(width):
                of_offset[i] *= by[i]
                of_var[i] = -half * by[i] * by[i] * (by[i] * of_by[i] + of_var[i])
            if growth != one:
                for i in range(width):
                    more = (growth - one) * of_var[i] * (center + offset[i])
                    of_offset[i] += more + more
                    of_var[i] *= growth
            if bound and scale:
                spread(maps[MEAN], maps[WITHIN], at, step, offsets, true_offset, true_var)
                if through_bound(
                    bound, offset, var, true_offset, true_var, of_offset, of_var, of_true_offset,
                    of_true_var,
                ):  # fmt: skip
                    through_spread(
                        maps[MEAN], at, step, offsets, true_offset, of_true_offset, of_true_var,
                        grads[MEAN], grads[WITHIN],
                    )  # fmt: skip
            through_spread(
                maps[here], at, step, offsets, offset, of_offset, of_var, grads[here],
                grads[here + 1],
            )  # fmt: skip
        take_up(slopes[m], grads, moments[m], channels, scale, pixel_lines)


@compiled
def take_up(slopes, grads, moments, channels, scale, pixel_lines):
    """Back through `lay_out`: slopes (2 or 4, P) from the gradients of the maps (4, Q)."""
    zero, one = channels - channels, channels / channels
    width = moments.shape[1] // len(pixel_lines)
    for line in range(len(pixel_lines)):
        at, left, right = pixel_lines[line], line * width, (line + 1) * width
        levels, rests, squares = (
            moments[0, left:right],
            moments[1, left:right],
            moments[2, left:right],
        )
        of_means, of_insides = grads[MEAN, at:], grads[WITHIN, at:]
        a, b = slopes[0, left:right], slopes[1, left:right]
        for i in range(width):
            twice = of_insides[i] + of_insides[i]
            a[i] = (of_means[i] - twice * rests[i]) / channels
            b[i] = twice / channels
        if scale:
            counts, firsts, seconds = (
                moments[3, left:right],
                moments[4, left:right],
                moments[5, left:right],
            )
            of_kept, of_kept_within = grads[KEPT, at:], grads[KEPT_WITHIN, at:]
            c, d = slopes[2, left:right], slopes[3, left:right]
            for i in range(width):
                part, mean, above, among, some = kept_channels(
                    levels[i], rests[i], squares[i], counts[i], firsts[i], seconds[i], channels
                )
                of_within = scale * of_kept_within[i]
                of_mean = of_kept[i] + (of_within + of_within) * (one - part) * mean
                of_among = scale * part * of_within if among > zero else zero
                of_above = (scale * part * of_mean - (of_among + of_among) * above) / some
                twice = (of_among + of_among) / some
                a[i] += of_above
                b[i] += twice
                c[i] = -of_above
                d[i] = -twice
