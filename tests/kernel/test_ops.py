"""The functions against the definition: outputs and every gradient, in float64."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from knorm.kernel import kernel_norm, kn_conv, normalized_conv, reference, window_stats
from knorm.kernel.dropout import draw_seed, keep_mask
from tests.kernel import cases


def gradients(out, inputs):
    """Of a sum with fixed random weights."""
    torch.manual_seed(1)
    return torch.autograd.grad((out * torch.randn(out.shape)).sum(), inputs)


@settings(max_examples=60)
@given(cases.geometries(), st.sampled_from([0.0, 0.3]))
def test_kn_conv_is_its_definition_with_every_gradient(case, p):
    inputs = cases.tensors(case)
    x, groups = inputs[0], cases.stats_groups(case)
    source = cases.dropped(x, case, p, groups, 7) if p else cases.padded(x, case)
    expected = cases.expected_conv(*inputs, case, source)
    torch.manual_seed(7)
    out = kn_conv(*inputs, dropout_p=p, bounded=False, **cases.conv_options(case))
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    for actual, wanted in zip(gradients(out, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-8, atol=1e-8)


@settings(max_examples=40)
@given(cases.geometries(), st.sampled_from([0.0, 0.3]))
def test_kernel_norm_is_its_definition_with_its_gradient(case, p):
    case |= {"dilation": (1,) * len(case["space"]), "group_stats": False}
    x = cases.tensors(case)[0]
    padded = cases.padded(x, case)
    source = cases.dropped(x, case, p, 1, 7) if p else padded
    geometry = (case["kernel_size"], case["stride"])
    stats = reference.window_stats(source, *geometry, case["dilation"])
    expected = reference.kernel_norm(padded, *stats, *geometry)
    torch.manual_seed(7)
    out = kernel_norm(
        x,
        *geometry,
        case["padding"],
        num_dims=len(case["space"]),
        padding_mode=case["padding_mode"],
        dropout_p=p,
        bounded=False,
    )
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients(out, [x]), gradients(expected, [x]), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("group_stats", [False, True])
def test_first_and_second_derivatives_pass_finite_differences(groups, group_stats):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 4, 4, 3), torch.randn(2, 4 // groups, 2, 3), torch.randn(2)]
    inputs = [t.double().requires_grad_() for t in inputs]

    def function(x, weight, bias):
        torch.manual_seed(3)
        options = {"groups": groups, "group_stats": group_stats, "dropout_p": 0.2}
        return kn_conv(x, weight, bias, 1, 1, **options)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_kernel_norm_followed_by_a_strided_convolution_is_kn_conv():
    x, weight = torch.randn(2, 3, 8, 9).double(), torch.randn(5, 3, 2, 3).double()
    torch.manual_seed(0)
    units = kernel_norm(x, (2, 3), padding=(0, 1), num_dims=2, dropout_p=0.2)
    torch.manual_seed(0)
    direct = kn_conv(x, weight, padding=(0, 1), dropout_p=0.2)
    naive = F.conv2d(units, weight, stride=(2, 3))
    torch.testing.assert_close(direct, naive, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_expected_statistics_are_the_average_over_all_dropout_masks(p):
    x = torch.tensor([0.3, -1.2, 2.0, 0.7]).double().reshape(1, 2, 2)
    means, variances, chances = [], [], []
    for bits in itertools.product([0, 1], repeat=4):
        keep = torch.tensor(bits).double().reshape(x.shape)
        unit = x * keep / (1 - p)
        means.append(unit.mean())
        variances.append(unit.var(correction=0))
        chances.append(p ** (4 - sum(bits)) * (1 - p) ** sum(bits))
    chances = torch.tensor(chances).double()
    stats = window_stats(x, 2, dropout_p=p, stats="expected", eps=0.0)
    torch.testing.assert_close(stats.mean.squeeze(), (chances * torch.stack(means)).sum())
    torch.testing.assert_close(stats.rstd.squeeze() ** -2, (chances * torch.stack(variances)).sum())


@settings(max_examples=60)
@given(st.integers(0, 2**16), st.sampled_from([0.05, 0.5, 0.9]), st.sampled_from([0.02, 0.2, 1.0]))
def test_no_unit_passes_a_root_mean_square_of_three_all_others_are_as_published(seed, p, density):
    torch.manual_seed(seed)
    x = torch.rand(2, 2, 9, 9).double() * (torch.rand(2, 2, 9, 9) < density)
    torch.manual_seed(seed + 1)
    keep, scale = keep_mask(x.unsqueeze(1), p, draw_seed()), 1 / (1 - p)
    pad = (1, 1, 1, 1)
    dropped, padded = F.pad(x * keep.squeeze(1) * scale, pad), F.pad(x, pad)
    geometry = ((3, 3), (1, 1), (1, 1))
    mean, rstd = reference.window_stats(dropped, *geometry)
    true_mean, true_rstd = reference.window_stats(padded, *geometry)
    floor = (true_rstd**-2 - 1e-5 + (true_mean - mean) ** 2) / 9
    stats = {}
    for bounded in (True, False):
        torch.manual_seed(seed + 1)
        stats[bounded] = window_stats(x, 3, padding=1, dropout_p=p, bounded=bounded)
    expected = torch.maximum(rstd**-2, floor + 1e-5) ** -0.5
    torch.testing.assert_close(stats[True].rstd, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(stats[False].rstd, rstd, rtol=1e-8, atol=1e-8)
    ordinary = rstd**-2 > (floor + 1e-5) * (1 + 1e-9)
    assert torch.equal(stats[True].rstd[ordinary], stats[False].rstd[ordinary])
    assert torch.equal(stats[True].mean, stats[False].mean)


@pytest.mark.parametrize("p", [0.05, 0.25])
def test_dense_units_are_exactly_as_published(p):
    for x in (torch.randn(4, 16, 12, 12), torch.rand(4, 16, 12, 12)):
        outputs = []
        for bounded in (True, False):
            torch.manual_seed(0)
            outputs.append(kernel_norm(x, 2, num_dims=2, dropout_p=p, bounded=bounded))
        assert torch.equal(*outputs)


def test_a_sparse_window_is_not_blown_up():
    x = torch.zeros(1000, 1, 3, 3)
    x[:, :, 1, 1] = 1.0
    weight = torch.ones(1, 1, 3, 3)
    published = kn_conv(x, weight, dropout_p=0.05, bounded=False).abs()
    bounded = kn_conv(x, weight, dropout_p=0.05).abs()
    blown_up = (published > 300).double().mean()
    assert 0.03 < blown_up < 0.08  # expected: 5 % of the windows, 316 times too large
    assert bounded.max() <= 9 * 3


@settings(max_examples=60)
@given(st.integers(0, 2**16), st.sampled_from([0.05, 0.5]), st.sampled_from([0.0, 1e-4, 0.3]))
def test_a_bright_window_is_not_blown_up(seed, p, contrast):
    torch.manual_seed(seed)
    x = 1 + contrast * torch.randn(4, 1, 8, 8).double()
    units = kernel_norm(x, 2, 2, num_dims=2, dropout_p=p)
    assert F.avg_pool2d(units.square(), 2).max() <= 9 * (1 + 1e-9)


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_the_published_rule_does_blow_up_a_bright_window(p):
    units = kernel_norm(torch.ones(8, 1, 8, 8), 2, 2, num_dims=2, dropout_p=p, bounded=False)
    assert units.abs().max() == pytest.approx(p / (1 - p) * 1e5**0.5, rel=1e-3)


@pytest.mark.parametrize("channels", [3, 64, 512])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_float32_keeps_four_digits_at_a_mean_of_a_thousand_deviations(channels, kernel_size):
    torch.manual_seed(0)
    x, weight = (
        torch.randn(2, channels, 12, 12) + 1000,
        torch.randn(8, channels, *[kernel_size] * 2),
    )
    exact = kn_conv(x.double(), weight.double(), padding=kernel_size // 2)
    error = (kn_conv(x, weight, padding=kernel_size // 2) - exact).abs().max()
    assert error <= 2e-6 * exact.abs().max()
    units = kernel_norm(x, kernel_size, num_dims=2)
    exact = kernel_norm(x.double(), kernel_size, num_dims=2)
    assert (units - exact).abs().max() <= 2e-6 * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_two_digits_at_a_mean_of_a_hundred_deviations(dtype):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 64, 12, 12) + 100, torch.randn(8, 64, 3, 3) / 24
    exact = kn_conv(x.double(), weight.double(), padding=1)
    with torch.autocast("cpu", dtype):
        out = kn_conv(x, weight, padding=1)
        stats = window_stats(x.to(dtype), 3, padding=1)
    assert out.dtype == dtype
    assert {s.dtype for s in stats} == {torch.float32}
    assert (out - exact).abs().max() <= 2e-2 * exact.abs().max()


def test_gradients_in_float32_agree_with_float64_at_a_large_mean():
    torch.manual_seed(0)
    case = {"seed": 3, "space": (9, 9), "in_channels": 8, "out_channels": 4, "groups": 1}
    inputs = cases.tensors(case | {"kernel_size": (3, 3)})
    wide = [(t + 1000 * (i == 0)).detach().requires_grad_() for i, t in enumerate(inputs)]
    narrow = [t.detach().float().requires_grad_() for t in wide]
    wide[0] = narrow[0].detach().double().requires_grad_()
    exact = torch.autograd.grad(kn_conv(*wide).square().sum(), wide)
    for actual, wanted in zip(
        torch.autograd.grad(kn_conv(*narrow).square().sum(), narrow), exact, strict=True
    ):
        assert (actual - wanted).abs().max() <= 1e-3 * wanted.abs().max()


def test_the_convolution_of_given_statistics_is_the_published_formula():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 4, 6, 6), torch.randn(6, 2, 3, 3), torch.randn(6)
    x, weight, bias = (t.double() for t in (x, weight, bias))
    stats = window_stats(x, 3, 2, 1)
    plain = F.conv2d(x, weight, None, 2, 1, groups=2)
    sums = weight.sum((1, 2, 3))[:, None, None]
    formula = stats.rstd * (plain - stats.mean * sums) + bias[:, None, None]
    out = normalized_conv(x, stats, weight, bias, 2, 1, groups=2)
    torch.testing.assert_close(out, formula)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x, w: kn_conv(x, w, dropout_p=1.0), "dropout_p must be in"),
        (lambda x, w: kn_conv(x, w, stats="mean"), "expected, plain, sampled"),
        (lambda x, w: kn_conv(x, w, padding="full"), "'same', 'valid'"),
        (lambda x, w: kn_conv(x, w, 1, 2, "same"), "needs stride 1"),
        (lambda x, w: kn_conv(x, w, padding_mode="zero"), "zeros, reflect"),
        (lambda x, w: kn_conv(x, w, stride=(1, 2, 3)), "stride takes an int or 2 ints from 1 up"),
        (lambda x, w: kn_conv(x[0, 0], w), "3 .unbatched. or 4 dimensions, got 2"),
        (lambda x, w: kn_conv(x, w, groups=2), "expected input of 6 channels, got 3"),
        (lambda x, w: kn_conv(x[..., :2], w), "do not fit"),
        (lambda x, w: kernel_norm(x, 7, num_dims=2), "do not fit"),
    ],
)
def test_a_mistake_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.randn(1, 3, 5, 5), torch.randn(4, 3, 3, 3))
