"""Kernel normalization as functions of tensors, by the fastest way that there is for them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import has_torch_function

from knorm.choices import Stats
from knorm.kernel import fused_ops, norm_ops, windows
from knorm.kernel.composition import (
    check_options,
    mean_growth,
    normalized_conv,
    normalized_units,
    window_stats,
)
from knorm.kernel.dropout import draw_seed
from knorm.kernel.fused import laid_out
from knorm.kernel.passes import Rule

PaddingMode = windows.PaddingMode
Size = int | Sequence[int]


def kn_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: str | Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    dropout_p: float = 0.0,
    stats: Stats = "sampled",
    bounded: bool = True,
    group_stats: bool = False,
    eps: float = 1e-5,
) -> Tensor:
    """Convolution of kernel-normalized windows: (N, C, *space) or (C, *space), as torch's.

    `group_stats` normalizes each group's windows by themselves instead of over all channels; the
    other options are those of `window_stats`.
    """
    num_dims = weight.dim() - 2
    batch = _batched(x, num_dims)
    if batch.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"expected input of {weight.shape[1] * groups} channels, got {batch.shape[1]}"
        )
    num_stats = groups if group_stats else 1
    size = (stride, padding, dilation, groups)
    rule = {"dropout_p": dropout_p, "stats": stats, "bounded": bounded, "eps": eps}
    if fused_ops.serves(batch, weight) and not has_torch_function((weight, bias)):
        out = _fused_conv(batch, weight, bias, *size, padding_mode, num_stats, **rule)
    else:
        unit_stats = window_stats(
            batch,
            weight.shape[2:],
            stride,
            padding,
            dilation=dilation,
            groups=num_stats,
            padding_mode=padding_mode,
            **rule,
        )
        out = normalized_conv(batch, unit_stats, weight, bias, *size, padding_mode)
    return out if x.dim() == out.dim() else out.squeeze(0)


def _fused_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Size,
    padding: str | Size,
    dilation: Size,
    groups: int,
    padding_mode: PaddingMode,
    num_stats: int,
    *,
    dropout_p: float,
    stats: Stats,
    bounded: bool,
    eps: float,
) -> Tensor:
    """`kn_conv` by one operator, see `fused`."""
    check_options(dropout_p, stats, eps)
    kernel_size, num_dims = weight.shape[2:], weight.dim() - 2
    stride = windows.ntuple(stride, num_dims, "stride")
    dilation = windows.ntuple(dilation, num_dims, "dilation")
    pairs = windows.padding_pairs(padding, kernel_size, stride, dilation)
    x, zeros = windows.pad_input(x, pairs, padding_mode)
    windows.check_fits(x.shape[2:], kernel_size, zeros, dilation)
    size = x.shape[1] // num_stats * math.prod(kernel_size)
    seed, rule = _seed_and_rule(size, dropout_p, stats, bounded, eps)
    keep = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, weight, bias)
    )
    out, _ = fused_ops.KNConv.apply(
        laid_out(x, num_stats),
        weight,
        bias,
        seed,
        stride,
        zeros,
        dilation,
        groups,
        num_stats,
        *rule,
        fused_ops.conv_dtype(x),
        keep,
    )
    return out


def kernel_norm(
    x: Tensor,
    kernel_size: Size = 1,
    stride: Size = 1,
    padding: str | Size = 0,
    *,
    num_dims: int,
    padding_mode: PaddingMode = "zeros",
    dropout_p: float = 0.0,
    stats: Stats = "sampled",
    bounded: bool = True,
    eps: float = 1e-5,
) -> Tensor:
    """Normalized windows side by side: (N, C, *space) -> (N, C, k * out, ...).

    `num_dims` (1, 2 or 3) tells a batch from a single sample. An element that several windows
    share is dropped from the statistics of all of them or of none, as in `kn_conv`. The other
    options are those of `window_stats`.
    """
    batch = _batched(x, num_dims)
    kernel_size = windows.ntuple(kernel_size, num_dims, "kernel_size")
    stride = windows.ntuple(stride, num_dims, "stride")
    ones = (1,) * num_dims
    pairs = windows.padding_pairs(padding, kernel_size, stride, ones)
    batch, zeros = windows.pad_input(batch, pairs, padding_mode)
    rule = {"dropout_p": dropout_p, "stats": stats, "bounded": bounded, "eps": eps}
    if fused_ops.serves(batch):
        check_options(dropout_p, stats, eps)
        windows.check_fits(batch.shape[2:], kernel_size, zeros, ones)
        seed, rule = _seed_and_rule(batch.shape[1] * math.prod(kernel_size), **rule)
        places = (kernel_size, stride, zeros)
        out = norm_ops.KernelNorm.apply(laid_out(batch, 1), seed, *places, *rule)
    else:
        unit_stats = window_stats(batch, kernel_size, stride, zeros, **rule)
        out = normalized_units(batch, unit_stats, kernel_size, stride, zeros)
    return out if x.dim() == out.dim() else out.squeeze(0)


def _seed_and_rule(
    size: int, dropout_p: float, stats: Stats, bounded: bool, eps: float
) -> tuple[Tensor, Rule]:
    """How statistics of units of that size are made, and the seed of what is dropped."""
    if stats == "sampled" and dropout_p > 0:
        return draw_seed(), Rule(dropout_p, 1.0, bounded, eps)
    growth = mean_growth(dropout_p, size) if stats == "expected" and dropout_p > 0 else 1.0
    return fused_ops.NO_SEED, Rule(0.0, growth, bounded, eps)


def _batched(x: Tensor, num_dims: int) -> Tensor:
    """`x` with a dimension of samples."""
    if x.dim() not in (num_dims + 1, num_dims + 2):
        raise ValueError(
            f"expected {num_dims + 1} (unbatched) or {num_dims + 2} dimensions, got {x.dim()}"
        )
    return x if x.dim() == num_dims + 2 else x.unsqueeze(0)
