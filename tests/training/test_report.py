import json

import pytest

from knorm.training.report import class_table, in_time, write_report


def numbers_of(count):
    return [
        {
            "class": f"c{k}",
            "count": 10,
            "correct": k % 11,
            "accuracy": k % 11 / 10,
            "taken_for": "c0",
            "taken_for_count": 1,
        }
        for k in range(count)
    ]


def per_class(classes):
    return {"per_class": {"split": "test", "weights": "best", "classes": classes}}


@pytest.fixture
def result():
    return {
        "name": "digits-net",
        "epochs": 3,
        "seed": 7,
        "best_epoch": 2,
        "seconds": 75.0,
        "training_seconds": 60.0,
        "samples_per_second": 1234.5,
        "data_wait": 0.25,
        "memory_bytes": 2**30,
        "parameters": 1_234_567,
        "macs": 89_000_000,
        "mult_adds": 90_000_000,
        "results": [
            {"split": "test", "weights": "best", "metric": "top1", "value": 0.5, "count": 9},
            {"split": "val", "weights": "last", "metric": "loss", "value": None, "count": 9},
        ],
        **per_class(numbers_of(2)),
    }


def test_a_report_tells_the_run_in_one_page(tmp_path, result):
    environment = {
        "device": "cpu (x)",
        "processes": 2,
        "threads": 1,
        "python": "3.12.1",
        "versions": {"torch": "2.15.0"},
        "git": {"commit": "abc123", "changed": True},
    }
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    (tmp_path / "command.txt").write_text("python -m pipeline.train\n")
    (tmp_path / "config.yaml").write_text("epochs: 3\n")
    (tmp_path / "confusion.png").touch()
    write_report(tmp_path, result)
    text = (tmp_path / "report.md").read_text()
    for words in (
        "# digits-net\n\n3 epochs, seed 7, 0:01:15 on cpu (x), 2 process(es) with 1 thread(s)",
        "| test | best | top1 | 0.5 | 9 |",
        "| val | last | loss | not finite | 9 |",
        "those of epoch 2, chosen on the validation split",
        "| parameters | 1,234,567 |",
        "| part of it spent waiting for data | 25.0 % |",
        "| peak memory | 1024 MiB |",
        "![confusion](confusion.png)",
        "| c1 | 10.0 | 1 | 10 | c0 (1) |",
        "```\npython -m pipeline.train\n```",
        "git commit abc123, with changes; python 3.12.1, torch 2.15.0",
        "```yaml\nepochs: 3\n```",
    ):
        assert words in text
    assert "curves.png" not in text


def test_classes_come_worst_first_and_those_without_samples_last():
    empty = numbers_of(1)[0] | {"class": "none", "accuracy": None, "taken_for": None}
    lines = class_table(per_class([empty, *reversed(numbers_of(3))])).splitlines()[4:]
    assert [line.split(" | ")[0] for line in lines] == ["| c0", "| c1", "| c2", "| none"]
    assert lines[-1].startswith("| none | - |")


def test_of_very_many_classes_the_worst_are_shown():
    text = class_table(per_class(numbers_of(150)))
    assert "The worst 100 of 150; all are in result.json." in text
    assert text.count("\n") == 2 + 1 + 100


def test_pipelines_without_classes_have_no_such_table():
    assert class_table({}) == ""


def test_times_are_read_in_hours_minutes_and_seconds():
    assert in_time(3723.4) == "1:02:03"
