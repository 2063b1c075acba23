"""What the gradient of a `KNConv` weight is made of, record by record.

y = rstd * (x * w - mean * sum(w)) + b, so with g = dL/dy * rstd the gradient of w[o, c, k] is the
sum over a record's units l of g[o, l] * (x[c, k, l] - mean[l]). A unit's centred elements are those
of `x - level`, which a convolution unfolds, plus `shift`, which is the same for all channels.
"""

from typing import NamedTuple

from torch import Tensor

from knorm.kernel import windows
from knorm.kernel.autograd import centre
from knorm.kernel.composition import Size, WindowStats, pixel_level


class CentredUnits(NamedTuple):
    """The centred elements of all units, and the gradient that they meet."""

    x: Tensor
    """(N, C, *space): the padded input less every pixel's level"""
    shift: Tensor
    """(N, S, *out, K): what the levels of a unit's elements are above its mean"""
    grad: Tensor
    """(N, O, *out): dL/dy * rstd"""
    padding: tuple[int, ...]
    """zeros that are still to be put around `x`"""


def centred_units(
    x: Tensor,
    stats: WindowStats,
    grad: Tensor,
    kernel_size: Size,
    stride: Size = 1,
    padding: str | Size = 0,
    dilation: Size = 1,
    padding_mode: windows.PaddingMode = "zeros",
) -> CentredUnits:
    """From what `knorm.normalized_conv` was given and the gradient of its output.

    x (N, C, *space), stats of the same windows, grad (N, O, *out).
    """
    num_dims = x.dim() - 2
    kernel_size = windows.ntuple(kernel_size, num_dims, "kernel_size")
    stride = windows.ntuple(stride, num_dims, "stride")
    dilation = windows.ntuple(dilation, num_dims, "dilation")
    pairs = windows.padding_pairs(padding, kernel_size, stride, dilation)
    x, zeros = windows.pad_input(x, pairs, padding_mode)
    num_stats = stats.rstd.shape[1]
    level = pixel_level(x.unflatten(1, (num_stats, -1)))
    elements = windows.window_elements(level, kernel_size, stride, zeros, dilation)
    shift = elements - stats.center.unsqueeze(-1) - stats.offset.unsqueeze(-1)
    scaled = grad.unflatten(1, (num_stats, -1)) * stats.rstd.unsqueeze(2)
    return CentredUnits(centre(x, level), shift, scaled.flatten(1, 2), zeros)
