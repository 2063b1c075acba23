"""Branches of KAN convolutions as their formulas stand, to be measured against."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from knorm.kan import KANConv2d
from knorm.kan.bases import Spline, Wavelet
from knorm.kan.branches import BasisBranch, WaveletBranch
from knorm.kan.wavelets import WAVELETS


class Recursion(nn.Module):
    """B-splines by the recursion of Cox and de Boor, all orders kept for the backward pass.

    (N, C, H, W) -> (N, O, H', W'), without groups. B_(j,0) is 1 from knot j to the next, and
    B_(j,p) = (x - t_j) / (t_(j+p) - t_j) B_(j,p-1) + (t_(j+p+1) - x) / (t_(j+p+1) - t_(j+1))
    B_(j+1,p-1).
    """

    def __init__(self, branch: BasisBranch):
        super().__init__()
        basis = branch.basis
        assert isinstance(basis, Spline)
        assert branch.geometry.groups == 1
        self.weight, self.geometry, self.order = branch.weight, branch.geometry, basis.order
        low, high = basis.grid_range
        self.low, self.step, self.grid_size = low, (high - low) / basis.grid_size, basis.grid_size

    def forward(self, x: Tensor) -> Tensor:
        numbers = torch.arange(-self.order, self.grid_size + self.order + 1, dtype=x.dtype)
        x, t = x.unsqueeze(-1), self.low + self.step * numbers
        basis = ((x >= t[:-1]) & (x < t[1:])).to(x.dtype)
        for p in range(1, self.order + 1):
            left = (x - t[: -p - 1]) / (t[p:-1] - t[: -p - 1])
            right = (t[p + 1 :] - x) / (t[p + 1 :] - t[1:-p])
            basis = left * basis[..., :-1] + right * basis[..., 1:]
        maps = basis.movedim(-1, 2).flatten(1, 2)
        return nn.functional.conv2d(maps, self.weight.flatten(1, 2), None, *self.geometry)


class Direct(nn.Module):
    """Wavelets of every pair of channels at once, (N, O, C, H, W), without groups."""

    def __init__(self, branch: WaveletBranch):
        super().__init__()
        assert isinstance(branch.basis, Wavelet)
        assert branch.geometry.groups == 1
        self.psi = WAVELETS[branch.basis.wavelet].value
        self.weight, self.scale, self.translation = branch.weight, branch.scale, branch.translation
        self.mix, self.geometry = branch.mix, branch.geometry

    def forward(self, x: Tensor) -> Tensor:
        scale, translation = (p[..., None, None] for p in (self.scale, self.translation))
        maps = self.psi((x.unsqueeze(1) - translation) / scale)
        stride, padding, dilation, _ = self.geometry
        waves = nn.functional.conv2d(
            maps.flatten(1, 2), self.weight, None, stride, padding, dilation, len(self.weight)
        )
        return self.mix(waves)


NAIVE = {"kan": Recursion, "wavkan": Direct}


def naive(net: nn.Module) -> nn.Module:
    """A copy of a net of KAN convolutions whose branches are naive."""
    copy = deepcopy(net)
    for layer in copy.modules():
        if isinstance(layer, KANConv2d):
            layer.basis = NAIVE[layer.form_name](layer.basis)
    return copy
