import csv
import math
import random
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import accounting
from privacy.accounting import (
    ACCOUNTANTS,
    epsilon,
    epsilon_of,
    epsilon_of_shuffled,
    noise_multiplier_for,
    sampling_rate_for,
    steps_for,
)

GOLDEN = Path(__file__).parents[1] / "golden"


def rows_of(name):
    """The rows of a file of golden values as parameters, numbers as floats."""
    with (GOLDEN / name).open() as file:
        rows = list(csv.DictReader(line for line in file if line[0] != "#"))
    labels = [row.pop("case") for row in rows]
    numbers = [{key: float(Fraction(value)) for key, value in row.items()} for row in rows]
    return [pytest.param(row, id=label) for row, label in zip(numbers, labels, strict=True)]


def mechanism(row, **changes):
    numbers = {key: row[key] for key in ("sampling_rate", "noise_multiplier", "delta")}
    return {**numbers, "steps": int(row["steps"]), **changes}


RUN = {"sampling_rate": 0.02, "noise_multiplier": 1.2, "steps": 500, "delta": 1e-5}


@pytest.mark.parametrize("row", rows_of("dp_accounting.csv"))
def test_epsilon_is_that_of_the_libraries_and_gdp_is_not_an_upper_bound(row):
    told = {name: epsilon(name, **mechanism(row)) for name in ACCOUNTANTS}
    assert told == pytest.approx({name: row[name] for name in ACCOUNTANTS}, rel=1e-4)
    assert told["pld"] <= told["prv"] <= min(told["pld"] + 0.012, told["rdp"])
    if row["sampling_rate"] < 1:
        assert row["gdp"] < told["pld"]


@pytest.mark.parametrize("row", rows_of("dp_noise.csv"))
def test_noise_is_that_of_the_published_recipes(row):
    """To the three digits after the point that are known; prv, being slow, only at its border."""
    goal = {
        "delta": row["delta"],
        "sampling_rate": row["sampling_rate"],
        "steps": int(row["steps"]),
    }
    found = noise_multiplier_for("rdp", epsilon=row["epsilon"], **goal)
    assert found == pytest.approx(row["rdp"], rel=1e-3)
    enough, little = (
        epsilon("prv", noise_multiplier=factor * row["prv"], **goal) for factor in (1.001, 0.998)
    )
    assert enough <= row["epsilon"] < little


@pytest.mark.parametrize(
    ("accountant", "steps", "noise"),
    [("rdp", 2250, 1.416), ("rdp", 2000, 1.3562), ("prv", 2250, 1.34765625), ("prv", 2000, 1.2915)],
)
def test_noise_is_the_smallest_that_meets_the_budget(accountant, steps, noise):
    """The values of Opacus's own tests, which stop anywhere within 0.01 of the budget."""
    goal = {"delta": 1e-5, "sampling_rate": 0.04, "steps": steps}
    found = noise_multiplier_for(accountant, epsilon=8, **goal)
    assert noise / 1.002 <= found <= noise * 1.0002
    assert epsilon(accountant, noise_multiplier=found, **goal) <= 8
    assert epsilon(accountant, noise_multiplier=found / 1.001, **goal) > 8


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_steps_and_rates_are_the_largest_that_meet_the_budget(accountant):
    noise = {"noise_multiplier": 2.5, "delta": 1e-5}
    steps = steps_for(accountant, epsilon=1, sampling_rate=0.02, **noise)
    assert epsilon(accountant, sampling_rate=0.02, steps=steps, **noise) <= 1
    assert epsilon(accountant, sampling_rate=0.02, steps=steps + 1, **noise) > 1
    rate = sampling_rate_for(accountant, epsilon=1, steps=500, **noise)
    assert epsilon(accountant, sampling_rate=rate, steps=500, **noise) <= 1
    assert epsilon(accountant, sampling_rate=rate * 1.001, steps=500, **noise) > 1


@given(epsilon=st.floats(0.05, 10), q=st.floats(1e-4, 1), steps=st.integers(1, 5000))
@settings(max_examples=5)
def test_a_calibrated_run_spends_its_budget_and_no_more(epsilon, q, steps):
    noise = noise_multiplier_for("rdp", epsilon=epsilon, delta=1e-5, sampling_rate=q, steps=steps)
    run = {"noise_multiplier": noise, "sampling_rate": q, "delta": 1e-5}
    spent = accounting.epsilon("rdp", steps=steps, **run)
    assert 0.98 * epsilon <= spent <= epsilon
    assert steps_for("rdp", epsilon=epsilon, **run) >= steps


@given(
    name=st.sampled_from([*ACCOUNTANTS]),
    q=st.floats(0.01, 0.25),
    noise=st.floats(1.2, 5),
    steps=st.integers(10, 100),
)
@settings(max_examples=15)
def test_more_steps_higher_rates_and_less_noise_spend_more(name, q, noise, steps):
    def spent(**changes):
        run = {"sampling_rate": q, "noise_multiplier": noise, "steps": steps, "delta": 1e-5}
        return epsilon(name, **{**run, **changes})

    more = (spent(steps=2 * steps), spent(sampling_rate=2 * q), spent(noise_multiplier=0.7 * noise))
    assert min(more) >= spent() - 1e-3  # prv changes its grid, too
    assert spent(delta=1e-4) <= spent() + 1e-3


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_the_order_of_the_parts_of_a_run_and_their_number_do_not_matter(accountant):
    parts = [(0.02, 1.2, 200), (0.01, 0.9, 100), (0.05, 2.0, 50), (0.02, 1.2, 100)]
    whole = epsilon_of(parts, 1e-5, accountant)
    shuffled = random.Random(0).sample(parts, len(parts))
    assert epsilon_of([*shuffled, (0.02, 1.2, 0)], 1e-5, accountant) == whole
    assert epsilon_of(parts[1:], 1e-5, accountant) < whole
    near = [(0.02, 1.2, 250), (0.02, 1.2000001, 250)]
    assert epsilon_of(near, 1e-5, accountant) == pytest.approx(epsilon(accountant, **RUN), rel=1e-3)


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_no_noise_no_step_and_full_batches(accountant):
    assert epsilon(accountant, **{**RUN, "noise_multiplier": 0}) == math.inf
    assert epsilon_of([(0.02, 1.2, 500), (0.02, 0, 1)], 1e-5, accountant) == math.inf
    assert epsilon(accountant, **{**RUN, "steps": 0}) == 0
    assert epsilon_of([(0.02, 0, 0)], 1e-5, accountant) == 0
    full = {"sampling_rate": 1, "delta": 1e-5}
    four = epsilon(accountant, noise_multiplier=2, steps=4, **full)
    assert four == pytest.approx(epsilon(accountant, noise_multiplier=1, steps=1, **full), abs=1e-3)


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_small_epsilons_can_be_reached(accountant):
    goal = {"delta": 1e-5, "sampling_rate": 0.01, "steps": 100}
    noise = noise_multiplier_for(accountant, epsilon=0.1, **goal)
    assert 0.095 <= epsilon(accountant, noise_multiplier=noise, **goal) <= 0.1


def test_pld_is_tight_in_long_runs_of_little_privacy_loss():
    run = {"sampling_rate": 7.7e-5, "noise_multiplier": 5.67, "steps": 54393, "delta": 1.5e-5}
    assert epsilon("pld", **run) < epsilon("rdp", **run) < 0.0102


@pytest.mark.parametrize(
    ("noise", "delta", "drawn", "at_least", "told"),
    [
        (0.4, 1e-6, 8.641, 14.451, 14.461),
        (0.5, 1e-6, 4.245, 10.997, 11.008),
        (0.6, 1e-6, 2.117, 8.833, 8.851),
        (0.8, 1e-6, 0.478, 6.045, 6.322),
        (1.0, 1e-6, 0.196, 3.724, 4.897),
    ],
)
def test_shuffled_batches_are_not_amplified(noise, delta, drawn, at_least, told):
    """One epoch of 1000 batches; the lower bounds are those of the pair in Chua et al. 2024."""
    run = {"noise_multiplier": noise, "delta": delta}
    poisson = epsilon("prv", sampling_rate=1e-3, steps=1000, **run)
    assert poisson == pytest.approx(drawn, abs=1e-3)
    shuffled = epsilon_of_shuffled("prv", epochs=1, **run)
    assert shuffled == pytest.approx(told, abs=1e-3)
    assert poisson < at_least < shuffled


@pytest.mark.parametrize(
    ("history", "delta", "accountant", "line"),
    [
        ([(0.1, 1, 1)], 1e-5, "gdp", "gdp is a limit .* claims less than is spent"),
        ([(0.1, 1, 1)], 1e-5, "pdl", "unknown accountant 'pdl'; did you mean 'pld'"),
        ([(0.1, 1, 1)], 0, "pld", "delta must be above 0"),
        ([(1.1, 1, 1)], 1e-5, "pld", "sampling_rate must be above 0 and at most 1, got 1.1"),
        ([(0.1, -1, 1)], 1e-5, "pld", "noise_multiplier must be a finite number, 0 or above"),
        ([(0.1, 1, 1.5)], 1e-5, "pld", "steps must be a whole number"),
        ([(0.1, 1, 10)], 1e-13, "pld", "pld rounds away a delta of 1e-13 .*choose rdp"),
        ([(1e-4, 1, 600_000), (1e-4, 2, 600_000)], 1e-5, "pld", "pld stops at 1000000 steps"),
        ([(1e-4, 1, 10**6)], 1e-9, "prv", "prv rounds away a delta of 1e-09 .*choose rdp"),
        ([(1, 0.1, 100)], 1e-5, "prv", "prv stops at an epsilon of 500.* rdp says"),
        ([(1, 0.1, 100)], 1e-5, "pld", "pld stops at an epsilon of 500.* rdp says"),
        ([(1, 3, 5000)], 1e-5, "prv", "prv would need a grid of .* points.*; choose pld"),
    ],
)
def test_what_cannot_be_accounted_is_told_in_one_line(history, delta, accountant, line):
    with pytest.raises(ValueError, match=line) as error:
        epsilon_of(history, delta, accountant)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("ask", "given", "line"),
    [
        (noise_multiplier_for, {"epsilon": 0.005, "sampling_rate": 0.1, "steps": 9}, "noise mult"),
        (steps_for, {"epsilon": 0.01, "sampling_rate": 0.1, "noise_multiplier": 1}, "number of"),
        (sampling_rate_for, {"epsilon": 0.005, "noise_multiplier": 1, "steps": 9}, "sampling rate"),
    ],
)
def test_an_impossible_budget_is_told(ask, given, line):
    with pytest.raises(ValueError, match=f"budget is too small: prv finds no {line}"):
        ask("prv", delta=1e-5, **given)


def test_a_budget_that_every_rate_keeps_has_rate_one():
    assert sampling_rate_for("rdp", epsilon=5, delta=1e-5, noise_multiplier=5, steps=3) == 1
