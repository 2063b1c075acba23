"""Lower bounds on epsilon from guesses about canaries, all of one training run.

Each of m canaries is a record of its own, in the training data or not by a fair coin. An attacker
looks at what the run released, scores every canary, and guesses some of the coins. A private run
limits how many of the guesses are right; where more of them are, it cannot have been that private.

`epsilon_bound` holds for every mechanism that is (epsilon, delta)-private: Steinke, Nasr and
Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023, arXiv:2305.08846.
`gaussian_bound` is nearer to the truth, and holds for mechanisms that are as private as a Gaussian
one in the tests that guesses make: Mahloujifar, Melis and Chaudhuri, "Auditing f-Differential
Privacy in One Run", ICML 2025, arXiv:2410.22235. DP-SGD is one of them: at every epsilon below its
own it is more private than the Gaussian mechanism that has its epsilon at its delta.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import expit, log_ndtr, ndtr, ndtri
from scipy.stats import binom

PRECISION = 1e-9  # of bounds
FEWEST_GUESSES = 4


class Guesses(NamedTuple):
    """What came of an attack."""

    canaries: int
    """all that had a coin, guessed at or not"""
    made: int
    right: int


Bound = Callable[[Guesses, float, float], float]


def guess(scores: np.ndarray, included: np.ndarray, ins: int, outs: int = 0) -> Guesses:
    """Guess that the highest scores are of canaries that were in, and the lowest of others.

    Args:
        scores: (m,), higher for canaries that look as if they had been trained on.
        included: (m,) bool, the coins.
        ins: how many to guess in; which of equal scores is left to their order.
        outs: how many to guess out.
    """
    order = np.argsort(scores, kind="stable")
    right = included[order[len(order) - ins :]].sum() + (~included[order[:outs]]).sum()
    return Guesses(len(scores), ins + outs, int(right))


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """How probable so many right guesses are, at most, under (epsilon, delta)-privacy.

    With delta = 0 no guess is right with a probability above e^epsilon / (1 + e^epsilon), whatever
    became of the others; delta adds, for every i, the chance that i of them are lost.
    """
    canaries, made, right = guesses
    chance = expit(epsilon)
    at_least = binom.sf(right - 1, made, chance)
    if delta == 0 or right == 0:
        return float(at_least)
    lost = np.arange(1, right + 1)
    gain = (binom.sf(right - lost - 1, made, chance) - at_least) / lost
    return float(min(1.0, at_least + 2 * canaries * delta * gain.max()))


def epsilon_bound(guesses: Guesses, significance: float, delta: float) -> float:
    """The largest epsilon that the guesses refute at that significance; 0 where they refute none.

    Args:
        significance: in (0, 1), the probability with which the bound may be too high.
        delta: in [0, 1), of the (epsilon, delta) that is refuted.
    """
    return largest(lambda epsilon: p_value(guesses, epsilon, delta) <= significance)


def gaussian_bound(guesses: Guesses, significance: float, delta: float) -> float:
    """Epsilon at delta of the most private Gaussian mechanism that the guesses do not refute.

    Arguments as for `epsilon_bound`; delta in (0, 1).
    """
    mu = largest(lambda mu: is_refuted_gaussian(guesses, mu, significance))
    return epsilon_of_gaussian(mu, delta)


def is_refuted_gaussian(guesses: Guesses, mu: float, significance: float) -> bool:
    """Whether so many right guesses are less probable than that with a Gaussian mechanism.

    `mu` is the mechanism's sensitivity over its deviation: what has probability p with a coin on
    one side has at least Phi(Phi^-1(p) - mu) with it on the other.

    Where one coin falls the other way, a right guess of it is wrong, and one fewer is right. So
    "wrong, and k or more right" is not much less probable than "right, and k + 1 or more right";
    both are taken on average over the canaries. Begun with a tail of `significance` and followed
    down to k = 0, this asks for probabilities that cannot be more than all guesses together; where
    they are, the tail was lighter than that.
    """
    canaries, made, right = guesses
    rights = significance * right / canaries
    wrongs = significance * (made - right) / canaries
    for k in range(right - 1, -1, -1):
        more = max(wrongs, float(ndtr(ndtri(rights) - mu)))
        if more == wrongs:
            break
        rights = min(1.0, rights + k / (made - k) * (more - wrongs))
        wrongs = more
    return rights + wrongs > made / canaries


def epsilon_of_gaussian(mu: float, delta: float) -> float:
    """Epsilon at delta of a Gaussian mechanism: Balle and Wang, ICML 2018, theorem 8."""

    def is_above(epsilon: float) -> bool:
        first, second = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
        return float(ndtr(first)) - math.exp(epsilon + float(log_ndtr(second))) > delta

    return largest(is_above) if mu > 0 else 0.0


def largest(holds: Callable[[float], bool]) -> float:
    """The end of the interval from 0 on in which `holds`, within `PRECISION` of its size."""
    if not holds(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while holds(high):
        low, high = high, 2 * high
    while high - low > PRECISION * high:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def plans(canaries: int) -> Iterator[tuple[int, int]]:
    """Numbers of guesses (in, out), fixed before any score is seen: halves of m, with and without
    as many guesses of canaries that were out."""
    count = canaries // 2
    while count >= FEWEST_GUESSES:
        yield count, 0
        yield count, count
        count //= 2


def best_bound(
    scores: np.ndarray, included: np.ndarray, bound: Bound, significance: float, delta: float
) -> tuple[float, Guesses]:
    """The highest bound over all plans, each of them at its share of the significance.

    Raises:
        ValueError: there are too few canaries for any plan.
    """
    tried = [guess(scores, included, *plan) for plan in plans(len(scores))]
    if not tried:
        raise ValueError(f"an audit needs {2 * FEWEST_GUESSES} canaries or more, got {len(scores)}")
    share = significance / len(tried)
    found = [(bound(guesses, share, delta), guesses) for guesses in tried]
    return max(found, key=lambda pair: pair[0])
