"""Fast per-record gradients for the functions that nets spend their time in.

A rule computes the function with one copy of its parameters and leaves the parameters' part of the
gradient to a hook on its output. Everything else about a function is as torch's; what no rule
takes is computed record by record, see `privacy.per_record`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from knorm.kernel.composition import WindowStats, normalized_conv
from knorm.kernel.per_sample import centred_units
from privacy.contributions import Contribution, ConvWeight, LinearWeight, Samples, wide
from privacy.per_record import Handler, PerRecord, Tape, apart

Parts = Callable[[Tensor], dict[str, Contribution]]


def plain(value: Any) -> Any:
    """One copy of a parameter; anything else as it is."""
    return value.plain if isinstance(value, PerRecord) else value


def watched(tape: Tape, y: Tensor, params: dict[str, Any], parts: Parts) -> Tensor:
    """`y`, whose gradient will be split into the parts of the parameters that are per record."""
    wanted = {name: param for name, param in params.items() if isinstance(param, PerRecord)}
    if not torch.is_grad_enabled():
        return y
    if not y.requires_grad:  # the first layer: the gradient must come this far
        y = y + y.new_zeros(()).requires_grad_()

    def note(grad: Tensor) -> None:
        for name, part in parts(grad.detach()).items():
            if name in wanted:
                tape.add(wanted[name], part)

    y.register_hook(note)
    return y


def linear(tape: Tape, func: Any, input: Any, weight: Any, bias: Any = None) -> Any:  # noqa: A002
    """`F.linear` of activations of any rank."""
    if not tape.is_of_records(input):
        return NotImplemented
    y = func(tape.activation(input), plain(weight), plain(bias))
    x = input.detach()

    def parts(grad: Tensor) -> dict[str, Contribution]:
        rows = grad.reshape(tape.count, -1, grad.shape[-1])
        return {
            "weight": LinearWeight(x.reshape(tape.count, -1, x.shape[-1]).to(rows.dtype), rows),
            "bias": Samples(wide(rows).sum(1)),
        }

    return watched(tape, y, {"weight": weight, "bias": bias}, parts)


def conv(
    tape: Tape,
    func: Any,
    input: Any,  # noqa: A002
    weight: Any,
    bias: Any = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Any:
    """`F.conv1d`, `F.conv2d` and `F.conv3d` of batches."""
    num_dims = plain(weight).dim() - 2
    if not tape.is_of_records(input) or input.dim() != num_dims + 2:
        return NotImplemented
    shape = plain(weight).shape
    if padding == "same" and any(k % 2 == 0 for k in shape[2:]):
        return NotImplemented  # pads one side more
    y = func(tape.activation(input), plain(weight), plain(bias), stride, padding, dilation, groups)
    x, steps, dilations = input.detach(), each(stride, num_dims), each(dilation, num_dims)
    zeros = (
        each(padding, num_dims)
        if not isinstance(padding, str)
        else [
            d * (k - 1) // 2 * (padding == "same")
            for k, d in zip(shape[2:], dilations, strict=True)
        ]
    )

    def parts(grad: Tensor) -> dict[str, Contribution]:
        geometry = (shape, steps, zeros, dilations, groups)
        return {
            "weight": ConvWeight(tape.count, x.to(grad.dtype), grad, *geometry),
            "bias": Samples(over_space(tape, grad)),
        }

    return watched(tape, y, {"weight": weight, "bias": bias}, parts)


def kn_conv(
    tape: Tape,
    func: Any,
    x: Tensor,
    stats: WindowStats,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    padding_mode: Any,
) -> Any:
    """The part of a `KNConv` that has parameters; its statistics are those that were used."""
    if not tape.is_of_records(x):
        return NotImplemented
    options = (stride, padding, dilation, groups, padding_mode)
    seen = WindowStats(*map(tape.activation, stats))
    y = func(tape.activation(x), seen, plain(weight), plain(bias), *options)
    shape, num_dims = plain(weight).shape, x.dim() - 2
    x, stats = x.detach(), WindowStats(*(value.detach() for value in stats))

    def parts(grad: Tensor) -> dict[str, Contribution]:
        places = (shape[2:], stride, padding, dilation, padding_mode)
        units = centred_units(x, stats, wide(grad), *places)
        geometry = (each(stride, num_dims), units.padding, each(dilation, num_dims), groups)
        centred = units.x.to(units.grad.dtype)
        return {
            "weight": ConvWeight(tape.count, centred, units.grad, shape, *geometry, units.shift),
            "bias": Samples(over_space(tape, grad)),
        }

    return watched(tape, y, {"weight": weight, "bias": bias}, parts)


def each(value: int | Sequence[int], num_dims: int) -> list[int]:
    """Once per spatial dimension."""
    values = [value] if isinstance(value, int) else list(value)
    return values * num_dims if len(values) == 1 else values


def over_space(tape: Tape, grad: Tensor) -> Tensor:
    """(M, O, *out) -> (N, O)"""
    return apart(wide(grad), tape.count).flatten(3).sum((1, 3))


def layer_norm(
    tape: Tape,
    func: Any,
    input: Any,  # noqa: A002
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Any:
    """The norm without parameters, then a product and a sum."""
    if not tape.is_of_records(input):
        return NotImplemented
    return affine(func(input, normalized_shape, None, None, eps), weight, bias)


def rms_norm(
    tape: Tape,
    func: Any,
    input: Any,  # noqa: A002
    normalized_shape: Any,
    weight: Any = None,
    eps: float | None = None,
) -> Any:
    """As `layer_norm`, without a bias."""
    if not tape.is_of_records(input):
        return NotImplemented
    return affine(func(input, normalized_shape, None, eps), weight, None)


def group_norm(
    tape: Tape,
    func: Any,
    input: Any,  # noqa: A002
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Any:
    """The norm without parameters, then a product and a sum, by channel."""
    if not tape.is_of_records(input):
        return NotImplemented
    y = func(input, num_groups, None, None, eps)
    return affine(y, *by_channel((weight, bias), y.dim()))


def batch_norm(
    tape: Tape,
    func: Any,
    input: Any,  # noqa: A002
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """With running statistics an affine map; with those of the batch no record is by itself."""
    if not tape.is_of_records(input):
        return NotImplemented  # standardised weights
    if training:
        raise ValueError("batch_norm mixes the records of a batch")
    y = func(input, running_mean, running_var, None, None, False, momentum, eps)
    return affine(y, *by_channel((weight, bias), y.dim()))


def attention(
    tape: Tape,
    func: Any,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    **options: Any,
) -> Any:
    """Attention with a bias that is learned: every record gets its own."""
    activations = all(tape.is_of_records(each) for each in (query, key, value))
    if not activations or not isinstance(attn_mask, PerRecord):
        return NotImplemented
    own = attn_mask.copies  # (N, *mask), where a mask broadcasts against (views, *query)
    missing = query.dim() - own.dim() + 1
    own = own.reshape(tape.count, *[1] * missing, *own.shape[1:])
    views = query.shape[0] // tape.count
    mask = own.expand(-1, views, *own.shape[2:]).flatten(0, 1)
    return func(query, key, value, attn_mask=mask, **options)


def by_channel(params: Sequence[Any], num_dims: int) -> list[Any]:
    """(C,) -> (1, C, 1, ...), which broadcasts against (N, C, ...)."""
    shape = (1, -1, *[1] * (num_dims - 2))
    return [None if param is None else param.view(shape) for param in params]


def affine(y: Tensor, weight: Any, bias: Any) -> Tensor:
    """y * weight + bias, either of which may be missing."""
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


RULES: dict[Any, Handler] = {
    F.linear: linear,
    F.conv1d: conv,
    F.conv2d: conv,
    F.conv3d: conv,
    normalized_conv: kn_conv,
    F.layer_norm: layer_norm,
    torch.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    F.group_norm: group_norm,
    F.batch_norm: batch_norm,
    F.scaled_dot_product_attention: attention,
}
