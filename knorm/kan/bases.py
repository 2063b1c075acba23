"""Functions of one variable that KAN convolutions are made of: one table, one call.

Shapes: N samples, C channels, D functions; `space` is the spatial shape.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from knorm.choices import check_name
from knorm.kan.wavelets import WAVELETS

Start = Literal["gram", "published"]
ChebyshevForm = Literal["recurrence", "acos"]

MOST_FUNCTIONS = 256
MOST_ORDER = 10
MOST_DEGREE = 32
ACOS_MARGIN = 1e-7  # keeps the published Chebyshev form off the poles of acos'


@dataclass(frozen=True, kw_only=True)
class Basis(ABC):
    """D functions of one variable, perhaps with learnable numbers that all channels share."""

    @property
    @abstractmethod
    def num_functions(self) -> int:
        """D."""

    @property
    def num_coefficients(self) -> int:
        """How many learnable numbers the functions have."""
        return 0

    def first_coefficients(self) -> list[float]:
        """What they begin with."""
        return []

    @abstractmethod
    def values(self, x: Tensor, coefficients: Tensor | None = None) -> Tensor:
        """(N, C, *space) -> (N, C, D, *space)."""

    def pullback(
        self, x: Tensor, grad: Tensor, coefficients: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Gradients of x and of the coefficients, from that of the values."""
        if coefficients is None:
            return torch.func.vjp(self.values, x)[1](grad)[0], None
        return torch.func.vjp(self.values, x, coefficients)[1](grad)


@dataclass(frozen=True, kw_only=True)
class Spline(Basis):
    """B-splines of an order on a uniform grid, in closed form: (grid_size + order) functions.

    A spline of order p around its middle is a sum of truncated powers of v, the distance in grid
    steps: sum over k of (-1)^k binom(p+1, k) relu((p+1)/2 - k - v)^p / p!.

    Source: Schoenberg, Cardinal Spline Interpolation, 1973; the same functions as those of the
    Cox-de Boor recursion on uniform knots.
    """

    grid_size: int = 5
    """intervals of the grid"""
    order: int = 3
    """degree of the pieces"""
    grid_range: Sequence[float] = (-3.0, 3.0)
    """ends of the grid; the published one, (-1, 1), leaves a third of normal inputs outside"""

    def __post_init__(self):
        _check_range("order", self.order, 1, MOST_ORDER)
        _check_range("grid_size", self.grid_size, 1, MOST_FUNCTIONS - self.order)
        _set_ends(self)

    @property
    def num_functions(self) -> int:
        return self.grid_size + self.order

    def values(self, x: Tensor, coefficients: Tensor | None = None) -> Tensor:
        return self._powers(self._offsets(x).abs_(), self.order)

    def pullback(
        self, x: Tensor, grad: Tensor, coefficients: Tensor | None = None
    ) -> tuple[Tensor, None]:
        offsets = self._offsets(x)
        slope = self._powers(offsets.abs(), self.order - 1).copysign(offsets)
        return (slope * grad).sum(2).mul(-1 / self._step), None

    @property
    def _step(self) -> float:
        low, high = self.grid_range
        return (high - low) / self.grid_size

    def _offsets(self, x: Tensor) -> Tensor:
        """Distance from the middle of every spline, in grid steps: (N, C, D, *space)."""
        first = self.grid_range[0] / self._step - (self.order - 1) / 2
        return x.mul(1 / self._step).unsqueeze(2) - (_along(self.num_functions, x) + first)

    def _powers(self, distance: Tensor, power: int) -> Tensor:
        """The sum of truncated powers; of the order, or one less, which is minus the slope."""
        half = (self.order + 1) / 2
        total, reach = None, half - distance
        for k in range(math.ceil(half)):
            reach = (reach if k == 0 else reach - 1).clamp_min_(0)
            raised = reach.pow(power) if power else (reach > 0).to(reach.dtype)
            factor = (-1) ** k * math.comb(self.order + 1, k) / math.factorial(power)
            total = raised.mul_(factor) if total is None else total.add_(raised, alpha=factor)
        assert total is not None
        return total


@dataclass(frozen=True, kw_only=True)
class Radial(Basis):
    """Gaussian bumps exp(-((x - m) / d)^2), their middles m a step d apart."""

    grid_size: int = 8
    """number of bumps"""
    grid_range: Sequence[float] = (-2.0, 2.0)
    """the first and the last middle"""

    def __post_init__(self):
        _check_range("grid_size", self.grid_size, 2, MOST_FUNCTIONS)
        _set_ends(self)

    @property
    def num_functions(self) -> int:
        return self.grid_size

    def values(self, x: Tensor, coefficients: Tensor | None = None) -> Tensor:
        return self._offsets(x).square().neg().exp()

    def pullback(
        self, x: Tensor, grad: Tensor, coefficients: Tensor | None = None
    ) -> tuple[Tensor, None]:
        offsets = self._offsets(x)
        slope = offsets.square().neg().exp() * offsets
        return (slope * grad).sum(2).mul(-2 / self._step), None

    @property
    def _step(self) -> float:
        low, high = self.grid_range
        return (high - low) / (self.grid_size - 1)

    def _offsets(self, x: Tensor) -> Tensor:
        low = self.grid_range[0] / self._step
        return x.mul(1 / self._step).unsqueeze(2) - (_along(self.grid_size, x) + low)


@dataclass(frozen=True, kw_only=True)
class Polynomials(Basis):
    """Polynomials of degree 0, 1, ... up to one; their inputs should lie in [-1, 1]."""

    degree: int = 3
    """of the last one"""
    constant: bool = True
    """keep the one of degree 0, of which a norm after the layer leaves traces at borders only"""

    def __post_init__(self):
        _check_range("degree", self.degree, 1, MOST_DEGREE)
        _check_flag("constant", self.constant)

    @property
    def num_functions(self) -> int:
        return self.degree + self.constant

    def _stacked(self, found: list[Tensor]) -> Tensor:
        """Those of degree 0, 1, ... as (N, C, D, *space)."""
        return torch.stack(found if self.constant else found[1:], 2)


@dataclass(frozen=True, kw_only=True)
class Legendre(Polynomials):
    """P_0 = 1, P_1 = x, i P_i = (2i - 1) x P_(i-1) - (i - 1) P_(i-2)."""

    def values(self, x: Tensor, coefficients: Tensor | None = None) -> Tensor:
        found = [torch.ones_like(x), x]
        for i in range(2, self.degree + 1):
            found.append((2 - 1 / i) * x * found[-1] - (1 - 1 / i) * found[-2])
        return self._stacked(found)


@dataclass(frozen=True, kw_only=True)
class Chebyshev(Polynomials):
    """T_0 = 1, T_1 = x, T_i = 2 x T_(i-1) - T_(i-2)."""

    form: ChebyshevForm = "recurrence"
    """recurrence, or as published acos: cos(i acos x), whose slope is not finite at 1 and -1"""

    def __post_init__(self):
        super().__post_init__()
        check_name("form of Chebyshev polynomials:", self.form, get_args(ChebyshevForm))

    def values(self, x: Tensor, coefficients: Tensor | None = None) -> Tensor:
        if self.form == "acos":
            angle = x.clamp(ACOS_MARGIN - 1, 1 - ACOS_MARGIN).acos()
            first = 0 if self.constant else 1
            return (angle.unsqueeze(2) * (_along(self.num_functions, x) + first)).cos()
        found = [torch.ones_like(x), x]
        for _ in range(2, self.degree + 1):
            found.append(2 * x * found[-1] - found[-2])
        return self._stacked(found)


@dataclass(frozen=True, kw_only=True)
class Gram(Polynomials):
    """Polynomials with a learnable recurrence, G_i = x G_(i-1) - b_i G_(i-2).

    There are degree + 1 learnable numbers w. With `start` "gram" the first two are added to
    G_0 = 1 and G_1 = x, and b_i = w_i (2i-1) (i-1)^2 / (i^2 (4 (i-1)^2 - 1)); with w_i = 1, where
    they begin, b_i is that of Gram's polynomials on i points. As published, b_i is w_(i-1) times
    the same with a product for the quotient, up to 756 at degree 6, and w_0 and w_degree are
    unused.
    """

    start: Start = "gram"
    """"gram" or "published"; see above"""
    silu: bool = True
    """the functions are SiLU of the polynomials"""

    def __post_init__(self):
        super().__post_init__()
        check_name("start of Gram polynomials:", self.start, get_args(Start))
        _check_flag("silu", self.silu)

    @property
    def num_coefficients(self) -> int:
        return self.degree + 1

    def first_coefficients(self) -> list[float]:
        return [0.0, 0.0, *[1.0] * (self.degree - 1)]

    def values(self, x: Tensor, coefficients: Tensor | None = None) -> Tensor:
        assert coefficients is not None
        published = self.start == "published"
        found = [torch.ones_like(x), x]
        if not published:
            found = [value + shift for value, shift in zip(found, coefficients[:2], strict=True)]
        for i in range(2, self.degree + 1):
            width = 4 * (i - 1) ** 2 - 1
            factor = (2 * i - 1) * (i - 1) ** 2 / i**2
            factor = factor * width if published else factor / width
            beta = factor * coefficients[i - 1 if published else i]
            found.append(x * found[-1] - beta * found[-2])
        values = self._stacked(found)
        return F.silu(values) if self.silu else values


@dataclass(frozen=True, kw_only=True)
class Wavelet(Basis):
    """A mother wavelet; each pair of an output and an input channel shifts and scales it."""

    wavelet: str = "mexican_hat"
    """a row of `WAVELETS`"""
    channel_window: bool = False
    """weigh input channels with a Hamming window, as published for "shannon" alone"""

    def __post_init__(self):
        check_name("wavelet", self.wavelet, WAVELETS)
        _check_flag("channel_window", self.channel_window)

    @property
    def num_functions(self) -> int:
        return 1

    def values(self, x: Tensor, coefficients: Tensor | None = None) -> Tensor:
        return WAVELETS[self.wavelet].value(x).unsqueeze(2)


BASES: dict[str, Callable[..., Basis]] = {
    "spline": Spline,
    "radial": Radial,
    "legendre": Legendre,
    "chebyshev": Chebyshev,
    "gram": Gram,
    "wavelet": Wavelet,
}


def make_basis(name: str, **options: Any) -> Basis:
    """A basis by name, with its options and its own defaults for the others.

    Raises:
        ValueError: an unknown name or option, or a value out of range; the message names what is
            possible.
    """
    check_name("basis", name, BASES)
    basis: Any = BASES[name]
    for option in options:
        check_name(f"option of basis {name!r}:", option, (field.name for field in fields(basis)))
    return basis(**options)


def _along(count: int, x: Tensor) -> Tensor:
    """0, 1, ..., count - 1 along the dimension of functions."""
    numbers = torch.arange(count, dtype=x.dtype, device=x.device)
    return numbers.view(-1, *[1] * (x.dim() - 2))


def _check_range(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} takes a whole number from {least} to {most}, got {value!r}")


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} takes True or False, got {value!r}")


def _set_ends(basis: Spline | Radial) -> None:
    """Check the ends of the grid, and keep them as a tuple."""
    ends = basis.grid_range
    is_pair = isinstance(ends, Sequence) and not isinstance(ends, str) and len(ends) == 2
    if not is_pair or not all(isinstance(e, (int, float)) and math.isfinite(e) for e in ends):
        raise ValueError(f"grid_range takes two numbers, got {ends!r}")
    if ends[0] >= ends[1]:
        raise ValueError(f"grid_range must grow from its first number to its second, got {ends!r}")
    object.__setattr__(basis, "grid_range", tuple(float(end) for end in ends))
