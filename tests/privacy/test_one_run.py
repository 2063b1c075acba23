"""Bounds from guesses: the published ones, and not above the truth more often than they say."""

import math

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

from privacy.one_run import (
    Guesses,
    best_bound,
    epsilon_bound,
    epsilon_of_gaussian,
    gaussian_bound,
    guess,
    p_value,
    plans,
)

# jax_privacy's auditing tests: 10 000 scores N(shift, 1) of canaries that were in and as many
# N(0, 1) of others, each at the middle of its share of the law; every threshold on the upper hull
# of (in, out) is tried at its share of the significance, 0.05. Here: how many those are, and the
# guesses (made, right) at the best one for either bound.
GOLDEN = {
    0: (2, (20_000, 10_000), 0.0, (20_000, 10_000), 0.0),
    1: (386, (3376, 2807), 1.13346, (406, 379), 2.164749),
    2: (374, (4666, 4499), 2.311945, (938, 934), 4.7218075),
    4: (140, (8233, 8223), 4.395568, (5436, 5436), 9.133752),
}


def scores_of(shift, each=10_000):
    normal = ndtri((np.arange(each) + 0.5) / each)
    return np.concatenate([normal, normal + shift]), np.arange(2 * each) >= each


def size_of_hull(scores, included):
    """Thresholds whose (in, out) counts below them no two others come above of."""
    thresholds = [*np.unique(scores), math.inf]
    sides = (np.sort(scores[included]), np.sort(scores[~included]))
    kept = []
    for x, y in np.stack([np.searchsorted(side, thresholds) for side in sides], 1).tolist():
        while len(kept) > 1:
            (a, b), (c, d) = kept[-2:]
            if (c - a) * (y - d) < (d - b) * (x - c):
                break
            kept.pop()
        kept.append((x, y))
    return len(kept)


@pytest.mark.parametrize("shift", GOLDEN)
def test_the_published_numbers(shift):
    tried, for_epsilon, epsilon, for_gaussian, gaussian = GOLDEN[shift]
    scores, included = scores_of(shift)
    assert size_of_hull(scores, included) == tried
    for bound, (made, right), expected in (
        (epsilon_bound, for_epsilon, epsilon),
        (gaussian_bound, for_gaussian, gaussian),
    ):
        found = guess(scores, included, made)
        assert found == Guesses(20_000, made, right)
        assert bound(found, 0.05 / tried, 1e-6) == pytest.approx(expected, rel=1e-6)
        for others in (made * 9 // 10, made * 11 // 10):
            other = guess(scores, included, min(others, 20_000))
            assert bound(other, 0.05 / tried, 1e-6) <= expected * (1 + 1e-6)


def tail(right, made, chance):
    return sum(
        math.comb(made, k) * chance**k * (1 - chance) ** (made - k)
        for k in range(max(0, right), made + 1)
    )


@pytest.mark.parametrize("delta", [0, 1e-6, 1e-3, 0.1])
@pytest.mark.parametrize(("canaries", "made", "right"), [(10, 1, 1), (40, 20, 17), (99, 60, 0)])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_p_values_are_those_of_the_theorem(canaries, made, right, epsilon, delta):
    chance = 1 / (1 + math.exp(-epsilon))
    most = max(
        (
            (tail(right - i, made, chance) - tail(right, made, chance)) / i
            for i in range(1, right + 1)
        ),
        default=0.0,
    )
    expected = min(1.0, tail(right, made, chance) + 2 * canaries * delta * most)
    assert p_value(Guesses(canaries, made, right), epsilon, delta) == pytest.approx(expected)


def test_a_bound_is_where_the_p_value_is_the_significance():
    guesses = Guesses(1000, 200, 180)
    bound = epsilon_bound(guesses, 0.05, 1e-5)
    assert p_value(guesses, bound, 1e-5) == pytest.approx(0.05, rel=1e-5)
    assert 1 < bound < math.log(180 / 20)


@pytest.mark.parametrize("bound", [epsilon_bound, gaussian_bound])
def test_bounds_grow_with_right_guesses_and_certainty_costs(bound):
    found = [bound(Guesses(400, 100, right), 0.05, 1e-5) for right in (50, 70, 90, 100)]
    assert found[0] == 0
    assert sorted(set(found)) == found
    assert bound(Guesses(400, 100, 90), 0.001, 1e-5) < found[2]
    assert bound(Guesses(400, 100, 90), 0.05, 1e-3) <= found[2]


@pytest.mark.parametrize(("mu", "delta", "epsilon"), [(1, 1e-5, 4.37718), (2, 1e-5, 9.99726)])
def test_epsilon_of_a_gaussian_mechanism(mu, delta, epsilon):
    assert epsilon_of_gaussian(mu, delta) == pytest.approx(epsilon, abs=2e-5)
    assert epsilon_of_gaussian(0, delta) == epsilon_of_gaussian(1e-7, delta) == 0


def randomized_response(rng, included, epsilon):
    """Every coin is told rightly with the largest probability that epsilon allows."""
    lies = rng.random(len(included)) > 1 / (1 + math.exp(-epsilon))
    return (included ^ lies).astype(float)


def gaussian_mechanism(rng, included, mu):
    return included + rng.standard_normal(len(included)) / mu


MECHANISMS = {  # how it scores, its parameter, the bound, the true epsilon at delta 1e-3
    "randomized response": (randomized_response, 1.0, epsilon_bound, 1.0),
    "Gaussian": (gaussian_mechanism, 1.0, gaussian_bound, epsilon_of_gaussian(1.0, 1e-3)),
    "Gaussian, any test": (gaussian_mechanism, 1.0, epsilon_bound, epsilon_of_gaussian(1.0, 1e-3)),
}


@pytest.mark.parametrize("name", MECHANISMS)
def test_bounds_are_too_high_no_more_often_than_the_significance(name):
    """With more significance to spare than any audit takes, so that mistakes would show."""
    attack, parameter, bound, truth = MECHANISMS[name]
    rng, bounds = np.random.default_rng(0), []
    for _ in range(150):
        included = rng.random(400) < 0.5
        made = guess(attack(rng, included, parameter), included, 100, 100)
        bounds.append(bound(made, 0.3, 1e-3))
    assert np.mean(np.array(bounds) > truth) <= 0.3 + 3 * math.sqrt(0.3 * 0.7 / 150)
    assert np.mean(bounds) > 0.1 * truth


def test_the_best_of_several_plans_still_holds():
    rng, above = np.random.default_rng(1), 0
    for _ in range(100):
        included = rng.random(256) < 0.5
        bound, made = best_bound(rng.random(256), included, epsilon_bound, 0.2, 1e-6)
        above += bound > 0
        assert made.canaries == 256
    assert above <= 20 + 3 * 4  # the truth is 0


def test_plans_are_fixed_by_the_number_of_canaries_alone():
    assert list(plans(20)) == [(10, 0), (10, 10), (5, 0), (5, 5)]
    with pytest.raises(ValueError, match="needs 8 canaries or more, got 7"):
        best_bound(np.zeros(7), np.zeros(7, dtype=bool), epsilon_bound, 0.05, 1e-6)


def test_guesses_are_the_ends_of_the_order():
    included = np.array([True, False, True, False, True])
    scores = np.array([0.9, 0.1, 0.8, 0.7, 0.2])
    assert guess(scores, included, 2) == Guesses(5, 2, 2)
    assert guess(scores, included, 3, 2) == Guesses(5, 5, 3)
    assert guess(scores, included, 0, 1) == Guesses(5, 1, 1)


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "delta"),
    [(0.18, 2.5, 112, 1e-4), (0.08, 3.0, 2500, 1e-5), (0.001, 0.8, 1000, 1e-6), (0.5, 2, 3, 1e-4)],
)
def test_below_its_epsilon_dp_sgd_is_more_private_than_its_gaussian(rate, noise, steps, delta):
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
    epsilon = accountant.get_epsilon(delta)
    mu = brentq(lambda mu: epsilon_of_gaussian(mu, delta) - epsilon, 1e-3, 50)
    for lower in np.linspace(0, 0.99 * epsilon, 8):
        spread = lower / mu
        gaussian = ndtr(mu / 2 - spread) - math.exp(lower + log_ndtr(-mu / 2 - spread))
        assert accountant.get_delta(lower) < gaussian
