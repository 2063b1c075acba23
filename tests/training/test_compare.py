"""Several runs in one table."""

import json
from types import MappingProxyType

import pytest

from knorm.training import compare
from knorm.training.mistakes import UserMistakeError


def make_run(folder, norm, seed, top1, more=MappingProxyType({}), **settings):
    folder.mkdir(parents=True)
    recipe = {"model": {"norm": norm, "name": "net"}, "seed": seed, "name": "mine", **settings}
    (folder / "config.yaml").write_text(json.dumps(recipe))
    environment = {"versions": {"torch": "2.15.0"}, "device": "cpu", "threads": 1, "processes": 1}
    environment |= {"python": "3.13", "git": None}
    (folder / "environment.json").write_text(json.dumps(environment))
    rows = [{"epoch": epoch, "val.top1": top1 * epoch / 5} for epoch in range(1, 6)]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = {
        "name": "mine",
        "seed": seed,
        "epochs": 5,
        "parameters": 1234,
        "macs": 5_600_000,
        "samples_per_second": 100.0,
        "memory_bytes": 2**20,
        "results": [
            {"split": "test", "weights": weights, "metric": "top1", "value": value, "count": 9}
            for weights, value in (("last", top1), ("best", 0.99))
        ],
        **more,
    }
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def lines_of(text):
    return [line for line in text.splitlines() if line.startswith("| `")]


@pytest.fixture
def runs(tmp_path):
    return [
        make_run(tmp_path / "runs" / f"{norm}{seed}", norm, seed, top1)
        for norm, seed, top1 in [("batch", 0, 0.70), ("batch", 1, 0.72), ("kernel", 0, 0.8)]
    ]


def test_the_table_gives_mean_and_deviation_over_runs(runs, tmp_path):
    out = tmp_path / "out" / "table"
    text = compare.compare(runs, "model.norm", out)
    lines = lines_of(text)
    assert lines[0].startswith("| `batch` | 0, 1 | 71.00 ± 1.41 |")
    assert lines[1].startswith("| `kernel` | 0 | 80.00 |")
    assert "Warning" not in text
    assert "Best validation" not in text
    assert text.endswith("![curves by epoch](table.png)\n")
    assert (tmp_path / "out" / "table.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "table.md").read_text() == compare.page(out, compare.render) == text


def test_runs_are_ranked_by_the_validation_split_and_never_by_the_test_split(tmp_path):
    def scored(norm, val, test):
        numbers = {"weights": "last", "metric": "top1", "count": 9}
        splits = {"val": val, "test": test}
        results = [{"split": split, "value": value, **numbers} for split, value in splits.items()]
        return make_run(tmp_path / norm, norm, 0, test, more={"results": results})

    runs = [scored("batch", 0.5, 0.9), scored("group", 0.6, 0.8), scored("kernel", 0.7, 0.7)]
    text = compare.compare(runs, "model.norm", None)
    assert [line.split(" | ")[:4] for line in lines_of(text)] == [
        ["| `kernel`", "0", "70.00", "70.00"],
        ["| `group`", "0", "60.00", "80.00"],
        ["| `batch`", "0", "50.00", "90.00"],
    ]
    assert "Best validation accuracy first. Mean" in text


def test_without_a_setting_the_ones_that_differ_make_the_groups(runs, tmp_path):
    (tmp_path / "runs" / "result.json").write_text("{}")  # as of seeds taken together
    text = compare.compare([tmp_path / "runs", runs[0]], None, None)
    assert [line.split(" | ")[0] for line in lines_of(text)] == [
        "| `model.norm=batch`",
        "| `model.norm=kernel`",
    ]
    assert lines_of(compare.compare(runs[:2], None, None))[0].startswith("| `mine` | 0, 1 |")


def test_recipes_that_differ_in_more_than_the_setting_are_warned_of(runs, tmp_path):
    other = make_run(
        tmp_path / "other", "kernel", 1, 0.9, optim={"lr": 0.1}, epochs=5, keep={"minutes": 3}
    )
    out = tmp_path / "table"
    text = compare.compare([*runs, other], "model.norm", out)
    assert "**Warning**: the recipes also differ in optim.lr, epochs." in text
    assert compare.page(out, compare.render) == text
    assert "differ" not in compare.compare([*runs, runs[0]], "model", None)


def test_a_seed_that_counts_twice_is_warned_of(runs, tmp_path):
    again = make_run(tmp_path / "again", "batch", 0, 0.7)
    text = compare.compare([*runs, again], "model.norm", None)
    assert "`batch` has several runs of seed 0;" in text


def test_an_unfinished_run_or_an_unknown_setting_is_named(runs, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserMistakeError, match=r"no finished run"):
        compare.compare([empty], "model.norm", None)
    with pytest.raises(UserMistakeError, match=r"has no model\.nrom; did you mean 'model.norm'"):
        compare.compare(runs, "model.nrom", None)


@pytest.mark.parametrize(
    "name", ["config.yaml", "environment.json", "metrics.jsonl", "result.json"]
)
@pytest.mark.parametrize("content", ["", "[1]", '{"seed": ', "null"])
def test_a_damaged_file_of_a_run_is_named(runs, name, content):
    path = runs[1] / name
    path.write_text(content)
    with pytest.raises(UserMistakeError, match=f"^{path}"):
        compare.compare(runs, "model.norm", None)
