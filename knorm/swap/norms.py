"""What stands in a norm's place, for the kinds that need to know the norm alone."""

from collections import OrderedDict
from collections.abc import Iterator
from math import gcd

from torch import Tensor, nn

from knorm.norms import make_norm
from knorm.swap.forms import KNConv, Norm, is_unknown_norm, normalizes
from knorm.swap.layers import Gate, InstanceNorm, PositionNorm, ScaleShift, Threshold
from knorm.swap.options import MAX_GROUPS, SwapOptions
from knorm.swap.report import STAYS, Row, describe

MIN_VECTOR = 16
LEFT_OUT = "left out by modules="
RUNNING = ("running_mean", "running_var", "num_batches_tracked")


def reason_to_stay(norm: Norm, options: SwapOptions) -> str | None:
    """Why a norm stays as it is, or None."""
    kind = options.kind
    if kind == "none":
        return None
    if norm.kind == kind in ("kernel", "local_context"):
        return f"{kind} already"
    if norm.kind == kind or (norm.form.family == kind == "group" and options.groups == 1):
        return None if _changes(norm, options) else f"{kind} already"
    if norm.channels is None:
        return "it does not say its number of channels"
    if norm.form.tokens and kind not in ("layer", "kernel"):
        return f"its channels come last, which {kind} does not take"
    return None


def _changes(norm: Norm, options: SwapOptions) -> bool:
    """Whether a norm of the kind that is wanted is not as it is wanted."""
    module = norm.module
    groups = getattr(module, "num_groups", None)
    has_affine = getattr(module, "weight", None) is not None
    return (
        (options.groups is not None and groups != options.groups)
        or (options.eps is not None and getattr(module, "eps", None) != options.eps)
        or (has_affine and (not options.affine or not options.keep_affine))
    )


def replacement(norm: Norm, options: SwapOptions, num_dims: int) -> tuple[nn.Module, Row]:
    """The norm of the kind that is wanted, the activation kept, and what to say of it.

    `num_dims`: spatial dimensions, where the norm does not know.
    """
    new = _make(norm, options, norm.form.num_dims or num_dims)
    kept = _keep(norm, new, options)
    extras, note = activation(norm)
    return with_extras(norm, new, extras), Row(
        norm.name, type(norm.module).__name__, describe([new, *extras.values()]), kept, note
    )


def _make(norm: Norm, options: SwapOptions, num_dims: int) -> nn.Module:
    kind, channels = options.kind, norm.channels
    if kind == "kernel":
        return position_norm(norm, options)
    assert channels is not None
    like = next(
        (v for v in (getattr(norm.module, "weight", None), norm.like) if v is not None), None
    )
    place = {} if like is None else {"device": like.device, "dtype": like.dtype}
    shared = {"eps": options.eps_for(norm), "affine": options.affine, **place}
    if norm.form.tokens:
        affine = shared.pop("affine")
        return nn.LayerNorm(channels, elementwise_affine=affine, **shared)
    if kind == "instance":
        return InstanceNorm(channels, **shared)
    if kind == "group":
        shared["groups"] = options.groups or default_groups(channels, num_dims)
    if kind in ("batch", "sync_batch"):
        shared["momentum"] = getattr(norm.module, "momentum", 0.1)
    try:
        return make_norm(kind, channels, dims=num_dims, **shared)
    except ValueError as error:
        raise ValueError(f"{norm.place}: {error}") from error


def position_norm(norm: Norm, options: SwapOptions, dropout_p: float | None = None) -> nn.Module:
    """The `KernelNorm` of kernel 1 for what this norm gets."""
    settings = options.kernel_settings(norm, dropout_p)
    if norm.form.tokens or norm.form.num_dims not in (2, 3):
        return PositionNorm(channels_last=norm.form.tokens, **settings)
    return make_norm("kernel", norm.channels or 1, dims=norm.form.num_dims, **settings)


def default_groups(channels: int, num_dims: int = 2) -> int:
    """The most groups up to 32 of at least two channels each; of one it would be instance norm.

    In one dimension of at least 16: of two elements in a vector, each would become 1 or -1.
    """
    most = min(MAX_GROUPS, channels // (MIN_VECTOR if num_dims == 1 else 2))
    return next((n for n in range(most, 1, -1) if channels % n == 0), 1)


def check_groups(norms: list[Norm], options: SwapOptions) -> None:
    """The number of groups divides the channels of every norm that will be a group norm."""
    if options.groups is None:
        return
    becoming = [norm for norm in norms if reason_to_stay(norm, options) is None]
    counts = [norm.channels for norm in becoming if norm.channels is not None]
    for norm in becoming:
        if norm.channels is not None and norm.channels % options.groups:
            common = gcd(*counts)
            possible = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
            raise ValueError(
                f"{norm.place}: groups={options.groups} does not divide {norm.channels} channels; "
                f"for all norms it could be {possible}"
            )


def _keep(norm: Norm, new: nn.Module, options: SwapOptions) -> tuple[str, ...]:
    """Give the new norm the tensors of the old one that it has a place for; their names."""
    kept = []
    for name in ("weight", "bias") if options.keep_affine else ():
        old, fresh = getattr(norm.module, name, None), getattr(new, name, None)
        if old is not None and fresh is not None:
            setattr(new, name, _as_parameter(old))
            kept.append(name)
    for name in RUNNING:
        old, fresh = getattr(norm.module, name, None), getattr(new, name, None)
        if old is not None and fresh is not None:
            setattr(new, name, old)
            kept.append(name)
    return tuple(kept)


def _as_parameter(tensor: Tensor) -> nn.Parameter:
    """The parameter itself; a frozen norm's buffer becomes one that learns."""
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor.detach().clone())


def activation(norm: Norm) -> tuple[dict[str, nn.Module], str]:
    """The dropout and activation within a norm, which stay, by name; and what to say of them."""
    module, act = norm.module, norm.form.act
    if act == "tlu":
        tau = getattr(module, "tau", None)
        return ({}, "") if tau is None else ({"act": Threshold(tau)}, "its threshold stays")
    if act == "gate":
        v = getattr(module, "v", None)
        return ({}, "") if v is None else ({"act": Gate(v)}, "its gate stays as activation")
    if act == "fused":
        if not getattr(module, "apply_act", False):
            return {}, ""
        note = "its activation is one with the norm: ReLU in its place"
        return {"act": nn.ReLU()}, note
    parts = {name: getattr(module, name, None) for name in ("drop", "act") if act == "act"}
    return {
        name: part
        for name, part in parts.items()
        if part is not None and not isinstance(part, nn.Identity)
    }, ""


def with_extras(norm: Norm, new: nn.Module, extras: dict[str, nn.Module]) -> nn.Module:
    """The new norm, then dropout and activation, in the mode of the old one."""
    parts = {} if isinstance(new, nn.Identity) and extras else {"norm": new}
    parts |= extras
    whole = new if not extras else nn.Sequential(OrderedDict(parts))
    if len(parts) == 1:
        (whole,) = parts.values()
    for part in (whole, new):
        part.training = norm.module.training
    return whole


def scale_and_shift(norm: Norm) -> tuple[Tensor, Tensor] | None:
    """What a batch norm multiplies and adds in evaluation, (C,) float64; None for other norms."""
    module = norm.module
    mean, var = (getattr(module, name, None) for name in RUNNING[:2])
    if norm.form.family not in ("batch", "sync_batch", "frozen_batch") or var is None:
        return None
    assert mean is not None
    scale = (var.double() + getattr(module, "eps", 1e-5)).rsqrt()
    weight, bias = (getattr(module, name, None) for name in ("weight", "bias"))
    scale = scale if weight is None else scale * weight.detach().double()
    shift = -mean.double() * scale
    return scale, shift if bias is None else shift + bias.detach().double()


def standing_scale(norm: Norm, scale: Tensor, shift: Tensor) -> ScaleShift:
    """A batch norm as its scale and shift, where no layer before it can take them up."""
    dtype = norm.module.get_buffer("running_var").dtype
    learns = any(parameter.requires_grad for parameter in norm.module.parameters())
    return ScaleShift(scale.to(dtype), shift.to(dtype), learns)


def stays(norm: Norm, reason: str) -> Row:
    """The row of a norm that is left alone."""
    return Row(norm.name, type(norm.module).__name__, STAYS, note=reason)


def bystanders(model: nn.Module, norms: list[Norm], options: SwapOptions) -> Iterator[Row]:
    """The rows of all else that normalizes, and stays."""
    names = {norm.name for norm in norms}
    for name, module in model.named_modules():
        if name in names or not normalizes(module):
            continue
        reason = LEFT_OUT
        if isinstance(module, KNConv):
            of_kernel = options.kind == "kernel"
            reason = "kernel already" if of_kernel else "its norm is one with the convolution"
        elif is_unknown_norm(module):
            reason = "a norm of unknown form"
        yield Row(name, type(module).__name__, STAYS, note=reason)
