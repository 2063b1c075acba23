import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from knorm.kan import FORMS, WAVELETS, KANConv2d, functions, make_basis
from knorm.kan.functions import Geometry, basis_conv, wavelet_conv
from knorm.kernel.autograd import CONVOLUTIONS

SHARED = {
    "spline": {"order": 3},
    "spline of order 1": {"order": 1, "grid_size": 4},
    "spline of order 4": {"order": 4, "grid_range": (-1, 2)},
    "radial": {"grid_size": 4},
    "legendre": {"degree": 4},
    "chebyshev": {"degree": 4},
    "gram": {"degree": 4},
    "gram, published": {"degree": 4, "start": "published"},
}
BASES = {name: make_basis(name.split()[0].strip(","), **given) for name, given in SHARED.items()}


def plain_basis_conv(x, weight, coefficients, basis, geometry):
    """The same by autograd: the maps as a whole, and a convolution."""
    maps = basis.values(x, coefficients).flatten(1, 2)
    return CONVOLUTIONS[x.dim() - 2](maps, weight.flatten(1, 2), None, *geometry)


def plain_wavelet_conv(x, weight, scale, translation, wavelet, geometry):
    """The same by autograd: wavelets of every pair of channels, and a convolution for each output.

    A convolution with as many groups as outputs, over all their maps (N, O, c, *space).
    """
    ones = (1,) * (x.dim() - 2)
    outputs = len(weight) // geometry.groups
    inputs = x.unflatten(1, (geometry.groups, 1, -1)).expand(-1, -1, outputs, *[-1] * (x.dim() - 1))
    inputs = inputs.flatten(1, 2)
    z = (inputs - translation.view(*translation.shape, *ones)) / scale.view(*scale.shape, *ones)
    maps = WAVELETS[wavelet].value(z).flatten(1, 2)
    return CONVOLUTIONS[x.dim() - 2](maps, weight, None, *geometry[:3], len(weight))


def tensors(dims, groups, seed, functions=None):
    """Input, weight and, for wavelets, scale and translation, of small odd sizes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    x = draw(3, 2 * groups, *[6, 5, 4][:dims])
    kernel = [3, 2, 1][:dims]
    if functions is not None:
        return x, draw(2 * groups, 2, functions, *kernel)
    scale = 1 + 0.5 * torch.rand(2 * groups, 2, dtype=torch.float64, generator=generator)
    return x, draw(2 * groups, 2, *kernel), scale, draw(2 * groups, 2)


def geometries(dims):
    sizes = st.tuples(*[st.integers(1, 2)] * dims)
    return st.tuples(sizes, st.tuples(*[st.integers(0, 2)] * dims), sizes)


def gradients(function, inputs, others):
    """Output and gradients of a sum that depends on every element differently."""
    leaves = [t.clone().requires_grad_() for t in inputs if t is not None]
    given = iter(leaves)
    out = function(*(None if t is None else next(given) for t in inputs), *others)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * weights).sum(), leaves)]


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(functions, "CHUNK", {"cpu": 300})
    monkeypatch.setattr(functions, "WAVELET_CHUNK", {"cpu": 150})


@given(data=st.data(), dims=st.integers(1, 3), groups=st.integers(1, 2), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("chunk", [1, 300, 10**9])
def test_basis_conv_is_plain_autograd(chunk, data, dims, groups, seed):
    basis = BASES[data.draw(st.sampled_from(sorted(BASES)))]
    geometry = Geometry(*data.draw(geometries(dims)), groups)
    x, weight = tensors(dims, groups, seed, basis.num_functions)
    numbers = basis.num_coefficients
    coefficients = torch.linspace(-0.3, 0.8, numbers, dtype=x.dtype) if numbers else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functions, "CHUNK", {"cpu": chunk})
        inputs, others = (x, weight, coefficients), (basis, geometry)
        try:
            expected = gradients(plain_basis_conv, inputs, others)
        except RuntimeError:
            return  # windows larger than the padded input
        torch.testing.assert_close(gradients(basis_conv, inputs, others), expected)


@given(data=st.data(), dims=st.integers(1, 3), groups=st.integers(1, 2), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("chunk", [1, 150, 10**9])
def test_wavelet_conv_is_plain_autograd(chunk, data, dims, groups, seed):
    wavelet = data.draw(st.sampled_from(sorted(WAVELETS)))
    geometry = Geometry(*data.draw(geometries(dims)), groups)
    inputs, others = tensors(dims, groups, seed), (wavelet, geometry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functions, "WAVELET_CHUNK", {"cpu": chunk})
        try:
            expected = gradients(plain_wavelet_conv, inputs, others)
        except RuntimeError:
            return  # windows larger than the padded input
        torch.testing.assert_close(gradients(wavelet_conv, inputs, others), expected)


def small(*inputs):
    return [t[:2] if number == 0 else t for number, t in enumerate(inputs)]


@pytest.mark.parametrize("name", ["spline", "radial", "legendre", "chebyshev", "gram"])
def test_first_and_second_derivatives_of_basis_conv_are_right(name, small_chunks):
    basis, geometry = BASES[name], Geometry((2,), (1,), (1,), 2)
    inputs = small(*tensors(1, 2, 0, basis.num_functions))
    if basis.num_coefficients:
        inputs.append(torch.linspace(0.2, 0.9, basis.num_coefficients, dtype=torch.float64))
    inputs = [t.requires_grad_() for t in inputs]

    def function(x, weight, coefficients=None):
        return basis_conv(x, weight, coefficients, basis, geometry)

    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_first_and_second_derivatives_of_wavelet_conv_are_right(wavelet, small_chunks):
    geometry = Geometry((2,), (1,), (1,), 2)
    inputs = [t.requires_grad_() for t in small(*tensors(1, 2, 1))]

    def function(*tensors):
        return wavelet_conv(*tensors, wavelet, geometry)

    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("name", BASES)
def test_vmap_gives_the_gradients_of_single_samples(name):
    basis, geometry = BASES[name], Geometry((2, 1), (1, 1), (1, 1), 2)
    x, weight = tensors(2, 2, 3, basis.num_functions)
    numbers = basis.num_coefficients
    coefficients = torch.linspace(-0.3, 0.8, numbers, dtype=x.dtype) if numbers else None

    def loss(weight, sample):
        return basis_conv(sample[None], weight, coefficients, basis, geometry).square().sum()

    together = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weight, x)
    alone = [torch.func.grad(loss)(weight, sample) for sample in x]
    torch.testing.assert_close(together, torch.stack(alone))


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_vmap_gives_the_gradients_of_single_samples_of_wavelets(wavelet):
    geometry = Geometry((2, 1), (1, 1), (1, 1), 2)
    x, *parameters = tensors(2, 2, 3)

    def loss(parameters, sample):
        return wavelet_conv(sample[None], *parameters, wavelet, geometry).square().sum()

    together = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    alone = [torch.func.grad(loss)(parameters, sample) for sample in x]
    for number, found in enumerate(together):
        torch.testing.assert_close(found, torch.stack([one[number] for one in alone]))


def test_autocast_convolves_in_16_bits_and_keeps_the_gradients_dtypes():
    basis, geometry = BASES["spline"], Geometry((1, 1), (1, 1), (1, 1), 1)
    x, weight = (t.float().requires_grad_() for t in tensors(2, 1, 0, basis.num_functions))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = basis_conv(x, weight, None, basis, geometry)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert x.grad.dtype == weight.grad.dtype == torch.float32


def test_autocast_of_wavelets_keeps_the_gradients_dtypes():
    inputs = [t.float().requires_grad_() for t in tensors(2, 1, 0)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = wavelet_conv(*inputs, "mexican_hat", Geometry((1, 1), (1, 1), (1, 1), 1))
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert {t.grad.dtype for t in inputs} == {torch.float32}


@pytest.mark.parametrize("form", FORMS)
def test_exported_layers_take_any_number_of_samples(form):
    layer = KANConv2d(8, 8, 3, padding=1, form=form).eval()
    few, many = torch.randn(2, 8, 64, 64), torch.randn(40, 8, 64, 64)  # more than one chunk
    dynamic = ({0: torch.export.Dim("samples", max=64)},)
    program = torch.export.export(layer, (few,), dynamic_shapes=dynamic)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(many), layer(many))
