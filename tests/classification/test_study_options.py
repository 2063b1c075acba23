import re
from pathlib import Path

import pytest

from classification.study_options import parse
from knorm.training.mistakes import UserMistakeError
from tests.classification.studies import write


def test_options_of_the_study_and_of_recipes_may_be_mixed(tmp_path):
    file = write(tmp_path)
    words = "--optim.weight_decay 0.1 --seeds 3 --only model.norm=batch --data.limit=100 --dry_run"
    asked = parse(["run", str(file), *words.split()], "")
    assert asked.overrides == ["--optim.weight_decay", "0.1", "--data.limit=100"]
    assert (asked.dry_run, asked.folder) == (True, Path("runs/tiny"))
    assert [row.number for row in asked.study.rows] == [1, 3]
    assert [row.number for row in asked.study.others] == [2]
    assert {row.recipe.data.limit for row in asked.study.rows} == {100}


def test_a_budget_has_a_folder_of_its_own(tmp_path):
    asked = parse(["report", str(write(tmp_path)), "--budget", "small", "--run_dir", "r"], "")
    assert (asked.folder, asked.out) == (Path("r/tiny-small"), Path("r/tiny-small/report"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rn", "tricks"], "unknown command 'rn'; did you mean 'run'?"),
        (["run"], "run: name a study after it, or its file: cifar-augment"),
        (["run", "--budget", "small"], "run: name a study after it"),
        (["run", "trick"], "did you mean 'tricks'?"),
        (["run", "tricks", "--only", "data.name"], "--only data.name: give SETTING=VALUE"),
        (["run", "tricks", "--seeds", "x"], "invalid int value: 'x'"),
        (["run", "tricks", "--only", "data.name=["], "--only data.name=[: '[' is no value"),
        (["status", "tricks", "--dry_run"], "--dry_run: a study sets this by itself"),
        (["run", "tricks", "--seed", "3"], "--seed: a study sets this by itself"),
        (["run", "tricks", "--name=x"], "--name: a study sets this by itself"),
    ],
)
def test_a_mistake_on_the_command_line_is_told(words, message):
    with pytest.raises(UserMistakeError, match=re.escape(message)):
        parse(words, "")
