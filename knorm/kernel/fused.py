"""The algorithms of `KNConv` and `KernelNorm` over the passes of a device, backward in closed form.

As much is read, written and kept as by a convolution and a batch norm: for the backward pass the
input and the convolution before it is scaled (a batch norm's input), and the seed of the dropout.
Statistics are a few maps for each group of channels.

With v = x less every pixel's level, y = rstd * (v * w) + rows @ sums + b: a unit's row holds what
the levels of its elements are above its mean, times rstd, and the sums are those of the weights
over channels; see docs/definition.md.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from knorm.kernel.autograd import CONVOLUTIONS
from knorm.kernel.passes import Dropout, Geometry, Passes, Rule, Units


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
    passes: Passes,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seed: int,
    options: Options,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """The output, and the convolution before it is scaled; nothing for that unless to `keep`."""
    geometry, dtype, num_stats = options.geometry, options.dtype, options.num_stats
    moments, centred = passes.moments(x, num_stats, dropout_of(options.rule, seed), dtype)
    assert centred is not None
    convolve = CONVOLUTIONS[weight.dim() - 2]
    conv = convolve(centred, weight.to(dtype), None, *geometry[1:], options.groups)
    del centred
    conv = laid_out(conv, num_stats)
    units = passes.unit_statistics(moments, x.shape[1] // num_stats, geometry, options.rule)
    out = torch.empty_like(conv) if keep else conv
    offset = None if bias is None else bias.to(dtype).view(num_stats, -1)
    passes.scale(conv, units, sums_of(weight, options), offset, out)
    return out, conv if keep else conv.new_empty(0)


def backward(
    passes: Passes,
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    conv: Tensor,
    seed: int,
    options: Options,
    need_x: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of x and weight, nothing for one that is not needed, and of the bias."""
    geometry, rule, dropout = options.geometry, options.rule, dropout_of(options.rule, seed)
    channels = x.shape[1] // options.num_stats
    dtype = options.dtype if need_weight else None
    moments, centred = passes.moments(x, options.num_stats, dropout, dtype)
    units = passes.unit_statistics(moments, channels, geometry, rule)
    grad = in_strides_of(conv, grad)
    scaled, grads, of_sums, of_bias = passes.unscale(grad, conv, units, sums_of(weight, options))
    grad_x, grad_weight = x.new_empty(0), weight.new_empty(0)
    if centred is not None:  # first, and apart from that of x: fewer activations at a time
        grad_weight = _conv_backward(scaled, centred, weight, options, 1)
        del centred
        of_sums = of_sums.reshape(weight.shape[0], 1, *weight.shape[2:])
        grad_weight = in_strides_of(weight, grad_weight.add_(of_sums))
    if need_x:
        grad_x = in_strides_of(x, _conv_backward(scaled, x, weight, options, 0))
        del scaled
        slopes = passes.through_statistics(grads, units, moments, channels, geometry, rule)
        passes.add(grad_x, x, moments, slopes, dropout)
    return grad_x, grad_weight, of_bias.flatten().to(weight.dtype)


def _conv_backward(grad: Tensor, x: Tensor, weight: Tensor, options: Options, which: int) -> Tensor:
    """The gradient of x (0), of which only the shape matters then, or of the weight (1)."""
    if x.dtype != grad.dtype:  # under autocast, which a GPU does not take even so
        x = torch.empty_like(x, dtype=grad.dtype)
    needs = [which == 0, which == 1, False]
    geometry = (*options.geometry[1:], False, [0] * (x.dim() - 2), options.groups)
    inputs = (grad, x, weight.to(grad.dtype), None)
    return torch.ops.aten.convolution_backward(*inputs, *geometry, needs)[which]


def norm_forward(passes: Passes, x: Tensor, seed: int, geometry: Geometry, rule: Rule) -> Tensor:
    """Normalized units side by side."""
    moments, units = _units_of(passes, x, seed, geometry, rule)
    return passes.gather(x, moments, units, geometry)


def norm_backward(
    passes: Passes, grad: Tensor, x: Tensor, seed: int, geometry: Geometry, rule: Rule
) -> Tensor:
    """Of x."""
    moments, units = _units_of(passes, x, seed, geometry, rule)
    grad = (
        grad.contiguous() if x.is_contiguous() else grad.movedim(1, -1).contiguous().movedim(-1, 1)
    )
    grad_x, grads = passes.ungather(grad, x, moments, units, geometry)
    slopes = passes.through_statistics(grads, units, moments, x.shape[1], geometry, rule)
    passes.add(grad_x, x, moments, slopes, dropout_of(rule, seed))
    return grad_x


def _units_of(
    passes: Passes, x: Tensor, seed: int, geometry: Geometry, rule: Rule
) -> tuple[Tensor, Units]:
    """Moments of pixels, statistics of units."""
    moments, _ = passes.moments(x, 1, dropout_of(rule, seed), None)
    return moments, passes.unit_statistics(moments, x.shape[1], geometry, rule)


def dropout_of(rule: Rule, seed: int) -> Dropout | None:
    return Dropout(rule.dropout_p, seed) if rule.dropout_p else None


def sums_of(weight: Tensor, options: Options) -> Tensor:
    """The weights summed over channels: (S, O, K)."""
    return weight.sum(1).flatten(1).unflatten(0, (options.num_stats, -1)).to(options.dtype)


def laid_out(x: Tensor, num_stats: int) -> Tensor:
    """`x` contiguous, or channels last as it is where that can be, see `passes`."""
    is_last = num_stats == 1 and x.movedim(1, -1).is_contiguous()
    return x if is_last else x.contiguous()


def in_strides_of(like: Tensor, values: Tensor) -> Tensor:
    """`values` as they are or copied, so that they lie in memory as `like` does."""
    if values.stride() == like.stride() and values.dtype == like.dtype:
        return values
    return torch.empty_like(like).copy_(values)
