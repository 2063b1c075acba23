"""The passes of `KNConv` over whole activations: forward, and backward in closed form.

As much is read, written and kept as by a convolution and a batch norm: for the backward pass the
input and the convolution before it is scaled (a batch norm's input), and the seed of the dropout.
Statistics are a few maps for each group of channels; torch differentiates what happens to them.

With v = x less every pixel's level, y = rstd * (v * w) + rows @ sums: a unit's row holds what the
levels of its elements are above its mean, times rstd, and the sums are those of the weights over
channels; see docs/definition.md.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from knorm.kernel.autograd import CONVOLUTIONS
from knorm.kernel.moments import (
    Dropout,
    Moments,
    Pixels,
    add_moment_grads,
    chunks,
    pixel_moments,
)
from knorm.kernel.units import Geometry, Rule, Units, through_statistics, unit_statistics


class Options(NamedTuple):
    """What a call is about, besides its tensors."""

    geometry: Geometry
    groups: int
    num_stats: int
    """groups of channels with statistics of their own: 1, or `groups`"""
    rule: Rule
    dtype: torch.dtype
    """what the convolution computes in"""


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, seed: int, options: Options, keep: bool
) -> tuple[Tensor, Tensor]:
    """The output, and the convolution before it is scaled; nothing for that unless to `keep`."""
    geometry, dtype = options.geometry, options.dtype
    moments, centred, _ = moments_of(x, seed, options)
    units = unit_statistics(moments, x.shape[1] // options.num_stats, geometry, options.rule).units
    conv = CONVOLUTIONS[weight.dim() - 2](
        centred, weight.to(dtype), None, *geometry[1:], options.groups
    )
    del centred
    out = torch.empty_like(conv) if keep else conv
    pixels = Pixels(conv, options.num_stats)
    rows, sums = rows_of(units, bias is not None).to(dtype), sums_of(weight, bias, options)
    for chunk in chunks(conv):
        into = pixels.view(out[chunk])
        torch.mul(pixels.view(conv[chunk]), pixels.unmaps(units.rstd[chunk]).to(dtype), out=into)
        ours, theirs = rows[chunk].flatten(0, 1), sums.repeat(len(rows[chunk]), 1, 1)
        if pixels.last:
            into.baddbmm_(ours, theirs.mT)
        else:
            into.baddbmm_(theirs, ours.mT)
    return out, conv if keep else conv.new_empty(0)


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    conv: Tensor,
    seed: int,
    options: Options,
    need_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of x, weight and bias; nothing for a bias that there is not, and for x unless needed."""
    geometry = options.geometry
    moments, centred, dropped = moments_of(x, seed, options)
    channels = x.shape[1] // options.num_stats
    found = unit_statistics(moments, channels, geometry, options.rule)
    scaled, grad_units, grad_sums = through_units(grad, conv, weight, bias, found.units, options)
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        scaled,
        centred,
        weight.to(scaled.dtype),
        None,
        *geometry[1:],
        False,
        [0] * len(geometry.stride),
        options.groups,
        [need_x, True, False],
    )
    del scaled, centred
    sums = grad_sums[:, : geometry_size(geometry)].to(grad_weight.dtype)
    grad_weight = grad_weight + sums.view(weight.shape[0], 1, *weight.shape[2:])
    grad_weight = in_strides_of(weight, grad_weight)
    grad_bias = weight.new_empty(0) if bias is None else in_strides_of(bias, grad_sums[:, -1])
    if not need_x:
        return x.new_empty(0), grad_weight, grad_bias
    grads = through_statistics(grad_units, found, moments, channels, geometry, options.rule)
    grad_x = in_strides_of(x, grad_x)
    add_moment_grads(grad_x, x, moments, grads, dropped)
    return grad_x, grad_weight, grad_bias


def through_units(
    grad: Tensor,
    conv: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    units: Units,
    options: Options,
) -> tuple[Tensor, Units, Tensor]:
    """Of the convolution, of the units' statistics, and of the sums of weights (O, K or K + 1)."""
    grad, scaled = in_strides_of(conv, grad), torch.empty_like(conv)
    pixels, size = Pixels(conv, options.num_stats), geometry_size(options.geometry)
    rows, sums = rows_of(units, bias is not None).to(conv.dtype), sums_of(weight, bias, options)
    grad_rstd, grad_rows = [], []
    grad_sums = torch.zeros(sums.shape, dtype=units.rstd.dtype, device=sums.device)
    for chunk in chunks(conv):
        part = pixels.view(grad[chunk])
        product = part * pixels.view(conv[chunk])
        total = product.sum(pixels.dim, keepdim=True, dtype=units.rstd.dtype)
        grad_rstd.append(pixels.maps(total))
        ours, theirs = rows[chunk].flatten(0, 1), sums.repeat(len(rows[chunk]), 1, 1)
        by_channel = part.mT if pixels.last else part
        grad_rows.append((by_channel.mT @ theirs).view_as(rows[chunk]))
        found = (by_channel @ ours).view(-1, *sums.shape)
        grad_sums += found.sum(0, dtype=grad_sums.dtype)
        scale = pixels.unmaps(units.rstd[chunk]).to(part.dtype)
        torch.mul(part, scale, out=pixels.view(scaled[chunk]))
    by_row = torch.cat(grad_rows)[..., :size].to(units.rstd.dtype).view_as(units.shift)
    rstd = torch.cat(grad_rstd) + (by_row * units.shift).sum(-1)
    return scaled, Units(by_row * units.rstd.unsqueeze(-1), rstd), grad_sums.flatten(0, 1)


def moments_of(x: Tensor, seed: int, options: Options) -> tuple[Moments, Tensor, list[Tensor]]:
    """The pixels' moments, x less their levels to be convolved, and what is dropped."""
    p = options.rule.dropout_p
    centred = torch.empty_like(x, dtype=options.dtype)
    moments, dropped = pixel_moments(
        x, options.num_stats, Dropout(p, seed, x.device) if p else None, centred
    )
    return moments, centred, dropped


def rows_of(units: Units, has_bias: bool) -> Tensor:
    """(N, S, P, K), and a column of ones with a bias."""
    rows = (units.shift * units.rstd.unsqueeze(-1)).flatten(2, -2)
    return F.pad(rows, (0, 1), value=1.0) if has_bias else rows


def sums_of(weight: Tensor, bias: Tensor | None, options: Options) -> Tensor:
    """The weights summed over channels, and the bias: (S, O / S, K or K + 1)."""
    sums = weight.sum(1).flatten(1)
    if bias is not None:
        sums = torch.cat((sums, bias.unsqueeze(1)), 1)
    return sums.unflatten(0, (options.num_stats, -1)).to(options.dtype)


def geometry_size(geometry: Geometry) -> int:
    """Elements of a kernel."""
    return torch.Size(geometry.kernel_size).numel()


def in_strides_of(like: Tensor, values: Tensor) -> Tensor:
    """`values` as they are or copied, so that they lie in memory as `like` does."""
    if values.stride() == like.stride() and values.dtype == like.dtype:
        return values
    return torch.empty_like(like).copy_(values)
