"""Rows survive what cases do to their processes, and are made once."""

import os
import time

from benchmarks.apart import Table, judge_apart, run_cases

FIELDS = ("model", "kind", "status", "reason")


def exits(connection, *case):
    os._exit(3)


def sleeps(connection, *case):
    time.sleep(60)


def answers(connection, *case):
    connection.send({"status": "failed", "reason": "two\n lines"})


def test_a_process_that_crashes_hangs_or_answers_gives_a_row():
    targets = ((exits, 60), (sleeps, 0.2), (answers, 60))
    rows = [judge_apart(target, ("net", "group"), limit) for target, limit in targets]
    assert [row["status"] for row in rows] == ["crashed", "time limit", "failed"]
    assert [row["reason"] for row in rows] == ["exit code 3", "more than 0.2 s", "two lines"]


def test_rows_that_are_there_are_not_made_again(tmp_path):
    made = []

    def judge(case):
        made.append((case["model"], case["kind"]))
        return {"status": "ok", "reason": ""}

    def run(*cases):
        table = Table(tmp_path / "census.csv", FIELDS)
        run_cases([{"model": m, "kind": k} for m, k in cases], judge, table, jobs=2)

    run(("a", "group"))
    run(("a", "group"), ("b", "group"), ("b", "none"))
    assert sorted(made) == [("a", "group"), ("b", "group"), ("b", "none")]
    rows = Table(tmp_path / "census.csv", FIELDS).rows()
    assert len(rows) == 3
    assert tuple(rows[0]) == FIELDS
    assert rows[0] == {"model": "a", "kind": "group", "status": "ok", "reason": ""}
