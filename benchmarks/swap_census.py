"""Which architectures of timm and torchvision can be given which norm kinds?

    python -m benchmarks.swap_census --models smallest --out docs/results/swap-census
    python -m benchmarks.swap_census --models 'resnet*' --kinds kernel --jobs 2 --out OUT
    python -m benchmarks.swap_census --library torchvision --out OUT

Every net and kind is judged in a process of its own with a time limit (`benchmarks.swap_case`) and
its row appended to OUT.csv at once; rows that are there already are not made again, so that the
same command goes on where it was stopped. OUT.md is made from OUT.csv and OUT.head.md if there is
one.
"""

import csv
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from benchmarks.swap_case import BUILDERS, answer
from knorm.choices import NORM_KINDS, check_name
from knorm.training.compare import page
from knorm.training.mistakes import (
    OneLineParser,
    UserMistakeError,
    mistakes_of_the_user,
    run_program,
)

Row = Mapping[str, str]
FIELDS = (
    "library", "model", "family", "kind", "status", "norms", "batch_norms", "replaced", "stay",
    "independent", "consistent", "parameters_before", "parameters_after", "seconds", "reason",
    "torch", "version",
)  # fmt: skip
SMALLEST = "smallest"
PROCESSES = multiprocessing.get_context("forkserver")  # which imports the libraries once


def families(library: str) -> dict[str, str]:
    """The family of every architecture, by its name."""
    if library == "torchvision":
        import torchvision.models as models
        from torchvision.models import get_model_builder, list_models, segmentation

        names = [*list_models(module=models), *list_models(module=segmentation)]
        return {name: get_model_builder(name).__module__.rpartition(".")[2] for name in names}
    import timm

    return {
        name: family for family in timm.list_modules() for name in timm.list_models(module=family)
    }


def library_version(library: str) -> str:
    """Of timm or torchvision."""
    return __import__(library).__version__


def smallest_of_each(library: str, known: Mapping[str, str]) -> list[str]:
    """The net with the fewest parameters of every family; nets are built without memory."""
    sizes: dict[str, tuple[int, str]] = {}
    for name, family in known.items():
        try:
            with torch.device("meta"):
                net = BUILDERS[library](name)
        except Exception:  # nets that cannot be built so are left to the long run
            continue
        size = (sum(p.numel() for p in net.parameters()), name)
        sizes[family] = min(sizes.get(family, size), size)
    return [name for _, name in sizes.values()]


class Table:
    """OUT.csv: rows are appended whole, by one thread at a time."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(",".join(FIELDS) + "\n", encoding="utf-8")

    def rows(self) -> list[dict[str, str]]:
        """All rows so far."""
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def append(self, row: Mapping[str, Any]) -> None:
        """One more row, on the disk when this returns."""
        with self._lock, self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, FIELDS, restval="", lineterminator="\n").writerow(row)
            file.flush()
            os.fsync(file.fileno())


def judge_apart(library: str, name: str, kind: str, limit: float) -> dict[str, Any]:
    """The row of `benchmarks.swap_case` from a process of its own, or how that ended."""
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=answer, args=(sender, library, name, kind), daemon=True)
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


def run_cases(cases: Iterable[tuple[str, str]], options: Any, known: Mapping[str, str]) -> None:
    """Judge nets and kinds, several at once."""
    table = Table(Path(f"{options.out}.csv"))
    facts = {"library": options.library, "torch": torch.__version__}
    facts["version"] = library_version(options.library)

    def run(case: tuple[str, str]) -> None:
        name, kind = case
        row = judge_apart(options.library, name, kind, options.limit)
        table.append(facts | {"model": name, "family": known[name], "kind": kind} | row)
        print(f"{name} {kind}: {row['status']} {row['reason']}", flush=True)

    there = {(row["library"], row["model"], row["kind"]) for row in table.rows()}
    left = [case for case in cases if (options.library, *case) not in there]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, left))


def render(rows: Sequence[Row], head: str = "") -> str:
    """Markdown: a line for each library and kind, then all that did not work, with the reason."""
    lines = [
        "| library | kind | nets with a batch norm | swapped and learn | no sample sees another "
        "| same in training and evaluation |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    groups = sorted({(row["library"], row["kind"]) for row in rows})
    with_batch = [row for row in rows if row["batch_norms"] not in ("", "0")]
    for library, kind in groups:
        of_kind = [r for r in with_batch if (r["library"], r["kind"]) == (library, kind)]
        counts = [sum(test(row) for row in of_kind) for test in TESTS]
        cells = " | ".join(share(count, len(of_kind)) for count in counts)
        lines.append(f"| {library} | `{kind}` | {len(of_kind)} | {cells} |")
    rest = [row for row in rows if row["status"] not in ("ok", "no norm")]
    reasons = [f"- {r['model']}, `{r['kind']}`: {r['status']}; {r['reason']}" for r in rest]
    parts = [head.strip(), "\n".join(lines), *(["Not swapped:", "\n".join(reasons)] * bool(rest))]
    return "\n\n".join(part for part in parts if part) + "\n"


TESTS = (
    lambda row: row["status"] == "ok",
    lambda row: row["independent"] == "True",
    lambda row: row["consistent"] == "True",
)


def share(count: int, total: int) -> str:
    """A count and its part of the total."""
    return f"{count} ({100 * count / total:.1f} %)" if total else "-"


def main() -> None:
    """Choose, judge, and write the page."""
    parser = OneLineParser(prog="python -m benchmarks.swap_census", description=__doc__)
    parser.add_argument("--library", choices=("timm", "torchvision"), default="timm")
    parser.add_argument("--kinds", default="group,layer,instance,kernel,none")
    parser.add_argument("--models", default="*", help=f"shell-style pattern, or {SMALLEST!r}")
    parser.add_argument("--jobs", type=int, default=1, help="nets at once")
    parser.add_argument("--limit", type=float, default=300, help="seconds for a net and a kind")
    parser.add_argument("--out", type=Path, required=True, help="OUT.csv and OUT.md are written")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    with mistakes_of_the_user():
        for kind in kinds:
            check_name("norm", kind, NORM_KINDS)
    known = families(options.library)
    if options.models == SMALLEST:
        names = smallest_of_each(options.library, known)
    else:
        names = [name for name in known if fnmatchcase(name, options.models)]
    if not names:
        raise UserMistakeError(f"--models: {options.library} has no net {options.models!r}")
    PROCESSES.set_forkserver_preload(["benchmarks.swap_case", options.library])
    run_cases([(name, kind) for name in names for kind in kinds], options, known)
    text = page(options.out, render)
    Path(f"{options.out}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_program(main))
