"""Which architectures of timm and torchvision can be given which norm kinds?

    python -m benchmarks.swap_census --models smallest --out docs/results/swap-census
    python -m benchmarks.swap_census --models 'resnet*' --kinds kernel --jobs 2 --out OUT
    python -m benchmarks.swap_census --library torchvision --out OUT

Every net and kind is judged in a process of its own with a time limit (`benchmarks.swap_case`) and
its row appended to OUT.csv at once; rows that are there already are not made again, so that the
same command goes on where it was stopped. OUT.md is made from OUT.csv and OUT.head.md if there is
one.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.apart import PROCESSES, Case, Table, judge_apart, run_cases
from benchmarks.swap_case import answer
from benchmarks.swap_nets import SMALLEST, chosen, families, library_version
from knorm.choices import NORM_KINDS, check_name
from knorm.training.compare import page
from knorm.training.mistakes import OneLineParser, mistakes_of_the_user, run_program

Row = Mapping[str, str]
FIELDS = (
    "library", "model", "family", "kind", "status", "norms", "batch_norms", "replaced", "stay",
    "independent", "consistent", "again", "fold_change", "fold_change_double", "rounding",
    "parameters_before", "parameters_after", "seconds", "reason", "torch", "version",
)  # fmt: skip


def judge(case: Case, known: Mapping[str, str], limit: float) -> dict[str, Any]:
    """The row of a net and a kind."""
    library, name = case["library"], case["model"]
    facts = {"family": known[name], "torch": torch.__version__, "version": library_version(library)}
    return facts | judge_apart(answer, case.values(), limit)


def render(rows: Sequence[Row], head: str = "") -> str:
    """Markdown: nets with and without batch norms in two tables, then all that did not work."""
    with_batch = [row for row in rows if row["batch_norms"] not in ("", "0")]
    others = [row for row in rows if row["batch_norms"] == "0" and row["norms"] != "0"]
    parts = [head.strip(), table("nets with a batch norm", with_batch), folding(rows)]
    parts += [table("nets with other norms alone", others)] if others else []
    parts += [
        f"{title}:\n\n{by_reason(found)}"
        for title, test in EXCEPTIONS.items()
        if (found := [row for row in rows if test(row)])
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


COLUMNS = {
    "swapped and learn": lambda row: row["status"] == "ok",
    "no sample sees another": lambda row: row["independent"] == "True",
    "same in training and evaluation": lambda row: row["consistent"] == "True",
    "a second swap changes no bit": lambda row: row["status"] == "ok" and row["again"] != "False",
}
EXCEPTIONS = {
    "Not swapped, or cannot learn": lambda row: row["status"] not in ("ok", "no norm"),
    "Samples see each other": lambda row: row["independent"] == "False",
    "Not the same in training and evaluation": lambda row: row["consistent"] == "False",
    "Changed by a second swap": lambda row: row["again"] == "False",
}


def table(title: str, rows: Sequence[Row]) -> str:
    """Counts and shares for each library and kind."""
    lines = [
        f"| library | kind | {title} | {' | '.join(COLUMNS)} |",
        "| --- | --- |" + " --- |" * (1 + len(COLUMNS)),
    ]
    for library, kind in sorted({(row["library"], row["kind"]) for row in rows}):
        of_kind = [row for row in rows if (row["library"], row["kind"]) == (library, kind)]
        counts = [sum(test(row) for row in of_kind) for test in COLUMNS.values()]
        cells = " | ".join(share(count, len(of_kind)) for count in counts)
        lines.append(f"| {library} | `{kind}` | {len(of_kind)} | {cells} |")
    return "\n".join(lines)


def folding(rows: Sequence[Row]) -> str:
    """What folding changed: in how many nets less than 1e-5, and where most."""
    lines = [
        "| change | nets | changed by less than 1e-5 | largest change |",
        "| --- | --- | --- | --- |",
    ]
    for field, name in CHANGES.items():
        found = sorted((row for row in rows if row.get(field)), key=lambda row: _size(row[field]))
        if found:
            few = sum(_size(row[field]) < 1e-5 for row in found)
            worst = f"{found[-1][field]} ({found[-1]['model']})"
            lines.append(f"| {name} | {len(found)} | {share(few, len(found))} | {worst} |")
    return "\n".join(lines) if len(lines) > 2 else ""


CHANGES = {
    "fold_change_double": "batch norms folded, float64",
    "fold_change": "batch norms folded, float32",
    "rounding": "not folded, float32 instead of float64",
}


def _size(change: str) -> float:
    """As a number; what is none is larger than all."""
    return math.inf if math.isnan(float(change)) else float(change)


def by_reason(rows: Sequence[Row]) -> str:
    """A line for each kind, status and reason, with the nets that share them."""
    nets: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        reason, status = row["reason"], row["status"]
        why = reason.rpartition(": ")[2] if status == "refused" else reason  # less the module
        nets.setdefault((row["kind"], status, why), []).append(row["model"])
    return "\n".join(
        f"- `{kind}`{f', {status}; {why}' * (status != 'ok')}: {', '.join(found)}"
        for (kind, status, why), found in nets.items()
    )


def share(count: int, total: int) -> str:
    """A count and its part of the total."""
    return f"{count} ({100 * count / total:.1f} %)" if total else "-"


def main() -> None:
    """Choose, judge, and write the page."""
    parser = OneLineParser(prog="python -m benchmarks.swap_census", description=__doc__)
    parser.add_argument("--library", choices=("timm", "torchvision"), default="timm")
    parser.add_argument("--kinds", default="group,layer,instance,kernel,none")
    parser.add_argument("--models", default="*", help=f"shell-style patterns, or {SMALLEST!r}")
    parser.add_argument("--jobs", type=int, default=1, help="nets at once")
    parser.add_argument("--limit", type=float, default=300, help="seconds for a net and a kind")
    parser.add_argument("--out", type=Path, required=True, help="OUT.csv and OUT.md are written")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    with mistakes_of_the_user():
        for kind in kinds:
            check_name("norm", kind, NORM_KINDS)
    known = families(options.library)
    record = Path(f"{options.out}.smallest.json")
    names = chosen(options.library, options.models, known, record)
    PROCESSES.set_forkserver_preload(["benchmarks.swap_case", options.library])
    cases = [
        {"library": options.library, "model": name, "kind": kind}
        for name in names
        for kind in kinds
    ]
    table = Table(Path(f"{options.out}.csv"), FIELDS)
    run_cases(cases, lambda case: judge(case, known, options.limit), table, options.jobs)
    text = page(options.out, render)
    Path(f"{options.out}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_program(main))
