"""The page and the picture of `layer_speed`'s record."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.layer_case import BASE, NAIVE, OURS, VARIANTS
from benchmarks.report import Record
from knorm.training.pictures import new_figure
from knorm.training.tables import markdown

MEASURES = {
    "step": ("Time of a step", "time_ratio"),
    "forward": ("Time of a pass forward", "time_ratio"),
    "saved": ("Memory saved for the backward pass", "ratio"),
    "peak": ("Peak memory of a step", "ratio"),
}
MIB = 2**20


def ratios(rows: Sequence[Record], measure: str, name: str, base: str = BASE) -> Iterator[float]:
    """Of every row that has both, the variant's over the base's."""
    key = MEASURES[measure][1]
    for row in rows:
        if name in row["found"]:
            found = row["found"]
            yield found[name][measure][key] / found[base][measure][key]


def summary(rows: Sequence[Record]) -> str:
    """Medians over the shapes, and how far they go."""
    lines = []
    for measure, (title, _) in MEASURES.items():
        cells = [title]
        for name in VARIANTS:
            found = sorted(ratios(rows, measure, name))
            cells.append(
                f"{statistics.median(found):.2f} ({found[0]:.2f}-{found[-1]:.2f})" if found else "-"
            )
        over_ours = list(ratios(rows, measure, NAIVE, OURS))
        lines.append([*cells, f"{statistics.median(over_ours):.1f}" if over_ours else "-"])
    return markdown([f"over `{BASE}`", *VARIANTS, f"{NAIVE} over {OURS}"], lines)


def layer_table(rows: Sequence[Record], measure: str) -> str:
    """A line for each shape: our seconds or bytes, and all variants over the base."""
    unit = "ms" if "seconds" in rows[0]["found"][OURS][measure] else "MiB"
    lines = []
    for row in rows:
        found = row["found"]
        here = found[OURS][measure]
        amount = here["seconds"] * 1e3 if unit == "ms" else here["bytes"] / MIB
        cells = [row["shape"], str(row["count"]), f"{amount:.2f}"]
        lines.append(cells + [_cell(found.get(name), measure) for name in VARIANTS])
    return markdown(["convolution", "times", f"{OURS}, {unit}", *VARIANTS], lines)


def _cell(found: Any, measure: str) -> str:
    """A ratio over the base, with its quartiles where it has any."""
    if found is None:
        return "too large"
    one = found[measure]
    if "lower_quartile" not in one:
        return f"{one['ratio']:.2f}"
    return f"{one['time_ratio']:.2f} ({one['lower_quartile']:.2f}-{one['upper_quartile']:.2f})"


def net_table(rows: Sequence[Record]) -> str:
    """A line for each net and norm."""
    lines = [
        [
            row["net"] + (", compiled" if row["compiled"] else ""),
            name,
            f"{found['step']['seconds']:.3f}",
            *(_cell(found, measure) for measure in MEASURES),
        ]
        for row in rows
        for name, found in row["found"].items()
    ]
    heads = [f"{title.lower()} over `{BASE}`" for title, _ in MEASURES.values()]
    return markdown(["net", "norm", "s / step", *heads], lines)


def render(record: Record) -> str:
    """All tables as Markdown."""
    height, width = record["image"]
    parts = [
        f"# What kernel normalization costs: {record['size']}",
        f"Batch {record['batch_size']} of {height}x{width}, {record['dtype']}, "
        f"{'channels last' if record['channels_last'] else 'channels first'}, {record['device']}, "
        f"{record['threads']} threads, torch {record['torch']}: medians of {record['rounds']} "
        "rounds in which the variants took turns; in brackets the quartiles of the ratio. Naive "
        "code unfolds the windows; it was first checked to give the same.",
        f"## Whole nets\n\n{net_table(record['nets'])}",
        "## All convolutions with kernel normalization\n\nMedian over the shapes, in brackets the "
        f"smallest and the largest.\n\n{summary(record['layers'])}",
    ]
    for measure, (title, _) in MEASURES.items():
        parts.append(f"## {title}, over `{BASE}`\n\n{layer_table(record['layers'], measure)}")
    return "\n\n".join(parts) + f"\n\n```\n{record['command']}\n```\n"


def draw(record: Record, path: Path) -> None:
    """Every variant's step over the base's, a column of points for each shape."""
    rows = record["layers"]
    figure, (axes,) = new_figure(1, 1, (max(6.0, 0.35 * len(rows)), 5.0))
    for name in VARIANTS:
        if name == BASE:
            continue
        points = [
            (place, row["found"][name]["step"]["time_ratio"])
            for place, row in enumerate(rows)
            if name in row["found"]
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o", markersize=4, label=name)
    axes.axhline(1, color="black", linewidth=0.8, label=BASE)
    axes.set_yscale("log")
    axes.set_xticks(range(len(rows)), [row["shape"] for row in rows], rotation=90, fontsize=6)
    axes.set_ylabel(f"time of a step over {BASE}")
    axes.legend(fontsize=7)
    axes.set_title(f"{record['size']}, {record['device']}, {record['dtype']}")
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path)
