"""Cases in processes of their own, so that whatever one does is a row of a table; and the table."""

import csv
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
Case = Mapping[str, str]
PROCESSES = multiprocessing.get_context("forkserver")  # which imports the libraries once


class Table:
    """A CSV file: rows are appended whole, by one thread at a time."""

    def __init__(self, path: Path, fields: Sequence[str]):
        self.path, self.fields = path, fields
        self._lock = threading.Lock()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(",".join(fields) + "\n", encoding="utf-8")

    def rows(self) -> list[dict[str, str]]:
        """All rows so far."""
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def append(self, row: Row) -> None:
        """One more row, on the disk when this returns."""
        with self._lock, self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.fields, restval="", lineterminator="\n").writerow(row)
            file.flush()
            os.fsync(file.fileno())


def judge_apart(
    answer: Callable[..., None], case: Iterable[object], limit: float
) -> dict[str, Any]:
    """The row that `answer(connection, *case)` sends from a process of its own, or how that ended.

    Args:
        answer: a function of a module.
        limit: seconds.
    """
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=answer, args=(sender, *case), daemon=True)
    too_slow = {"status": "time limit", "reason": f"more than {limit:g} s"}
    began = time.monotonic()
    process.start()
    sender.close()
    try:
        in_time = receiver.poll(limit)
        row = receiver.recv() if in_time else too_slow
    except EOFError:  # it ended without an answer
        process.join()
        row = {"status": "crashed", "reason": f"exit code {process.exitcode}"}
    process.kill()
    process.join()
    reason = " ".join(str(row.get("reason", "")).split())[:300]
    return row | {"reason": reason, "seconds": f"{time.monotonic() - began:.0f}"}


def run_cases(cases: Iterable[Case], judge: Callable[[Case], Row], table: Table, jobs: int) -> None:
    """Append the row of every case that has none, several at once.

    A case is a part of its row: the columns that say which case it is.
    """

    def run(case: Case) -> None:
        row = {**judge(case), **case}
        table.append(row)
        print(*case.values(), f"{row['status']} {row['reason']}", flush=True)

    rows = table.rows()
    left = [case for case in cases if not any(case.items() <= row.items() for row in rows)]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, left))
