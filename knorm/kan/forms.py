"""The published KAN convolutions, a row each: which basis, and where their parts sit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Scaling = Literal["none", "tanh", "batch"]
Init = Literal["fixed", "published"]
Place = Literal["input", "output"]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
INITS: tuple[Init, ...] = get_args(Init)


class GroupPReLU(nn.Module):
    """PReLU with one learnable slope for each group of channels: (N, C, *space) -> the same."""

    def __init__(self, groups: int, device=None, dtype=None):
        super().__init__()
        self.weight = nn.Parameter(torch.full((groups,), 0.25, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        grouped = x.unflatten(1, (len(self.weight), -1))
        return F.prelu(grouped, self.weight).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"groups={len(self.weight)}"


def identity(x: Tensor) -> Tensor:
    """x."""
    return x


@dataclass(frozen=True, kw_only=True)
class Form:
    """A KAN convolution: base(x) + basis(scaled x), normalized, activated.

    Source: each form's own; see `FORMS`.
    """

    basis: str
    """a row of `knorm.kan.bases.BASES`"""
    base: Callable[[Tensor], Tensor] | None
    """activation before the plain convolution; None: there is no such branch"""
    act: Callable[..., nn.Module] | None = None
    """activation after the norm, made for a number of groups"""
    scaling: Scaling = "none"
    """what brings x into the range of the basis"""
    norm_on: Place = "output"
    """of the whole layer, or of the basis, after scaling and dropout"""
    drop_on: Place = "output"
    published: Mapping[str, Any] = field(default_factory=dict)
    """options of `KANConv2d` that give the published form with its defects, init aside"""
    published_init: Literal["fan_in", "fan_all", "tiny"] = "fan_in"
    """how basis weights began: as they should, by a fan too large, or by one squared"""


def silu(groups: int, **options: Any) -> nn.Module:
    """SiLU, the same for every group."""
    return nn.SiLU()


FORMS: dict[str, Form] = {
    # Liu et al., KAN, arXiv:2404.19756
    "kan": Form(
        basis="spline",
        base=F.gelu,
        act=GroupPReLU,
        published={"basis_options": {"grid_range": (-1.0, 1.0)}},
    ),
    # Li, Kolmogorov-Arnold Networks are Radial Basis Function Networks, arXiv:2405.06721
    "fastkan": Form(basis="radial", base=F.silu, norm_on="input", drop_on="input"),
    "kaln": Form(
        basis="legendre",
        base=identity,
        act=silu,
        scaling="tanh",
        drop_on="input",
        published={"scaling": "batch"},
        published_init="fan_all",
    ),
    # Sidharth and Gokul, Chebyshev Polynomial-Based KANs, arXiv:2405.07200
    "kacn": Form(
        basis="chebyshev",
        base=None,
        scaling="tanh",
        published={"basis_options": {"form": "acos"}},
        published_init="tiny",
    ),
    # Drokin, Kolmogorov-Arnold Convolutions, arXiv:2407.01092
    "kagn": Form(
        basis="gram",
        base=F.silu,
        act=silu,
        scaling="tanh",
        drop_on="input",
        published={"basis_options": {"start": "published"}},
        published_init="fan_all",
    ),
    # Bozorgasl and Chen, Wav-KAN, arXiv:2405.12832
    "wavkan": Form(basis="wavelet", base=F.silu, drop_on="input"),
}


def scale_to_range(x: Tensor, scaling: Scaling, groups: int) -> Tensor:
    """x where the basis expects it: as it is, by tanh, or by the batch's smallest and largest.

    "batch", as published, makes a sample's output depend on the others, and is not finite where
    all values of a group are equal.
    """
    if scaling == "tanh":
        return x.tanh()
    if scaling == "none":
        return x
    grouped = x.unflatten(1, (groups, -1))
    dims = [d for d in range(grouped.dim()) if d != 1]
    low, high = grouped.amin(dims, keepdim=True), grouped.amax(dims, keepdim=True)
    return (2 * (grouped - low) / (high - low) - 1).flatten(1, 2)
