"""The passes over activations on a CPU, compiled by numba.

Each reads and writes whole activations once and keeps what it sums in the cache. Arrays are
numpy's, contiguous: M samples times groups, C channels of a group, O outputs, P pixels or units,
K rows, J moments. Activations lie (M, C, P), channels first, or (M, P, C); maps (M, P).

Work is counted in blocks of pixels, M * ceil(P / block) of them; a call does those from `start` to
`stop`. Sums over everything are taken slice by slice, so that they do not depend on who does what.
"""

from collections.abc import Callable
from typing import Any

from numba import njit
from numpy import uint32, uint64

FAST = {
    "contract",
    "reassoc",
    "nsz",
    "arcp",
}  # sums may be reordered; nan and inf stay what they are


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Kept on disk: beside this file, or where NUMBA_CACHE_DIR or the user's cache is."""
    try:
        return njit(nogil=True, fastmath=FAST, cache=True)(function)
    except RuntimeError:  # nowhere to write: compiled anew in every process
        return njit(nogil=True, fastmath=FAST)(function)


inlined = njit(inline="always")


@inlined
def mix(h):
    """See `dropout`, as for the next two."""
    h = uint32(uint32(h ^ (h >> uint32(16))) * uint32(0x7FEB352D))
    h = uint32(uint32(h ^ (h >> uint32(15))) * uint32(0x846CA68B))
    return uint32(h ^ (h >> uint32(16)))


@inlined
def keys_of(sample, seed):
    """Of a sample."""
    low, high, n = uint32(seed), uint32(uint64(seed) >> uint64(32)), uint32(sample)
    first = mix(uint32(mix(uint32(n ^ low)) ^ high))
    return first, mix(uint32(mix(uint32(n ^ high)) ^ low))


@inlined
def is_dropped(place, first, second, threshold):
    """Whether the element at that place of its sample is."""
    h = uint32(place ^ first)
    h = uint32(uint32(h ^ (h >> uint32(16))) * uint32(0x7FEB352D))
    h = uint32(h ^ second)
    h = uint32(uint32(h ^ (h >> uint32(15))) * uint32(0x846CA68B))
    return h < threshold


@inlined
def centre_row(row, level, into):
    for i in range(len(row)):
        into[i] = row[i] - level[i]


@inlined
def sum_row(row, level, rest, square):
    for i in range(len(row)):
        v = row[i] - level[i]
        rest[i] += v
        square[i] += v * v


@inlined
def sum_dropped(row, level, rest, square, count, once, twice, place, first, second, threshold):
    """`sum_row`, and the sums of those that are dropped."""
    zero, one = row.dtype.type(0), row.dtype.type(1)
    for i in range(len(row)):
        v = row[i] - level[i]
        rest[i] += v
        square[i] += v * v
        hidden = is_dropped(uint32(place + uint32(i)), first, second, threshold)
        d = one if hidden else zero
        count[i] += d
        once[i] += d * v
        twice[i] += d * v * v


@compiled
def moments_first(start, stop, block, x, out, moments, groups, seed, threshold):
    """Moments (M, J, P) of pixels, see `passes`; x less the level into `out` if that has a size."""
    _, channels, pixels = x.shape
    share = x.dtype.type(1 / channels)
    blocks = -(-pixels // block)
    for item in range(start, stop):
        m, left = item // blocks, item % blocks * block
        right = min(pixels, left + block)
        moments[m, :, left:right] = share - share
        level, rest = moments[m, 0, left:right], moments[m, 1, left:right]
        square = moments[m, 2, left:right]
        for c in range(channels):
            row = x[m, c, left:right]
            for i in range(len(row)):
                level[i] += row[i]
        level *= share
        first, second = keys_of(m // groups, seed)
        place = uint32((m % groups * channels) * pixels + left)
        for c in range(channels):
            row = x[m, c, left:right]
            if out.size:
                centre_row(row, level, out[m, c, left:right])
            if threshold:
                count, once = moments[m, 3, left:right], moments[m, 4, left:right]
                twice = moments[m, 5, left:right]
                at = uint32(place + uint32(c) * uint32(pixels))
                sum_dropped(
                    row, level, rest, square, count, once, twice, at, first, second, threshold
                )
            else:
                sum_row(row, level, rest, square)
        rest *= share
        square *= share


@compiled
def moments_last(start, stop, block, x, out, moments, groups, seed, threshold):
    """`moments_first` of channels last; one group."""
    _, pixels, channels = x.shape
    zero, one, share = x.dtype.type(0), x.dtype.type(1), x.dtype.type(1 / channels)
    blocks = -(-pixels // block)
    for item in range(start, stop):
        m, left = item // blocks, item % blocks * block
        first, second = keys_of(m // groups, seed)
        for p in range(left, min(pixels, left + block)):
            row = x[m, p]
            level = zero
            for c in range(channels):
                level += row[c]
            level *= share
            if out.size:
                into = out[m, p]
                for c in range(channels):
                    into[c] = row[c] - level
            rest, square, count, once, twice = zero, zero, zero, zero, zero
            if threshold:
                for c in range(channels):
                    v = row[c] - level
                    rest += v
                    square += v * v
                    at = uint32(uint32(p) + uint32(c) * uint32(pixels))
                    d = one if is_dropped(at, first, second, threshold) else zero
                    count += d
                    once += d * v
                    twice += d * v * v
                moments[m, 3, p], moments[m, 4, p], moments[m, 5, p] = count, once, twice
            else:
                for c in range(channels):
                    v = row[c] - level
                    rest += v
                    square += v * v
            moments[m, 0, p], moments[m, 1, p], moments[m, 2, p] = (
                level,
                rest * share,
                square * share,
            )


@compiled
def add_first(start, stop, block, out, x, moments, slopes, groups, seed, threshold):
    """out += a + b * v, and c + d * v for what is dropped; a, b, c, d: slopes (M, 2 or 4, P)."""
    _, channels, pixels = x.shape
    blocks = -(-pixels // block)
    for item in range(start, stop):
        m, left = item // blocks, item % blocks * block
        right = min(pixels, left + block)
        width = right - left
        level = moments[m, 0, left:right]
        a, b = slopes[m, 0, left:right], slopes[m, 1, left:right]
        first, second = keys_of(m // groups, seed)
        place = uint32((m % groups * channels) * pixels + left)
        for c in range(channels):
            row, into = x[m, c, left:right], out[m, c, left:right]
            if threshold:
                besides, slope = slopes[m, 2, left:right], slopes[m, 3, left:right]
                at = uint32(place + uint32(c) * uint32(pixels))
                for i in range(width):
                    v = row[i] - level[i]
                    value = a[i] + b[i] * v
                    hidden = is_dropped(uint32(at + uint32(i)), first, second, threshold)
                    more = value + besides[i] + slope[i] * v
                    into[i] += more if hidden else value
            else:
                for i in range(width):
                    into[i] += a[i] + b[i] * (row[i] - level[i])


@compiled
def add_last(start, stop, block, out, x, moments, slopes, groups, seed, threshold):
    """`add_first` of channels last; one group."""
    _, pixels, channels = x.shape
    blocks = -(-pixels // block)
    for item in range(start, stop):
        m, left = item // blocks, item % blocks * block
        first, second = keys_of(m // groups, seed)
        for p in range(left, min(pixels, left + block)):
            row, into = x[m, p], out[m, p]
            level, a, b = moments[m, 0, p], slopes[m, 0, p], slopes[m, 1, p]
            if threshold:
                besides, slope = slopes[m, 2, p], slopes[m, 3, p]
                for c in range(channels):
                    v = row[c] - level
                    value = a + b * v
                    at = uint32(uint32(p) + uint32(c) * uint32(pixels))
                    hidden = is_dropped(at, first, second, threshold)
                    into[c] += value + besides + slope * v if hidden else value
            else:
                for c in range(channels):
                    into[c] += a + b * (row[c] - level)
