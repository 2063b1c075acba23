"""Parts of the records' gradients: whole, or as a layer's input and output gradient.

N records, each with the same number of views; M = N * views is the leading dimension of
activations. `samples` gives the records' gradients, `squared_norms` their squared norms, `weighted`
a weighted sum of them; the latter two never build the first where `is_thin` is true.

Sources: Goodfellow, arXiv:1510.01799 (norms without gradients); Bu, Mao and Xu, NeurIPS 2022 (mixed
ghost clipping: which of the two is cheaper).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Contribution(Protocol):
    """A part of the gradient of one parameter of shape `shape`, for each of N records."""

    def is_thin(self) -> bool:
        """Whether the products of its units are fewer numbers than the records' gradients."""
        ...

    def samples(self) -> Tensor:
        """(N, *shape) float32, or float64"""
        ...

    def squared_norms(self) -> Tensor:
        """(N,)"""
        ...

    def weighted(self, weights: Tensor) -> Tensor:
        """(*shape): the sum over the records, each times its weight (N,)"""
        ...

    def drop(self, records: Tensor) -> None:
        """Make zeros of the records where this (N,) is true."""
        ...


def without(values: Tensor, records: Tensor) -> Tensor:
    """(M, ...) with zeros for the records where this (N,) is true."""
    each = records.repeat_interleave(values.shape[0] // len(records))
    return values.masked_fill(each.view(-1, *[1] * (values.dim() - 1)), 0)


def wide(x: Tensor) -> Tensor:
    """At least float32: sums over records are not taken in 16 bits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@dataclass
class Samples:
    """The records' gradients themselves."""

    grads: Tensor
    """(N, *shape)"""

    def is_thin(self) -> bool:
        return False

    def samples(self) -> Tensor:
        return wide(self.grads)

    def squared_norms(self) -> Tensor:
        return (
            self.samples().flatten(1).square().sum(1)
            if self.grads.dim() > 1
            else (self.samples().square())
        )

    def weighted(self, weights: Tensor) -> Tensor:
        grads = self.samples()
        return torch.tensordot(weights.to(grads.dtype), grads, 1)

    def drop(self, records: Tensor) -> None:
        self.grads = without(self.grads, records)


@dataclass
class LinearWeight:
    """Of the weight of y = x W^T."""

    x: Tensor
    """(N, L, I)"""
    grad: Tensor
    """(N, L, O)"""

    def is_thin(self) -> bool:
        return 2 * self.x.shape[1] ** 2 <= self.x.shape[2] * self.grad.shape[2]

    def samples(self) -> Tensor:
        return wide(self.grad).mT @ wide(self.x)

    def squared_norms(self) -> Tensor:
        return products(wide(self.grad), wide(self.x))

    def weighted(self, weights: Tensor) -> Tensor:
        grad = wide(self.grad) * weights[:, None, None]
        return grad.flatten(0, 1).mT @ wide(self.x).flatten(0, 1)

    def drop(self, records: Tensor) -> None:
        self.x, self.grad = without(self.x, records), without(self.grad, records)


def products(a: Tensor, b: Tensor) -> Tensor:
    """Squared norms of a^T b for every record: a (N, L, O), b (N, L, I) -> (N,)

    Summed in float64: what nearly cancels would leave nothing but the rounding of float32.
    """
    x, y = a.double(), b.double()
    return ((x @ x.mT) * (y @ y.mT)).sum((1, 2)).clamp(min=0).to(a.dtype)


@dataclass
class ConvWeight:
    """Of the weight of a convolution, or of a KNConv where there is a shift."""

    count: int
    """N"""
    x: Tensor
    """(M, C, *space)"""
    grad: Tensor
    """(M, O, *out)"""
    shape: Sequence[int]
    """(O, C / groups, *kernel)"""
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int
    shift: Tensor | None = None
    """(M, S, *out, K): added to the elements of every window, the same for all channels"""

    @property
    def num_windows(self) -> int:
        """Windows of a record, all of its views together."""
        return self.grad.shape[2:].numel() * self.grad.shape[0] // self.count

    def is_thin(self) -> bool:
        per_group = torch.Size(self.shape).numel() // self.groups
        return 2 * self.num_windows**2 <= per_group

    def samples(self) -> Tensor:
        def side_by_side(t: Tensor) -> Tensor:  # records as groups of channels, views as the batch
            return wide(t).unflatten(0, (self.count, -1)).transpose(0, 1).flatten(1, 2)

        shape = (self.count * self.shape[0], *self.shape[1:])
        x, grad = side_by_side(self.x), side_by_side(self.grad)
        found = self._weight_gradient(grad, x, shape, self.count * self.groups)
        found = found.unflatten(0, (self.count, -1))
        return found if self.shift is None else found + self._shifted()

    def _weight_gradient(
        self, grad: Tensor, x: Tensor, shape: Sequence[int], groups: int
    ) -> Tensor:
        weight = x.new_empty(1).expand(shape)
        _, found, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, self.stride, self.padding, self.dilation, False,
            [0] * len(self.stride), groups, [False, True, False],
        )  # fmt: skip
        return found

    def _shifted(self) -> Tensor:
        """What the shift adds: (N, O, 1, *kernel)."""
        assert self.shift is not None
        shift = wide(self.shift).flatten(2, -2)  # (M, S, L, K)
        grad = wide(self.grad).flatten(2).unflatten(1, (shift.shape[1], -1))  # (M, S, O / S, L)
        found = (grad @ shift).unflatten(0, (self.count, -1)).sum(1).flatten(1, 2)
        return found.unflatten(2, tuple(self.shape[2:])).unsqueeze(2)

    def squared_norms(self) -> Tensor:
        grad = wide(self.grad).flatten(2).unflatten(1, (self.groups, -1))  # (M, G, O / G, L)
        grad, x = self._by_record(grad.mT), self._by_record(self._windows())
        return products(grad, x).unflatten(0, (self.count, -1)).sum(1)

    def _by_record(self, t: Tensor) -> Tensor:
        """(M, G, L, I) -> (N * G, views * L, I)"""
        return t.unflatten(0, (self.count, -1)).transpose(1, 2).flatten(2, 3).flatten(0, 1)

    def _windows(self) -> Tensor:
        """The elements of every window: (M, G, L, C / G * K)."""
        padding = [p for size in reversed(self.padding) for p in (size, size)]
        x = F.pad(wide(self.x), padding).unflatten(1, (self.groups, -1))
        kernel = self.shape[2:]
        for i, (size, step, dilation) in enumerate(
            zip(kernel, self.stride, self.dilation, strict=True)
        ):
            x = x.unfold(3 + i, dilation * (size - 1) + 1, step)[..., ::dilation]
        x = x.flatten(-len(kernel))  # (M, G, C / G, *out, K)
        if self.shift is not None:
            shift = wide(self.shift)  # (M, S, *out, K)
            x = x + shift.expand(-1, self.groups, *shift.shape[2:]).unsqueeze(2)
        return x.movedim(2, -2).flatten(2, -3).flatten(-2)

    def weighted(self, weights: Tensor) -> Tensor:
        each = weights.repeat_interleave(self.x.shape[0] // self.count)
        grad = wide(self.grad) * each.view(-1, *[1] * (self.grad.dim() - 1))
        found = self._weight_gradient(grad, wide(self.x), self.shape, self.groups)
        if self.shift is None:
            return found
        return found + torch.tensordot(weights, self._shifted(), 1)

    def drop(self, records: Tensor) -> None:
        self.x, self.grad = without(self.x, records), without(self.grad, records)
        self.shift = None if self.shift is None else without(self.shift, records)
