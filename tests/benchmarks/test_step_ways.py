"""Every way to a private step leaves the mean of clipped gradients, and noise where it is asked."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.step_ways import MAX_NORM, PLAIN, PRIVATE, clipped_mean

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")


@pytest.fixture
def case():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 10))
    return net, 3 * torch.randn(5, 3, 8, 8), torch.arange(5)


def gradient_after(way, net, x, labels, sigma):
    net = copy.deepcopy(net)
    way.step(net, x, labels, sigma=sigma)()
    return {name: p.grad for name, p in net.named_parameters()}


@pytest.mark.parametrize("way", PRIVATE, ids=lambda way: way.name)
def test_a_step_without_noise_is_the_mean_of_clipped_gradients(way, case):
    expected = clipped_mean(*case)
    torch.testing.assert_close(gradient_after(way, *case, 0.0), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", PRIVATE, ids=lambda way: way.name)
def test_noise_has_the_deviation_that_is_asked(way, case):
    expected, noisy = clipped_mean(*case), gradient_after(way, *case, 4.0)
    noise = torch.cat([(noisy[name] - expected[name]).flatten() for name in expected])
    assert float(noise.std()) == pytest.approx(4.0 * MAX_NORM / 5, rel=0.1)


def test_clipping_matters_and_bounds(case):
    net, x, labels = case
    plain = gradient_after(PLAIN, net, x, labels, 0.0)
    clipped = clipped_mean(net, x, labels)
    size = torch.stack([value.norm() for value in clipped.values()]).norm()
    assert size <= MAX_NORM
    assert size < torch.stack([value.norm() for value in plain.values()]).norm()
    loss = F.cross_entropy(net(x), labels)
    grads = torch.autograd.grad(loss, list(net.parameters()))
    torch.testing.assert_close(list(plain.values()), list(grads))
