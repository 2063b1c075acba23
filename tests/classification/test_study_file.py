"""Study files: what is told of mistakes in them, and that all of ours are runnable."""

import re

import pytest

from classification.study_file import STUDIES, Wish, find_study, read_study
from classification.study_run import check
from knorm.training.mistakes import UserMistakeError
from tests.classification.studies import NAMES, TINY, ours, write


@pytest.mark.parametrize("budget", [None, "small"])
@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_our_studies_builds_its_net(name, budget, tmp_path):
    study = ours(name, budget)
    check(study, tmp_path)
    assert study.budget is None or study.budget.startswith("small budget: ")
    assert not any(study.others) or budget


@pytest.mark.parametrize("name", NAMES)
def test_our_studies_say_in_their_header_how_to_run_them(name):
    text = (STUDIES / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert f"#   python -m classification.study run {name}" in text


def test_the_rows_are_all_combinations(tmp_path):
    file = write(
        tmp_path,
        for_each=[{"set": {"epochs": 1}}, {"set": {"epochs": 3}}],
        rows=[{"set": {"model.norm": "batch"}}, {"set": {"model.norm": "group"}}],
        grid={"batch_size": [8, 16]},
        baseline=None,
    )
    rows = read_study(file).rows
    found = [(r.recipe.epochs, r.recipe.model.norm, r.recipe.batch_size) for r in rows]
    assert found == [(e, n, b) for e in (1, 3) for n in ("batch", "group") for b in (8, 16)]
    assert rows[0].slug == "norm=batch-batch_size=8-epochs=1"


def test_a_budget_wins_over_rows_and_options_win_over_a_budget(tmp_path):
    file = write(tmp_path, rows=[{"set": {"epochs": 7}}], baseline=None)
    whole, small, other = (
        read_study(file, wish)
        for wish in (Wish(), Wish("small", {}), Wish("small", {}, 4, ["--epochs", "9"]))
        if wish.budget is None or write(tmp_path, rows=[{"set": NORM | {"epochs": 7}}])
    )
    assert [s.rows[0].recipe.epochs for s in (whole, small, other)] == [7, 1, 9]
    assert [len(s.seeds) for s in (whole, small, other)] == [2, 1, 4]
    assert small.budget == "small budget: epochs 1; 1 seed; only rows with model.norm batch"
    assert other.budget is not None
    assert "epochs 9" in other.budget
    assert (whole.name, small.name) == ("tiny", "tiny-small")


NORM = {"model.norm": "batch", "optim.lr": 0.05}

MISTAKES = {
    "title": ({"titel": "x"}, "tiny.yaml: titel: no such part of a study; did you mean 'title'?"),
    "kind": ({"seeds": "three"}, "seeds: must be a whole number, got 'three'"),
    "none": ({"seeds": 0}, "seeds must lie between 1"),
    "lacks": ({"recipe": None}, "lacks recipe"),
    "row key": ({"rows": [{"sets": {}}]}, "rows, entry 1: sets: no such part.*'set'"),
    "setting": ({"rows": [{}, {"set": {"optim.lrr": 1}}]}, "row 2: optim.lrr: .*'optim.lr'"),
    "type": ({"rows": [{"set": {"epochs": "x"}}]}, "row 1: epochs: expected int or null, got 'x'"),
    "range": ({"rows": [{"set": {"optim.lr": -1}}]}, "row 1: optim.lr must be positive"),
    "own": ({"rows": [{"set": {"seed": 3}}]}, "row 1: seed: a study sets this by itself"),
    "same": ({"rows": [{}, {}]}, "rows 1 and 2 are the same run"),
    "grid": ({"grid": {"batch_size": 3}}, "grid: batch_size: must be a list, got 3"),
    "baseline": ({"baseline": {"model.nor": 1}}, "baseline: model.nor: no row.*'model.norm'"),
    "tables": ({"tables": ["data.nam"]}, "tables: data.nam: no row has this.*'data.name'"),
    "picture": ({"pictures": ["bar"]}, "pictures: bar: no such picture; did you mean 'bars'?"),
    "budget key": ({"budgets": {"small": {"sett": {}}}}, "budgets: small: sett: no such.*'set'"),
    "launch": ({"rows": [{}, {"set": {"launch.threads": 2}}]}, "row 2: launch must be the same"),
    "column": ({"rows": [{"published": {"modle": "bn"}}]}, "row 1: .*column 'modle'.*'model'"),
    "line": ({"rows": [{"published": {"model": "plan"}}]}, "row 1: .*; did you mean 'plain'"),
    "set": ({"rows": [{"set": {1: 2}}]}, "rows, entry 1: set: 1 is no name of a setting"),
    "set of a budget": ({"budgets": {"s": {"only": {1: 2}}}}, "s: only: 1 is no name of a setting"),
    "grid name": ({"grid": {1: [2]}}, "grid: 1 is no name of a setting"),
    "table": ({"tables": [[1]]}, r"tables: \[1\] is no name of a setting"),
    "baseline name": ({"baseline": {1: 2}}, "baseline: 1 is no name of a setting"),
    "baseline value": (
        {"baseline": {"model.norm": "btch"}},
        "baseline: no row has model.norm btch; there are batch, none",
    ),
    "baseline values": (
        {"baseline": {"model.norm": "none", "optim.lr": 0.1}},
        "baseline: no row has all of its values",
    ),
    "no rows": ({"rows": []}, "rows: must have an entry"),
    "no lines": ({"published": {"file": "empty.csv", "metric": "x"}}, "empty.csv: has no lines"),
    "no values": ({"published": {"file": "names.csv", "metric": "x"}}, "has no column value"),
    "file": ({"published": {"file": "digit.csv", "metric": "x"}}, "file digit.csv: no such file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_place_and_the_nearest_right_name(tmp_path, mistake):
    changes, message = MISTAKES[mistake]
    (tmp_path / "empty.csv").write_text("metric,value\n")
    (tmp_path / "names.csv").write_text("metric,model\nsize,x\n")
    apart = {"baseline": None, "budgets": None, "published": TINY["published"]}
    with pytest.raises(UserMistakeError, match=message):
        read_study(write(tmp_path, **apart | changes))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish("smal"), "has no budget 'smal'; did you mean 'small'?"),
        (Wish(only={"model.nrm": "batch"}), "only model.nrm: no row sets this.*'model.norm'"),
        (Wish(only={"model.norm": "group"}), "no row has model.norm group"),
        (Wish(overrides=["--config", "digits"]), "--config: .* takes single options"),
        (Wish(overrides=["--optim.lr", "0.1"]), "rows 1 and 3 are the same run"),
        (Wish(overrides=["--epoch", "1"]), "--epoch: no such option; did you mean '--epochs'?"),
        (Wish(overrides=["--epochs", "x"]), "--epochs: expected int or null, got 'x'"),
    ],
)
def test_a_wish_that_cannot_be_met_is_told(tmp_path, wish, message):
    with pytest.raises(UserMistakeError, match=message):
        read_study(write(tmp_path), wish)


def test_an_unknown_study_is_told_with_the_nearest():
    with pytest.raises(UserMistakeError, match=re.escape("did you mean 'tricks'?")):
        find_study("trick")


def test_study_d_is_the_published_one_in_full():
    study = ours("tricks", None)
    assert (len(study.rows), len(study.seeds)) == (8, 3)
    for row in study.rows:
        recipe = row.recipe
        assert (recipe.epochs, recipe.optim.name, recipe.optim.lr) == (10, "adam", 1e-3)
        assert (recipe.schedule.name, recipe.data.scaling) == ("constant", "scale")
        assert recipe.augment.in_words() == "no augmentation"
        assert recipe.batch_size == (128 if row.number == 8 else 64)
    percents = [row.standing.percent for row in study.rows if row.standing]
    assert percents == pytest.approx([70.45, 74.19, 73.20, 75.25, 74.54, 81.04, 72.76, 70.68])


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish(), None),
        (Wish(seeds=2), None),
        (Wish(seeds=1), "part of the study: 1 seed"),
        (
            Wish(only={"model.norm": "none"}),
            "part of the study: only rows with model.norm none",
        ),
        (
            Wish("small", {"optim.lr": 0.1}, 2),
            "small budget: epochs 1; only rows with model.norm batch, optim.lr 0.1",
        ),
        (
            Wish("small", {"model.norm": "none"}, 5),
            "epochs 1; 5 seeds; only rows with model.norm none",
        ),
    ],
)
def test_what_part_of_the_study_was_asked_for_is_told(tmp_path, wish, words):
    told = read_study(write(tmp_path), wish).budget
    assert told == words or (words and told.endswith(words))
