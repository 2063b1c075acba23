import math
from fractions import Fraction

import pytest

from privacy.budget import check_budget


def test_the_ends_of_the_ranges_that_belong_to_them_are_taken():
    check_budget(sampling_rate=1, noise_multiplier=0, steps=0, epsilon=1e-9, delta=0.999)
    check_budget(sampling_rate=Fraction(1, 50_000), steps=10**8)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epsilon", value) for value in (0, -1, math.inf, math.nan)),
        *(("delta", value) for value in (0, 1, -1e-5, math.nan)),
        *(("sampling_rate", value) for value in (0, 1.01, Fraction(5, 4), math.nan)),
        *(("noise_multiplier", value) for value in (-1, math.inf, math.nan)),
        *(("steps", value) for value in (-1, 2.5, 10**8 + 1)),
    ],
)
def test_a_number_out_of_range_is_named_with_its_range(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got {value}$"):
        check_budget(**{name: value})
