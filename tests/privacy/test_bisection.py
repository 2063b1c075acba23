from math import copysign, inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from privacy.bisection import TOLERANCE, largest


@given(border=st.integers(1, 10**9), start=st.integers(1, 10**9))
@example(border=1, start=1)
@example(border=10**9, start=1)
def test_whole_numbers_are_found_exactly(border, start):
    assert largest(lambda x: x - border, start, (1, 10**9), whole=True) == border


@given(border=st.floats(1e-6, 1e3), start=st.floats(1e-6, 1e3))
def test_other_numbers_hold_and_are_close_to_the_border(border, start):
    found = largest(lambda x: x - border, start, (1e-6, 1e3), whole=False)
    assert found is not None
    assert border / (1 + TOLERANCE) <= found <= border


@pytest.mark.parametrize("whole", [True, False])
def test_the_bounds_are_answers_too(whole):
    assert largest(lambda _: -1.0, 3, (1, 100), whole=whole) == 100
    assert largest(lambda x: x - 1, 3, (1, 100), whole=whole) == 1
    assert largest(lambda _: 1.0, 3, (1, 100), whole=whole) is None


@given(border=st.floats(1e-6, 1e3), start=st.floats(1e-6, 1e3))
def test_a_step_and_infinity_are_met_by_halving(border, start):
    found = largest(lambda x: -1.0 if x <= border else inf, start, (1e-6, 1e3), whole=False)
    assert found is not None
    assert border / (1 + TOLERANCE) <= found <= border


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("power", [-1.5, -0.5, 0.5, 3])
def test_a_start_near_the_border_asks_few_questions(whole, power):
    asked = []

    def excess(x):
        asked.append(x)
        return copysign((x / 1000) ** power - 1, x - 1000)

    found = largest(excess, 950, (1, 10**9), whole=whole)
    assert found == 1000 if whole else 1000 / (1 + TOLERANCE) <= found <= 1000
    assert len(asked) <= 7
    assert max(asked) < 1100
