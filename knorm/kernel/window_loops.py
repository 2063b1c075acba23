"""Statistics of units from maps of pixels on a CPU, and back, compiled by numba.

Padded maps are flat, (M, Q); the elements of unit p lie at base[p] + offsets. M samples times
groups, P units, K elements of a unit.
"""

from knorm.kernel.loops import compiled


@compiled
def spread(means, within, at, offsets):
    """Mean and variance of a unit, of its pixels' means and the variances within them."""
    size = len(offsets)
    mean = inner = means.dtype.type(0)
    for k in range(size):
        mean += means[at + offsets[k]]
        inner += within[at + offsets[k]]
    mean /= size
    between = means.dtype.type(0)
    for k in range(size):
        deviation = means[at + offsets[k]] - mean
        between += deviation * deviation
    return mean, (between + inner) / size


@compiled
def statistics(
    levels, rest, within, kept, kept_within, base, offsets, center, growth, bound, eps, rstd, rows
):
    """rstd (M, P) and the rows (M, K or K + 1, P) of units, the last of them ones.

    levels, rest, within: means are levels + rest, less `center` (M,); kept, kept_within: the same
    after dropout, of no pixel where there is none. bound: least variance as a part of the mean
    square, 0 for none.
    """
    size = len(offsets)
    for m in range(len(levels)):
        means = levels[m] + rest[m]
        for p in range(len(base)):
            at = base[p]
            offset, var = spread(means, within[m], at, offsets)
            if growth != 1:
                mean = center[m] + offset
                var = growth * var + (growth - 1) * mean * mean
            if kept.shape[1]:
                true_offset, true_var = offset, var
                offset, var = spread(kept[m], kept_within[m], at, offsets)
                apart = true_offset - offset
                var = max(var, bound * (true_var + apart * apart))
            by = 1 / (var + eps) ** 0.5
            rstd[m, p] = by
            for k in range(size):
                rows[m, k, p] = (levels[m, at + offsets[k]] - offset) * by
            for k in range(size, rows.shape[1]):
                rows[m, k, p] = 1
