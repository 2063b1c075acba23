"""The branch of a KAN convolution that is made of a basis: its parameters, and one call.

Shapes: C inputs, O outputs, c inputs of a group, D functions.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from knorm.kan.bases import Basis, Wavelet
from knorm.kan.forms import Form, Init
from knorm.kan.functions import Geometry, basis_conv, wavelet_conv

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVS: tuple[Callable[..., Conv], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def uniform_by_fan(weight: Tensor, fan: int) -> None:
    """Uniform with variance 1 / fan."""
    bound = math.sqrt(3 / fan)
    nn.init.uniform_(weight, -bound, bound)


class BasisBranch(nn.Module):
    """Convolution of a basis's maps: (N, C, *space) -> (N, O, *out).

    `weight` (O, c, D, *kernel); `coefficients` those of the basis, None if it has none.
    """

    coefficients: nn.Parameter | None

    def __init__(
        self,
        basis: Basis,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        geometry: Geometry,
        device=None,
        dtype=None,
    ):
        super().__init__()
        made = {"device": device, "dtype": dtype}
        self.basis, self.geometry = basis, geometry
        shape = (out_channels, in_channels // geometry.groups, basis.num_functions, *kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, **made))
        numbers = basis.num_coefficients
        coefficients = nn.Parameter(torch.empty(numbers, **made)) if numbers else None
        self.register_parameter("coefficients", coefficients)

    def reset_parameters(self, form: Form, init: Init) -> None:
        """Draw the weights, and set the coefficients to the basis's own or, published, to noise."""
        rule = form.published_init if init == "published" else "fan_in"
        fan = math.prod(self.weight.shape[1:])
        all_inputs = fan * self.geometry.groups
        if rule == "tiny":
            nn.init.normal_(self.weight, std=1 / all_inputs)
        else:
            group_outputs = len(self.weight) // self.geometry.groups
            uniform_by_fan(self.weight, fan * group_outputs if rule == "fan_all" else fan)
        if self.coefficients is None:
            return
        if init == "published":
            nn.init.normal_(self.coefficients, std=1 / all_inputs)
        else:
            with torch.no_grad():
                self.coefficients.copy_(torch.tensor(self.basis.first_coefficients()))

    def forward(self, x: Tensor) -> Tensor:
        return basis_conv(x, self.weight, self.coefficients, self.basis, self.geometry)

    def extra_repr(self) -> str:
        return f"{self.basis}, weight={tuple(self.weight.shape)}"


class WaveletBranch(nn.Module):
    """Convolution of shifted and scaled wavelets, mixed: (N, C, *space) -> (N, O, *out).

    Every pair of an input and an output channel has a `scale` and a `translation` (O, c) and a
    kernel of `weight` (O, c, *kernel); `mix` is a convolution of kernel 1.
    """

    window: Tensor | None

    def __init__(
        self,
        basis: Wavelet,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        geometry: Geometry,
        device=None,
        dtype=None,
    ):
        super().__init__()
        made = {"device": device, "dtype": dtype}
        self.basis, self.geometry = basis, geometry
        pairs = (out_channels, in_channels // geometry.groups)
        self.weight = nn.Parameter(torch.empty((*pairs, *kernel_size), **made))
        self.scale = nn.Parameter(torch.empty(pairs, **made))
        self.translation = nn.Parameter(torch.empty(pairs, **made))
        conv = CONVS[len(kernel_size) - 1]
        self.mix = conv(out_channels, out_channels, 1, groups=geometry.groups, bias=False, **made)
        window = None
        if basis.channel_window:
            ones = (1,) * len(kernel_size)
            window = torch.hamming_window(pairs[1], periodic=False, **made).view(-1, *ones)
        self.register_buffer("window", window, persistent=False)

    def reset_parameters(self, form: Form, init: Init) -> None:
        """Draw the weights; scales begin as 1, translations as 0. Nothing published is wrong."""
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.translation)
        uniform_by_fan(self.weight, math.prod(self.weight.shape[1:]))
        uniform_by_fan(self.mix.weight, self.mix.weight.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.window is None else self.weight * self.window
        wavelet = self.basis.wavelet
        waves = wavelet_conv(x, weight, self.scale, self.translation, wavelet, self.geometry)
        return self.mix(waves)

    def extra_repr(self) -> str:
        return f"{self.basis}, weight={tuple(self.weight.shape)}"
