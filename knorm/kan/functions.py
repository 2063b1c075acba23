"""Convolutions of a basis's maps that keep their input alone for the backward pass.

The maps are many times larger than the input. They are made in chunks that fit into the cache,
and made again in the backward pass, which is all differentiable operations, so that second
derivatives and `torch.func` work.

Shapes: N samples, C channels, G groups, c = C / G, O outputs, o = O / G, D functions, K kernel
elements; M = N times the pixels.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from knorm.kan.bases import Basis
from knorm.kan.wavelets import WAVELETS
from knorm.kernel.autograd import CONVOLUTIONS

CHUNK = {"cpu": 2**20}  # elements of the maps that are made at once
WAVELET_CHUNK = {"cpu": 2**17}
LARGE_CHUNK = 2**26  # on other devices, where many elements at once are no slower


class Geometry(NamedTuple):
    """How windows lie on the input; the first three for each spatial dimension."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def basis_conv(
    x: Tensor, weight: Tensor, coefficients: Tensor | None, basis: Basis, geometry: Geometry
) -> Tensor:
    """Convolution of the basis's maps of x: (N, C, *space) -> (N, O, *out).

    weight (O, c, D, *kernel); coefficients those of the basis, if it has any. Padded positions
    count 0 for every function, also for constant ones.
    """
    out = BasisConv.apply(x, weight, coefficients, basis, geometry)
    assert isinstance(out, Tensor)
    return out


def wavelet_conv(
    x: Tensor, weight: Tensor, scale: Tensor, translation: Tensor, wavelet: str, geometry: Geometry
) -> Tensor:
    """Sum over input channels of wavelets of x, each pair of channels with its own.

    x (N, C, *space), weight (O, c, *kernel), scale and translation (O, c) -> (N, O, *out), the
    convolution of psi((x - translation) / scale) with the weight, padded with zeros.
    """
    out = WaveletConv.apply(x, weight, scale, translation, wavelet, geometry)
    assert isinstance(out, Tensor)
    return out


class BasisConv(Function):
    """See `basis_conv`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight, coefficients, basis, geometry):
        conv, weight = CONVOLUTIONS[weight.dim() - 3], weight.flatten(1, 2)
        outs = [
            conv(basis.values(part, coefficients).flatten(1, 2), weight, None, *geometry)
            for (part,) in _chunks(x, copies=basis.num_functions, chunk=CHUNK)
        ]
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, coefficients, ctx.basis, ctx.geometry = inputs
        ctx.save_for_backward(x, weight, coefficients)

    @staticmethod
    def backward(ctx, *grad_outputs):
        (grad,) = grad_outputs
        x, weight, coefficients = ctx.saved_tensors
        basis, geometry = ctx.basis, ctx.geometry
        need_x, need_weight, need_coefficients, *_ = ctx.needs_input_grad
        need_maps = need_x or need_coefficients
        flat = weight.flatten(1, 2).to(grad.dtype)
        of_x, of_weight, of_coefficients = [], [], []
        for part, grad_part in _chunks(x, grad, copies=basis.num_functions, chunk=CHUNK):
            maps = basis.values(part, coefficients)
            grad_maps, grad_weight, _ = torch.ops.aten.convolution_backward(
                grad_part,
                maps.flatten(1, 2).to(grad.dtype),
                flat,
                None,
                *geometry[:3],
                False,
                [0] * len(geometry.stride),
                geometry.groups,
                [need_maps, need_weight, False],
            )
            of_weight.append(grad_weight)
            if need_maps:
                grad_maps = grad_maps.view_as(maps).to(maps.dtype)
                grad_part, grad_coefficients = basis.pullback(part, grad_maps, coefficients)
                of_x.append(grad_part)
                of_coefficients.append(grad_coefficients)
        grad_x = torch.cat(of_x).to(x.dtype) if need_x else None
        grad_weight = _sum(of_weight).view_as(weight).to(weight.dtype) if need_weight else None
        grad_coefficients = _sum(of_coefficients) if need_coefficients else None
        return grad_x, grad_weight, grad_coefficients, None, None


class WaveletConv(Function):
    """See `wavelet_conv`. Channels are contracted before the kernel's elements are moved."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight, scale, translation, wavelet, geometry):
        space = x.shape[2:]
        outs = []
        for (part,) in _chunks(x, copies=geometry.groups, chunk=WAVELET_CHUNK):
            inputs, rows = _inputs(part, geometry.groups), []
            for w, s, t in _outputs(weight, scale, translation, inputs, geometry.groups):
                psi = WAVELETS[wavelet].value((inputs - t) / s)
                products = (w @ psi).unflatten(-1, (part.shape[0], *space))  # (G, o, K, N, *space)
                rows.append(_gather_windows(products, weight.shape[2:], geometry))
            outs.append(torch.cat(rows, 1).flatten(0, 1).transpose(0, 1))
        return torch.cat(outs).contiguous()

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, scale, translation, ctx.wavelet, ctx.geometry = inputs
        ctx.save_for_backward(x, weight, scale, translation)

    @staticmethod
    def backward(ctx, *grad_outputs):
        x, weight, scale, translation = ctx.saved_tensors
        grad = grad_outputs[0].to(weight.dtype)
        geometry, mother = ctx.geometry, WAVELETS[ctx.wavelet]
        groups, space, kernel = geometry.groups, x.shape[2:], weight.shape[2:]
        of_x, of_others = [], []
        for part, grad_part in _chunks(x, grad, copies=groups, chunk=WAVELET_CHUNK):
            inputs = _inputs(part, groups)
            by_group = grad_part.transpose(0, 1).unflatten(0, (groups, -1))  # (G, o, N, *out)
            of_inputs, rows, first = [], [], 0
            for w, s, t in _outputs(weight, scale, translation, inputs, groups):
                some = by_group[:, first : first + w.shape[1]]
                first += w.shape[1]
                spread = _spread_windows(some, kernel, space, geometry).flatten(3)  # (G, o, K, M)
                z = (inputs - t) / s
                grad_z = (w.mT @ spread) * mother.slope(z) / s
                of_inputs.append(grad_z.sum(1))
                grad_w = spread @ mother.value(z).mT
                rows.append((grad_w, -(grad_z * z).sum(-1), -grad_z.sum(-1)))
            of_x.append(_sum(of_inputs).unflatten(-1, (part.shape[0], *space)).movedim(2, 0))
            of_others.append([torch.cat(row, 1).flatten(0, 1) for row in zip(*rows, strict=True)])
        grad_w, grad_scale, grad_translation = (_sum(g) for g in zip(*of_others, strict=True))
        grad_x, grad_weight = torch.cat(of_x).flatten(1, 2), grad_w.mT.reshape(weight.shape)
        return grad_x.to(x.dtype), grad_weight, grad_scale, grad_translation, None, None


def _chunks(
    x: Tensor, *others: Tensor, copies: int, chunk: dict[str, int]
) -> Iterator[tuple[Tensor, ...]]:
    """x and the others, some samples at a time, where each element of x gives so many copies.

    All at once where they are compiled or exported: a cut would fix how many samples there are.
    """
    if torch.compiler.is_compiling():
        return iter([(x, *others)])
    most = chunk.get(x.device.type, LARGE_CHUNK)
    size = max(1, most // max(1, copies * math.prod(x.shape[1:])))
    return zip(*(each.split(size) for each in (x, *others)), strict=True)


def _sum(parts: Sequence[Tensor]) -> Tensor:
    """Of all chunks."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _inputs(x: Tensor, groups: int) -> Tensor:
    """(N, C, *space) -> (G, 1, c, M)."""
    return x.transpose(0, 1).flatten(1).unflatten(0, (groups, -1)).unsqueeze(1)


def _outputs(
    weight: Tensor, scale: Tensor, translation: Tensor, inputs: Tensor, groups: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Weight (G, o, K, c), scale and translation (G, o, c, 1), for some outputs at a time."""
    w = weight.flatten(2).mT.unflatten(0, (groups, -1))
    s, t = (each.unsqueeze(-1).unflatten(0, (groups, -1)) for each in (scale, translation))
    if torch.compiler.is_compiling():
        return iter([(w, s, t)])
    chunk = WAVELET_CHUNK.get(inputs.device.type, LARGE_CHUNK)
    count = max(1, chunk // max(1, inputs.numel()))
    return zip(*(each.split(count, 1) for each in (w, s, t)), strict=True)


def _gather_windows(products: Tensor, kernel: Sequence[int], geometry: Geometry) -> Tensor:
    """(G, o, K, N, *space) -> (G, o, N, *out): every window's sum of its elements."""
    space = products.shape[4:]
    out = _out_size(space, kernel, geometry)
    total = products.new_zeros((*products.shape[:2], products.shape[3], *out))
    for number, (inside, window) in enumerate(_shifts(space, kernel, geometry)):
        total[(..., *window)] += products[:, :, number][(..., *inside)]
    return total


def _spread_windows(
    grad: Tensor, kernel: Sequence[int], space: Sequence[int], geometry: Geometry
) -> Tensor:
    """(G, o, N, *out) -> (G, o, K, N, *space): the transpose of `_gather_windows`."""
    spread = grad.new_zeros((*grad.shape[:2], math.prod(kernel), grad.shape[2], *space))
    for number, (inside, window) in enumerate(_shifts(space, kernel, geometry)):
        spread[:, :, number][(..., *inside)] = grad[(..., *window)]
    return spread


def _out_size(space: Sequence[int], kernel: Sequence[int], geometry: Geometry) -> list[int]:
    sizes = zip(space, kernel, *geometry[:3], strict=True)
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]


def _shifts(
    space: Sequence[int], kernel: Sequence[int], geometry: Geometry
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """For every kernel element the pixels that it meets, and the windows in which it does."""
    out = _out_size(space, kernel, geometry)
    sizes = zip(space, kernel, *geometry[:3], out, strict=True)
    each = [[_meeting(n, o, s, d * i - p) for i in range(k)] for n, k, s, p, d, o in sizes]
    for slices in product(*each):
        inside, window = zip(*slices, strict=True)
        yield inside, window


def _meeting(pixels: int, windows: int, stride: int, offset: int) -> tuple[slice, slice]:
    """Pixels offset, offset + stride, ... that exist, and the numbers of their windows."""
    first = max(0, -(offset // stride))  # rounded up: the first window whose pixel exists
    last = min(windows - 1, (pixels - 1 - offset) // stride)
    count = max(0, last - first + 1)
    start = first * stride + offset
    return slice(start, start + count * stride, stride), slice(first, first + count)
