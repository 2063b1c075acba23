"""Where the windows of a convolution lie: sizes, padding, and what is in them.

Shapes: N samples, S statistics groups (1, or the convolution's groups), K kernel elements;
`space` is the spatial shape of the input, `out` that of the windows.
"""

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


def ntuple(value: int | Sequence[int], num_dims: int, name: str, least: int = 1) -> tuple[int, ...]:
    """`value` once per spatial dimension; none below `least`."""
    each = (value,) * num_dims if isinstance(value, int) else value
    is_right = isinstance(each, Sequence) and len(each) == num_dims
    if not is_right or not all(isinstance(size, int) and size >= least for size in each):
        raise ValueError(f"{name} takes an int or {num_dims} ints from {least} up, got {value!r}")
    return tuple(each)


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
    return [(p, p) for p in ntuple(padding, len(kernel_size), "padding", least=0)]


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


def _windows_along(maps: Tensor, dim: int, kernel: int, stride: int, dilation: int) -> Tensor:
    """The elements of every window along one dimension, in a new last dimension.

    By slices: `Tensor.unfold` cannot be differentiated under `torch.func.vmap`.
    """
    if kernel == 1:
        return _strided(maps, dim, 0, maps.shape[dim], stride).unsqueeze(-1)
    last = maps.shape[dim] - dilation * (kernel - 1)
    starts = (offset * dilation for offset in range(kernel))
    return torch.stack([_strided(maps, dim, a, a + last, stride) for a in starts], -1)


def _strided(maps: Tensor, dim: int, start: int, stop: int, step: int) -> Tensor:
    return maps[(slice(None),) * dim + (slice(start, stop, step),)]


def window_elements(
    maps: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Every window's elements: (N, S, *space) -> (N, S, *out, K). For maps, not for activations."""
    maps = zero_pad(maps, padding)
    for i, window in enumerate(zip(kernel_size, stride, dilation, strict=True)):
        maps = _windows_along(maps, 2 + i, *window)
    return maps.flatten(-len(kernel_size))


def window_mean(
    maps: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The box filter: (N, S, *space) -> (N, S, *out), one dimension after the other."""
    maps = zero_pad(maps, padding)
    for i, window in enumerate(zip(kernel_size, stride, dilation, strict=True)):
        maps = _windows_along(maps, 2 + i, *window).mean(-1)
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
