import json

import pytest

from classification import study
from knorm.training.mistakes import DivergedError, run_program
from tests.classification.runs import QUICK

SCORES = {0.4: 0.1, 0.2: 0.6, 0.1: 0.9, 0.05: 0.9, 0.025: 1.0}


@pytest.fixture
def trained(monkeypatch):
    """The rates that were trained with; top-1 is looked up in `SCORES`."""
    rates = []

    def train_seeds(work, place, command):
        rates.append(work.recipe.optim.lr)
        return [
            {
                "results": [
                    {"split": split, "weights": "last", "metric": "top1", "value": value}
                    for split, value in (("val", SCORES[work.recipe.optim.lr]), ("test", 0.5))
                ]
            }
        ] * work.recipe.seeds

    monkeypatch.setattr("classification.search.train_seeds", train_seeds)
    return rates


def search(folder, *arguments):
    study.main([*QUICK, "--optim.lr=0.4", f"--run_dir={folder}", *arguments])
    return json.loads((folder / "result.json").read_text())


def test_the_rate_is_halved_until_that_no_longer_helps_on_the_validation_split(trained, tmp_path):
    result = search(tmp_path / "search", "--seeds=2")
    assert trained == [0.4, 0.2, 0.1, 0.05]
    assert result["chosen"] == 0.1
    assert result["test.top1"] == [0.5, 0.5]
    text = (tmp_path / "search" / "study.md").read_text()
    assert "| 0.1 (chosen) | 90.00 ± 0.00 % | 2 |" in text
    assert "Test top-1 at the chosen rate 0.1: 50.00 ± 0.00 %" in text


def test_a_rate_that_diverges_or_only_guesses_does_not_end_the_search(tmp_path, monkeypatch):
    def train_seeds(work, place, command):
        if work.recipe.optim.lr == 0.4:
            raise DivergedError("the loss left all bounds")
        value = {0.2: 0.1, 0.1: 0.1, 0.05: 0.8, 0.025: 0.7}[work.recipe.optim.lr]
        numbers = {"weights": "last", "metric": "top1", "value": value}
        return [{"results": [numbers | {"split": split} for split in ("val", "test")]}]

    monkeypatch.setattr("classification.search.train_seeds", train_seeds)
    assert search(tmp_path / "search")["chosen"] == 0.05
    assert "| 0.4 | the loss left all bounds |" in (tmp_path / "search" / "study.md").read_text()


def test_a_search_that_ends_too_early_says_so(trained, tmp_path):
    assert search(tmp_path / "search", "--rates=2")["chosen"] == 0.2
    assert "raise `rates`" in (tmp_path / "search" / "study.md").read_text()


def test_without_validation_there_is_no_search(tmp_path, capsys):
    arguments = ["--data.val_fraction=0", f"--run_dir={tmp_path / 'search'}"]
    assert run_program(lambda: study.main(arguments)) == 2
    assert "needs a validation split" in capsys.readouterr().err


def test_a_search_trains_for_real_and_is_taken_up_where_it_stopped(tmp_path, capsys):
    arguments = ["--optim.lr=0.05", "--rates=1", "--epochs=1"]
    search(tmp_path / "search", *arguments)
    (tmp_path / "search" / "result.json").unlink()
    search(tmp_path / "search", *arguments, "--resume=auto")
    assert "lr-0.05 is finished already" in capsys.readouterr().out
    command = (tmp_path / "search" / "lr-0.05" / "command.txt").read_text()
    assert command.startswith("python -m classification.study")
