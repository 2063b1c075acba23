"""The passes of `fused` over activations on a CPU, compiled by numba.

Each reads and writes whole activations once and keeps what it sums in the cache. Arrays are numpy's:
M samples times groups, C channels of a group, O outputs, P pixels or units, K rows. Activations lie
(M, C, P), channels first, or (M, P, C); maps (M, P).

An element is dropped if a hash of its place and the seed is below a threshold, so that both passes
drop the same ones and none is stored. The hash is that of Wellons, "lowbias32" (2018).
"""

from numba import njit
from numpy import uint32

FAST = {"contract", "reassoc", "nsz", "arcp"}  # sums may be reordered; nan and inf stay what they are
BLOCK = 1024  # pixels whose sums stay in the cache
compiled = njit(nogil=True, fastmath=FAST, cache=True)


@njit(inline="always")
def is_dropped(place, seed, threshold):
    """Whether the element at that place of the memory is."""
    h = uint32(uint32(place) ^ seed)
    h = uint32(h ^ (h >> uint32(16)))
    h = uint32(h * uint32(0x7FEB352D))
    h = uint32(h ^ (h >> uint32(15)))
    h = uint32(h * uint32(0x846CA68B))
    return uint32(h ^ (h >> uint32(16))) < threshold


@compiled
def moments_first(x, out, level, rest, square, count, first, second, seed, threshold, place):
    """Moments of every pixel, see `moments.Moments`; x less the level into `out`."""
    samples, channels, pixels = x.shape
    one, zero, share = x.dtype.type(1), x.dtype.type(0), x.dtype.type(1 / channels)
    for m in range(samples):
        for start in range(0, pixels, BLOCK):
            stop = min(pixels, start + BLOCK)
            width = stop - start
            lev, res, squ = level[m, start:stop], rest[m, start:stop], square[m, start:stop]
            cou, fir, sec = count[m, start:stop], first[m, start:stop], second[m, start:stop]
            lev[:], res[:], squ[:], cou[:], fir[:], sec[:] = zero, zero, zero, zero, zero, zero
            for c in range(channels):
                row = x[m, c, start:stop]
                for i in range(width):
                    lev[i] += row[i]
            for i in range(width):
                lev[i] *= share
            for c in range(channels):
                row, into = x[m, c, start:stop], out[m, c, start:stop]
                at = place + (m * channels + c) * pixels + start
                for i in range(width):
                    v = row[i] - lev[i]
                    into[i] = v
                    res[i] += v
                    squ[i] += v * v
                    if threshold:
                        d = one if is_dropped(at + i, seed, threshold) else zero
                        cou[i] += d
                        fir[i] += d * v
                        sec[i] += d * v * v
            for i in range(width):
                res[i] *= share
                squ[i] *= share


@compiled
def moments_last(x, out, level, rest, square, count, first, second, seed, threshold, place):
    """`moments_first` of channels last."""
    samples, pixels, channels = x.shape
    one, zero, share = x.dtype.type(1), x.dtype.type(0), x.dtype.type(1 / channels)
    for m in range(samples):
        for p in range(pixels):
            row, into = x[m, p], out[m, p]
            at = place + (m * pixels + p) * channels
            total = zero
            for c in range(channels):
                total += row[c]
            lev = total * share
            res, squ, cou, fir, sec = zero, zero, zero, zero, zero
            for c in range(channels):
                v = row[c] - lev
                into[c] = v
                res += v
                squ += v * v
                if threshold:
                    d = one if is_dropped(at + c, seed, threshold) else zero
                    cou += d
                    fir += d * v
                    sec += d * v * v
            level[m, p], rest[m, p], square[m, p] = lev, res * share, squ * share
            count[m, p], first[m, p], second[m, p] = cou, fir, sec


@compiled
def scale_first(conv, out, rstd, rows, sums):
    """out = conv * rstd + sums @ rows: (M, O, P), (M, P), (M, K, P), (O, K); may be in place."""
    samples, outputs, pixels = conv.shape
    for m in range(samples):
        for start in range(0, pixels, BLOCK):
            stop = min(pixels, start + BLOCK)
            width, by = stop - start, rstd[m, start:stop]
            for o in range(outputs):
                row, into = conv[m, o, start:stop], out[m, o, start:stop]
                for i in range(width):
                    into[i] = row[i] * by[i]
                for k in range(rows.shape[1]):
                    weight, of = sums[o, k], rows[m, k, start:stop]
                    for i in range(width):
                        into[i] += weight * of[i]


@compiled
def scale_last(conv, out, rstd, rows, sums):
    """`scale_first` of channels last: (M, P, O), (M, P), (M, K, P), (K, O)."""
    samples, pixels, outputs = conv.shape
    for m in range(samples):
        for p in range(pixels):
            row, into, by = conv[m, p], out[m, p], rstd[m, p]
            for o in range(outputs):
                into[o] = row[o] * by
            for k in range(rows.shape[1]):
                of, weights = rows[m, k, p], sums[k]
                for o in range(outputs):
                    into[o] += of * weights[o]


@compiled
def unscale_first(grad, conv, scaled, rstd, rows, sums, of_rstd, of_rows, of_sums):
    """Back through `scale_first`: scaled = grad * rstd; sums over outputs, rows and pixels."""
    samples, outputs, pixels = conv.shape
    zero = conv.dtype.type(0)
    for m in range(samples):
        for start in range(0, pixels, BLOCK):
            stop = min(pixels, start + BLOCK)
            width, by = stop - start, rstd[m, start:stop]
            total = of_rstd[m, start:stop]
            total[:] = zero
            for k in range(rows.shape[1]):
                of_rows[m, k, start:stop] = zero
            for o in range(outputs):
                g, z = grad[m, o, start:stop], conv[m, o, start:stop]
                into = scaled[m, o, start:stop]
                for i in range(width):
                    total[i] += g[i] * z[i]
                    into[i] = g[i] * by[i]
                for k in range(rows.shape[1]):
                    weight, of, back = sums[o, k], rows[m, k, start:stop], of_rows[m, k, start:stop]
                    met = zero
                    for i in range(width):
                        back[i] += weight * g[i]
                        met += g[i] * of[i]
                    of_sums[o, k] += met


@compiled
def unscale_last(grad, conv, scaled, rstd, rows, sums, of_rstd, of_rows, of_sums):
    """`unscale_first` of channels last; sums and their gradients (K, O)."""
    samples, pixels, outputs = conv.shape
    zero = conv.dtype.type(0)
    for m in range(samples):
        for p in range(pixels):
            g, z, into, by = grad[m, p], conv[m, p], scaled[m, p], rstd[m, p]
            total = zero
            for o in range(outputs):
                total += g[o] * z[o]
                into[o] = g[o] * by
            of_rstd[m, p] = total
            for k in range(rows.shape[1]):
                weights, back, of = sums[k], of_sums[k], rows[m, k, p]
                met = zero
                for o in range(outputs):
                    met += weights[o] * g[o]
                    back[o] += of * g[o]
                of_rows[m, k, p] = met


@compiled
def add_first(out, x, slope, constant, first, second, level, seed, threshold, place):
    """out += constant + slope * x, and for what is dropped first + second * (x - level)."""
    samples, channels, pixels = x.shape
    for m in range(samples):
        for start in range(0, pixels, BLOCK):
            stop = min(pixels, start + BLOCK)
            rise, base = slope[m, start:stop], constant[m, start:stop]
            fir, sec, lev = first[m, start:stop], second[m, start:stop], level[m, start:stop]
            for c in range(channels):
                row, into = x[m, c, start:stop], out[m, c, start:stop]
                at = place + (m * channels + c) * pixels + start
                for i in range(stop - start):
                    value = base[i] + rise[i] * row[i]
                    if threshold and is_dropped(at + i, seed, threshold):
                        value += fir[i] + sec[i] * (row[i] - lev[i])
                    into[i] += value


@compiled
def add_last(out, x, slope, constant, first, second, level, seed, threshold, place):
    """`add_first` of channels last."""
    samples, pixels, channels = x.shape
    for m in range(samples):
        for p in range(pixels):
            row, into = x[m, p], out[m, p]
            at = place + (m * pixels + p) * channels
            rise, base = slope[m, p], constant[m, p]
            fir, sec, lev = first[m, p], second[m, p], level[m, p]
            for c in range(channels):
                value = base + rise * row[c]
                if threshold and is_dropped(at + c, seed, threshold):
                    value += fir + sec * (row[c] - lev)
                into[c] += value
