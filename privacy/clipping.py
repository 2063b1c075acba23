"""Bounding what one record can do: its gradient's weight in the sum.

flat        min(1, C / |g|)                     Abadi et al., CCS 2016
per_layer   the same for every layer with C / sqrt(number of layers), so that all together keep C
automatic   C / (|g| + 0.01)                    Bu et al., NeurIPS 2023 (AUTO-S)
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from privacy.config import ClippingName
from privacy.contributions import Contribution

STABILITY = 0.01  # of automatic clipping
Found = Mapping[str, Contribution]
Weigh = Callable[[Tensor, float], Tensor]


def cut(norms: Tensor, bound: float) -> Tensor:
    """Weights that leave small gradients alone and cut large ones down to `bound`."""
    return bound / norms.clamp(min=bound)


def rescaled(norms: Tensor, bound: float) -> Tensor:
    """Weights that bring every gradient to a norm just below `bound`."""
    return bound / (norms + STABILITY)


class Clipping(NamedTuple):
    """How gradients are weighed, and whether each layer by itself."""

    weigh: Weigh
    by_layer: bool = False


CLIPPINGS: dict[ClippingName, Clipping] = {
    "flat": Clipping(cut),
    "per_layer": Clipping(cut, by_layer=True),
    "automatic": Clipping(rescaled),
}


class Clipped(NamedTuple):
    """What a batch of records adds to the step."""

    sums: dict[str, Tensor]
    """parameter -> sum of the records' clipped gradients"""
    norms: Tensor
    """(N,) of the gradients before clipping"""
    dropped: Tensor
    """how many records had a gradient that is not finite, and count as zero"""


def clipped_sums(found: Found, name: ClippingName, max_norm: float) -> Clipped:
    """Sums of the clipped gradients of N records, none of which has a norm above `max_norm`.

    Records whose gradient is not finite are left out of the sums.
    """
    squares = {parameter: part.squared_norms() for parameter, part in found.items()}
    total = torch.stack(list(squares.values())).sum(0)
    is_bad = ~total.isfinite()
    if is_bad.any():
        for part in found.values():
            part.drop(is_bad)
        squares = {parameter: part.squared_norms() for parameter, part in found.items()}
    clipping = CLIPPINGS[name]
    layers = layers_of(found, by_layer=clipping.by_layer)
    bound = max_norm / math.sqrt(len(layers))
    sums: dict[str, Tensor] = {}
    for parameters in layers:
        norms = torch.stack([squares[parameter] for parameter in parameters]).sum(0).sqrt()
        weights = clipping.weigh(norms, bound) * ~is_bad
        for parameter in parameters:
            sums[parameter] = found[parameter].weighted(weights)
    return Clipped(sums, total.sqrt(), is_bad.sum())


def layers_of(parameters: Mapping[str, object], *, by_layer: bool) -> list[list[str]]:
    """Names of parameters that are clipped together: all of them, or those of one module."""
    layers: dict[str, list[str]] = {}
    for name in parameters:
        layers.setdefault(name.rpartition(".")[0] if by_layer else "", []).append(name)
    return list(layers.values())
