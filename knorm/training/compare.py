"""Several runs side by side: one row each as CSV, mean and deviation by setting as Markdown, and
the curves of all of them as a picture. All of it from what the runs' folders hold."""

import csv
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knorm.training.folder import (
    CONFIG,
    METRICS,
    RESULT,
    has_config,
    read_environment,
    read_epochs,
    read_result,
)
from knorm.training.mistakes import UserMistakeError, did_you_mean
from knorm.training.pictures import draw_compared
from knorm.training.recipes import flat, is_part, read_yaml
from knorm.training.tables import markdown, spread

Row = Mapping[str, str]
Render = Callable[[Sequence[Row], str], str]

COLUMNS = {  # heading: (column, factor, digits)
    "val top-1 %": ("val.top1", 100, 2),
    "test top-1 %": ("test.top1", 100, 2),
    "val mIoU %": ("val.miou", 100, 2),
    "test mIoU %": ("test.miou", 100, 2),
    "test pixel accuracy %": ("test.pixel_accuracy", 100, 2),
    "test loss": ("test.loss", 1, 4),
    "peak MiB": ("memory_bytes", 2**-20, 0),
}
RANKED_BY = {
    "val.top1": "accuracy",
    "val.miou": "mIoU",
}  # whoever picks the first line has not looked at the test set
# Settings that may differ between runs of one recipe: they do not change its numbers, or are seeds.
NOT_COMPARED = ("seed", "seeds", "name", "run_dir", "resume", "dry_run", "keep")
BY_DEFAULT = "settings"
ALSO_DIFFER = "also_differ"


@dataclass(frozen=True)
class Record:
    """What the folder of a finished run says."""

    folder: Path
    settings: dict[str, Any]
    """dotted name -> value, sections and all"""
    row: dict[str, Any]
    """seed, numbers of the last weights, cost, surroundings"""
    epochs: list[dict[str, Any]]
    result: dict[str, Any]
    """the whole result.json"""
    environment: dict[str, Any]


def compare(folders: Iterable[Path], by: str | None, out: Path | None) -> str:
    """The table of the runs in these folders as Markdown; with `out` also OUT.csv, .md and .png.

    `by` is the setting that makes groups; None: every setting in which the runs differ.
    """
    records = [read_run(folder) for folder in run_folders(folders)]
    different = differing([record.settings for record in records])
    labels = [label(record, by, different) for record in records]
    heading = by or BY_DEFAULT
    rest = [name for name in different if by and not is_part(name, by)]
    extra = {ALSO_DIFFER: ", ".join(rest)} if rest else {}
    rows = sorted(
        (
            {heading: name, **record.row, **extra}
            for name, record in zip(labels, records, strict=True)
        ),
        key=lambda row: (str(row[heading]), row["seed"]),
    )
    if out is None:
        return render([{key: str(value) for key, value in row.items()} for row in rows])
    groups: dict[str, list[list[dict[str, Any]]]] = {}
    for name, record in zip(labels, records, strict=True):
        groups.setdefault(str(name), []).append(record.epochs)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_compared([*groups.items()], Path(f"{out}.png"))
    return write_table(rows, out, render)


def run_folders(given: Iterable[Path]) -> list[Path]:
    """The folders of finished runs; one that holds several stands for all of them."""
    given, found = list(given), []
    for folder in given:
        results = sorted(path.parent for path in folder.rglob(RESULT))
        runs = [place for place in results if (place / METRICS).is_file()]
        if runs:
            found += runs
        elif has_config(folder):
            print(f"{folder} is left out: it is not finished", file=sys.stderr)
    if not found:
        raise UserMistakeError(
            f"{', '.join(map(str, given))}: no finished run, for none holds a {RESULT}"
        )
    return list({folder.resolve(): folder for folder in found}.values())


def read_run(folder: Path) -> Record:
    """From a run's config.yaml, environment.json, result.json and metrics.jsonl."""
    result, environment = read_result(folder), read_environment(folder)
    numbers = {
        f"{row['split']}.{row['metric']}": row["value"]
        for row in result["results"]
        if row["weights"] == "last"
    }
    kept = ("parameters", "macs", "epochs", "samples_per_second", "memory_bytes")
    row = {
        "seed": result["seed"],
        **numbers,
        **{name: result[name] for name in kept},
        "torch": environment["versions"]["torch"],
        "device": environment["device"],
        "threads": environment["threads"],
        "processes": environment["processes"],
    }
    config = folder / CONFIG
    settings = dict(flat(read_yaml(config), str(config)))
    return Record(folder, settings, row, read_epochs(folder), result, environment)


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings, sections left out, that are not the same in all runs; seeds never count."""
    names = dict.fromkeys(name for one in settings for name in one)
    found = []
    for name in names:
        values = [one.get(name) for one in settings]
        is_section = any(isinstance(value, dict) and value for value in values)
        matters = not is_section and not any(is_part(name, setting) for setting in NOT_COMPARED)
        if matters and values.count(values[0]) < len(values):
            found.append(name)
    return found


def label(record: Record, by: str | None, different: Sequence[str]) -> Any:
    """The name of the group that a run belongs to."""
    if by is None:
        words = [f"{name}={record.settings.get(name)}" for name in different]
        return ", ".join(words) or record.settings.get("name")
    if by not in record.settings:
        hint = did_you_mean(by, record.settings)
        raise UserMistakeError(f"{record.folder / CONFIG} has no {by}{hint}")
    return record.settings[by]


def render(rows: Sequence[Row], head: str = "") -> str:
    """Markdown: a line for each setting, best validation accuracy first; all from the rows."""
    by = next(iter(rows[0]))
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[by], []).append(row)
    columns = {name: column for name, column in COLUMNS.items() if column[0] in rows[0]}
    ranked_by = next((column for column in RANKED_BY if _values(rows, column)), "val.top1")
    lines = []
    for name in sorted(groups, key=lambda name: -_mean(groups[name], ranked_by)):
        members = groups[name]
        cells = [_spread(members, *column) for column in columns.values()]
        size, macs = int(members[0]["parameters"]), int(members[0]["macs"]) / 1e6
        seeds = ", ".join(sorted(row["seed"] for row in members))
        lines.append([f"`{name}`", seeds, *cells, f"{size:,}", f"{macs:.1f}"])
    table = markdown(["", "seeds", *columns, "parameters", "MMACs"], lines)
    known = _values(rows, ranked_by)
    order = f"Best validation {RANKED_BY[ranked_by]} first. " if known else ""
    foot = (
        f"{order}Mean ± standard deviation over seeds, last weights, "
        f"{_common(rows, 'epochs')} epochs. "
        f"{_common(rows, 'device')}, {_common(rows, 'processes')} process(es) of "
        f"{_common(rows, 'threads')} thread(s), torch {_common(rows, 'torch')}."
    )
    parts = (head.strip(), table, foot, *warnings_of(groups, rows[0].get(ALSO_DIFFER, "")))
    return "\n\n".join(part for part in parts if part) + "\n"


def warnings_of(groups: Mapping[str, Sequence[Row]], also: str) -> list[str]:
    """What makes the comparison unfair: other settings that differ, a seed that counts twice."""
    found = []
    if also:
        found.append(f"**Warning**: the recipes also differ in {also}.")
    for name, rows in groups.items():
        twice = [seed for seed, count in Counter(row["seed"] for row in rows).items() if count > 1]
        if twice:
            found.append(
                f"**Warning**: `{name}` has several runs of seed {', '.join(twice)}; "
                "the deviation is not that of independent seeds."
            )
    return found


def _common(rows: Sequence[Row], column: str) -> str:
    """What all rows say there, or everything that some of them say."""
    return " or ".join(dict.fromkeys(row[column] for row in rows))


def _mean(rows: Sequence[Row], column: str) -> float:
    values = _values(rows, column)
    return statistics.fmean(values) if values else float("-inf")


def _values(rows: Sequence[Row], column: str) -> list[float]:
    return [float(row[column]) for row in rows if row.get(column) not in (None, "", "None")]


def _spread(rows: Sequence[Row], column: str, factor: float, digits: int) -> str:
    return spread([factor * value for value in _values(rows, column)], digits)


def write_table(rows: Sequence[Mapping[str, Any]], out: Path, render: Render) -> str:
    """Write OUT.csv and OUT.md, which is `page`; returns the latter."""
    out.parent.mkdir(parents=True, exist_ok=True)
    names = dict.fromkeys(name for row in rows for name in row)
    with Path(f"{out}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(names), lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
    text = page(out, render)
    Path(f"{out}.md").write_text(text, encoding="utf-8")
    return text


def page(out: Path, render: Render) -> str:
    """OUT.md as made from OUT.csv and, where they are, OUT.head.md and the picture OUT.png."""
    head, picture = Path(f"{out}.head.md"), Path(f"{out}.png")
    with Path(f"{out}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    text = render(rows, head.read_text(encoding="utf-8") if head.is_file() else "")
    return f"{text}\n![curves by epoch]({picture.name})\n" if picture.is_file() else text
