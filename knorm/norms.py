"""Norm kinds: one table, one call for a norm, one for a convolution with its norm."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from knorm.choices import NORM_KINDS, NormKind, check_name
from knorm.kernel import layers
from knorm.kernel.autograd import statistics_dtype
from knorm.kernel.ops import PaddingMode, Size

Options = Mapping[str, Any]
Builder = Callable[..., nn.Module]

_KERNEL_NORMS: tuple[Builder, ...] = (layers.KernelNorm1d, layers.KernelNorm2d, layers.KernelNorm3d)
_KN_CONVS: tuple[Builder, ...] = (layers.KNConv1d, layers.KNConv2d, layers.KNConv3d)
_CONVS: tuple[Builder, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LocalContextNorm(nn.Module):
    """Normalization by the group's statistics in a large window around each position.

    (N, C, H, W) -> the same. A window that would leave the image takes the nearest one inside; an
    image smaller than the window is one window.

    Args:
        num_channels: C.
        channels_per_group: channels that share statistics; must divide C.
        window_size: (height, width) of the window.
        eps: added to the variance.
        affine: learn a scale and a shift for each channel.

    Source: Ortiz et al., Local Context Normalization, CVPR 2020, section 3.
    """

    def __init__(
        self,
        num_channels: int,
        channels_per_group: int = 2,
        window_size: Size = 227,
        eps: float = 1e-5,
        affine: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        _check_divides(channels_per_group, num_channels, "channels_per_group")
        self.num_channels = num_channels
        self.channels_per_group = channels_per_group
        self.window_size = layers.windows.ntuple(window_size, 2, "window_size")
        self.eps = eps
        self.weight = self.bias = None
        if affine:
            self.weight = nn.Parameter(torch.ones(num_channels, device=device, dtype=dtype))
            self.bias = nn.Parameter(torch.zeros(num_channels, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.num_channels:
            raise ValueError(f"expected (N, {self.num_channels}, H, W), got {tuple(x.shape)}")
        groups = x.to(statistics_dtype(x)).unflatten(1, (-1, self.channels_per_group))
        groups = groups - groups.mean((2, 3, 4), keepdim=True)  # keeps the squares below small
        mean, square = (self._window_mean(m.mean(2)) for m in (groups, groups.square()))
        rstd = ((square - mean.square()).clamp_min(0) + self.eps).rsqrt()
        out = (groups - mean.unsqueeze(2)) * rstd.unsqueeze(2)
        out = out.flatten(1, 2).to(x.dtype)
        if self.weight is None or self.bias is None:
            return out
        return torch.addcmul(self.bias[:, None, None], out, self.weight[:, None, None])

    def _window_mean(self, maps: Tensor) -> Tensor:
        height, width = (min(k, s) for k, s in zip(self.window_size, maps.shape[2:], strict=True))
        top, left = (height - 1) // 2, (width - 1) // 2
        maps = F.avg_pool2d(maps, (height, 1), stride=1)
        maps = F.avg_pool2d(maps, (1, width), stride=1)
        pad = [left, width - 1 - left, top, height - 1 - top]
        return F.pad(maps, pad, mode="replicate") if any(pad) else maps

    def extra_repr(self) -> str:
        return (
            f"{self.num_channels}, channels_per_group={self.channels_per_group}, "
            f"window_size={self.window_size}, eps={self.eps}, affine={self.weight is not None}"
        )


def _group_norm(channels: int, dims: int, groups: int = 32, **options) -> nn.Module:
    _check_divides(groups, channels, "groups")
    return nn.GroupNorm(groups, channels, **options)


def _local_context_norm(channels: int, dims: int, **options) -> nn.Module:
    if dims != 2:
        raise ValueError(f"norm 'local_context' is for 2 spatial dimensions, not {dims}")
    return LocalContextNorm(channels, **options)


def _by_dims(*classes: Builder, **defaults) -> Builder:
    """A norm with a class for each of 1, 2 and 3 spatial dimensions."""
    return lambda channels, dims, **options: classes[dims - 1](channels, **defaults | options)


_KERNEL = ("dropout_p", "eps", "eval_stats", "bounded")
_AFFINE = ("eps", "affine", "device", "dtype")
_RUNNING = ("momentum", "track_running_stats", *_AFFINE)
_OPTIONS: dict[str, tuple[str, ...]] = {
    "batch": _RUNNING,
    "sync_batch": (*_RUNNING, "process_group"),
    "group": ("groups", *_AFFINE),
    "layer": _AFFINE,
    "instance": _RUNNING,
    "local_context": ("channels_per_group", "window_size", *_AFFINE),
    "kernel": ("kernel_size", "stride", "padding", "padding_mode", *_KERNEL),
    "none": (),
}
_BUILDERS: dict[str, Builder] = {
    "batch": _by_dims(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    "sync_batch": lambda channels, dims, **options: nn.SyncBatchNorm(channels, **options),
    "group": _group_norm,
    "layer": lambda channels, dims, **options: nn.GroupNorm(1, channels, **options),
    "instance": _by_dims(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, affine=True),
    "local_context": _local_context_norm,
    "kernel": lambda channels, dims, **options: _KERNEL_NORMS[dims - 1](**options),
    "none": lambda channels, dims: nn.Identity(),
}


def make_norm(kind: NormKind, channels: int, *, dims: int = 2, **options) -> nn.Module:
    """A norm that stands alone, for (N, channels, *space) with `dims` spatial dimensions.

    Args:
        kind: "batch", "sync_batch", "group" (`groups`, default 32), "layer" (over channels and
            space, i.e. one group), "instance" (`affine`, default True), "local_context"
            (`channels_per_group`, `window_size`), "kernel" (`KernelNorm`, default kernel 1) or
            "none".
        options: the norm's own: eps, momentum, affine, device, dtype, ...

    Raises:
        ValueError: an unknown kind, option or number of groups; the message names what is possible.
    """
    _check_kind(kind, dims)
    if not isinstance(channels, int) or channels < 1:
        raise ValueError(f"channels takes a whole number from 1 up, got {channels!r}")
    if kind in ("kernel", "none"):  # they hold no tensors
        options = {name: v for name, v in options.items() if name not in ("device", "dtype")}
    for name in options:
        check_name(f"option of norm {kind!r}:", name, _OPTIONS[kind])
    return _BUILDERS[kind](channels, dims, **options)


def make_conv(
    kind: NormKind,
    in_channels: int,
    out_channels: int,
    kernel_size: Size,
    stride: Size = 1,
    padding: str | Size = 0,
    *,
    dilation: Size = 1,
    groups: int = 1,
    bias: bool | None = None,
    padding_mode: PaddingMode = "zeros",
    dims: int = 2,
    kernel_options: Options | None = None,
) -> nn.Module:
    """A convolution for a net of this norm kind: `KNConv` for "kernel", torch's for the others.

    `bias` None means one where no norm of this convolution's output brings a shift: for "kernel",
    which normalizes the input, and "none". `kernel_options` (dropout_p, eval_stats, ...) go to
    `KNConv` and concern no other kind.
    """
    _check_kind(kind, dims)
    for name in kernel_options or {}:
        check_name("option of KNConv:", name, (*_KERNEL, "group_stats", "device", "dtype"))
    if bias is None:
        bias = kind in ("kernel", "none")
    table, options = (_KN_CONVS, kernel_options or {}) if kind == "kernel" else (_CONVS, {})
    return table[dims - 1](
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding,
        dilation,
        groups,
        bias,
        padding_mode,
        **options,
    )


def conv_unit(
    kind: NormKind,
    in_channels: int,
    out_channels: int,
    kernel_size: Size,
    stride: Size = 1,
    padding: str | Size = 0,
    *,
    dilation: Size = 1,
    groups: int = 1,
    bias: bool | None = None,
    padding_mode: PaddingMode = "zeros",
    dims: int = 2,
    norm_options: Options | None = None,
    kernel_options: Options | None = None,
) -> nn.Module:
    """A convolution with its norm: `KNConv` for "kernel", a bare convolution for "none".

    The others are `nn.Sequential` of `conv` and `norm`; `norm_options` go to `make_norm`, the
    other arguments to `make_conv`.
    """
    conv = make_conv(
        kind,
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding,
        dilation=dilation,
        groups=groups,
        bias=bias,
        padding_mode=padding_mode,
        dims=dims,
        kernel_options=kernel_options,
    )
    if kind in ("kernel", "none"):
        if norm_options:
            raise ValueError(f"a unit of kind {kind!r} has no norm to take {dict(norm_options)}")
        return conv
    norm = make_norm(kind, out_channels, dims=dims, **norm_options or {})
    return nn.Sequential(OrderedDict(conv=conv, norm=norm))


def _check_kind(kind: str, dims: int) -> None:
    check_name("norm", kind, NORM_KINDS)
    if dims not in (1, 2, 3):
        raise ValueError(f"dims must be 1, 2 or 3, got {dims}")


def _check_divides(number: int, channels: int, name: str) -> None:
    if not isinstance(number, int) or number < 1 or channels % number:
        possible = [str(n) for n in range(1, channels + 1) if channels % n == 0]
        raise ValueError(
            f"{name}={number} does not divide {channels} channels; possible: {', '.join(possible)}"
        )
