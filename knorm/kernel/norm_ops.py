"""`KernelNorm` by the passes as an operator of torch, as `fused_ops` has `KNConv`."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import Function
from torch.library import register_fake

from knorm.kernel import composition, fused
from knorm.kernel.dropout import keep_mask
from knorm.kernel.fused_ops import (
    LIBRARY,
    one_by_one,
    operator,
    passes_for,
    second_derivatives,
)
from knorm.kernel.passes import Geometry, Rule, new_like


def geometry_of(kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int]):
    return Geometry(kernel_size, stride, padding, [1] * len(kernel_size))


@operator
def kernel_norm(
    x: Tensor,
    seed: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dropout_p: float,
    growth: float,
    bounded: bool,
    eps: float,
) -> Tensor:
    """Normalized units side by side, see `fused.norm_forward`."""
    rule = Rule(dropout_p, growth, bounded, eps)
    geometry = geometry_of(kernel_size, stride, padding)
    return fused.norm_forward(passes_for(x), x, int(seed), geometry, rule)


@register_fake("knorm::kernel_norm", lib=LIBRARY)
def _(x, seed, kernel_size, stride, padding, *rule):
    sizes = [
        k * ((n + 2 * p - k) // s + 1)
        for n, k, s, p in zip(x.shape[2:], kernel_size, stride, padding, strict=True)
    ]
    return new_like(x, sizes, not x.is_contiguous())


@operator
def kernel_norm_backward(
    grad: Tensor,
    x: Tensor,
    seed: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dropout_p: float,
    growth: float,
    bounded: bool,
    eps: float,
) -> Tensor:
    """Gradient of x."""
    rule = Rule(dropout_p, growth, bounded, eps)
    geometry = geometry_of(kernel_size, stride, padding)
    return fused.norm_backward(passes_for(x), grad, x, int(seed), geometry, rule)


@register_fake("knorm::kernel_norm_backward", lib=LIBRARY)
def _(grad, x, *rest):
    return torch.empty_like(x)


class KernelNorm(Function):
    """(x, seed, *settings) -> what `kernel_norm` gives."""

    @staticmethod
    def forward(*inputs):
        return kernel_norm(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, seed, *ctx.settings = inputs
        ctx.save_for_backward(x, seed)

    @staticmethod
    def backward(ctx, *grads):
        of_x = KernelNormBackward.apply(grads[0], *ctx.saved_tensors, *ctx.settings)
        return of_x, *[None] * (1 + len(ctx.settings))

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return one_by_one(KernelNorm, info, in_dims, inputs)


class KernelNormBackward(Function):
    """What `kernel_norm_backward` takes and gives; differentiated as what `composed` gives."""

    @staticmethod
    def forward(*inputs):
        return kernel_norm_backward(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad, x, seed, *ctx.settings = inputs
        ctx.save_for_backward(grad, x, seed)

    @staticmethod
    def backward(ctx, *grads):
        grad, x, seed = ctx.saved_tensors

        def function(x: Tensor) -> Tensor:
            return composed(x, seed, ctx.settings)

        found = second_derivatives(function, grad, (x,), grads)
        return *found, *[None] * (1 + len(ctx.settings))

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return one_by_one(KernelNormBackward, info, in_dims, inputs)


def composed(x: Tensor, seed: Tensor, settings: Sequence) -> Tensor:
    """The same output of differentiable operations."""
    kernel_size, stride, padding, p, growth, bounded, eps = settings
    grouped = x.unsqueeze(1)
    dropout = (keep_mask(grouped, p, seed), 1 / (1 - p)) if p else None
    geometry = geometry_of(kernel_size, stride, padding)
    stats = composition.unit_stats(grouped, geometry, dropout, growth, bounded, eps)
    return composition.normalized_units(x, stats, kernel_size, stride, padding)
