"""Gaussian noise as a pure function of (secret, step, parameter).

The random words are cryptographic (`privacy.secret`); numbers that are computed from them in
floating point are the normal law only up to rounding, and from the lowest bits of a naive sum one
could read what the noise was added to (Mironov 2012; Haney et al. 2021). Here sums and noise are
both rounded to multiples of one power of two, some std * 2^-40, and then added. Their sum is then
the rounded value of sum + exact noise, a function of what the Gaussian mechanism releases, and all
that is left of the attack is how finely the words resolve the normal law:

- two coordinates come of 63 random bits for their radius and 64 for their angle, and reach 9.4 std,
  beyond which the normal law has 2^-64;
- rounding moves a sum by at most 2^-40 std in each coordinate, and two of them apart by twice that:
  for 10^7 parameters 6e-9 std in all, by which the sensitivity is larger than the clipping norm.

Everything is computed on the CPU, in blocks that torch never splits between threads, so the noise
does not depend on devices, threads or processes. Between two kinds of processor the logarithm,
sine and cosine may differ in their last bit, so where the machines of a run differ, one process's
noise is to be sent to the others.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from privacy.secret import Secret

GRID_BITS = 40
PAIRS = 1 << 13  # of a block; torch splits nothing shorter than 2^15 elements


def gaussian(secret: Secret, step: int, name: str, shape: Sequence[int], std: float) -> Tensor:
    """Independent normal numbers of mean 0 for one parameter at one step.

    Args:
        name: The parameter's plain name, without what DDP or torch.compile put before it.
        std: Their standard deviation in all, noise multiplier times clipping norm; 0 gives zeros.

    Returns:
        float64 on the CPU, multiples of the grid of `std`; float32 would cut off their lowest bits.
    """
    count = math.prod(shape)
    pairs = [min(PAIRS, -(-(count - first) // 2)) for first in range(0, count, 2 * PAIRS)]
    blocks = [_normals(secret.words(2 * n, "noise", step, name, b)) for b, n in enumerate(pairs)]
    flat = torch.cat(blocks)[:count] if blocks else torch.empty(0, dtype=torch.float64)
    return to_grid(flat.mul_(std), std).view(tuple(shape))


def _normals(words: np.ndarray) -> Tensor:
    """As many standard normal numbers as words, by Box and Muller's transform."""
    radius, angle = torch.from_numpy(words.astype("<i8")).chunk(2)
    radius = (radius & (1 << 63) - 1).double().add_(0.5).mul_(2.0**-63).log_().mul_(-2).sqrt_()
    angle = angle.double().mul_(math.pi * 2.0**-63)  # in [-pi, pi]
    return torch.cat([radius * angle.cos(), radius * angle.sin()])


def to_grid(values: Tensor, std: float) -> Tensor:
    """The nearest multiples of the power of two that is std * 2^-40 or up to twice that.

    Dividing by it and multiplying with it are exact. A `std` of 0 has no grid: nothing changes.
    """
    if std == 0:
        return values
    grid = math.ldexp(1.0, math.frexp(std)[1] - GRID_BITS)
    return values.div(grid).round_().mul_(grid)


def add_noise(
    sums: Mapping[str, Tensor], secret: Secret, step: int, std: float
) -> dict[str, Tensor]:
    """Every sum with its noise, as what the step may release; once, after all ranks' sums are one.

    Args:
        sums: Sums of clipped gradients by the parameters' plain names, float32 or float64.
        std: Noise multiplier times clipping norm, at least 0 and finite.

    Returns:
        New tensors of the sums' types and devices, computed on the CPU in float64.

    Raises:
        ValueError: For a `std` that is none, and for sums of a shorter type, where noise is lost.
    """
    if not 0 <= std < math.inf:
        raise ValueError(f"the noise's std must be finite and at least 0, got {std}")
    for name, value in sums.items():
        if value.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name}: its sum must be float32, noise is lost in {value.dtype}")
    noisy = {}
    for name, value in sums.items():
        exact = to_grid(value.cpu().double(), std)
        total = exact + gaussian(secret, step, name, value.shape, std)
        noisy[name] = total.to(value.device, value.dtype)
    return noisy
