"""How much privacy DP-SGD spends, and the noise, steps or sampling rate that a budget allows.

The mechanism: at each step every image is drawn by itself with probability q, the clipped gradients
are summed, and Gaussian noise of sigma clipping norms is added. Its neighbours are data sets that
differ by one image, added or removed. All accountants give upper bounds; they differ in tightness:

    pld  Google's privacy loss distributions, the tightest
    prv  Opacus's numerical composition (Gopi et al. 2021, arXiv:2106.02848), 0.01 above it
    rdp  Opacus's Renyi accountant (Mironov et al. 2019, arXiv:1908.10530), 5 % or more above it
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from opacus.accountants import PRVAccountant
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent
from scipy.integrate import IntegrationWarning

from knorm.choices import check_name
from privacy.bisection import largest
from privacy.budget import MAX_STEPS, check_budget

Phase = tuple[float, float, int]
"""Sampling rate, noise multiplier and the number of steps with them."""

RDP_ORDERS = (
    *(1 + tenth / 10 for tenth in range(1, 100)),
    *range(11, 64),
    *(64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024),  # for epsilons below 0.5
)
MAX_NUMERIC_EPSILON = 500.0  # beyond, the grids grow without end, and exp(loss) overflows
MAX_NUMERIC_STEPS = 10**6  # beyond, a single case takes minutes
MAX_GRID_NUMBERS = 10**8  # of 8 bytes; PRV holds some 20 for each point of its grid
PLD_INTERVALS = (1e-6, 1e-4)  # of the losses' grid, finer where that would show in epsilon
ROUNDING_PER_STEP = 1e-14  # of delta, by the Fourier transforms; ten times what was seen


class _BoundedPRV(PRVAccountant):
    """Opacus's, which says that its grid is too large before the memory is gone."""

    def _get_domain(self, *args, **options):
        domain = super()._get_domain(*args, **options)
        if domain.size * (20 + len(self.history)) > MAX_GRID_NUMBERS:
            raise ValueError(
                f"prv would need a grid of {domain.size:.1e} points, more than fit into memory; "
                "choose pld"
            )
        return domain


def _rdp(phases: Sequence[Phase], delta: float) -> float:
    orders = list(RDP_ORDERS)
    spent = [
        compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=orders)
        for rate, noise, steps in phases
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the")  # every order is a bound
        return get_privacy_spent(orders=orders, rdp=list(np.sum(spent, axis=0)), delta=delta)[0]


def _prv(phases: Sequence[Phase], delta: float) -> float:
    _check_numeric("prv", phases, delta)
    accountant = _BoundedPRV()
    accountant.history = [(noise, rate, steps) for rate, noise, steps in phases]
    # a rate of 1 takes the logarithm of 0, whose infinity is right
    with warnings.catch_warnings(), np.errstate(divide="ignore", over="ignore"):
        warnings.filterwarnings("ignore", "Optimal order is the")  # it only makes the grid wider
        warnings.simplefilter("error", IntegrationWarning)
        try:
            return accountant.get_epsilon(delta)
        except (RuntimeError, IntegrationWarning) as error:
            raise ValueError(f"prv cannot integrate this case ({error}); choose pld") from error


def _pld(phases: Sequence[Phase], delta: float) -> float:
    bound = _check_numeric("pld", phases, delta)
    total = sum(steps for *_, steps in phases)
    # every step's rounding adds variance; so it stays below a hundredth of that of the losses
    interval = float(np.clip(0.015 * bound / math.sqrt(total), *PLD_INTERVALS))
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, interval)
    for rate, noise, steps in phases:
        accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
    return accountant.get_epsilon(delta)


def _check_numeric(name: str, phases: Sequence[Phase], delta: float) -> float:
    """The bound of rdp; ValueError where a grid's rounding would show, or take all memory."""
    total = sum(steps for *_, steps in phases)
    if total > MAX_NUMERIC_STEPS:
        raise ValueError(f"{name} stops at {MAX_NUMERIC_STEPS} steps, got {total}; choose rdp")
    least = ROUNDING_PER_STEP * max(100, total)
    if delta < least:
        raise ValueError(
            f"{name} rounds away a delta of {delta:g} (below {least:g} for this many steps); "
            "choose rdp"
        )
    if (bound := _rdp(phases, delta)) > MAX_NUMERIC_EPSILON:
        raise ValueError(
            f"{name} stops at an epsilon of {MAX_NUMERIC_EPSILON:g}, where no privacy is left; "
            f"rdp says {bound:.0f}"
        )
    return bound


ACCOUNTANTS: dict[str, Callable[[Sequence[Phase], float], float]] = {
    "pld": _pld,
    "prv": _prv,
    "rdp": _rdp,
}
REFUSED = {
    "gdp": "gdp is a limit for many steps and claims less than is spent (4.996 for 5.562); "
    f"choose from {', '.join(ACCOUNTANTS)}"
}


def epsilon_of(history: Sequence[Phase], delta: float, accountant: str) -> float:
    """Epsilon of a run whose sampling rate or noise changed on the way.

    Args:
        history: (sampling rate, noise multiplier, steps) of each part, in any order.
        delta: The probability, in (0, 1), with which epsilon may be exceeded; below 1 / images.
        accountant: One of `ACCOUNTANTS`.

    Returns:
        An upper bound, 0 or above: 0 without a step, infinite where there is a step without noise.

    Raises:
        ValueError: an unknown or refused accountant, a number out of range, or a case that the
            accountant cannot answer; the message names one that can.
    """
    if accountant in REFUSED:
        raise ValueError(REFUSED[accountant])
    check_name("accountant", accountant, ACCOUNTANTS)
    check_budget(delta=delta)
    total: Counter[tuple[float, float]] = Counter()
    for rate, noise, steps in history:
        check_budget(sampling_rate=rate, noise_multiplier=noise, steps=steps)
        total[float(rate), float(noise)] += int(steps)
    phases = sorted((rate, noise, steps) for (rate, noise), steps in total.items() if steps)
    if not phases:
        return 0.0
    if any(noise == 0 for _, noise, _ in phases):
        return math.inf
    return max(0.0, float(ACCOUNTANTS[accountant](phases, delta)))


def epsilon(
    accountant: str, *, sampling_rate: float, noise_multiplier: float, steps: int, delta: float
) -> float:
    """Epsilon of `steps` equal steps; `epsilon_of` has the units, the ranges and the errors."""
    return epsilon_of([(sampling_rate, noise_multiplier, steps)], delta, accountant)


def epsilon_of_shuffled(
    accountant: str, *, noise_multiplier: float, epochs: int, delta: float
) -> float:
    """Epsilon of batches that are shuffled instead of drawn: nothing is amplified by sampling.

    An image is in one batch of each epoch, so an epoch is one Gaussian mechanism, however small the
    batches; the neighbour has an empty image in place of one. Counting such batches as drawn ones
    claims too little: 10 000 steps of one epoch at sigma 0.5 and delta 1e-6 would be 1.96, and are
    at least 10.99 (Chua et al. 2024, arXiv:2403.17673); this function says 11.01.
    """
    return epsilon_of([(1.0, noise_multiplier, epochs)], delta, accountant)


def noise_multiplier_for(
    accountant: str, *, epsilon: float, delta: float, sampling_rate: float, steps: int
) -> float:
    """The smallest noise multiplier within the budget, from 0.001 on, to one part in ten thousand.

    `epsilon(...)` of what is returned never exceeds the budget.

    Raises:
        ValueError: as `epsilon_of`; or not even a noise multiplier of a million is enough.
    """

    def spent(name: str, inverse: float) -> float:
        return epsilon_of([(sampling_rate, 1 / inverse, steps)], delta, name)

    what = "noise multiplier up to 1000000"
    return 1 / _largest_within(accountant, epsilon, spent, what, 1.0, (1e-6, 1e3))


def steps_for(
    accountant: str, *, epsilon: float, delta: float, sampling_rate: float, noise_multiplier: float
) -> int:
    """The largest number of steps within the budget, at most `MAX_STEPS`; exact.

    Raises:
        ValueError: as `epsilon_of`; or a single step exceeds the budget.
    """

    def spent(name: str, steps: float) -> float:
        return epsilon_of([(sampling_rate, noise_multiplier, int(steps))], delta, name)

    what = "number of steps from 1 on"
    bounds = (1, MAX_STEPS)
    return int(_largest_within(accountant, epsilon, spent, what, 1024, bounds, whole=True))


def sampling_rate_for(
    accountant: str, *, epsilon: float, delta: float, noise_multiplier: float, steps: int
) -> float:
    """The largest sampling rate within the budget, to one part in ten thousand; 1 if all are.

    Raises:
        ValueError: as `epsilon_of`; or not even a rate of 1e-9 is small enough.
    """

    def spent(name: str, rate: float) -> float:
        return epsilon_of([(rate, noise_multiplier, steps)], delta, name)

    what = "sampling rate from 1e-9 on"
    return _largest_within(accountant, epsilon, spent, what, 0.01, (1e-9, 1.0))


def _largest_within(
    accountant: str,
    epsilon: float,
    spent: Callable[[str, float], float],
    what: str,
    start: float,
    bounds: tuple[float, float],
    *,
    whole: bool = False,
) -> float:
    """The largest x in `bounds` with spent(accountant, x) <= epsilon, where more x spends more."""
    check_budget(epsilon=epsilon)

    def excess(name: str, budget: float, x: float) -> float:
        return spent(name, x) - budget

    if accountant != "rdp":  # far from the budget the others take long, and rdp comes close at once
        loose = partial(excess, "rdp", max(epsilon, 0.05))
        start = largest(loose, start, bounds, whole=whole) or bounds[0]
    found = largest(partial(excess, accountant, epsilon), start, bounds, whole=whole)
    if found is None:
        raise ValueError(
            f"the budget is too small: {accountant} finds no {what} within epsilon {epsilon:g}"
        )
    return found
