import json
import subprocess
import sys
from pathlib import Path

import pytest

from knorm.training.mistakes import UserMistakeError, run_program
from privacy import account, accounting

ASKED = ["--delta=1e-5", "--sampling_rate=0.04", "--noise_multiplier=1.5", "--steps=2250"]


@pytest.fixture
def rdp_alone(monkeypatch):
    """The fast one of the accountants."""
    monkeypatch.setattr(accounting, "ACCOUNTANTS", {"rdp": accounting.ACCOUNTANTS["rdp"]})


def answers(capsys, *argv):
    account.main([*argv, "--json"])
    return json.loads(capsys.readouterr().out)


def test_epsilon_is_told_by_all_accountants_side_by_side(capsys):
    account.main(ASKED)
    given, _, head, *rows = capsys.readouterr().out.splitlines()
    assert given == "delta 1e-05, noise_multiplier 1.5, sampling_rate 0.04, steps 2250"
    assert head.split() == ["accountant", "epsilon"]
    told = dict(row.split() for row in rows)
    assert told == {"pld": "6.76879", "prv": "6.77914", "rdp": "7.32912"}


def test_the_same_run_in_images_and_epochs_has_the_same_epsilon(rdp_alone, capsys):
    other = ["--delta=1e-5", "--batch_size=2000", "--num_samples=50000", "--epochs=90"]
    assert answers(capsys, *ASKED) == answers(capsys, *other, "--noise_multiplier=1.5")


def test_the_sampling_rate_and_the_number_of_steps_are_exact(rdp_alone, capsys):
    run = ["--delta=1e-5", "--noise_multiplier=3", "--batch_size=4096", "--num_samples=50000"]
    told = answers(capsys, *run, "--epochs=1")
    assert (told["sampling_rate"], told["steps"]) == (4096 / 50000, 12)


@pytest.mark.parametrize(
    ("asked", "argv"),
    [
        ("noise_multiplier", ["--epsilon=8", "--sampling_rate=1/25", "--epochs=90"]),
        ("steps", ["--epsilon=8", "--sampling_rate=0.04", "--noise_multiplier=1.35"]),
        ("sampling_rate", ["--epsilon=8", "--noise_multiplier=1.35", "--steps=2250"]),
    ],
)
def test_what_is_printed_keeps_the_budget(asked, argv, rdp_alone, capsys):
    account.main(["--delta=1e-5", *argv])
    *_, head, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["accountant", asked]
    name, value = last.split()
    given = [part for part in argv if "epsilon" not in part]
    spent = answers(capsys, "--delta=1e-5", *given, f"--{asked}={value}")["answers"]
    assert 7.98 < spent[name] <= 8


def test_an_accountant_without_an_answer_says_why_below_those_with_one(capsys):
    account.main(["--delta=1e-13", *ASKED[1:]])
    *_, rdp, pld, prv = capsys.readouterr().out.splitlines()
    assert rdp.split()[0] == "rdp"
    assert pld.startswith("pld rounds away a delta of 1e-13")
    assert prv.startswith("prv rounds away a delta of 1e-13")


def test_no_noise_is_an_infinite_epsilon(capsys):
    argv = ["--delta=1e-5", "--sampling_rate=0.04", "--noise_multiplier=0", "--steps=1"]
    assert answers(capsys, *argv)["answers"] == {"pld": None, "prv": None, "rdp": None}
    account.main(argv)
    assert capsys.readouterr().out.split()[-2:] == ["rdp", "Infinity"]


def test_a_delta_that_lets_one_image_out_is_warned_of(rdp_alone, capsys):
    sizes = ["--batch_size=100", "--num_samples=1000", "--steps=10", "--noise_multiplier=1"]
    account.main(["--delta=1e-3", *sizes])
    assert "delta 0.001 is not below 1 / 1000 images" in capsys.readouterr().err
    account.main(["--delta=9e-4", *sizes])
    assert capsys.readouterr().err == ""


MISTAKES = {
    "an option that is not there": ([*ASKED, "--sigma=1"], "unknown argument --sigma=1"),
    "a misspelt option": ([*ASKED, "--noise_multipler=1"], "did you mean '--noise_multiplier'"),
    "no delta": (ASKED[1:], "required: --delta"),
    "nothing asked": ([*ASKED, "--epsilon=1"], "give three, .*; got --epsilon, --noise_mult"),
    "two asked": (ASKED[:3], "give three, .*; got --noise_multiplier, --sampling_rate"),
    "none given": (ASKED[:1], "give three, .*; got none"),
    "a word for a number": (["--delta=small"], "--delta: invalid float value: 'small'"),
    "a word for a rate": ([*ASKED, "--sampling_rate=half"], "expected a number or a fraction"),
    "a rate of no images": ([*ASKED, "--sampling_rate=1/0"], "expected a number or a fraction"),
    "a rate above 1": ([*ASKED, "--sampling_rate=4"], "sampling_rate must be above 0 and at most"),
    "rate zero with epochs": (["--delta=1e-5", "--sampling_rate=0", "--epochs=1"], "sampling_rate"),
    "delta 1": (["--delta=1", *ASKED[1:]], "delta must be above 0 and below 1, got 1.0"),
    "epsilon 0": ([*ASKED[:3], "--epsilon=0"], "epsilon must be a finite number above 0, got 0"),
    "steps and epochs": ([*ASKED, "--epochs=90"], "--steps or --epochs, not both"),
    "rate and batch": ([*ASKED, "--batch_size=9"], "--sampling_rate or --batch_size, not both"),
    "a batch of what": ([*ASKED[:1], "--batch_size=9"], "--batch_size needs --num_samples"),
    "a batch of more than all": (
        [*ASKED[:1], "--batch_size=9", "--num_samples=8"],
        "--batch_size must lie between 1 and the 8 images",
    ),
    "epochs of what": ([*ASKED[:1], "--epochs=9"], "--epochs needs the sampling rate"),
}


@pytest.mark.parametrize(("argv", "line"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_told_in_one_line(argv, line):
    with pytest.raises(UserMistakeError, match=line):
        account.main(argv)


def test_an_impossible_budget_is_the_users_mistake(capsys):
    argv = ["--delta=1e-5", "--epsilon=0.001", "--sampling_rate=0.5", "--noise_multiplier=1"]
    assert run_program(lambda: account.main(argv)) == 2
    assert capsys.readouterr().err.startswith("error: the budget is too small: pld finds no numb")


def test_mistakes_do_not_wait_for_torch():
    code = (
        "import sys; from privacy.account import main\n"
        "try: main(['--delta=2', '--steps=1', '--epsilon=1', '--sampling_rate=1'])\n"
        "except ValueError: print('torch' in sys.modules)"
    )
    root = Path(account.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.split() == ["False"], done.stderr
