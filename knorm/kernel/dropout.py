"""Which elements dropout hides from the statistics: a hash of the seed and of an element's place.

The place of an element is its number in the sample (N, C, *space) that it belongs to, counted from
0 in the order of a contiguous tensor, whatever the layout in memory. From the number n of its
sample and the seed (63 bits) come two keys,

    first = mix(mix(n ^ low) ^ high),   second = mix(mix(n ^ high) ^ low),

low and high the words of the seed, and the element is dropped where

    h = (place ^ first), h ^= h >> 16, h *= A, h ^= second, h ^= h >> 15, h *= B

is below p * 2**32. All numbers are unsigned, of 32 bits. `mix` and the constants A and B are the
"lowbias32" of Wellons (https://nullprogram.com/blog/2018/07/31/); its last step, which leaves the
upper half as it is, falls away where numbers are only compared. So p is taken to the nearest
multiple of 2**-32. In a sample of more than 2**32 elements the mask repeats from there on; n is
counted to 2**32 as well.

A counter in place of a generator: every pass, thread and device finds the mask again by itself.
"""

import math

import torch
from torch import Tensor

A, B = 0x7FEB352D, 0x846CA68B


def draw_seed() -> Tensor:
    """A number for `keep_mask`, (), int64, from torch's generator of the CPU."""
    return torch.randint(2**63 - 1, ())


def threshold_of(p: float) -> int:
    """Hashes below it are dropped; never none or all of them unless p is 0."""
    return min(max(round(p * 2**32), 1), 2**32 - 1) if p else 0


def keep_mask(x: Tensor, p: float, seed: Tensor) -> Tensor:
    """A boolean mask for x (N, S, C, *space), False with probability p, in the layout of x."""
    samples, *shape = x.shape
    place = torch.arange(math.prod(shape), device=x.device).to(torch.int32).view(shape)
    if x.stride(2) == 1:  # channels last: in the order of memory
        place = place.movedim((0, 1), (-2, -1)).contiguous().movedim((-2, -1), (0, 1))
    seed = seed.to(x.device)
    low, high = seed.to(torch.int32), (seed >> 32).to(torch.int32)
    number = torch.arange(samples, device=x.device, dtype=torch.int32)
    number = number.view(-1, *[1] * len(shape))
    first, second = mix(mix(number ^ low) ^ high), mix(mix(number ^ high) ^ low)
    h = place ^ first
    h = _shift_back_(h, 16).mul_(A).bitwise_xor_(second)
    h = _shift_back_(h, 15).mul_(B - 2**32).bitwise_xor_(-(2**31))  # to be compared as unsigned
    return h >= threshold_of(p) - 2**31


def mix(h: Tensor) -> Tensor:
    """lowbias32 of int32, whose products wrap around as unsigned ones do."""
    h = _shift_back_(h.clone(), 16).mul_(A)
    h = _shift_back_(h, 15).mul_(B - 2**32)
    return _shift_back_(h, 16)


def _shift_back_(h: Tensor, bits: int) -> Tensor:
    """h ^ (h >> bits), zeros coming in, in place."""
    return h.bitwise_xor_((h >> bits).bitwise_and_((1 << (32 - bits)) - 1))
