"""What a device brings for kernel normalization: a few passes over activations and over maps.

`fused` is the algorithm over them; `cpu` holds them for a CPU. Letters: N sample, S group of
channels with statistics of its own, C channel of a group, O output of a group, `space` the pixels,
`out` the units, K elements of a kernel (in row-major order of the kernel).

Activations (N, S * C, *space) are contiguous, or channels last where S = 1; what is made "like"
one has its strides. Maps are contiguous, in float32, or float64 for float64 activations. Tensors
that are returned are new; nothing else is written to unless it says so. Sums run in an order that
does not depend on the number of threads.

The moments of a pixel over the C channels of its group, in this order:

    level   the mean, as near as a number of that size can be; a constant for all gradients
    rest    the mean less the level
    square  the mean of v**2, where v = x - level
    count, first, second   with dropout: how many channels are dropped, the sums of v and of v**2
                           over them

An element is dropped as `dropout` says, by its place in the sample: in no layout, on no device and
in no pass otherwise. A unit's statistics follow from the moments of its pixels, see
docs/definition.md; a pixel of the padding has moments 0.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

MAX_RMS = 3.0  # of a normalized unit, where statistics are bounded


class Geometry(NamedTuple):
    """Of the windows; the padding is zeros, the same on both sides."""

    kernel_size: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]


class Rule(NamedTuple):
    """How statistics are made of moments."""

    dropout_p: float
    """0 unless elements are dropped"""
    growth: float
    """what dropout makes of a variance on average; 1 unless that is asked for"""
    bounded: bool
    eps: float


class Dropout(NamedTuple):
    """Which elements are dropped, see `dropout.keep_mask`."""

    p: float
    seed: int


class Units(NamedTuple):
    """The statistics of every unit, or the gradients of these.

    Only passes of one module take them from each other, so that a module may keep other things
    from which it makes the same.
    """

    rstd: Tensor
    """(N, S, *out): 1 / sqrt(variance + eps)"""
    rows: Tensor
    """(N, S, K, *out): the levels of its elements less its mean, times rstd"""


class Unscaled(NamedTuple):
    """What flows back through `Passes.scale`."""

    conv: Tensor
    """like `conv`: grad * rstd"""
    units: Any
    """as Units, of rstd the sum over outputs of grad * conv, of rows that of grad * sums"""
    sums: Tensor
    """(S, O, K): the sums over samples and units of grad * rows"""
    bias: Tensor
    """(S, O): those of grad"""


def new_like(x: Tensor, space: Sequence[int], last: bool) -> Tensor:
    """Uninitialized (N, C, *space), no view of anything: nobody may write into such a one later."""
    samples, channels, *_ = x.shape
    if not last:
        return x.new_empty((samples, channels, *space))
    steps = [channels * math.prod(space[i:]) for i in range(len(space) + 1)]
    return x.new_empty_strided((samples, channels, *space), (steps[0], 1, *steps[1:]))


class Passes(Protocol):
    """A module of these functions."""

    def moments(
        self, x: Tensor, num_stats: int, dropout: Dropout | None, dtype: torch.dtype | None
    ) -> tuple[Tensor, Tensor | None]:
        """The moments, (N, S, 3 or with dropout 6, *space), and v in `dtype`, like x (or None)."""
        ...

    def unit_statistics(
        self, moments: Tensor, channels: int, geometry: Geometry, rule: Rule
    ) -> Units:
        """Of the moments of pixels with C = `channels`."""
        ...

    def scale(
        self, conv: Tensor, units: Units, sums: Tensor, bias: Tensor | None, out: Tensor
    ) -> None:
        """Into `out`, like conv or conv itself: conv * rstd + the sum over K of sums * rows + bias.

        conv (N, S * O, *out); sums (S, O, K) and bias (S, O) in its dtype.
        """
        ...

    def unscale(self, grad: Tensor, conv: Tensor, units: Units, sums: Tensor) -> Unscaled:
        """Back through `scale`; grad like conv."""
        ...

    def through_statistics(
        self,
        grads: Units,
        units: Units,
        moments: Tensor,
        channels: int,
        geometry: Geometry,
        rule: Rule,
    ) -> Tensor:
        """Back through `unit_statistics`, to what `add` adds: (N, S, 2 or with dropout 4, *space).

        The levels in `rows` carry no gradient. With the gradients of rest, square, first and
        second: rest / C, 2 * square / C, first, 2 * second.
        """
        ...

    def add(
        self, out: Tensor, x: Tensor, moments: Tensor, slopes: Tensor, dropout: Dropout | None
    ) -> None:
        """To `out`, like x, of every element a + b * v and, if dropped, c + d * v besides.

        a, b, c, d: the `slopes` of its pixel, as `through_statistics` gives them.
        """
        ...

    def gather(self, x: Tensor, moments: Tensor, units: Units, geometry: Geometry) -> Tensor:
        """Normalized units side by side, v * rstd + rows: (N, C, kernel * out, ...); S = 1.

        It has the memory format of x.
        """
        ...

    def ungather(
        self, grad: Tensor, x: Tensor, moments: Tensor, units: Units, geometry: Geometry
    ) -> tuple[Tensor, Units]:
        """Back through `gather`: of x, like it, where v is x less a constant; and of the units.

        grad has the memory format of x.
        """
        ...
