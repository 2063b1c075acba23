"""Layers that a swapped net may need beside `knorm`'s own.

Shapes: N samples, C channels, L positions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from knorm.choices import Stats
from knorm.kernel import KernelNorm1d, KNConv2d


class PositionNorm(KernelNorm1d):
    """A `KernelNorm` of kernel 1 for any number of dimensions, vectors and tokens.

    Every position is normalized over its channels: (N, C), (N, C, ...) or, with `channels_last`,
    (..., C) -> the same.
    """

    def __init__(
        self,
        *,
        channels_last: bool = False,
        dropout_p: float,
        eps: float,
        eval_stats: Stats = "expected",
    ):
        super().__init__(1, dropout_p=dropout_p, eps=eps, eval_stats=eval_stats)
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        if self.channels_last:
            return super().forward(x.reshape(-1, x.shape[-1], 1)).view(x.shape)
        return super().forward(x.reshape(*x.shape[:2], -1)).view(x.shape)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return f"{text}, channels_last=True" if self.channels_last else text


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm of (N, C, *space) for any space; `layer` where a channel is one element.

    A single element has no statistics: torch refuses such inputs in training and gives zeros in
    evaluation. Vectors (N, C) and maps of one pixel are normalized over their channels instead.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name for it
        if math.prod(input.shape[2:]) == 1:
            return F.group_norm(input, 1, self.weight, self.bias, self.eps)
        return F.instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)


class Copy(nn.Module):
    """What is left of a norm that goes away where others may use its input too.

    An activation in place would otherwise change it for them.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class ScaleShift(nn.Module):
    """A batch norm's running statistics and affine part as one scale and shift: (N, C, ...)."""

    def __init__(self, scale: Tensor, shift: Tensor, requires_grad: bool = True):
        super().__init__()
        self.weight = nn.Parameter(scale, requires_grad)
        self.bias = nn.Parameter(shift, requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (p.view(-1, *[1] * (x.dim() - 2)) for p in (self.weight, self.bias))
        return torch.addcmul(bias, x, weight)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}"


class Threshold(nn.Module):
    """max(x, tau) with a threshold for each channel: (N, C, ...).

    Source: Singh and Krishnan, Filter Response Normalization Layer, CVPR 2020, section 3.2.
    """

    def __init__(self, tau: nn.Parameter):
        super().__init__()
        self.tau = tau

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.tau.view(-1, *[1] * (x.dim() - 2)))


class Gate(nn.Module):
    """x * sigmoid(v * x) with a slope for each channel: (N, C, ...), the activation of EvoNorm-S0.

    Source: Liu et al., Evolving Normalization-Activation Layers, NeurIPS 2020, table 1.
    """

    def __init__(self, v: nn.Parameter):
        super().__init__()
        self.v = v

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x * self.v.view(-1, *[1] * (x.dim() - 2)))


class AdaptedKNConv2d(KNConv2d):
    """`KNConv2d` with what convolutions of other libraries do to their input and their weight.

    Args:
        same_pad: pad with zeros so that the output has ceil(size / stride) pixels, the odd one
            after, as TensorFlow's "same".
        standardize_eps: centre each filter and divide it by its standard deviation, with this
            added to the variance (Qiao et al. 2019, Weight Standardization); None: do not.
        gain, scale: multiply the standardized filters by both (Brock et al. 2021); the gain is
            learned, (out_channels, 1, 1, 1).
    """

    def __init__(
        self,
        *args,
        same_pad: bool = False,
        standardize_eps: float | None = None,
        gain: nn.Parameter | None = None,
        scale: float = 1.0,
        **options,
    ):
        super().__init__(*args, **options)
        self.same_pad = same_pad
        self.standardize_eps = standardize_eps
        self.gain = gain
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name for it
        x = self._padded(input) if self.same_pad else input
        return self._kn_conv(x, self._filters())

    def _padded(self, x: Tensor) -> Tensor:
        pads = []
        window = zip(x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True)
        for size, kernel, stride, dilation in window:
            last = (-(-size // stride) - 1) * stride
            total = max(last + (kernel - 1) * dilation + 1 - size, 0)
            pads = [total // 2, total - total // 2, *pads]
        return F.pad(x, pads)

    def _filters(self) -> Tensor:
        if self.standardize_eps is None:
            return self.weight
        var, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) * (var + self.standardize_eps).rsqrt()
        return weight if self.gain is None else weight * (self.gain * self.scale)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        if self.same_pad:
            text += ", same_pad=True"
        if self.standardize_eps is not None:
            text += f", standardize_eps={self.standardize_eps}"
        return text
