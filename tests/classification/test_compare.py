"""Several runs in one table."""

import json

import pytest

from classification import compare
from knorm.training.mistakes import UserMistakeError


def make_run(folder, norm, seed, top1):
    folder.mkdir()
    (folder / "config.yaml").write_text(f"model: {{norm: {norm}}}\n")
    environment = {"versions": {"torch": "2.15.0"}, "device": "cpu", "threads": 1, "processes": 1}
    (folder / "environment.json").write_text(json.dumps(environment))
    result = {
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
    }
    (folder / "result.json").write_text(json.dumps(result))
    return str(folder)


def test_the_table_gives_mean_and_deviation_over_runs_best_setting_first(tmp_path, capsys):
    runs = [
        make_run(tmp_path / f"{norm}{seed}", norm, seed, top1)
        for norm, seed, top1 in [("batch", 0, 0.70), ("batch", 1, 0.72), ("kernel", 0, 0.8)]
    ]
    out = tmp_path / "out" / "table"
    compare.main([*runs, "--by", "model.norm", "--out", str(out)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert lines[0].startswith("| `kernel` | 0 | 80.00 | - |")
    assert lines[1].startswith("| `batch` | 0, 1 | 71.00 ± 1.41 | - |")
    assert (tmp_path / "out" / "table.md").read_text() == compare.render(
        compare.read_rows(tmp_path / "out" / "table.csv")
    )


def test_an_unfinished_run_or_an_unknown_setting_is_named(tmp_path):
    run = make_run(tmp_path / "run", "batch", 0, 0.7)
    out = ["--out", str(tmp_path / "table")]
    with pytest.raises(UserMistakeError, match=r"no finished run"):
        compare.main([str(tmp_path), "--by", "model.norm", *out])
    with pytest.raises(UserMistakeError, match=r"has no model\.nrom"):
        compare.main([run, "--by", "model.nrom", *out])
