"""The census survives what nets do, goes on where it was stopped, and names what failed."""

import os
import time
from types import SimpleNamespace

from benchmarks import swap_census
from benchmarks.swap_census import FIELDS, Table, judge_apart, render, run_cases


def exits(connection, *case):
    os._exit(3)


def sleeps(connection, *case):
    time.sleep(60)


def answers(connection, *case):
    connection.send({"status": "failed", "reason": "two\n lines"})


def test_a_process_that_crashes_hangs_or_answers_gives_a_row(monkeypatch):
    rows = []
    for target, limit in ((exits, 60), (sleeps, 0.2), (answers, 60)):
        monkeypatch.setattr(swap_census, "answer", target)
        rows.append(judge_apart("timm", "net", "group", limit))
    assert [row["status"] for row in rows] == ["crashed", "time limit", "failed"]
    assert [row["reason"] for row in rows] == ["exit code 3", "more than 0.2 s", "two lines"]


def test_rows_that_are_there_are_not_made_again(tmp_path, monkeypatch):
    made = []

    def judge(library, name, kind, limit):
        made.append((name, kind))
        return {"status": "ok", "reason": ""}

    monkeypatch.setattr(swap_census, "judge_apart", judge)
    options = SimpleNamespace(out=tmp_path / "census", library="timm", limit=1, jobs=2)
    monkeypatch.setattr(swap_census, "library_version", lambda library: "1")
    known = {"a": "family", "b": "family"}
    run_cases([("a", "group")], options, known)
    run_cases([("a", "group"), ("b", "group"), ("b", "none")], options, known)
    assert sorted(made) == [("a", "group"), ("b", "group"), ("b", "none")]
    rows = Table(tmp_path / "census.csv").rows()
    assert len(rows) == 3
    assert tuple(rows[0]) == FIELDS


def test_the_page_counts_nets_with_a_batch_norm_and_names_failures():
    base = {"library": "timm", "kind": "group", "batch_norms": "3", "reason": ""}
    base |= {"independent": "True", "consistent": "True"}
    rows = [
        base | {"model": "a", "status": "ok"},
        base | {"model": "b", "status": "crashed", "independent": "", "reason": "exit code 3"},
        base | {"model": "c", "status": "ok", "batch_norms": "0"},
        base | {"model": "d", "status": "no norm", "batch_norms": "0"},
    ]
    text = render(rows, "# Census")
    assert text.startswith("# Census\n")
    assert "| timm | `group` | 2 | 1 (50.0 %) | 1 (50.0 %) | 2 (100.0 %) |" in text
    assert text.count("\n- ") == 1
    assert "- b, `group`: crashed; exit code 3" in text
