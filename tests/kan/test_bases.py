import pytest
import torch

from knorm.kan import BASES, make_basis
from tests.kan.golden import basis_tables

TABLES = basis_tables()
GRAM_NUMBERS = [0.1, -0.2, 0.3, 0.05, -0.1, 0.2, 0.15]
GOLDEN = {
    "bspline_order3_grid5_range[-1;1]": ("spline", {"grid_range": (-1, 1)}),
    "rbf_grid8_range[-2;2]": ("radial", {}),
    "legendre_raw": ("legendre", {"degree": 6}),
    "chebyshev_of_tanh": ("chebyshev", {"degree": 6}),
    "gram_raw_beta=[.1;-.2;.3;.05;-.1;.2;.15]": (
        "gram",
        {"degree": 6, "start": "published", "silu": False},
    ),
    "wavelet_mexican_hat": ("wavelet", {"wavelet": "mexican_hat"}),
    "wavelet_morlet": ("wavelet", {"wavelet": "morlet"}),
    "wavelet_dog": ("wavelet", {"wavelet": "dog"}),
    "wavelet_meyer": ("wavelet", {"wavelet": "meyer"}),
}
ALL = {name: make_basis(name) for name in BASES} | {
    "spline of order 1": make_basis("spline", order=1),
    "spline of order 5": make_basis("spline", order=5, grid_size=2),
    "chebyshev by acos": make_basis("chebyshev", form="acos"),
    "gram as published": make_basis("gram", degree=6, start="published"),
}


def numbers_of(basis):
    count = basis.num_coefficients
    return torch.linspace(0.3, 0.9, count, dtype=torch.float64) if count else None


@pytest.mark.parametrize("table", GOLDEN)
def test_values_are_the_published_ones(table):
    name, options = GOLDEN[table]
    basis, known = make_basis(name, **options), TABLES[table]
    places = sorted({x for x, _ in known})
    x = torch.tensor(places, dtype=torch.float64).view(1, 1, -1)
    numbers = torch.tensor(GRAM_NUMBERS, dtype=torch.float64) if name == "gram" else None
    found = basis.values(x.tanh() if name == "chebyshev" else x, numbers)[0, 0]
    expected = [[known[x, index] for x in places] for index in range(len(found))]
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=2e-6, atol=2e-6)
    assert len(found) == basis.num_functions == 1 + max(index for _, index in known)


def test_every_published_table_is_compared():
    assert {*TABLES} == {*GOLDEN}


@pytest.mark.parametrize("order", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("grid_size", [1, 4])
def test_splines_are_those_of_the_recursion(order, grid_size):
    low, high = -1.5, 0.5
    x, step = torch.linspace(-4, 3, 701, dtype=torch.float64), (high - low) / grid_size
    t = low + step * torch.arange(-order, grid_size + order + 1, dtype=torch.float64)[:, None]
    b = ((x >= t[:-1]) & (x < t[1:])).double()
    for p in range(1, order + 1):
        left = (x - t[: -p - 1]) / (t[p:-1] - t[: -p - 1])
        right = (t[p + 1 :] - x) / (t[p + 1 :] - t[1:-p])
        b = left * b[:-1] + right * b[1:]
    basis = make_basis("spline", order=order, grid_size=grid_size, grid_range=(low, high))
    torch.testing.assert_close(basis.values(x.view(1, 1, -1))[0, 0], b, rtol=1e-9, atol=1e-9)
    inside = (x >= low) & (x <= high)
    torch.testing.assert_close(b.sum(0)[inside], torch.ones(int(inside.sum())).double())


@pytest.mark.parametrize("name", ALL)
def test_the_pullback_is_that_of_autograd(name):
    basis, numbers = ALL[name], numbers_of(ALL[name])
    x = torch.linspace(-0.97, 0.98, 24, dtype=torch.float64).view(2, 3, 4).requires_grad_()
    leaves = [x] if numbers is None else [x, numbers.requires_grad_()]
    values = basis.values(x, numbers)
    assert values.shape == (2, 3, basis.num_functions, 4)
    grad = torch.linspace(-1, 2, values.numel(), dtype=torch.float64).view_as(values)
    expected = torch.autograd.grad(values, leaves, grad)
    found = [g for g in basis.pullback(x, grad, numbers) if g is not None]
    torch.testing.assert_close(found, list(expected))


@pytest.mark.parametrize(
    ("name", "options"),
    [("legendre", {}), ("chebyshev", {}), ("chebyshev", {"form": "acos"}), ("gram", {})],
)
def test_d10_the_constant_function_may_be_left_out(name, options):
    whole = make_basis(name, degree=4, **options)
    compact = make_basis(name, degree=4, constant=False, **options)
    x, numbers = torch.linspace(-0.9, 0.9, 8, dtype=torch.float64).view(1, 2, 4), numbers_of(whole)
    assert (whole.num_functions, compact.num_functions) == (5, 4)
    torch.testing.assert_close(compact.values(x, numbers), whole.values(x, numbers)[:, :, 1:])


def test_gram_polynomials_begin_as_those_on_so_many_points():
    basis = make_basis("gram", degree=5, silu=False)
    numbers = torch.tensor(basis.first_coefficients(), dtype=torch.float64)
    x = torch.linspace(-1, 1, 9, dtype=torch.float64).view(1, 1, -1)
    found = basis.values(x, numbers)[0, 0]
    torch.testing.assert_close(found[2], x[0, 0] ** 2 - 1 / 4)  # on 2 points: -1/2, 1/2 are roots
    assert len(numbers) == basis.num_coefficients == 6


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("splin", {}, "unknown basis 'splin'; did you mean 'spline'"),
        ("spline", {"ordr": 2}, "unknown option of basis 'spline': 'ordr'; did you mean 'order'"),
        ("spline", {"order": 0}, "order takes a whole number from 1 to 10, got 0"),
        ("spline", {"grid_size": 254}, "grid_size takes a whole number from 1 to 253, got 254"),
        ("spline", {"grid_range": (1, -1)}, "grid_range must grow"),
        ("spline", {"grid_range": 3}, "grid_range takes two numbers, got 3"),
        ("radial", {"grid_size": 1}, "grid_size takes a whole number from 2"),
        ("radial", {"grid_range": (0, float("inf"))}, "grid_range takes two numbers"),
        ("legendre", {"degree": 0}, "degree takes a whole number from 1 to 32, got 0"),
        ("gram", {"degree": 2.0}, "degree takes a whole number"),
        ("gram", {"start": "publishd"}, "did you mean 'published'"),
        ("chebyshev", {"form": "recurence"}, "did you mean 'recurrence'"),
        ("wavelet", {"wavelet": "mexican hat"}, "did you mean 'mexican_hat'"),
    ],
)
def test_a_mistake_is_one_line(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        make_basis(name, **options)
    assert "\n" not in str(error.value)
