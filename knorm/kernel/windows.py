"""Where the windows of a convolution lie: sizes, padding, and sums over windows by slicing.

Shapes: N samples, S statistics groups (1, or the convolution's groups), K kernel elements;
`space` is the spatial shape of the input, `out` that of the windows.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from knorm.choices import check_name

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
PADDING_MODES = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "replicate",
    "circular": "circular",
}


def ntuple(value: int | Sequence[int], num_dims: int, name: str) -> tuple[int, ...]:
    """`value` once per spatial dimension."""
    if isinstance(value, int):
        return (value,) * num_dims
    if len(value) != num_dims:
        raise ValueError(f"{name} takes an int or {num_dims} ints, got {tuple(value)}")
    return tuple(value)


def padding_pairs(
    padding: str | int | Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> list[tuple[int, int]]:
    """(before, after) for each spatial dimension, in torch's order: height, then width.

    "same" puts the odd element after, as torch's convolutions do.
    """
    if padding == "valid":
        return [(0, 0)] * len(kernel_size)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise ValueError(f"padding='same' needs stride 1, got {tuple(stride)}")
        totals = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    if isinstance(padding, str):
        raise ValueError(f"padding={padding!r}: choose 'same', 'valid' or a number of elements")
    return [(p, p) for p in ntuple(padding, len(kernel_size), "padding")]


def pad_input(
    x: Tensor, pairs: list[tuple[int, int]], mode: PaddingMode
) -> tuple[Tensor, tuple[int, ...]]:
    """`x` with every padding applied that a convolution cannot take, and what is left for it.

    A symmetric zero padding is left to the convolution, which needs no copy for it.
    """
    check_name("padding_mode", mode, PADDING_MODES)
    if mode == "zeros" and all(before == after for before, after in pairs):
        return x, tuple(before for before, _ in pairs)
    flat = [p for pair in reversed(pairs) for p in pair]
    return F.pad(x, flat, mode=PADDING_MODES[mode]), (0,) * len(pairs)


def zero_pad(maps: Tensor, padding: Sequence[int]) -> Tensor:
    """Zeros on both sides of every spatial dimension."""
    if not any(padding):
        return maps
    return F.pad(maps, [p for size in reversed(padding) for p in (size, size)])


def check_fits(
    space: Sequence[int],
    kernel_size: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> None:
    """Every window must fit into the padded input."""
    for size, k, p, d in zip(space, kernel_size, padding, dilation, strict=True):
        if size + 2 * p < d * (k - 1) + 1:
            padded = tuple(s + 2 * q for s, q in zip(space, padding, strict=True))
            raise ValueError(
                f"windows of {tuple(kernel_size)} (dilation {tuple(dilation)}) "
                f"do not fit into the padded input of {padded}"
            )


def _strided(maps: Tensor, dim: int, offset: int, kernel: int, stride: int, dilation: int):
    """The element at `offset` of every window along `dim`."""
    stop = maps.shape[dim] - (kernel - 1 - offset) * dilation
    index = (slice(None),) * dim + (slice(offset * dilation, stop, stride),)
    return maps[index]


def window_elements(
    maps: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Every window's elements: (N, S, *space) -> (N, S, K, *out). For maps, not for activations."""
    maps = zero_pad(maps, padding)
    slices = []
    for offsets in itertools.product(*(range(k) for k in kernel_size)):
        part = maps
        for i, offset in enumerate(offsets):
            part = _strided(part, 2 + i, offset, kernel_size[i], stride[i], dilation[i])
        slices.append(part)
    return torch.stack(slices, dim=2)


def window_mean(
    maps: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The box filter: (N, S, *space) -> (N, S, *out), one dimension after the other."""
    maps = zero_pad(maps, padding)
    for i, kernel in enumerate(kernel_size):
        args = (kernel, stride[i], dilation[i])
        total = _strided(maps, 2 + i, 0, *args)
        for offset in range(1, kernel):
            total = total + _strided(maps, 2 + i, offset, *args)
        maps = total / kernel
    return maps


def lay_side_by_side(
    x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """All windows next to each other: (N, C, *space) -> (N, C, k * out, ...)."""
    x = zero_pad(x, padding)
    for i, (kernel, step) in enumerate(zip(kernel_size, stride, strict=True)):
        dim = 2 + i
        count = (x.shape[dim] - kernel) // step + 1
        if kernel == step or (kernel == 1 and step == 1):
            x = x.narrow(dim, 0, count * kernel)
        else:
            start = torch.arange(count, device=x.device) * step
            index = start[:, None] + torch.arange(kernel, device=x.device)
            x = x.index_select(dim, index.flatten())
    return x


def repeat_windows(maps: Tensor, kernel_size: Sequence[int]) -> Tensor:
    """Each window's value under all its elements: (N, S, *out) -> (N, S, k * out, ...)."""
    for i, kernel in enumerate(kernel_size):
        if kernel > 1:
            maps = maps.repeat_interleave(kernel, dim=2 + i)
    return maps
