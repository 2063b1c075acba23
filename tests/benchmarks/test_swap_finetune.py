import csv
import sys

import pytest

from benchmarks import swap_finetune

pytest.importorskip("sklearn")


def row(**given):
    numbers = {"at_once.test.top1": "0.5", "test.top1": "0.75", "val.top1": "0.7"}
    numbers |= {"test.loss": "0.9", "parameters": "1234", "epochs": "1", "torch": "2"}
    numbers |= {"norms": "layer", "seed": "0", "device": "cpu", "threads": "1", "processes": "1"}
    return numbers | given


def test_a_line_for_each_case_tells_before_and_after():
    rows = [row(), row(seed="1", **{"test.top1": "0.77"}), row(norms="group")]
    page = swap_finetune.render(rows, "# Head\n")
    assert page.startswith(
        "# Head\n\n| norms | swapped: test top-1 % | after 1 epoch: test top-1 %"
    )
    assert "| layer | 50.00 | 76.00 ± 1.41 | 70.00 ± 0.00 | 0.9000 ± 0.0000 | 1,234 |" in page
    assert "| group | 50.00 | 75.00 | 70.00 | 0.9000 | 1,234 |" in page
    assert "seeds 0, 1; last weights" in page


def test_folded_nets_know_as_much_as_before_and_finished_runs_are_not_made_again(
    tmp_path, monkeypatch, capsys
):
    quick = ["--model.norm=batch", "--model.options.width=0.25", "--schedule.warmup_epochs=0"]
    monkeypatch.setattr(swap_finetune, "FIRST", ["--config=digits", *quick, "--epochs=1"])
    kept = ("batch, as it was", "none, folded")
    monkeypatch.setattr(swap_finetune, "CASES", {c: swap_finetune.CASES[c] for c in kept})
    arguments = ["--root=data", f"--runs={tmp_path}/runs", "--seeds=1", "--limit=100"]
    monkeypatch.setattr(sys, "argv", ["x", *arguments, f"--out={tmp_path}/table"])
    swap_finetune.main()
    page = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out.endswith(page)
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["norms"] for r in rows] == list(kept)
    assert rows[0]["at_once.test.top1"] == rows[1]["at_once.test.top1"]
    assert int(rows[1]["parameters"]) < int(rows[0]["parameters"])
    swap_finetune.main()
    assert capsys.readouterr().out.count("is finished already") == 3
    assert (tmp_path / "table.md").read_text() == page
