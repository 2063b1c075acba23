"""For which nets of timm are per-record gradients right, refused, or wrong without a word?

    python -m benchmarks.per_record_census --models smallest --out docs/results/per-record-census
    python -m benchmarks.per_record_census --models 'vit_*' --norms own --ways privacy --out OUT

Every net, its norms (`own`: batch norms alone give way to group norms; `kernel`: all are swapped)
and way (`privacy`: ours with its checks; `opacus`: its hooks) is judged in a process of its own
with a time limit (`benchmarks.per_record_case`) and its row appended to OUT.csv at once; rows that
are there already are not made again. OUT.md is made from OUT.csv and OUT.head.md if there is one.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import opacus
import torch

from benchmarks.apart import PROCESSES, Case, Table, judge_apart, run_cases
from benchmarks.per_record_case import OWN, WAYS, answer
from benchmarks.swap_census import share
from benchmarks.swap_nets import SMALLEST, chosen, families, library_version
from knorm.choices import check_name
from knorm.training.compare import page
from knorm.training.mistakes import OneLineParser, mistakes_of_the_user, run_program
from knorm.training.tables import markdown

Row = Mapping[str, str]
FIELDS = (
    "model", "family", "norms", "way", "status", "difference", "difference_thin", "batch_norms",
    "parameters", "size", "seconds", "reason", "torch", "timm", "opacus",
)  # fmt: skip
NORMS = (OWN, "kernel")
WIDTH = 200  # of a reason on the page
VERDICTS = ("exact", "refused", "wrong")
RECORD = Path(__file__).parent.parent / "docs/results/swap-census.smallest.json"


def judge(case: Case, known: Mapping[str, str], limit: float) -> dict[str, Any]:
    """The row of a net, its norms and a way."""
    facts = {"family": known[case["model"]], "torch": torch.__version__}
    facts |= {"timm": library_version("timm"), "opacus": opacus.__version__}
    return facts | judge_apart(answer, case.values(), limit)


def render(rows: Sequence[Row], head: str = "") -> str:
    """Markdown: counts and shares, then the nets of every verdict but "exact" by their reason."""
    parts = [head.strip(), counts(rows)]
    for norms, way in groups(rows):
        others = [row for row in of(rows, norms, way) if row["status"] != "exact"]
        parts += [f"Norms `{norms}`, way `{way}`:\n\n{by_reason(others)}"] if others else []
    return "\n\n".join(part for part in parts if part) + "\n"


def counts(rows: Sequence[Row]) -> str:
    """A line for each choice of norms and way; shares are of the nets that run by themselves."""
    lines = []
    for norms, way in groups(rows):
        found = of(rows, norms, way)
        judged = [row for row in found if row["status"] in VERDICTS]
        cells = [
            share(sum(row["status"] == verdict for row in judged), len(judged))
            for verdict in VERDICTS
        ]
        lines.append([norms, way, str(len(judged)), *cells, str(len(found) - len(judged))])
    return markdown(["norms", "way", "nets judged", *VERDICTS, "not judged"], lines)


def by_reason(rows: Sequence[Row]) -> str:
    """A line for each status and reason, with the nets that share them."""
    nets: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        nets.setdefault((row["status"], shorten(row["reason"], WIDTH)), []).append(row["model"])
    return "\n".join(
        f"- {status}; {reason}: {', '.join(found)}"
        for (status, reason), found in sorted(nets.items())
    )


def groups(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Norms and ways that rows have."""
    return sorted({(row["norms"], row["way"]) for row in rows}, reverse=True)


def of(rows: Sequence[Row], norms: str, way: str) -> list[Row]:
    """The rows of these norms and this way."""
    return [row for row in rows if (row["norms"], row["way"]) == (norms, way)]


def main() -> None:
    """Choose, judge, and write the page."""
    parser = OneLineParser(prog="python -m benchmarks.per_record_census", description=__doc__)
    parser.add_argument("--models", default="*", help=f"shell-style patterns, or {SMALLEST!r}")
    parser.add_argument("--norms", default=",".join(NORMS))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--jobs", type=int, default=1, help="nets at once")
    parser.add_argument("--limit", type=float, default=300, help="seconds for a row")
    parser.add_argument("--out", type=Path, required=True, help="OUT.csv and OUT.md are written")
    options = parser.parse_args()
    norms, ways = options.norms.split(","), options.ways.split(",")
    with mistakes_of_the_user():
        for name in norms:
            check_name("norms", name, NORMS)
        for name in ways:
            check_name("way", name, tuple(WAYS))
    known = families("timm")
    cases = [
        {"model": model, "norms": name, "way": way}
        for name in norms
        for model in chosen("timm", options.models, known, RECORD)
        for way in ways
    ]
    PROCESSES.set_forkserver_preload(["benchmarks.per_record_case"])
    table = Table(Path(f"{options.out}.csv"), FIELDS)
    run_cases(cases, lambda case: judge(case, known, options.limit), table, options.jobs)
    Path(f"{options.out}.md").write_text(page(options.out, render), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_program(main))
