import json

import pytest

from knorm.training.study import write_seeds


def result(seed, top1):
    row = {"split": "test", "weights": "last", "metric": "top1", "value": top1, "count": 10}
    return {"name": "mine", "seed": seed, "results": [row]}


def test_seeds_are_told_with_mean_deviation_and_every_value(tmp_path):
    (tmp_path / "command.txt").write_text("python -m mine\n")
    text = write_seeds(tmp_path, [result(0, 0.5), result(1, 0.75)])
    assert "| test | last | top1 | 0.6250 ± 0.1768 | 0.5, 0.75 |" in text
    assert "python -m mine" in text
    assert (tmp_path / "seeds.md").read_text() == text
    summary = json.loads((tmp_path / "result.json").read_text())
    assert summary["seeds"] == [0, 1]
    assert summary["results"][0]["values"] == [0.5, 0.75]
    assert summary["results"][0]["sd"] == pytest.approx(0.1767767)
