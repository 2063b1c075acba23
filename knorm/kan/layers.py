"""KAN convolutions: one class over interchangeable bases."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from knorm.choices import NormKind, check_name
from knorm.kan.bases import Wavelet, make_basis
from knorm.kan.branches import CONVS, BasisBranch, WaveletBranch, uniform_by_fan
from knorm.kan.forms import FORMS, INITS, SCALINGS, Init, Scaling, scale_to_range
from knorm.kan.functions import Geometry
from knorm.kernel.ops import Size
from knorm.kernel.windows import ntuple
from knorm.norms import make_norm

_DROPOUTS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class _KANConv(nn.Module):
    """A KAN convolution of `num_dims` spatial dimensions."""

    num_dims: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        form: str = "kan",
        *,
        basis_options: Mapping[str, Any] | None = None,
        scaling: Scaling | None = None,
        norm: NormKind = "batch",
        norm_options: Mapping[str, Any] | None = None,
        act: nn.Module | None = None,
        drop: float = 0.0,
        init: Init = "fixed",
        device=None,
        dtype=None,
    ):
        super().__init__()
        check_name("KAN convolution", form, FORMS)
        self.form_name, self.form = form, FORMS[form]
        self.scaling: Scaling = self.form.scaling if scaling is None else scaling
        check_name("scaling", self.scaling, SCALINGS)
        check_name("init", init, INITS)
        _check_channels(in_channels, out_channels, groups)
        if not isinstance(drop, (int, float)) or not 0 <= drop < 1:
            raise ValueError(f"drop takes a number in [0, 1), got {drop!r}")
        if act is not None and not isinstance(act, nn.Module):
            raise ValueError(f"act takes a module, such as nn.ReLU(), got {act!r}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = ntuple(kernel_size, self.num_dims, "kernel_size")
        self.geometry = Geometry(
            stride=ntuple(stride, self.num_dims, "stride"),
            padding=ntuple(padding, self.num_dims, "padding", least=0),
            dilation=ntuple(dilation, self.num_dims, "dilation"),
            groups=groups,
        )
        made = {"device": device, "dtype": dtype}
        shape = (in_channels, out_channels, self.kernel_size)
        conv, basis = CONVS[self.num_dims - 1], make_basis(self.form.basis, **basis_options or {})
        self.base = (
            None
            if self.form.base is None
            else conv(*shape, **self.geometry._asdict(), bias=False, **made)
        )
        self.basis: BasisBranch | WaveletBranch = (
            WaveletBranch(basis, *shape, self.geometry, **made)
            if isinstance(basis, Wavelet)
            else BasisBranch(basis, *shape, self.geometry, **made)
        )
        channels = in_channels if self.form.norm_on == "input" else out_channels
        self.norm = make_norm(norm, channels, dims=self.num_dims, **made, **norm_options or {})
        if act is None and self.form.act is not None:
            act = self.form.act(groups, **made)
        self.act = nn.Identity() if act is None else act
        self.drop = _DROPOUTS[self.num_dims - 1](drop)
        self.reset_parameters(init)

    def reset_parameters(self, init: Init = "fixed") -> None:
        """Draw all weights anew; "published": with the published rule, mistakes included."""
        if self.base is not None:
            uniform_by_fan(self.base.weight, math.prod(self.base.weight.shape[1:]))
        self.basis.reset_parameters(self.form, init)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != self.num_dims + 2 or x.shape[1] != self.in_channels:
            space = "DHW"[-self.num_dims :] if self.num_dims > 1 else "L"
            expected = ", ".join(["N", str(self.in_channels), *space])
            raise ValueError(f"{type(self).__name__} takes ({expected}), got {tuple(x.shape)}")
        out = self.basis(self._basis_input(x))
        if self.base is not None and self.form.base is not None:
            out = self.base(self.form.base(x)) + out
        if self.form.norm_on == "output":
            out = self.norm(out)
        out = self.act(out)
        return self.drop(out) if self.form.drop_on == "output" else out

    def _basis_input(self, x: Tensor) -> Tensor:
        x = scale_to_range(x, self.scaling, self.groups)
        if self.form.drop_on == "input":
            x = self.drop(x)
        return self.norm(x) if self.form.norm_on == "input" else x

    def extra_repr(self) -> str:
        stride, padding, dilation, groups = self.geometry
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={stride}, padding={padding}, dilation={dilation}, groups={groups}"
        return f"{text}, form={self.form_name!r}, scaling={self.scaling!r}"


class KANConv1d(_KANConv):
    """A convolution whose weights are functions: (N, C, L) -> (N, O, L').

    A plain convolution of base(x), where the form has one, plus a convolution of the D functions
    of a basis of every input, then norm and activation; `knorm.kan.forms.FORMS` says which and
    where. The maps of the basis are not kept for the backward pass, they are made again.

    Args:
        in_channels, ..., groups: as in `nn.Conv1d`, padding in numbers; padded positions count 0
            for every function.
        form: "kan" (B-splines), "fastkan" (radial), "kaln" (Legendre), "kacn" (Chebyshev),
            "kagn" (Gram) or "wavkan" (wavelets).
        basis_options: of `knorm.kan.make_basis`: grid_size, order, grid_range, degree, wavelet, ...
        scaling: what brings x into the range of the basis, "none", "tanh" or "batch" (smallest
            and largest of the batch, as published for "kaln"); None: as the form has it.
        norm, norm_options: of `knorm.make_norm`. The norm is that of the layer's sum, for
            "fastkan" that of the basis's input. "kernel" is kernel normalization with a kernel of
            1 at that place: it normalizes each position over its channels, since windows of x
            cannot be normalized before a function of it without a copy for each window.
        act: activation after the norm in place of the form's.
        drop: probability with which a whole channel is dropped, at the form's place.
        init: "fixed", or "published", which begins the basis's weights too small.

    Raises:
        ValueError: an unknown name or a value out of range; an input that is not (N, C, L); in one
            line.
    """

    num_dims = 1


class KANConv2d(_KANConv):
    """`KANConv1d` for (N, C, H, W)."""

    num_dims = 2


class KANConv3d(_KANConv):
    """`KANConv1d` for (N, C, D, H, W)."""

    num_dims = 3


def _check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    named = {"groups": groups, "in_channels": in_channels, "out_channels": out_channels}
    for name, value in named.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} takes a whole number from 1 up, got {value!r}")
        if value % groups:
            raise ValueError(f"groups={groups} does not divide {name}={value}")
