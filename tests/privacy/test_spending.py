"""Budgets: one rule for epochs, the claim before training, what several runs cost together."""

import json
from fractions import Fraction

import pytest

from privacy import account, accounting
from privacy.budget import delta_warning, steps_in, steps_per_epoch
from privacy.config import parse_recipe
from privacy.spending import budget_of

IMAGES = 1000


def budget(*arguments, delta="1e-5"):
    given = ["--batch_size=300", "--epochs=7", f"--privacy.delta={delta}", *arguments]
    return budget_of(parse_recipe(given), IMAGES)


NOISE = ["--privacy.epsilon=null", "--privacy.noise_multiplier=2"]


@pytest.mark.parametrize(
    ("rate", "per_epoch"),
    [(Fraction(1), 1), (Fraction(3, 4), 1), (Fraction(3, 10), 3), (Fraction(4096, 50000), 12)],
)
def test_an_epoch_sees_every_image_about_once(rate, per_epoch):
    assert steps_per_epoch(rate) == per_epoch
    assert steps_in(7, rate) == 7 * per_epoch
    assert steps_in(Fraction(5, 2), rate) == -(-5 * per_epoch // 2)


def test_training_and_the_account_count_epochs_alike(capsys):
    asked = ["--batch_size=300", f"--num_samples={IMAGES}", "--epochs=7", "--noise_multiplier=2"]
    account.main([*asked, "--delta=1e-5", "--json"])
    told = json.loads(capsys.readouterr().out)
    mine = budget(*NOISE)
    assert told["steps"] == mine.steps == 21
    assert told["answers"]["pld"] == mine.epsilon()


@pytest.mark.parametrize(
    ("arguments", "delta", "message"),
    [
        (["--privacy.noise_multiplier=0.05"], "1e-5", "pld stops at an epsilon of 500"),
        (["--privacy.noise_multiplier=2"], "1e-14", "pld rounds away a delta"),
        (["--privacy.noise_multiplier=0.05", "--privacy.accountant=prv"], "1e-5", "prv stops"),
    ],
)
def test_a_claim_that_its_accountant_refuses_is_refused_before_training(arguments, delta, message):
    with pytest.raises(ValueError, match=message):
        budget("--privacy.epsilon=null", *arguments, delta=delta)


def test_the_other_accountants_refusals_are_words():
    found = budget(*NOISE, "--privacy.accountant=rdp", delta="1e-14").epsilons()
    assert found["rdp"] == budget(*NOISE, "--privacy.accountant=rdp", delta="1e-14").epsilon()
    assert found["pld"].startswith("pld rounds away a delta of 1e-14")
    assert found["prv"].startswith("prv rounds away")


def test_without_noise_every_accountant_says_that_nothing_is_kept():
    found = budget("--privacy.epsilon=null", "--privacy.noise_multiplier=0").epsilons()
    assert set(found.values()) == {float("inf")}


def test_several_runs_cost_what_their_steps_cost_in_a_row():
    mine = budget(*NOISE)
    rate = float(mine.sampling_rate)
    parts = [(rate, 2.0, mine.steps)] * 3
    assert mine.epsilon(3) == accounting.epsilon_of(parts, mine.delta, "pld")
    assert mine.epsilon() < mine.epsilon(3) < 3 * mine.epsilon()
    assert mine.epsilons(3)["pld"] == mine.epsilon(3)


def test_a_delta_of_one_image_or_more_is_warned_of():
    assert delta_warning(0.99e-3, IMAGES) is None
    assert "not below 1 / 1000 images" in str(delta_warning(1e-3, IMAGES))
