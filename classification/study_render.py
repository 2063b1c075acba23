"""OUT.md of a study's report, from the lines of OUT.csv alone: strings, one line for each run."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from knorm.training.compare import Row
from knorm.training.report import in_time
from knorm.training.tables import counted, markdown, spread

LAST, BEST = "test.top1", "best.test.top1"
MACS = {"macs": "MMACs", "mult_adds": "mult-adds (M)"}
PICTURES = {
    "bars": "test accuracy of each row",
    "parameters": "accuracy against parameters",
    "curves": "curves by epoch",
}


def render(rows: Sequence[Row], head: str = "", *, out: Path) -> str:
    """Markdown: a table for each heading, a line for each row of the study, in the CSV's order.

    `head` is a text after the title; `out` says which pictures there are.
    """
    first, tables = rows[0], grouped(rows, "table")
    parts = [f"# {first['study']}", head.strip(), first["about"]]
    if first["budget"]:
        parts.append(f"**{sentence(first['budget'])}**")
    if first["missing"]:
        parts.append(f"**Not finished**: {first['missing']} runs are missing.")
    for number, (title, members) in enumerate(tables.items(), start=1):
        parts += [f"## {title}"] if title else []
        parts += [table_of(members), caption(members)]
        parts += [
            f"![{text}]({out.name}-{number}-{name}.png)"
            for name, text in PICTURES.items()
            if out.with_name(f"{out.name}-{number}-{name}.png").is_file()
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def grouped(rows: Sequence[Row], column: str) -> dict[str, list[Row]]:
    """The rows by what they say there, in their order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def table_of(rows: Sequence[Row]) -> str:
    """The numbers: mean and deviation of each row of the study beside what is published."""
    lines = [cells_of(members) for members in grouped(rows, "number").values()]
    heads = [head for head in lines[0] if any(cells[head] not in ("", "-") for cells in lines)]
    return markdown(heads, [[cells[head] for head in heads] for cells in lines])


def cells_of(rows: Sequence[Row]) -> dict[str, str]:
    """Heading -> cell of a row of the study; columns in which all rows have none are left out."""
    first, percents = rows[0], numbers(rows, LAST, 100)
    published = first["published"]
    difference = statistics.fmean(percents) - float(published) if published else None
    return {
        "row": f"**{first['row']}**" if is_baseline(first) else f"`{first['row']}`",
        "published as": first["published_as"],
        "seeds": ", ".join(row["seed"] for row in rows),
        "test top-1 %": spread(percents, 2),
        "best weights %": spread(numbers(rows, BEST, 100), 2),
        "published %": f"{float(published):.2f}" if published else "",
        "difference": "" if difference is None else f"{difference:+.2f}",
        "parameters": parameters(first),
        **{heading: spread(numbers(rows[:1], name, 1e-6), 1) for name, heading in MACS.items()},
        "training time": in_time(statistics.fmean(numbers(rows, "training_seconds"))),
        "peak MiB": spread(numbers(rows, "memory_bytes", 2**-20), 0),
    }


def is_baseline(row: Row) -> bool:
    """Whether the others of its table stand beside it."""
    return row["number"] == row["baseline"]


def parameters(row: Row) -> str:
    """Their count, and the published one where that is another."""
    own, published = int(row["parameters"]), row["published_parameters"]
    if not published or int(published) == own:
        return f"{own:,}"
    return f"{own:,} (published {int(published):,})"


def numbers(rows: Sequence[Row], column: str, factor: float = 1.0) -> list[float]:
    """What the runs say there, where they say anything."""
    return [factor * float(row[column]) for row in rows if row.get(column)]


def caption(rows: Sequence[Row]) -> str:
    """What a reader has to know beside the table: where its numbers are from and what they mean."""
    first = rows[0]
    best = "; best weights: those of the epoch that is best on the validation split"
    lines = [
        f"Top-1 on the test split in percent, mean ± standard deviation over seeds, weights of the "
        f"last epoch{best if any(row.get(BEST) for row in rows) else ''}. "
        "Difference: points above what is published.",
        f"Data: {common(rows, 'data')}. Epochs: {common(rows, 'epochs')}. "
        f"{sentence(first['budget'] or 'whole study')}.",
        f"{common(rows, 'device')}, {common(rows, 'processes')} process(es) of "
        f"{common(rows, 'threads')} thread(s); python {common(rows, 'python')}, "
        f"{common(rows, 'versions')}; commit {common(rows, 'commit') or 'unknown'}.",
    ]
    if not any(row["published"] for row in rows):
        lines[0] = lines[0].removesuffix(" Difference: points above what is published.")
    base = [row for row in rows if is_baseline(row)]
    lines += [f"Baseline: {base[0]['settings']}."] if base and base[0]["settings"] else []
    lines += [f"No baseline: {first['no_baseline']}."] if first["no_baseline"] else []
    seeds = max(len(members) for members in grouped(rows, "number").values())
    if seeds < 3:
        lines.append(f"**{counted(seeds, 'seed')}**: small differences mean nothing.")
    commands = list(dict.fromkeys(line for row in rows for line in row["command"].splitlines()))
    if len(commands) > 1:
        lines.append(f"Runs of {len(commands)} commands are in this table:")
    return "\n".join([*lines, "", "```", *commands, "```"])


def common(rows: Sequence[Row], column: str) -> str:
    """What all rows say there, or everything that some of them say."""
    return " or ".join(dict.fromkeys(row[column] for row in rows))


def sentence(words: str) -> str:
    """The words with a capital at their beginning."""
    return words[:1].upper() + words[1:]
