"""Kernel normalization as modules: they keep settings and call `ops`."""

from torch import Tensor, nn

from knorm.choices import Stats, check_name
from knorm.kernel import ops, windows
from knorm.kernel.composition import check_options
from knorm.kernel.ops import PaddingMode, Size


class _KernelStats(nn.Module):
    """Which statistics apply now: dropped ones in training, `eval_stats` in evaluation."""

    dropout_p: float
    eval_stats: Stats
    bounded: bool
    eps: float

    def _set_stats(self, dropout_p: float, eps: float, eval_stats: Stats, bounded: bool) -> None:
        check_options(dropout_p, eval_stats, eps)
        self.dropout_p = dropout_p
        self.eps = eps
        self.eval_stats = eval_stats
        self.bounded = bounded

    def _stats_options(self) -> dict:
        return {
            "dropout_p": self.dropout_p,
            "eps": self.eps,
            "stats": "sampled" if self.training else self.eval_stats,
            "bounded": self.bounded,
        }

    def _stats_repr(self) -> str:
        text = f"dropout_p={self.dropout_p}, eps={self.eps}"
        if self.eval_stats != "expected":
            text += f", eval_stats={self.eval_stats!r}"
        return text if self.bounded else text + ", bounded=False"


class _KernelNorm(_KernelStats):
    """Kernel normalization of `num_dims` spatial dimensions."""

    num_dims: int

    def __init__(
        self,
        kernel_size: Size = 1,
        stride: Size = 1,
        padding: str | Size = 0,
        dropout_p: float = 0.1,
        eps: float = 1e-5,
        *,
        padding_mode: PaddingMode = "zeros",
        eval_stats: Stats = "expected",
        bounded: bool = True,
    ):
        super().__init__()
        self.kernel_size = windows.ntuple(kernel_size, self.num_dims, "kernel_size")
        self.stride = windows.ntuple(stride, self.num_dims, "stride")
        windows.padding_pairs(padding, self.kernel_size, self.stride, (1,) * self.num_dims)
        self.padding = padding
        check_name("padding_mode", padding_mode, windows.PADDING_MODES)
        self.padding_mode: PaddingMode = padding_mode
        self._set_stats(dropout_p, eps, eval_stats, bounded)

    def forward(self, x: Tensor) -> Tensor:
        return ops.kernel_norm(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            num_dims=self.num_dims,
            padding_mode=self.padding_mode,
            **self._stats_options(),
        )

    def extra_repr(self) -> str:
        text = f"kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding not in (0, "valid"):
            text += f", padding={self.padding!r}"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return f"{text}, {self._stats_repr()}"


class KernelNorm1d(_KernelNorm):
    """Normalized windows side by side: (N, C, L) -> (N, C, k * L'), or the same without N.

    A unit is a window over all channels of the padded input; its elements are centred by the
    unit's mean and divided by its standard deviation, taken after dropout in training. Windows
    that overlap make the output larger than the input; a kernel of 1 normalizes every position.
    No parameters, no running statistics, no dependence on other samples.

    Args:
        kernel_size, stride, padding: as in torch's convolutions; stride defaults to 1.
        dropout_p: probability with which an element is dropped from the statistics in training.
        eps: added to the variance.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        eval_stats: the statistics in evaluation: "expected" (the mean and variance that training
            sees on average, in closed form), "plain" (without dropout) or "sampled" (dropout goes
            on, as in the authors' code).
        bounded: keep dropout from blowing up a unit of which it hides nearly all, see
            `knorm.window_stats`. False: exactly as published.

    Source: Nasirigerdeh et al., Kernel Normalized Convolutional Networks, TMLR 2024, section 3.
    """

    num_dims = 1


class KernelNorm2d(_KernelNorm):
    """`KernelNorm1d` for (N, C, H, W) or (C, H, W)."""

    num_dims = 2


class KernelNorm3d(_KernelNorm):
    """`KernelNorm1d` for (N, C, D, H, W) or (C, D, H, W)."""

    num_dims = 3


class _KNConv(_KernelStats):
    """What the kernel-normalized convolutions add to torch's, which come next in their bases."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: PaddingMode

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str | Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        dropout_p: float = 0.05,
        eps: float = 1e-5,
        *,
        eval_stats: Stats = "expected",
        bounded: bool = True,
        group_stats: bool = False,
        device=None,
        dtype=None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        self.group_stats = group_stats
        self._set_stats(dropout_p, eps, eval_stats, bounded)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name for it
        return self._kn_conv(input, self.weight)

    def _kn_conv(self, x: Tensor, weight: Tensor) -> Tensor:
        return ops.kn_conv(
            x,
            weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
            group_stats=self.group_stats,
            **self._stats_options(),
        )

    def extra_repr(self) -> str:
        text = f"{super().extra_repr()}, {self._stats_repr()}"
        return f"{text}, group_stats=True" if self.group_stats else text


class KNConv1d(_KNConv, nn.Conv1d):
    """Convolution of kernel-normalized windows: (N, C, L) -> (N, O, L'), or the same without N.

    The same as `KernelNorm1d` followed by a convolution whose stride is its kernel, at the cost
    of a convolution. It holds `weight` and `bias` in the shapes of `nn.Conv1d`, so a state dict
    of a convolution loads as it is.

    Args:
        in_channels, ..., padding_mode, device, dtype: as in `nn.Conv1d`.
        dropout_p, eps, eval_stats, bounded: as in `KernelNorm1d`.
        group_stats: with groups, take each group's statistics over its own channels only; the
            default, as published, takes them over all channels of the window.

    Source: Nasirigerdeh et al., TMLR 2024, section 3, equations 4 and 5.
    """


class KNConv2d(_KNConv, nn.Conv2d):
    """`KNConv1d` for (N, C, H, W) or (C, H, W)."""


class KNConv3d(_KNConv, nn.Conv3d):
    """`KNConv1d` for (N, C, D, H, W) or (C, D, H, W)."""
