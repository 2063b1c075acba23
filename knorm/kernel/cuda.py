"""The passes of kernel normalization for a GPU: calls of Triton kernels.

Read and written are, beside maps of a few values for each pixel or unit: x and v by `moments` (x a
second time from a cache), the convolution and the output by `scale`, the gradient, the convolution
and its gradient by `unscale`, x and its gradient by `add`; for `KernelNorm` x and the output by
`gather`, x and twice the gradient by `ungather`. Units here are three maps, or five with
dropout: the rows of `passes.Units` are made again of the levels wherever they are needed.

Sums over samples are taken in a fixed number of slices, in an order that depends on shapes alone.
Not measured on a GPU, nor run on one. Compiled for compute capability 9.0 with 3, 64 and 512
channels in bfloat16 and kernels of 1, 9 and 49 elements, tiles of these sizes spill no registers,
and the passes of `KNConv` move 16 bytes at a time (all but the 3 channels). Whether other sizes are
faster is not known.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from knorm.kernel import triton_convs, triton_loops, triton_norms, triton_windows
from knorm.kernel.autograd import statistics_dtype
from knorm.kernel.dropout import threshold_of
from knorm.kernel.passes import MAX_RMS, Dropout, Geometry, Rule, Unscaled, new_like
from knorm.kernel.triton_calls import TILE, View, launch, three, view_of, windows_of

BLOCK = 128  # pixels or units of a program over maps
SLICES = 1024  # partial sums over samples, at most
LEAST_BLOCKS = 4  # of pixels in a slice


class Units(NamedTuple):
    """Statistics of units, and what rows are made of."""

    maps: Tensor
    """(N, S, 3 or with dropout 5, *out): kinds of units, see `triton_windows`"""
    moments: Tensor
    """(N, S, 3 or 6, *space)"""
    geometry: Geometry

    def arguments(self) -> dict[str, Any]:
        """What a kernel takes to gather the elements of units."""
        window = windows_of(self.geometry)
        space, shape = (three(t.shape[3:]) for t in (self.moments, self.maps))
        return {
            "space": space,
            "shape": shape,
            "window": window,
            "elements": math.prod(self.geometry.kernel_size),
            "drops": self.moments.shape[2] == 6,
        }


def drawn(dropout: Dropout | None) -> dict[str, Any]:
    """What kernels are told of the dropout."""
    if dropout is None:
        return {"seed": 0, "threshold": 0, "drops": False}
    return {"seed": dropout.seed, "threshold": threshold_of(dropout.p), "drops": True}


def over_pixels(kernel: Any, num_stats: int, *tensors: Tensor | None, **settings: Any) -> None:
    """A kernel over all elements of the activations that come first in `tensors`."""
    first = tensors[0]
    assert first is not None
    view = view_of(first, num_stats)
    block_p, block_c = view.tile()
    launch(
        kernel,
        (view.maps * triton.cdiv(view.pixels, block_p),),
        *tensors,
        channels=view.channels,
        pixels=view.pixels,
        stride_c=view.stride_c,
        stride_p=view.stride_p,
        groups=num_stats,
        size=math.prod(first.shape[2:]),
        block_p=block_p,
        block_c=block_c,
        **settings,
    )


def moments(
    x: Tensor, num_stats: int, dropout: Dropout | None, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor | None]:
    samples, _, *space = x.shape
    shape = (samples, num_stats, 6 if dropout else 3, *space)
    found = x.new_empty(shape, dtype=statistics_dtype(x))
    centred = None if dtype is None else torch.empty_like(x, dtype=dtype)
    over_pixels(triton_loops.moments, num_stats, x, centred, found, **drawn(dropout))
    return found, centred


def add(out: Tensor, x: Tensor, moments: Tensor, slopes: Tensor, dropout: Dropout | None) -> None:
    tensors = (out, x, moments, slopes)
    over_pixels(triton_loops.add, moments.shape[1], *tensors, **drawn(dropout))


def unit_statistics(moments: Tensor, channels: int, geometry: Geometry, rule: Rule) -> Units:
    samples, num_stats, kinds, *space = moments.shape
    each = zip(space, *geometry, strict=True)
    out = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in each]
    maps = moments.new_empty((samples, num_stats, 5 if kinds == 6 else 3, *out))
    units = Units(maps, moments, geometry)
    count = samples * num_stats * math.prod(out)
    launch(
        triton_windows.unit_statistics,
        (triton.cdiv(count, BLOCK),),
        moments,
        maps,
        number_of_units=count,
        channels=channels,
        **units.arguments(),
        **constants(rule),
        eps=rule.eps,
        block=BLOCK,
    )
    return units


def constants(rule: Rule) -> dict[str, float]:
    """Of the statistics: `growth` and `bound`."""
    growth = 1 / (1 - rule.dropout_p) if rule.dropout_p else rule.growth
    return {"growth": growth, "bound": 1 / MAX_RMS**2 if rule.bounded else 0.0}


def through_statistics(
    grads: Tensor, units: Units, moments: Tensor, channels: int, geometry: Geometry, rule: Rule
) -> Tensor:
    samples, num_stats, _, *space = moments.shape
    slopes = moments.new_empty((samples, num_stats, 4 if rule.dropout_p else 2, *space))
    count = samples * num_stats * math.prod(space)
    launch(
        triton_windows.through_statistics,
        (triton.cdiv(count, BLOCK),),
        grads,
        units.maps,
        moments,
        slopes,
        number_of_pixels=count,
        channels=channels,
        **units.arguments(),
        **constants(rule),
        block=BLOCK,
    )
    return slopes


def over_units(view: View, units: Units) -> dict[str, Any]:
    """What kernels over convolutions are told, besides their grid and tensors."""
    elements = math.prod(units.geometry.kernel_size)
    block_k = 1 if elements == 1 else max(triton.next_power_of_2(elements), 16)
    block_p, block_c = view.tile(1 if elements == 1 else 16, TILE // block_k)
    return {
        "outputs": view.channels,
        "pixels": view.pixels,
        "stride_c": view.stride_c,
        "stride_p": view.stride_p,
        **units.arguments(),
        "block_p": block_p,
        "block_c": block_c,
        "block_k": block_k,
    }


def precision_of(conv: Tensor) -> str:
    """Of the products of sums and deviations: no less than that of the convolution."""
    return "tf32" if conv.dtype in (torch.float16, torch.bfloat16) else "ieee"


def scale(conv: Tensor, units: Units, sums: Tensor, bias: Tensor | None, out: Tensor) -> None:
    view = view_of(conv, len(sums))
    settings = over_units(view, units)
    launch(
        triton_convs.scale,
        (view.maps * triton.cdiv(view.pixels, settings["block_p"]),),
        conv,
        out,
        units.maps,
        units.moments,
        sums.contiguous(),
        None if bias is None else bias.contiguous(),
        groups=len(sums),
        precision=precision_of(conv),
        **settings,
    )


def unscale(grad: Tensor, conv: Tensor, units: Units, sums: Tensor) -> Unscaled:
    """The units' gradients are (N, S, 2, *out), kinds as in `triton_windows`."""
    groups, view = len(sums), view_of(conv, len(sums))
    settings = over_units(view, units)
    maps = view.maps // groups
    blocks = maps * triton.cdiv(view.pixels, settings["block_p"])
    parts = triton.cdiv(view.channels, settings["block_c"])
    slices = min(triton.cdiv(blocks, LEAST_BLOCKS), max(SLICES // (parts * groups), 1))
    scaled, kind = torch.empty_like(conv), units.maps.dtype
    samples, _, _, *out = units.maps.shape
    of_units = units.maps.new_empty((parts, samples, groups, 2, *out))
    of_sums = sums.new_empty((slices, *sums.shape), dtype=kind)
    of_bias = sums.new_empty((slices, *sums.shape[:2]), dtype=kind)
    launch(
        triton_convs.unscale,
        (slices, parts, groups),
        grad,
        conv,
        scaled,
        units.maps,
        units.moments,
        sums.contiguous(),
        of_units,
        of_sums,
        of_bias,
        samples=maps,
        groups=groups,
        slices=slices,
        precision=precision_of(conv),
        **settings,
    )
    grads = of_units[0] if parts == 1 else of_units.sum(0)
    return Unscaled(scaled, grads, of_sums.sum(0), of_bias.sum(0))


def over_elements(kernel: Any, view: View, pixels: int, *tensors: Tensor, units: Units) -> None:
    """A kernel over so many `pixels` of each of the samples that `view` has."""
    block_p, block_c = view.tile()
    launch(
        kernel,
        (view.maps * triton.cdiv(pixels, block_p),),
        *tensors,
        units.maps,
        units.moments,
        channels=view.channels,
        is_last=view.stride_c == 1,
        **units.arguments(),
        block_p=block_p,
        block_c=block_c,
    )


def gather(x: Tensor, moments: Tensor, units: Units, geometry: Geometry) -> Tensor:
    sizes = [k * n for k, n in zip(geometry.kernel_size, units.maps.shape[3:], strict=True)]
    view, count = view_of(x, 1, flat=False), math.prod(sizes)
    out = new_like(x, sizes, view.stride_c == 1)
    over_elements(triton_norms.gather, view, count, x, out, units=units)
    return out


def ungather(
    grad: Tensor, x: Tensor, moments: Tensor, units: Units, geometry: Geometry
) -> tuple[Tensor, Tensor]:
    """The units' gradients as those of `unscale`."""
    view, of_x = view_of(x, 1, flat=False), torch.empty_like(x)
    samples, _, _, *out = units.maps.shape
    of_units = units.maps.new_empty((samples, 1, 2, *out))
    over_elements(triton_norms.of_pixels, view, view.pixels, grad, of_x, units=units)
    over_elements(triton_norms.of_units, view, math.prod(out), grad, x, of_units, units=units)
    return of_x, of_units
