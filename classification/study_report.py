"""The report of a study, made of nothing but the records of its runs: CSV, Markdown, pictures.

OUT.csv has a line for each run; OUT.md is made of that and of a text beside it, OUT.head.md, if
there is one, see `page`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from classification.study_labels import baseline_of, in_full, labels_of, table_of
from classification.study_records import Found, check_same_data, commands_of, done_runs, identify
from classification.study_render import MACS, render
from classification.study_rows import Row, Study, has_all
from knorm.training import compare
from knorm.training.compare import Record, read_run
from knorm.training.mistakes import UserMistakeError
from knorm.training.pictures import Bar, Point, draw_against, draw_bars, draw_compared

PERCENT = "test top-1 %, last epoch, mean ± SD over seeds"


class Entry(NamedTuple):
    """A finished run as the report knows it."""

    found: Found
    record: Record


class Group(NamedTuple):
    """The finished runs of a row."""

    label: str
    settings: str
    """all in which the rows of its table differ"""
    entries: Sequence[Entry]

    @property
    def row(self) -> Row:
        return self.entries[0].found.row

    @property
    def percents(self) -> list[float]:
        """Test top-1 of the last weights."""
        return [100 * entry.record.row["test.top1"] for entry in self.entries]


class Table(NamedTuple):
    """Rows that are compared with each other."""

    title: str
    groups: Sequence[Group]
    baseline: Group | None
    """the row that the others stand beside"""

    @property
    def about(self) -> str:
        """Data and epochs of its runs, for the titles of pictures."""
        records = [entry.record for group in self.groups for entry in group.entries]
        data = dict.fromkeys(data_in_words(record.settings) for record in records)
        epochs = dict.fromkeys(str(record.result["epochs"]) for record in records)
        return f"{' or '.join(data)}; epochs {' or '.join(epochs)}"


def report(study: Study, folder: Path, out: Path) -> str:
    """Write OUT.csv, OUT.md and the pictures of the study's finished runs; returns the Markdown."""
    entries = [Entry(identify(run, study), read_run(run)) for run in done_runs(folder)]
    asked_for = {row.number for row in study.rows}
    entries = [entry for entry in entries if entry.found.row.number in asked_for]
    if not entries:
        raise UserMistakeError(f"{folder}: no run of the study is finished")
    check_same_data([entry.found for entry in entries])
    tables = tables_of(study, entries)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(tables, study, out)
    missing = missing_of(study, entries)
    about = {"study": study.title, "about": study.about, "budget": study.budget or ""}
    about |= {"missing": missing}
    rows = [
        line_of(table, group, entry) | {"no_baseline": no_baseline(study, table)} | about
        for table in tables
        for group in table.groups
        for entry in group.entries
    ]
    return compare.write_table(rows, out, partial(render, out=out))


def page(out: Path) -> str:
    """OUT.md as made from OUT.csv, OUT.head.md and the pictures that there are."""
    return compare.page(out, partial(render, out=out))


def tables_of(study: Study, entries: Sequence[Entry]) -> list[Table]:
    """The study's tables with a group of runs for each row that has some, in the file's order."""
    rows: dict[int, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.found.row.number, entry.found.seed)):
        rows.setdefault(entry.found.row.number, []).append(entry)
    by_title: dict[str, list[list[Entry]]] = {}
    for group in rows.values():
        title = table_of(group[0].found.settings, study.tables)
        by_title.setdefault(title, []).append(group)
    tables = []
    for title, groups in by_title.items():
        settings = [group[0].found.settings for group in groups]
        base = baseline_of(settings, study.baseline)
        labels = labels_of(settings, study.tables, base)
        groups = [
            Group(label, in_full(one, settings), group)
            for label, one, group in zip(labels, settings, groups, strict=True)
        ]
        base_group = next((g for g in groups if g.entries[0].found.settings is base), None)
        tables.append(Table(title, groups, base_group))
    return tables


def missing_of(study: Study, entries: Sequence[Entry]) -> str:
    """How many runs of the study are not finished: `5 of 24`; empty where all are."""
    planned = len(study.rows) * len(study.seeds)
    return f"{planned - len(entries)} of {planned}" if len(entries) < planned else ""


def no_baseline(study: Study, table: Table) -> str:
    """Why none of the table's rows is the study's baseline; empty where one is."""
    if not study.baseline or table.baseline is not None:
        return ""
    wanted = ", ".join(f"{name} {value}" for name, value in study.baseline.items())
    found = sum(has_all(group.row.settings, study.baseline) for group in table.groups)
    return f"{found or 'no'} row{'s' if found else ''} here {'have' if found else 'has'} {wanted}"


def line_of(table: Table, group: Group, entry: Entry) -> dict[str, Any]:
    """A run's line of the CSV."""
    record, standing = entry.record, group.row.standing
    scores = {
        f"{'' if row['weights'] == 'last' else 'best.'}{row['split']}.{row['metric']}": row["value"]
        for row in record.result["results"]
        if row["metric"] in ("top1", "loss")
    }
    macs = {name: record.result[name] for name in MACS if name in record.result}
    surroundings = ("device", "processes", "threads", "python")
    return {
        "table": table.title,
        "number": group.row.number,
        "row": group.label,
        "baseline": "" if table.baseline is None else table.baseline.row.number,
        "settings": group.settings,
        "published_as": standing.name if standing else "",
        "published": standing.percent if standing else "",
        "published_parameters": (standing and standing.parameters) or "",
        "data": data_in_words(record.settings),
        "seed": entry.found.seed,
        **scores,
        "parameters": record.result["parameters"],
        **macs,
        "epochs": record.result["epochs"],
        "training_seconds": record.result["training_seconds"],
        "memory_bytes": record.result["memory_bytes"],
        **{name: record.environment[name] for name in surroundings},
        "versions": versions_of(record),
        "commit": commit_of(record),
        "command": "\n".join(commands_of(record.folder)),
    }


def data_in_words(settings: dict[str, Any]) -> str:
    """The data set, how much of it, and what is held out, from a run's own settings."""
    name, limit = settings["data.name"], settings["data.limit"]
    root = Path(settings["data.root"]).name  # where that lies no number depends on
    words = [f"{name} {root}" if name == "imagefolder" else str(name)]
    words += [f"at most {limit} images of every split"] if limit else []
    held_out = 100 * settings["data.val_fraction"]
    words += [f"{held_out:g} % of the training images held out"] if held_out else []
    return ", ".join(words)


def versions_of(record: Record) -> str:
    """Of the packages that numbers depend on."""
    versions = record.environment["versions"]
    return ", ".join(
        f"{name} {versions[name]}" for name in ("knorm", "torch", "torchvision") if name in versions
    )


def commit_of(record: Record) -> str:
    """Of the source tree, and whether it was changed."""
    git = record.environment["git"]
    return "" if not git else git["commit"][:10] + (" with changes" if git["changed"] else "")


def draw(tables: Sequence[Table], study: Study, out: Path) -> None:
    """The pictures of every table that are asked for."""
    for number, table in enumerate(tables):
        budget = study.budget or "whole study"
        title = "\n".join(line for line in (table.title, table.about, budget) if line)
        for name in study.pictures:
            DRAWN[name](table, picture_of(out, number, name), title)


def picture_of(out: Path, number: int, name: str) -> Path:
    """The file of a table's picture."""
    return Path(f"{out}-{number + 1}-{name}.png")


def draw_table_bars(table: Table, path: Path, title: str) -> None:
    """Accuracies as bars, published ones as marks."""
    bars = [
        Bar(g.label, g.percents, g.row.standing.percent if g.row.standing else None)
        for g in table.groups
    ]
    base = None if table.baseline is None else table.groups.index(table.baseline)
    draw_bars(bars, path, title, PERCENT, base)


def draw_table_parameters(table: Table, path: Path, title: str) -> None:
    """Accuracy against parameters."""
    points = [
        Point(g.label, g.entries[0].record.result["parameters"], g.percents) for g in table.groups
    ]
    draw_against(points, path, title, "parameters", PERCENT)


def draw_table_curves(table: Table, path: Path, title: str) -> None:
    """Training curves."""
    runs = [(g.label, [e.record.epochs for e in g.entries]) for g in table.groups]
    draw_compared(runs, path, title)


DRAWN = {
    "bars": draw_table_bars,
    "parameters": draw_table_parameters,
    "curves": draw_table_curves,
}
