"""The definition of kernel normalization in plain torch, in the paper's words. Short and slow.

Source: Nasirigerdeh et al., Kernel Normalized Convolutional Networks, TMLR 2024, section 3.

Everything here takes an input that is padded already and one that dropout has been applied to
(`dropped`; the input itself for no dropout): a unit U is all channels of a window; its mean and
biased variance are those of D(U); the normalized unit is (U - mean) / sqrt(var + eps).
"""

import math

import torch
from torch import Tensor


def units(x: Tensor, kernel_size, stride, dilation) -> Tensor:
    """Every window over every channel: (N, C, *space) -> (N, C, *out, *kernel)."""
    for i, (kernel, step, gap) in enumerate(zip(kernel_size, stride, dilation, strict=True)):
        x = x.unfold(2 + i, gap * (kernel - 1) + 1, step)[..., ::gap]
    return x


def window_stats(dropped: Tensor, kernel_size, stride, dilation, groups=1, eps=1e-5):
    """Mean and reciprocal standard deviation of the units, two tensors (N, groups, *out)."""
    num_dims = len(kernel_size)
    windows = units(dropped, kernel_size, stride, dilation).unflatten(1, (groups, -1))
    inside = (2, *range(-num_dims, 0))
    var, mean = torch.var_mean(windows, dim=inside, correction=0)
    return mean, (var + eps).rsqrt()


def normalized_units(x: Tensor, mean: Tensor, rstd: Tensor, kernel_size, stride, dilation):
    """(U - mean) * rstd for every unit: (N, C, *out, *kernel)."""
    num_dims = len(kernel_size)
    windows = units(x, kernel_size, stride, dilation).unflatten(1, (mean.shape[1], -1))
    mean, rstd = (
        m[(slice(None), slice(None), None, ..., *[None] * num_dims)] for m in (mean, rstd)
    )
    return ((windows - mean) * rstd).flatten(1, 2)


def kernel_norm(x: Tensor, mean: Tensor, rstd: Tensor, kernel_size, stride) -> Tensor:
    """Normalized units side by side: (N, C, *space) -> (N, C, k * out, ...)."""
    num_dims = len(kernel_size)
    windows = normalized_units(x, mean, rstd, kernel_size, stride, (1,) * num_dims)
    order = [dim for i in range(num_dims) for dim in (2 + i, 2 + num_dims + i)]
    windows = windows.permute(0, 1, *order)
    sizes = [out * k for out, k in zip(mean.shape[2:], kernel_size, strict=True)]
    return windows.reshape(*x.shape[:2], *sizes)


def kn_conv(x, mean, rstd, weight, bias, stride, dilation, groups) -> Tensor:
    """Filters times normalized units: (N, C, *space) -> (N, O, *out)."""
    kernel_size = tuple(weight.shape[2:])
    windows = normalized_units(x, mean, rstd, kernel_size, stride, dilation)
    windows = windows.movedim(1, 1 + len(kernel_size))  # (N, *out, C, *kernel)
    windows = windows.flatten(1 + len(kernel_size)).unflatten(-1, (groups, -1))
    filters = weight.reshape(groups, -1, math.prod(weight.shape[1:]))
    out = torch.einsum("n...gi,goi->n...go", windows, filters).flatten(-2)
    if bias is not None:
        out = out + bias
    return out.movedim(-1, 1)
