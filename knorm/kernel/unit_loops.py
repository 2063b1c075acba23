"""The passes over convolutions on a CPU, compiled by numba; arrays and work as in `loops`."""

from knorm.kernel.loops import compiled


@compiled
def scale_first(start, stop, block, conv, out, rstd, rows, sums, bias):
    """out = conv * rstd + sums @ rows + bias: (M, O, P), (M, P), (M, K, P), (S, O, K), (S, O).

    It may be in place.
    """
    _, outputs, pixels = conv.shape
    groups, size = len(sums), rows.shape[1]
    blocks = -(-pixels // block)
    for item in range(start, stop):
        m, left = item // blocks, item % blocks * block
        right = min(pixels, left + block)
        width, by = right - left, rstd[m, left:right]
        s = m % groups
        for o in range(outputs):
            row, into = conv[m, o, left:right], out[m, o, left:right]
            level = bias[s, o]
            for i in range(width):
                into[i] = row[i] * by[i] + level
            for k in range(size):
                weight, shift = sums[s, o, k], rows[m, k, left:right]
                for i in range(width):
                    into[i] += weight * shift[i]


@compiled
def scale_last(start, stop, block, conv, out, rstd, rows, sums, bias):
    """`scale_first` of channels last: (M, P, O), sums (1, K, O); one group."""
    _, pixels, outputs = conv.shape
    size = rows.shape[1]
    blocks = -(-pixels // block)
    for item in range(start, stop):
        m, left = item // blocks, item % blocks * block
        for p in range(left, min(pixels, left + block)):
            row, into, by, levels = conv[m, p], out[m, p], rstd[m, p], bias[0]
            for o in range(outputs):
                into[o] = row[o] * by + levels[o]
            for k in range(size):
                shift, weights = rows[m, k, p], sums[0, k]
                for o in range(outputs):
                    into[o] += shift * weights[o]


@compiled
def unscale_first(
    start, stop, block, grad, conv, scaled, rstd, rows, sums, of_rstd, of_rows, of_sums, of_bias
):
    """Back through `scale_first`; work is counted in slices, the length of of_sums and of_bias.

    scaled = grad * rstd; of_rstd and of_rows are set, of_sums (slices, S, O, K) and of_bias
    (slices, S, O) are added to.
    """
    samples, outputs, pixels = conv.shape
    zero = conv.dtype.type(0)
    groups, size = len(sums), rows.shape[1]
    blocks = -(-pixels // block)
    slices, items = len(of_sums), samples * blocks
    for part in range(start, stop):
        for item in range(part * items // slices, (part + 1) * items // slices):
            m, left = item // blocks, item % blocks * block
            right = min(pixels, left + block)
            width, by = right - left, rstd[m, left:right]
            s, total = m % groups, of_rstd[m, left:right]
            total[:] = zero
            of_rows[m, :, left:right] = zero
            for o in range(outputs):
                g, z = grad[m, o, left:right], conv[m, o, left:right]
                into = scaled[m, o, left:right]
                met = zero
                for i in range(width):
                    met += g[i]
                    total[i] += g[i] * z[i]
                    into[i] = g[i] * by[i]
                of_bias[part, s, o] += met
                for k in range(size):
                    weight, shift = sums[s, o, k], rows[m, k, left:right]
                    back = of_rows[m, k, left:right]
                    met = zero
                    for i in range(width):
                        back[i] += weight * g[i]
                        met += g[i] * shift[i]
                    of_sums[part, s, o, k] += met


@compiled
def unscale_last(
    start, stop, block, grad, conv, scaled, rstd, rows, sums, of_rstd, of_rows, of_sums, of_bias
):
    """`unscale_first` of channels last; sums (1, K, O), of_sums (slices, 1, K, O); one group."""
    samples, pixels, outputs = conv.shape
    zero = conv.dtype.type(0)
    size = rows.shape[1]
    blocks = -(-pixels // block)
    slices, items = len(of_sums), samples * blocks
    for part in range(start, stop):
        of_levels = of_bias[part, 0]
        for item in range(part * items // slices, (part + 1) * items // slices):
            m, left = item // blocks, item % blocks * block
            for p in range(left, min(pixels, left + block)):
                g, z, into, by = grad[m, p], conv[m, p], scaled[m, p], rstd[m, p]
                total = zero
                for o in range(outputs):
                    total += g[o] * z[o]
                    into[o] = g[o] * by
                    of_levels[o] += g[o]
                of_rstd[m, p] = total
                for k in range(size):
                    weights, back, shift = sums[0, k], of_sums[part, 0, k], rows[m, k, p]
                    met = zero
                    for o in range(outputs):
                        met += weights[o] * g[o]
                        back[o] += shift * g[o]
                    of_rows[m, k, p] = met
