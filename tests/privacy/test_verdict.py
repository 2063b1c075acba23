"""What attacks show: bounds that hold together, and a line where one is above the claim."""

import numpy as np
import pytest

from privacy.spending import budget_of
from privacy.verdict import Attack, comparison, in_words, judge, refutation
from tests.privacy.audits import recipe_of

RNG = np.random.default_rng(0)
COINS = RNG.random(200) < 0.5
BLIND = Attack("blind", RNG.random(200), COINS)
SEEING = Attack("seeing", COINS.astype(float), COINS)


@pytest.fixture(scope="module")
def claim():
    recipe = recipe_of()
    return recipe, budget_of(recipe, 100)


@pytest.mark.parametrize(("attacks", "stands"), [([BLIND], True), ([BLIND, SEEING], False)])
def test_one_attack_that_sees_the_coins_refutes_the_claim(claim, attacks, stands):
    report = judge(*claim, attacks)
    assert (refutation(report) is None) == stands
    assert [row["name"] for row in report["attacks"]] == [attack.name for attack in attacks]
    assert ("the claim stands" in in_words(report)) == stands
    assert comparison(report) in in_words(report)


def test_more_attacks_share_the_significance(claim):
    alone = judge(*claim, [SEEING])["attacks"][0]
    among = judge(*claim, [SEEING] + 5 * [BLIND])["attacks"][0]
    for bound in ("any_mechanism", "if_gaussian"):
        assert 0 < among[bound]["at_least"] < alone[bound]["at_least"]
    assert alone["included"] == COINS.sum()
