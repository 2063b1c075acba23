import math

import pytest
import torch
from scipy import stats

from privacy.noise import PAIRS, add_noise, gaussian, to_grid
from privacy.secret import Secret
from tests.privacy.known import SECRET

MILLION = 1_000_000
STD = 1.7


@pytest.fixture(scope="module")
def draws():
    return gaussian(SECRET, 0, "weight", (MILLION,), STD)


def test_a_million_draws_have_the_standard_deviation(draws):
    assert abs(draws.std() / STD - 1) < 0.003
    assert abs(draws.mean()) < 4 * STD / 1000


@pytest.mark.parametrize(
    ("scale", "passes"), [(STD, True), (STD * 1.01, False), (STD / 1.01, False)]
)
def test_they_are_normal_and_a_hundredth_off_would_show(draws, scale, passes):
    found = stats.kstest(draws.numpy(), "norm", args=(0, scale), method="asymp")
    assert (found.pvalue > 0.001) == passes


@pytest.mark.parametrize("limit", [2.0, 3.0, 4.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_tails_are_as_heavy_as_the_normal_law_has_them(draws, limit, sign):
    expected = MILLION * stats.norm.sf(limit)
    assert abs((sign * draws > limit * STD).sum() - expected) < 4 * math.sqrt(expected)


def test_a_number_tells_nothing_of_the_others_of_its_tensor(draws):
    for lag in (1, 2, PAIRS - 1, PAIRS, PAIRS + 1, 2 * PAIRS, MILLION // 2):
        assert_uncorrelated(draws[:-lag], draws[lag:])


def assert_uncorrelated(one, other):
    """Neither the numbers nor their squares, which two halves of a pair would share."""
    for power in (1, 2):
        table = torch.stack([one**power, other**power])
        assert abs(torch.corrcoef(table)[0, 1]) < 4.5 / math.sqrt(len(one))


OTHERS = {
    "step": (SECRET, 1, "weight"),
    "step with the same digits": (SECRET, 10, "weight"),
    "parameter": (SECRET, 0, "bias"),
    "secret": (Secret(bytes(32)), 0, "weight"),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_noise_of_another_step_parameter_or_run_is_independent(draws, other):
    assert_uncorrelated(draws, gaussian(*other, (MILLION,), STD))


def test_noise_is_a_function_of_secret_step_and_name():
    first = gaussian(SECRET, 3, "conv.weight", (4, 3, 2), 1.0)
    torch.manual_seed(1)
    assert torch.equal(first, gaussian(SECRET, 3, "conv.weight", (4, 3, 2), 1.0))
    assert torch.equal(first.flatten(), gaussian(SECRET, 3, "conv.weight", (24,), 1.0))
    torch.testing.assert_close(
        first.flatten()[:3],
        torch.tensor([-0.974412562986, -0.348117351827, -0.678167706808], dtype=torch.float64),
        rtol=0,
        atol=1e-11,
    )


def test_noise_does_not_depend_on_threads():
    size = (3 * PAIRS * 16 + 5,)
    one = gaussian(SECRET, 0, "weight", size, STD)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        three = gaussian(SECRET, 0, "weight", size, STD)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one, three)


def test_noise_leaves_torchs_own_random_numbers_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    gaussian(SECRET, 0, "weight", (100,), STD)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (7,), (2 * PAIRS,), (2 * PAIRS + 1,)])
def test_noise_has_any_shape(shape):
    noise = gaussian(SECRET, 0, "weight", shape, STD)
    assert noise.shape == torch.Size(shape)
    assert noise.dtype == torch.float64
    assert (noise != 0).all()


@pytest.mark.parametrize("std", [1e-6, 0.3, 1.0, 1.7, 1e4])
def test_sums_and_noise_lie_on_one_grid_that_the_std_alone_chooses(std):
    grid = 2.0 ** (math.frexp(std)[1] - 40)
    assert std * 2**-40 <= grid <= std * 2**-39
    noise = gaussian(SECRET, 0, "weight", (1000,), std)
    assert torch.equal(noise / grid, (noise / grid).round())
    for scale in (0.0, 1.0, 1e3 * std):
        sums = scale * torch.rand(1000, dtype=torch.float64)
        noisy = add_noise({"weight": sums}, SECRET, 0, std)["weight"]
        assert torch.equal(noisy / grid, (noisy / grid).round())
        assert (to_grid(sums, std) - sums).abs().max() <= grid / 2


def sums_of_a_net():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 4, 3, 3, generator=generator)
    return {
        "conv.weight": weight.to(memory_format=torch.channels_last),
        "conv.bias": torch.randn(8, generator=generator),
        "scale": torch.tensor(2.5),
        "none": torch.empty(0, 3),
    }


def test_every_sum_gets_its_noise_once_in_float32():
    sums = sums_of_a_net()
    kept = {name: value.clone() for name, value in sums.items()}
    noisy = add_noise(sums, SECRET, 5, STD)
    assert list(noisy) == list(sums)
    for name, value in noisy.items():
        noise = gaussian(SECRET, 5, name, value.shape, STD)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, (kept[name].double() + noise).float())
        assert torch.equal(sums[name], kept[name])
    again = add_noise(dict(reversed(sums.items())), SECRET, 5, STD)
    assert all(torch.equal(again[name], noisy[name]) for name in sums)


def test_a_memory_format_does_not_move_the_noise():
    sums = sums_of_a_net()
    plain = {name: value.contiguous() for name, value in sums.items()}
    one, other = (add_noise(each, SECRET, 5, STD) for each in (sums, plain))
    assert all(torch.equal(one[name], other[name]) for name in sums)


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_the_noise_is_as_large_whatever_the_number_of_ranks(num_ranks):
    """Every rank adds to the sum of all; what they hold afterwards is one and the same."""
    parts = torch.randn(num_ranks, 300_000, generator=torch.Generator().manual_seed(0))
    total = parts.sum(0)
    ranks = [add_noise({"weight": total}, SECRET, 0, STD)["weight"] for _ in range(num_ranks)]
    assert all(torch.equal(rank, ranks[0]) for rank in ranks)
    assert abs((ranks[0] - total).std() / STD - 1) < 4 / math.sqrt(2 * 300_000)


def test_no_noise_changes_nothing():
    sums = sums_of_a_net()
    sums["conv.bias"][0] = 1e-30
    noisy = add_noise(sums, SECRET, 0, 0.0)
    assert all(torch.equal(noisy[name], sums[name]) for name in sums)


@pytest.mark.parametrize("std", [-1.0, math.inf, math.nan])
def test_a_std_that_is_none_is_refused(std):
    with pytest.raises(ValueError, match=f"finite and at least 0, got {std}"):
        add_noise(sums_of_a_net(), SECRET, 0, std)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_in_which_noise_is_lost_are_refused(dtype):
    sums = sums_of_a_net() | {"fc.weight": torch.zeros(3, dtype=dtype)}
    with pytest.raises(ValueError, match=f"fc.weight.*lost in {dtype}"):
        add_noise(sums, SECRET, 0, STD)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_releases_the_same_bits():
    sums = sums_of_a_net()
    there = {name: value.cuda() for name, value in sums.items()}
    one, other = (add_noise(each, SECRET, 5, STD) for each in (sums, there))
    assert all(other[name].is_cuda and torch.equal(other[name].cpu(), one[name]) for name in sums)
