"""`fused` as operators of torch: autograd, second derivatives, `torch.func.vmap`, `torch.compile`.

An operator draws nothing: the seed of its dropout comes in as a number on the CPU, (), int64, so
that the backward pass drops the same elements and no device is waited for.
"""

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.library import Library, infer_schema, register_fake
from torch.nn import Parameter

from knorm.kernel import composition, fused
from knorm.kernel.autograd import CONVOLUTIONS
from knorm.kernel.dropout import keep_mask
from knorm.kernel.fused import Options, laid_out
from knorm.kernel.passes import Geometry, Passes, Rule

PASSES = {"cpu": "knorm.kernel.cpu"}
"""The modules of passes by device; imported when the first tensor comes"""
if find_spec("triton"):  # comes with torch where torch has it
    PASSES["cuda"] = "knorm.kernel.cuda"
DTYPES = {
    "cpu": {torch.float32, torch.float64},
    "cuda": {torch.float16, torch.bfloat16, torch.float32, torch.float64},
}
"""What they take, and what the convolution may compute in"""
LARGEST = {"cpu": math.inf, "cuda": 256}
"""Elements of a kernel, at most"""
NO_SEED = torch.zeros((), dtype=torch.int64)  # where nothing is dropped


LIBRARY = Library("knorm", "DEF")


def operator(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as torch.ops.knorm of that name. (`custom_op` would import torch's compiler.)"""
    name = function.__name__
    schema = infer_schema(function, mutates_args=())
    LIBRARY.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    LIBRARY.impl(name, function, "CompositeExplicitAutograd")
    return getattr(torch.ops.knorm, name).default


def passes_for(x: Tensor) -> Passes:
    """Those of its device."""
    return cast(Passes, import_module(PASSES[x.device.type]))


def conv_dtype(x: Tensor) -> torch.dtype:
    """What a convolution of `x` computes in here."""
    device = x.device.type
    casts = torch.is_autocast_enabled(device) and x.dtype != torch.double
    return torch.get_autocast_dtype(device) if casts else x.dtype


def serves(x: Tensor, *weights: Tensor) -> bool:
    """Whether there are passes for a call with these tensors; what is exported is composed."""
    device = x.device.type
    return (
        device in PASSES
        and {x.dtype, conv_dtype(x)} <= DTYPES[device]
        and all(t.shape[2:].numel() <= LARGEST[device] for t in weights)
        and all(type(t) in (Tensor, Parameter) and t.device == x.device for t in (x, *weights))
        and not torch.compiler.is_exporting()
    )


@operator
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
        return fused.forward(passes_for(x), x, weight, bias, int(seed), options, keep)


@register_fake("knorm::kn_conv", lib=LIBRARY)
def _(x, weight, bias, seed, stride, padding, dilation, groups, num_stats, *rest):
    dtype, keep = rest[-2:]
    conv = CONVOLUTIONS[weight.dim() - 2]
    out = conv(x.to(dtype), weight.to(dtype), None, stride, padding, dilation, groups)
    out = laid_out(out, num_stats)
    return out, torch.empty_like(out) if keep else out.new_empty(0)


@operator
def kn_conv_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
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
    need_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x and weight, nothing for one that is not needed, and of the bias."""
    geometry = Geometry(weight.shape[2:], stride, padding, dilation)
    rule = Rule(dropout_p, growth, bounded, eps)
    options = Options(geometry, groups, num_stats, rule, dtype)
    passes, needs = passes_for(x), (need_x, need_weight)
    return fused.backward(passes, grad, x, weight, conv, int(seed), options, *needs)


@register_fake("knorm::kn_conv_backward", lib=LIBRARY)
def _(grad, x, weight, conv, seed, *settings):
    found = (
        torch.empty_like(t) if need else t.new_empty(0)
        for t, need in zip((x, weight), settings[-2:], strict=True)
    )
    return (*found, weight.new_empty(weight.shape[0]))


class KNConv(Function):
    """(x, weight, bias, seed, *settings, keep) -> what `kn_conv` gives."""

    @staticmethod
    def forward(*inputs):
        return kn_conv(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _, seed, *ctx.settings, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, weight, seed, output[1])

    @staticmethod
    def backward(ctx, *grads):
        x, weight, seed, conv = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        inputs = (grads[0], x, weight, conv, seed, *ctx.settings, *needs[:2])
        outs = KNConvBackward.apply(*inputs)
        found = (out if need else None for out, need in zip(outs, needs, strict=True))
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
        grad, x, weight, _, seed, *ctx.settings = inputs[:-2]
        ctx.save_for_backward(grad, x, weight, seed)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, *grads):
        grad, x, weight, seed = ctx.saved_tensors
        bias = weight.new_zeros(weight.shape[0])  # whatever it is, the gradients are the same

        def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return composed(x, weight, bias, seed, ctx.settings)

        of_grad, of_x, of_weight, _ = second_derivatives(function, grad, (x, weight, bias), grads)
        return of_grad, of_x, of_weight, *[None] * (4 + len(ctx.settings))

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return one_by_one(KNConvBackward, info, in_dims, inputs)


def second_derivatives(
    function: Callable[..., Tensor],
    grad: Tensor,
    inputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """Of `grad` and the inputs, through the gradients that the function gives the inputs for it."""
    further = torch.is_grad_enabled()
    with torch.enable_grad():
        leaves = [t if t.requires_grad else t.detach().requires_grad_() for t in (grad, *inputs)]
        out = function(*leaves[1:])
        first = torch.autograd.grad(out, leaves[1:], leaves[0], create_graph=True)
        met = [(f, g) for f, g in zip(first, grads, strict=True) if g is not None]
        ours, theirs = [f for f, _ in met], [g for _, g in met]
        options = {"create_graph": further, "allow_unused": True}
        return torch.autograd.grad(ours, leaves, theirs, **options)


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
    if isinstance(outs[0], Tensor):
        return torch.stack(outs), 0
    stacked = tuple(torch.stack(parts) for parts in zip(*outs, strict=True))
    return stacked, (0,) * len(stacked)


def composed(
    x: Tensor, weight: Tensor, bias: Tensor | None, seed: Tensor, settings: Sequence
) -> Tensor:
    """The same output of differentiable operations."""
    stride, padding, dilation, groups, num_stats, p, growth, bounded, eps, dtype = settings
    grouped = x.unflatten(1, (num_stats, -1))
    dropout = (keep_mask(grouped, p, seed), 1 / (1 - p)) if p else None
    geometry = (weight.shape[2:], stride, padding, dilation)
    stats = composition.unit_stats(grouped, geometry, dropout, growth, bounded, eps)
    with torch.autocast(x.device.type, dtype, enabled=dtype != x.dtype):
        return composition.normalized_conv(
            x, stats, weight, bias, stride, padding, dilation, groups
        )
