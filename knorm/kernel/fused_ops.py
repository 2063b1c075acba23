"""`fused` as operators of torch: autograd, second derivatives, `torch.func.vmap`, `torch.compile`.

An operator draws nothing: the seed of its dropout comes in as a number on the CPU, (), int64, so
that the backward pass drops the same elements and no device is waited for.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.library import custom_op

from knorm.kernel import composition, fused
from knorm.kernel.autograd import CONVOLUTIONS
from knorm.kernel.fused import Options
from knorm.kernel.moments import Dropout, is_channels_last, keep_mask
from knorm.kernel.units import Geometry, Rule

DEVICES = ("cpu",)
NO_SEED = torch.zeros((), dtype=torch.int64)  # where nothing is dropped


def serves(x: Tensor) -> bool:
    """Whether there are passes of our own for such a tensor; what is exported is composed."""
    return x.device.type in DEVICES and not torch.compiler.is_exporting()


def draw_seed() -> Tensor:
    """From torch's generator of the CPU."""
    return torch.randint(2**63 - 1, ())


def laid_out(x: Tensor, num_stats: int) -> Tensor:
    """`x` with its channels first or last in memory; first where they have several statistics."""
    return x if num_stats == 1 and is_channels_last(x) else x.contiguous()


@custom_op("knorm::kn_conv", mutates_args=())
def kn_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seed: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    num_stats: int,
    dropout_p: float,
    growth: float,
    bounded: bool,
    eps: float,
    dtype: torch.dtype,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """The output and, to `keep`, the convolution before it is scaled; see `fused.forward`."""
    geometry = Geometry(weight.shape[2:], stride, padding, dilation)
    rule = Rule(dropout_p, growth, bounded, eps)
    options = Options(geometry, groups, num_stats, rule, dtype)
    with torch.autocast(x.device.type, enabled=False):
        return fused.forward(x, weight, bias, int(seed), options, keep)


@kn_conv.register_fake
def _(x, weight, bias, seed, stride, padding, dilation, groups, num_stats, *rest):
    dtype, keep = rest[-2:]
    conv = CONVOLUTIONS[weight.dim() - 2]
    out = conv(x.to(dtype), weight.to(dtype), None, stride, padding, dilation, groups)
    return out, torch.empty_like(out) if keep else out.new_empty(0)


@custom_op("knorm::kn_conv_backward", mutates_args=())
def kn_conv_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    conv: Tensor,
    seed: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    num_stats: int,
    dropout_p: float,
    growth: float,
    bounded: bool,
    eps: float,
    dtype: torch.dtype,
    need_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, nothing for those that are not needed."""
    geometry = Geometry(weight.shape[2:], stride, padding, dilation)
    rule = Rule(dropout_p, growth, bounded, eps)
    options = Options(geometry, groups, num_stats, rule, dtype)
    return fused.backward(grad, x, weight, bias, conv, int(seed), options, need_x)


@kn_conv_backward.register_fake
def _(grad, x, weight, bias, conv, seed, *settings):
    need_x = settings[-1]
    return (
        torch.empty_like(x) if need_x else x.new_empty(0),
        torch.empty_like(weight),
        weight.new_empty(0) if bias is None else torch.empty_like(bias),
    )


class KNConv(Function):
    """(x, weight, bias, seed, *settings, keep) -> what `kn_conv` gives."""

    @staticmethod
    def forward(*inputs):
        return kn_conv(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, bias, seed, *ctx.settings, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, weight, bias, seed, output[1])

    @staticmethod
    def backward(ctx, *grads):
        x, weight, bias, seed, conv = ctx.saved_tensors
        need_x = ctx.needs_input_grad[0]
        inputs = (grads[0], x, weight, bias, conv, seed, *ctx.settings, need_x)
        of_x, of_weight, of_bias = KNConvBackward.apply(*inputs)
        found = (of_x if need_x else None, of_weight, None if bias is None else of_bias)
        return (*found, *[None] * (2 + len(ctx.settings)))

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return one_by_one(KNConv, info, in_dims, inputs)


class KNConvBackward(Function):
    """What `kn_conv_backward` takes and gives; differentiated as what `composed` gives."""

    @staticmethod
    def forward(*inputs):
        return kn_conv_backward(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad, x, weight, bias, _, seed, *ctx.settings, ctx.need_x = inputs
        ctx.save_for_backward(grad, x, weight, bias, seed)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, *grads):
        grad, x, weight, bias, seed = ctx.saved_tensors
        further = torch.is_grad_enabled()
        with torch.enable_grad():
            leaves = [_leaf(t) for t in (x, weight, bias) if t is not None]
            grad = _leaf(grad)
            out = composed(*leaves, *[None] * (3 - len(leaves)), seed, ctx.settings)
            first = torch.autograd.grad(out, leaves, grad, create_graph=True)
            met = [(f, g) for f, g in zip(first, grads, strict=False) if g is not None]
            second = torch.autograd.grad(
                [f for f, _ in met],
                [grad, *leaves],
                [g for _, g in met],
                create_graph=further,
                allow_unused=True,
            )
        found = [*second, *[None] * (4 - len(second))]
        return (*found, *[None] * (3 + len(ctx.settings)))

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return one_by_one(KNConvBackward, info, in_dims, inputs)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor if tensor.requires_grad else tensor.detach().requires_grad_()


def one_by_one(function: type[Function], info: Any, in_dims: Sequence, inputs: Sequence):
    """The rule for `torch.vmap`: one element after the other.

    Each drops what its own seed says, in both passes.
    """

    def element(value: Any, dim: Any, at: int) -> Any:
        return value.select(dim, at) if isinstance(value, Tensor) and dim is not None else value

    outs = []
    for at in range(info.batch_size):
        one = (element(value, dim, at) for value, dim in zip(inputs, in_dims, strict=True))
        outs.append(function.apply(*one))
    stacked = tuple(torch.stack(parts) for parts in zip(*outs, strict=True))
    return stacked, (0,) * len(stacked)


def composed(
    x: Tensor, weight: Tensor, bias: Tensor | None, seed: Tensor, settings: Sequence
) -> Tensor:
    """The same output of differentiable operations."""
    stride, padding, dilation, groups, num_stats, p, growth, bounded, eps, dtype = settings
    dropout = None
    if p:
        dropped = Dropout(p, int(seed), x.device)
        dropout = keep_mask(x.detach(), num_stats, dropped), 1 / (1 - p)
    geometry = (weight.shape[2:], stride, padding, dilation)
    grouped = x.unflatten(1, (num_stats, -1))
    stats = composition.unit_stats(grouped, geometry, dropout, growth, bounded, eps)
    with torch.autocast(x.device.type, dtype, enabled=dtype != x.dtype):
        return composition.normalized_conv(
            x, stats, weight, bias, stride, padding, dilation, groups
        )
