"""Kernel normalization composed of differentiable operations: statistics, then the convolution.

A unit is one window of a convolution over all channels of the zero-padded input (or over one
group's channels). `reference.py` is the definition; this is the same without unfolding the input:
a unit's mean is the box filter of the pixels' channel means, and its variance is the variance
within its pixels plus the variance between them, so nothing large is ever subtracted.

Source: Nasirigerdeh et al., Kernel Normalized Convolutional Networks, TMLR 2024, section 3.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from knorm.choices import STATS, Stats, check_name
from knorm.kernel import windows
from knorm.kernel.autograd import CentredConv, ChannelMoments, statistics_dtype
from knorm.kernel.dropout import draw_seed, keep_mask
from knorm.kernel.passes import MAX_RMS

PaddingMode = windows.PaddingMode
Size = int | Sequence[int]
Geometry = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]
"""kernel_size, stride, padding, dilation"""


class WindowStats(NamedTuple):
    """Statistics of every unit. The mean is kept as a small number beside a large one."""

    center: Tensor
    """(N, S, 1, ...): a constant near the sample's values"""
    offset: Tensor
    """(N, S, *out): the unit's mean less `center`"""
    rstd: Tensor
    """(N, S, *out): 1 / sqrt(variance + eps)"""

    @property
    def mean(self) -> Tensor:
        """(N, S, *out)"""
        return self.center + self.offset


def window_stats(
    x: Tensor,
    kernel_size: Size,
    stride: Size = 1,
    padding: str | Size = 0,
    *,
    dilation: Size = 1,
    groups: int = 1,
    padding_mode: PaddingMode = "zeros",
    dropout_p: float = 0.0,
    stats: Stats = "sampled",
    bounded: bool = True,
    eps: float = 1e-5,
) -> WindowStats:
    """Mean and reciprocal standard deviation of every unit.

    Args:
        x: (N, C, *space), batched.
        groups: number of channel groups with statistics of their own; 1 takes all channels.
        dropout_p: probability in [0, 1) with which an element is dropped from the statistics.
        stats: "sampled" draws the dropout (training); "expected" takes the mean and variance that
            dropout gives on average, in closed form; "plain" ignores dropout_p.
        bounded: with "sampled", never let the root mean square of a normalized unit (about 1 in an
            ordinary one) pass 3: its variance is at least (V + (M - mean)**2) / 9, where M and V
            are its mean and variance without dropout. Units come near that only where dropout hid
            nearly all that there is (the one lit pixel of a dark window) or nothing of a constant,
            bright window; without it they are blown up to 1 / sqrt(eps) = 316 times their size.
            All other units are exactly as published. False: the published rule everywhere.
        eps: added to the variance.

    Returns:
        `WindowStats` in float32 (float64 for float64 inputs).
    """
    check_options(dropout_p, stats, eps)
    num_dims = x.dim() - 2
    kernel_size = windows.ntuple(kernel_size, num_dims, "kernel_size")
    stride = windows.ntuple(stride, num_dims, "stride")
    dilation = windows.ntuple(dilation, num_dims, "dilation")
    pairs = windows.padding_pairs(padding, kernel_size, stride, dilation)
    x, padding = windows.pad_input(x, pairs, padding_mode)
    windows.check_fits(x.shape[2:], kernel_size, padding, dilation)
    x = x.unflatten(1, (groups, -1))
    dropout = None
    if stats == "sampled" and dropout_p > 0:
        dropout = keep_mask(x, dropout_p, draw_seed()), 1 / (1 - dropout_p)
    growth = (
        mean_growth(dropout_p, x.shape[2] * math.prod(kernel_size)) if stats == "expected" else 1
    )
    return unit_stats(x, (kernel_size, stride, padding, dilation), dropout, growth, bounded, eps)


def mean_growth(dropout_p: float, size: int) -> float:
    """What dropout makes of the variance of a unit of that size, on average: see `unit_stats`."""
    return (1 - dropout_p / size) / (1 - dropout_p)


def unit_stats(
    x: Tensor,
    geometry: Geometry,
    dropout: tuple[Tensor, float] | None,
    growth: float,
    bounded: bool,
    eps: float,
) -> WindowStats:
    """`window_stats` of x (N, S, C, *space), with a mask of what is kept and the scale of that.

    With growth g a variance V at a mean M becomes g V + (g - 1) M^2.
    """
    if dropout is not None:
        center, offset, var = _sampled_moments(x, dropout, bounded, geometry)
    else:
        center, (offset,), (var,) = _unit_moments(x, [(None, 1.0)], geometry)
    if growth != 1:
        var = growth * var + (growth - 1) * (center + offset).square()
    return WindowStats(center, offset, (var + eps).rsqrt())


def _sampled_moments(
    x: Tensor, dropout: tuple[Tensor, float], bounded: bool, geometry: Geometry
) -> tuple[Tensor, Tensor, Tensor]:
    """`center`, mean less center, and variance of every unit after dropout."""
    if not bounded:
        center, (offset,), (var,) = _unit_moments(x, [dropout], geometry)
        return center, offset, var
    center, offsets, variances = _unit_moments(x, [dropout, (None, 1.0)], geometry)
    (offset, true_offset), (var, true_var) = offsets, variances
    mean_square = true_var + (true_offset - offset).square()  # of the unit less the mean it gets
    return center, offset, torch.maximum(var, mean_square / MAX_RMS**2)


def _unit_moments(x: Tensor, dropouts: list[tuple[Tensor | None, float]], geometry: Geometry):
    """From x (N, S, C, *space) and M dropouts (keep, scale) to the moments of every unit.

    Returns `center` (N, S, 1, ...), and M means less center and M variances (N, S, *out).

    A pixel's mean is kept in two parts, level + pixel_offset: the level is a constant and may be
    large, the offset is small and carries the gradient. `elements` are the pixel means less center.
    """
    level = pixel_level(x)
    split = (x.shape[1], len(dropouts))
    moments = [ChannelMoments.apply(x, *dropout, level.unsqueeze(2)) for dropout in dropouts]
    pixel_offset, pixel_var = (torch.cat(m, 2).flatten(1, 2) for m in zip(*moments, strict=True))
    center = level.mean(tuple(range(2, level.dim())), keepdim=True)
    elements = windows.window_elements(pixel_offset, *geometry).unflatten(1, split)
    constant = windows.window_elements(level, *geometry) - center.unsqueeze(-1)
    elements = elements + constant.unsqueeze(2)
    offset = elements.mean(-1, keepdim=True)
    within = windows.window_mean(pixel_var, *geometry).unflatten(1, split)
    var = within + (elements - offset).square().mean(-1)
    return center, offset.squeeze(-1).unbind(2), var.unbind(2)


def pixel_level(x: Tensor) -> Tensor:
    """Every pixel's mean over its group's channels, a constant: (N, S, C, ...) -> (N, S, ...)."""
    return x.detach().mean(2, dtype=statistics_dtype(x))


def normalized_conv(
    x: Tensor,
    stats: WindowStats,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: str | Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    padding_mode: PaddingMode = "zeros",
) -> Tensor:
    """rstd * (x * weight - mean * sum(weight)) + bias: the convolution of normalized units.

    Args:
        x: (N, C, *space), batched.
        stats: of the same windows, over all channels or by group.
        weight, bias, stride, padding, dilation, groups, padding_mode: as in torch's convolutions.

    Every pixel's channel mean is taken off before the convolution and its part, less the unit's
    mean, is added back: the result does not depend on that level, but large
    means cancel in float32 before they reach the products.
    """
    if has_torch_function((weight, bias)):  # per-record gradients have a rule for all of it
        options = (stride, padding, dilation, groups, padding_mode)
        return handle_torch_function(
            normalized_conv, (weight, bias), x, stats, weight, bias, *options
        )
    num_dims = weight.dim() - 2
    kernel_size = weight.shape[2:]
    stride = windows.ntuple(stride, num_dims, "stride")
    dilation = windows.ntuple(dilation, num_dims, "dilation")
    pairs = windows.padding_pairs(padding, kernel_size, stride, dilation)
    x, padding = windows.pad_input(x, pairs, padding_mode)
    level = pixel_level(x.unflatten(1, (stats.rstd.shape[1], -1)))
    out = CentredConv.apply(x, level, weight, stride, padding, dilation, groups)
    elements = windows.window_elements(level, kernel_size, stride, padding, dilation)
    elements = elements - stats.center.unsqueeze(-1) - stats.offset.unsqueeze(-1)
    rest = _rest(elements * stats.rstd.unsqueeze(-1), weight, bias, out)
    rstd = stats.rstd.to(out.dtype)
    if rstd.shape[1] == 1:
        return torch.addcmul(rest.flatten(1, 2), out, rstd)
    return torch.addcmul(rest, out.unflatten(1, rest.shape[1:3]), rstd.unsqueeze(2)).flatten(1, 2)


def normalized_units(
    x: Tensor,
    stats: WindowStats,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    """(unit - mean) * rstd side by side: (N, C, *space) -> (N, C, k * out, ...), S = 1."""
    units = windows.lay_side_by_side(x, kernel_size, stride, padding)
    offset, rstd = (windows.repeat_windows(m, kernel_size) for m in (stats.offset, stats.rstd))
    return ((units - stats.center - offset) * rstd).to(x.dtype)


def _rest(elements: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """What the levels, less their unit's mean, bring to the output, and the bias.

    Output o of a window gets the sum over its K elements of w[o, k] * elements[k] with
    w[o, k] = weight[o, :, k].sum(), since a level is the same for all channels; the bias is one
    more column of w against a column of ones.

    elements (N, S, *out, K) -> (N, S, O / S, *out) in the memory format of `out`. A product of
    matrices: 1x1 convolutions with so few channels are several times slower.
    """
    num_stats = elements.shape[1]
    rows = elements.flatten(2, -2).to(weight.dtype)
    sums = weight.sum(1).flatten(1)
    if bias is not None:
        rows = F.pad(rows, (0, 1), value=1.0)
        sums = torch.cat((sums, bias.unsqueeze(1)), 1)
    sums = sums.unflatten(0, (num_stats, -1))
    channels_last = out.stride(1) == 1
    rest = (rows @ sums.mT).mT if channels_last else sums @ rows.mT
    return rest.unflatten(3, out.shape[2:])


def check_options(dropout_p: float, stats: str, eps: float) -> None:
    """One clear line for a probability, a name or an epsilon that cannot be."""
    if not isinstance(dropout_p, int | float) or not 0 <= dropout_p < 1:
        raise ValueError(f"dropout_p must be in [0, 1), got {dropout_p!r}")
    if not isinstance(eps, int | float) or not 0 <= eps < math.inf:
        raise ValueError(f"eps must be a number from 0 up, got {eps!r}")
    check_name("stats", stats, STATS)
