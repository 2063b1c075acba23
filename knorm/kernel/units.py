"""From the moments of pixels to the statistics of units, and back: small maps, closed forms."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from knorm.kernel import windows
from knorm.kernel.composition import MAX_RMS
from knorm.kernel.moments import MomentGrads, Moments


class Geometry(NamedTuple):
    """Of the windows."""

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


class Units(NamedTuple):
    """The statistics of every unit."""

    shift: Tensor
    """(N, S, *out, K): levels of its elements less its mean"""
    rstd: Tensor
    """(N, S, *out)"""


class Spread(NamedTuple):
    """The elements of units, pixels by their means, all less a constant."""

    elements: Tensor
    """(N, S, *out, K)"""
    offset: Tensor
    """(N, S, *out): their mean"""
    var: Tensor
    """(N, S, *out): variance between them, and the mean of those within them"""

    @property
    def deviations(self) -> Tensor:
        return self.elements - self.offset.unsqueeze(-1)


class Found(NamedTuple):
    """Statistics, and what they were made of."""

    units: Units
    center: Tensor
    """(N, S, 1, ...): what is taken off the means, a constant"""
    whole: Spread
    """without dropout"""
    dropped: Spread | None
    bound: Tensor | None
    """the least variance of a bounded unit"""


def unit_statistics(moments: Moments, channels: int, geometry: Geometry, rule: Rule) -> Found:
    """The levels in `shift` stand for what was taken off the input: the output does not depend on
    them, and they carry no gradient."""
    level, rest, square = moments[:3]
    center = level.mean(tuple(range(2, level.dim())), keepdim=True)
    levels = windows.window_elements(level, *geometry) - center.unsqueeze(-1)
    elements = levels + windows.window_elements(rest, *geometry)
    whole = spread(elements, square - rest.square(), geometry)
    offset, var, dropped, bound = whole.offset, whole.var, None, None
    if rule.growth != 1:
        var = rule.growth * var + (rule.growth - 1) * (center + offset).square()
    if moments.count is not None:
        mean, within = dropped_pixels(moments, channels, rule.dropout_p)
        kept = windows.window_elements(mean, *geometry) - center.unsqueeze(-1)
        dropped = spread(kept, within, geometry)
        offset, var = dropped.offset, dropped.var
        if rule.bounded:
            bound = (whole.var + (whole.offset - offset).square()) / MAX_RMS**2
            var = torch.maximum(var, bound)
    return Found(
        Units(levels - offset.unsqueeze(-1), (var + rule.eps).rsqrt()),
        center,
        whole,
        dropped,
        bound,
    )


def spread(elements: Tensor, within: Tensor, geometry: Geometry) -> Spread:
    """Of units whose pixels have these means, (N, S, *out, K), and these variances."""
    offset = elements.mean(-1)
    between = (elements - offset.unsqueeze(-1)).square().mean(-1)
    return Spread(elements, offset, windows.window_mean(within, *geometry) + between)


def dropped_pixels(moments: Moments, channels: int, p: float) -> tuple[Tensor, Tensor]:
    """Mean and variance over channels after dropout: of those kept, scaled, and of the zeros.

    The variance is that among the kept ones plus that between them and the zeros.
    """
    part, mean, above, among = kept_channels(moments, channels)
    scale = 1 / (1 - p)
    return scale * part * mean, scale**2 * part * (among.clamp_min(0) + (1 - part) * mean.square())


def kept_channels(moments: Moments, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The part that they are, their mean, that less the level, and their variance."""
    level, rest, square, count, first, second = moments
    assert count is not None
    assert first is not None
    assert second is not None
    kept = channels - count
    some = kept.clamp_min(1)
    above = (channels * rest - first) / some
    return kept / channels, level + above, above, (channels * square - second) / some - above**2


def through_statistics(
    grads: Units, found: Found, moments: Moments, channels: int, geometry: Geometry, rule: Rule
) -> MomentGrads:
    """The gradients of the moments, from those of the statistics."""
    of_offset = -grads.shift.sum(-1)
    of_var = grads.rstd * found.units.rstd.pow(3) * -0.5
    whole, dropped = found.whole, found.dropped
    if dropped is None:
        if rule.growth != 1:
            mean = found.center + whole.offset
            of_offset = of_offset + 2 * (rule.growth - 1) * of_var * mean
            of_var = of_var * rule.growth
        return through_whole(of_offset, of_var, whole, moments, geometry)
    bounds = None
    if found.bound is not None:
        of_bound = (of_var * (found.bound > dropped.var)) / MAX_RMS**2
        of_var = of_var * (found.bound <= dropped.var)
        apart = 2 * of_bound * (whole.offset - dropped.offset)
        of_offset = of_offset - apart
        bounds = through_whole(apart, of_bound, whole, moments, geometry)
    of_pixels = through_spread(of_offset, of_var, dropped, moments.level, geometry)
    found_grads = through_dropped(*of_pixels, moments, channels, rule.dropout_p)
    if bounds is None:
        return found_grads
    rest, square = found_grads.rest + bounds.rest, found_grads.square + bounds.square
    return found_grads._replace(rest=rest, square=square)


def through_whole(
    of_offset: Tensor, of_var: Tensor, whole: Spread, moments: Moments, geometry: Geometry
) -> MomentGrads:
    """The gradients of the moments, from those of the statistics without dropout."""
    of_means, of_within = through_spread(of_offset, of_var, whole, moments.level, geometry)
    return MomentGrads(of_means - 2 * moments.rest * of_within, of_within)


def through_spread(
    of_offset: Tensor, of_var: Tensor, made: Spread, like: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor]:
    """The gradients of pixels' means and variances, of the shape of `like`."""
    size = made.elements.shape[-1]
    each = torch.addcmul(of_offset.unsqueeze(-1), made.deviations, 2 * of_var.unsqueeze(-1))
    means = windows.sum_elements(each / size, like.shape[2:], *geometry)
    of_within = (of_var / size).unsqueeze(-1).expand_as(each)
    return means, windows.sum_elements(of_within, like.shape[2:], *geometry)


def through_dropped(
    of_means: Tensor, of_within: Tensor, moments: Moments, channels: int, p: float
) -> MomentGrads:
    """The gradients of the moments, from those of `dropped_pixels`."""
    part, mean, above, among = kept_channels(moments, channels)
    assert moments.count is not None
    some, scale = (channels - moments.count).clamp_min(1), 1 / (1 - p)
    of_mean = scale * part * (of_means + 2 * scale * (1 - part) * mean * of_within)
    of_among = scale**2 * part * of_within * (among > 0)
    of_above = of_mean - 2 * above * of_among
    return MomentGrads(
        rest=of_above * channels / some,
        square=of_among * channels / some,
        first=-of_above / some,
        second=-of_among / some,
    )
