"""Convolutions that take a norm up: as a `KNConv`, or by folding its scale and shift in."""

import copy
import math
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from knorm.choices import Stats
from knorm.kernel import KNConv1d, KNConv2d, KNConv3d
from knorm.swap.forms import HOOKS, KNConv, defining_class
from knorm.swap.layers import AdaptedKNConv2d

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVS: dict[type[Conv], type[KNConv]] = {
    nn.Conv1d: KNConv1d,
    nn.Conv2d: KNConv2d,
    nn.Conv3d: KNConv3d,
}
PLAIN = {("torch", "Conv1d"), ("torch", "Conv2d"), ("torch", "Conv3d")}
SAME = {("timm", "Conv2dSame"), ("timm", "Conv2dSameExport")}
STANDARDIZED = {
    ("timm", name)
    for name in ("StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame")
}
FOLDING = PLAIN | SAME


def why_not_kernel(module: nn.Module) -> str | None:
    """Why this module cannot become a `KNConv`, or None."""
    if not isinstance(module, Conv):
        return f"a {type(module).__name__} gives its input, no convolution"
    reason = _why_not(module, PLAIN | SAME | STANDARDIZED)
    if reason is None and module.in_channels * math.prod(module.kernel_size) == 1:
        return "the convolution before it has windows of one element"
    return reason


def why_not_fold(module: nn.Module) -> str | None:
    """Why no scale and shift can be folded into this module, or None."""
    if isinstance(module, nn.Linear):
        return "the Linear before it may give (N, L, features), of which a batch norm scales L"
    return _why_not(module, FOLDING)


def _why_not(module: nn.Module, known: set[tuple[str, str]]) -> str | None:
    name = type(module).__name__
    if parametrize.is_parametrized(module):
        return f"the weight of the {name} before it is parametrized"
    base = defining_class(module, known)
    if base is None:
        return f"the {name} before it is not a known convolution"
    own_step = getattr(type(module), "_conv_forward", None)
    if own_step is not getattr(base, "_conv_forward", None):
        return f"the {name} before it is not a known convolution"
    if any(getattr(module, hooks) for hooks in HOOKS):
        return f"the {name} before it has hooks"
    return None


def to_kernel(
    conv: Conv, *, dropout_p: float, eps: float, eval_stats: Stats = "expected"
) -> nn.Module:
    """The `KNConv` of this convolution's geometry with its weight, its bias or a new one of 0.

    Statistics are taken over all channels of a window, with groups too, as published: those of a
    depthwise convolution alone would have no more than its kernel's elements.
    """
    weight = conv.weight
    options: dict[str, Any] = {
        "dilation": conv.dilation,
        "groups": conv.groups,
        "dropout_p": dropout_p,
        "eps": eps,
        "eval_stats": eval_stats,
        "device": weight.device,
        "dtype": weight.dtype,
    }
    geometry = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
    extra = _adaptations(conv)
    if extra:
        new: KNConv = AdaptedKNConv2d(*geometry, **options, **extra)
    else:
        table = next(kn for base, kn in CONVS.items() if isinstance(conv, base))
        new = table(*geometry, padding_mode=conv.padding_mode, **options)
    new.weight = weight
    new.bias = conv.bias
    if conv.bias is None:
        new.bias = _parameter(weight.new_zeros(conv.out_channels), weight)
    return new.train(conv.training)


def _adaptations(conv: nn.Module) -> dict[str, Any]:
    """What a convolution does to its input and weight, as options of `AdaptedKNConv2d`."""
    if defining_class(conv, SAME) is not None:
        return {"same_pad": True}
    if defining_class(conv, STANDARDIZED) is None:
        return {}
    found: dict[str, Any] = {"standardize_eps": conv.eps}
    found["same_pad"] = bool(getattr(conv, "same_pad", False))
    gain = getattr(conv, "gain", None)
    return found if gain is None else found | {"gain": gain, "scale": conv.scale}


def folded(conv: nn.Module, scale: Tensor, shift: Tensor) -> Conv:
    """A copy of the convolution that also multiplies and adds: (O,) each."""
    new = copy.deepcopy(conv)
    assert isinstance(new, Conv)
    weight, bias = new.weight, new.bias
    by_output = scale.view(-1, *[1] * (weight.dim() - 1))
    shift = shift if bias is None else shift + scale * bias.detach().double()
    new.weight = _parameter(weight.detach().double() * by_output, weight)
    new.bias = _parameter(shift, weight if bias is None else bias)
    return new


def _parameter(values: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(values.to(like.dtype), requires_grad=like.requires_grad)
