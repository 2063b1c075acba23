"""What one record can do is bounded, whatever its gradient is."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.clipping import CLIPPINGS, clipped_sums, layers_of
from privacy.contributions import ConvWeight, LinearWeight, Samples

C = 0.7


def parts(records=5, *, scale=1.0, thin=False):
    """Gradients of a linear layer and a convolution, of quite different sizes by record."""
    generator = torch.Generator().manual_seed(records)
    sizes = scale * torch.logspace(-3, 3, records, dtype=torch.float64)

    def draw(*shape):
        return torch.randn(records, *shape, generator=generator, dtype=torch.float64)

    linear = LinearWeight(draw(2, 3), sizes[:, None, None] * draw(2, 4))
    geometry = ((2, 3, 2, 2), (1, 1), (0, 0), (1, 1), 1)
    conv = ConvWeight(records, draw(3, 3, 3), sizes[:, None, None, None] * draw(2, 2, 2), *geometry)
    bias = Samples(sizes[:, None] * draw(4))
    found = {"fc.weight": linear, "fc.bias": bias, "conv.weight": conv}
    return found if thin else {name: Samples(part.samples()) for name, part in found.items()}


def norm(sums):
    return torch.cat([value.flatten() for value in sums.values()]).norm().item()


def alone(found, record):
    return {name: Samples(p.samples()[record : record + 1]) for name, p in found.items()}


@pytest.mark.parametrize("name", CLIPPINGS)
@pytest.mark.parametrize("thin", [False, True])
def test_no_record_adds_more_than_the_bound(name, thin):
    found = parts(thin=thin)
    total = clipped_sums(found, name, C).sums
    singles = [clipped_sums(alone(found, record), name, C).sums for record in range(5)]
    assert all(norm(single) <= C + 1e-9 for single in singles)
    for parameter, value in total.items():
        expected = torch.stack([single[parameter] for single in singles]).sum(0)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(list(CLIPPINGS)), exponent=st.integers(-6, 6), records=st.integers(1, 6)
)
def test_adding_a_record_moves_the_sum_by_the_bound_at_most(name, exponent, records):
    found = parts(records, scale=10.0**exponent)
    fewer = {parameter: Samples(part.samples()[:-1]) for parameter, part in found.items()}
    more = clipped_sums(found, name, C).sums
    less = clipped_sums(fewer, name, C).sums if records > 1 else dict.fromkeys(more, 0.0)
    moved = {parameter: more[parameter] - less[parameter] for parameter in more}
    assert norm(moved) <= C * (1 + 1e-6)


def test_small_gradients_stay_as_they_are_and_large_ones_keep_their_direction():
    grads = torch.tensor([[0.3, 0.4], [30.0, 40.0], [0.0, 0.0]])
    clipped = clipped_sums({"w": Samples(grads)}, "flat", 1.0)
    torch.testing.assert_close(clipped.sums["w"], torch.tensor([0.3 + 0.6, 0.4 + 0.8]))
    torch.testing.assert_close(clipped.norms, torch.tensor([0.5, 50.0, 0.0]))


def test_automatic_clipping_weighs_by_one_over_norm_and_a_hundredth():
    grads = torch.tensor([[0.5], [100.0]])
    value = clipped_sums({"w": Samples(grads)}, "automatic", 2.0).sums["w"].item()
    assert value == pytest.approx(2 * (0.5 / 0.51 + 100 / 100.01))


def test_layers_share_the_bound_by_the_root_of_their_number():
    found = {"a.weight": Samples(torch.tensor([[9.0]])), "a.bias": Samples(torch.tensor([[12.0]]))}
    found["b.weight"] = Samples(torch.tensor([[0.1]]))
    sums = clipped_sums(found, "per_layer", 1.0).sums
    share = 1 / math.sqrt(2)
    assert sums["a.weight"].item() == pytest.approx(0.6 * share)
    assert sums["a.bias"].item() == pytest.approx(0.8 * share)
    assert sums["b.weight"].item() == pytest.approx(0.1)
    assert layers_of(found, by_layer=True) == [["a.weight", "a.bias"], ["b.weight"]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("thin", [False, True])
@pytest.mark.parametrize("name", CLIPPINGS)
def test_records_without_a_finite_gradient_count_as_none(bad, thin, name):
    good, spoiled = parts(thin=thin), parts(thin=thin)
    for found in (good, spoiled):
        linear = found["fc.weight"]
        if thin:
            linear.grad[2, 0, 0] = bad if found is spoiled else linear.grad[2, 0, 0]
        else:
            linear.grads[2, 0, 0] = bad if found is spoiled else linear.grads[2, 0, 0]
    for part in good.values():
        part.drop(torch.arange(5) == 2)
    expected = clipped_sums(good, name, C)
    clipped = clipped_sums(spoiled, name, C)
    assert clipped.dropped == 1
    assert expected.dropped == 0
    for parameter, value in clipped.sums.items():
        torch.testing.assert_close(value, expected.sums[parameter])


def test_norms_of_gradients_that_cancel_are_not_lost():
    """A record whose inputs are nearly the same and large, and whose output gradients cancel."""
    generator = torch.Generator().manual_seed(0)
    x = 1000 + torch.randn(8, 4, 64, generator=generator)
    grad = torch.randn(8, 4, 32, generator=generator)
    grad -= grad.mean(1, keepdim=True)
    exact = (grad.double().mT @ x.double()).flatten(1).square().sum(1)
    part = LinearWeight(x, grad)
    assert part.is_thin()
    torch.testing.assert_close(part.squared_norms().double(), exact, rtol=1e-4, atol=0)
    nothing = LinearWeight(x, torch.full_like(grad, 1e-3) * torch.tensor([1, -1, 1, -1])[:, None])
    assert (nothing.squared_norms() >= 0).all()
