"""The card: bounds rounded up, refusals in words, what a recipe leaves uncovered."""

import json
import math
from fractions import Fraction

import pytest

from privacy.card import in_digits, not_covered_here, write_seeds_card
from privacy.config import parse_recipe
from privacy.spending import Budget

RESULT = {
    "name": "a run",
    "results": [
        {"split": "test", "weights": "last", "metric": "top1", "value": 0.5, "count": 10},
    ],
}


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [(2.0001, "2.001"), (3.0, "3"), (math.inf, "infinite"), ("pld stops here", "pld stops here")],
)
def test_an_epsilon_is_rounded_up_and_a_refusal_told_in_words(epsilon, text):
    assert in_digits(epsilon) == text


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--model.weights=some/where/public"], "the first weights, those of public:"),
        (["--data.val_fraction=0.1"], "kept for validation"),
        (["--data.limit=100"], "data.limit"),
    ],
)
def test_what_a_recipe_does_besides_is_named(options, word):
    (line,) = not_covered_here(parse_recipe(options))
    assert word in line
    assert not_covered_here(parse_recipe([])) == []


def test_runs_whose_cost_together_no_accountant_tells_have_words(tmp_path):
    budget = Budget(
        num_samples=1000,
        sampling_rate=Fraction(1, 2),
        noise_multiplier=0.2,
        steps=20,
        steps_per_epoch=2,
        delta=1e-4,
        accountant="pld",
    )
    assert budget.epsilon() < 500
    (tmp_path / "command.txt").write_text("a command\n")
    text = write_seeds_card(budget, tmp_path, [RESULT | {"seed": seed} for seed in range(4)])
    assert "publishing all 4, or what was chosen or averaged from them, costs pld stops" in text
    card = json.loads((tmp_path / "privacy_card.json").read_text())
    assert card["guarantee_of_all"]["epsilon"].startswith("pld stops at an epsilon of 500")
    assert card["epsilon_of_all_by_accountant"]["rdp"] > 500
