"""Several runs side by side: one row each as CSV, mean and deviation by a setting as Markdown.

    python -m classification.compare runs/*/ --by model.norm --out docs/results/cifar10-norms

Writes OUT.csv, which holds what the runs' own records say, and OUT.md, which is made from OUT.csv
and a text beside it, OUT.head.md, if there is one.
"""

import csv
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from knorm.training.mistakes import OneLineParser, UserMistakeError, run_program

Row = Mapping[str, str]

COLUMNS = {  # heading: (column, factor, digits)
    "test top-1 %": ("test.top1", 100, 2),
    "val top-1 %": ("val.top1", 100, 2),
    "test loss": ("test.loss", 1, 4),
    "peak MiB": ("memory_bytes", 2**-20, 0),
}


def read_run(folder: Path, by: str) -> dict[str, Any]:
    """One row of the table, from a run's config.yaml, environment.json and result.json."""
    if not (folder / "result.json").is_file():
        raise UserMistakeError(f"{folder} is no finished run: it holds no result.json")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    setting: Any = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    for part in by.split("."):
        if not isinstance(setting, Mapping) or part not in setting:
            raise UserMistakeError(f"{folder}/config.yaml has no {by}")
        setting = setting[part]
    numbers = {
        f"{row['split']}.{row['metric']}": row["value"]
        for row in result["results"]
        if row["weights"] == "last"
    }
    kept = ("parameters", "macs", "epochs", "samples_per_second", "memory_bytes")
    return {
        by: setting,
        "seed": result["seed"],
        **numbers,
        **{name: result[name] for name in kept},
        "torch": environment["versions"]["torch"],
        "device": environment["device"],
        "threads": environment["threads"],
        "processes": environment["processes"],
    }


def render(rows: Sequence[Row], head: str = "") -> str:
    """Markdown: a line for each setting, best test accuracy first; all from the rows."""
    by = next(iter(rows[0]))
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[by], []).append(row)
    lines = [
        ["", "seeds", *COLUMNS, "parameters", "MMACs"],
        ["---"] * (len(COLUMNS) + 4),
    ]
    ranked = sorted(groups, key=lambda name: -_mean(groups[name], "test.top1"))
    for name in ranked:
        members = groups[name]
        cells = [_mean_sd(members, *column) for column in COLUMNS.values()]
        size, macs = int(members[0]["parameters"]), int(members[0]["macs"]) / 1e6
        seeds = ", ".join(sorted(row["seed"] for row in members))
        lines.append([f"`{name}`", seeds, *cells, f"{size:,}", f"{macs:.1f}"])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    first = rows[0]
    foot = (
        f"Mean ± standard deviation over seeds, last weights, {first['epochs']} epochs. "
        f"{first['device']}, {first['processes']} process(es) of "
        f"{first['threads']} thread(s), torch {first['torch']}."
    )
    return "\n\n".join(part for part in (head.strip(), table, foot) if part) + "\n"


def _values(rows: Sequence[Row], column: str) -> list[float]:
    return [float(row[column]) for row in rows if row.get(column)]


def _mean(rows: Sequence[Row], column: str) -> float:
    return statistics.fmean(_values(rows, column))


def _mean_sd(rows: Sequence[Row], column: str, factor: float, digits: int) -> str:
    return mean_sd([factor * value for value in _values(rows, column)], digits)


def mean_sd(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation; of one value itself, of none a dash."""
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def read_rows(path: Path) -> list[Row]:
    """The rows of a table that `write_table` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_table(
    rows: Sequence[Mapping[str, Any]], out: Path, render: Callable[[Sequence[Row], str], str]
) -> str:
    """OUT.csv, and OUT.md as rendered from it and OUT.head.md; returns the latter."""
    path, head = Path(f"{out}.csv"), Path(f"{out}.head.md")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
    text = render(read_rows(path), head.read_text(encoding="utf-8") if head.is_file() else "")
    Path(f"{out}.md").write_text(text, encoding="utf-8")
    return text


def main(argv: Sequence[str] | None = None) -> None:
    """Read the runs, write the table, print it."""
    parser = OneLineParser(prog="python -m classification.compare", description=__doc__)
    parser.add_argument("run_dirs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--by", required=True, help="the setting to compare, such as model.norm")
    parser.add_argument("--out", type=Path, required=True, help="OUT.csv and OUT.md are written")
    options = parser.parse_args(argv)
    rows = sorted(
        (read_run(folder, options.by) for folder in options.run_dirs),
        key=lambda row: (str(row[options.by]), row["seed"]),
    )
    print(write_table(rows, options.out, render), end="")


if __name__ == "__main__":
    sys.exit(run_program(main))
