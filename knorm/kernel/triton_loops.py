"""The passes over activations on a GPU, as Triton kernels; `cuda` calls them.

Activations are maps of channels (or outputs) and pixels (or units): element (m, c, p) lies at
m * channels * pixels + c * stride_c + p * stride_p. Channels first, m counts samples times groups;
channels last, which has one group, there is one map, of the pixels of all samples. The maps of
moments and slopes lie (samples times groups, kinds, pixels of a sample) in both cases.

A program works on `block_p` pixels, `block_c` of their channels at a time. `index` is the type of
offsets in memory.
"""

import triton
import triton.language as tl


@triton.jit
def mix(h):
    """See `dropout`, as for the next two; of uint32."""
    h = (h ^ (h >> 16)) * 0x7FEB352D
    h = (h ^ (h >> 15)) * 0x846CA68B
    return h ^ (h >> 16)


@triton.jit
def keys_of(sample, seed):
    """Of samples."""
    seed = seed.to(tl.uint64)
    n, low, high = sample.to(tl.uint32), seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    return mix(mix(n ^ low) ^ high), mix(mix(n ^ high) ^ low)


@triton.jit
def is_dropped(place, first, second, threshold):
    """Whether the elements at these places of their sample are."""
    h = place.to(tl.uint32) ^ first
    h = ((h ^ (h >> 16)) * 0x7FEB352D) ^ second
    h = (h ^ (h >> 15)) * 0x846CA68B
    return h < threshold.to(tl.uint32)


@triton.jit
def pixels_of(number, pixels, block_p: tl.constexpr, index: tl.constexpr):
    """The map of a block of pixels, and these pixels; some may be past its end."""
    blocks = tl.cdiv(pixels, block_p)
    within = (number % blocks).to(index) * block_p + tl.arange(0, block_p)
    return (number // blocks).to(index), within


@triton.jit(do_not_specialize=["seed", "threshold"])
def moments(
    x,
    out,
    maps,
    channels,
    pixels,
    stride_c,
    stride_p,
    groups,
    size,
    seed: tl.uint64,
    threshold: tl.uint32,
    drops: tl.constexpr,
    index: tl.constexpr,
    block_p: tl.constexpr,
    block_c: tl.constexpr,
):
    """Moments of every pixel, see `passes`, and x less the level into `out` unless it is None.

    `size`: pixels of a sample.
    """
    m, p = pixels_of(tl.program_id(0), pixels, block_p, index)
    kind = maps.dtype.element_ty
    base, inside = m * channels * pixels + p * stride_p, p < pixels
    number = (m * pixels + p) // size
    pixel = (m * pixels + p) % size
    level = tl.zeros([block_p], kind)
    for start in range(0, channels, block_c):
        c = start + tl.arange(0, block_c).to(index)
        known = inside[:, None] & (c < channels)[None, :]
        at = base[:, None] + (c * stride_c)[None, :]
        level += tl.sum(tl.load(x + at, mask=known, other=0).to(kind), 1)
    level /= channels
    rest, square = tl.zeros([block_p], kind), tl.zeros([block_p], kind)
    count, once, twice = rest, rest, rest
    first, second = keys_of(number // groups, seed)
    place = number % groups * channels * size + pixel
    for start in range(0, channels, block_c):
        c = start + tl.arange(0, block_c).to(index)
        known = inside[:, None] & (c < channels)[None, :]
        at = base[:, None] + (c * stride_c)[None, :]
        v = tl.load(x + at, mask=known, other=0).to(kind) - level[:, None]
        v = tl.where(known, v, 0)
        if out is not None:
            tl.store(out + at, v.to(out.dtype.element_ty), mask=known)
        rest += tl.sum(v, 1)
        square += tl.sum(v * v, 1)
        if drops:
            places = place[:, None] + (c * size)[None, :]
            hidden = is_dropped(places, first[:, None], second[:, None], threshold) & known
            count += tl.sum(hidden.to(kind), 1)
            v = tl.where(hidden, v, 0)
            once += tl.sum(v, 1)
            twice += tl.sum(v * v, 1)
    maps += number * ((6 if drops else 3) * size) + pixel
    tl.store(maps, level, mask=inside)
    tl.store(maps + size, rest / channels, mask=inside)
    tl.store(maps + 2 * size, square / channels, mask=inside)
    if drops:
        tl.store(maps + 3 * size, count, mask=inside)
        tl.store(maps + 4 * size, once, mask=inside)
        tl.store(maps + 5 * size, twice, mask=inside)


@triton.jit(do_not_specialize=["seed", "threshold"])
def add(
    out,
    x,
    maps,
    slopes,
    channels,
    pixels,
    stride_c,
    stride_p,
    groups,
    size,
    seed: tl.uint64,
    threshold: tl.uint32,
    drops: tl.constexpr,
    index: tl.constexpr,
    block_p: tl.constexpr,
    block_c: tl.constexpr,
):
    """To `out` a + b * v and, where dropped, c + d * v; a, b, c, d: the slopes of a pixel."""
    m, p = pixels_of(tl.program_id(0), pixels, block_p, index)
    base, inside = m * channels * pixels + p * stride_p, p < pixels
    number = (m * pixels + p) // size
    pixel = (m * pixels + p) % size
    maps += number * ((6 if drops else 3) * size) + pixel
    slopes += number * ((4 if drops else 2) * size) + pixel
    level = tl.load(maps, mask=inside, other=0)[:, None]
    a = tl.load(slopes, mask=inside, other=0)[:, None]
    b = tl.load(slopes + size, mask=inside, other=0)[:, None]
    if drops:
        besides = tl.load(slopes + 2 * size, mask=inside, other=0)[:, None]
        steeper = tl.load(slopes + 3 * size, mask=inside, other=0)[:, None]
        first, second = keys_of(number // groups, seed)
        place = number % groups * channels * size + pixel
    for start in range(0, channels, block_c):
        c = start + tl.arange(0, block_c).to(index)
        known = inside[:, None] & (c < channels)[None, :]
        at = base[:, None] + (c * stride_c)[None, :]
        v = tl.load(x + at, mask=known, other=0).to(level.dtype) - level
        more = a + b * v
        if drops:
            places = place[:, None] + (c * size)[None, :]
            hidden = is_dropped(places, first[:, None], second[:, None], threshold)
            more += tl.where(hidden, besides + steeper * v, 0)
        total = tl.load(out + at, mask=known, other=0).to(level.dtype) + more
        tl.store(out + at, total.to(out.dtype.element_ty), mask=known)
