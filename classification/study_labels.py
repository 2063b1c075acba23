"""What the rows of a study are called: the settings in which they differ, as they were run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from classification.study_rows import short

Settings = Mapping[str, Any]

BASELINE = "baseline"
ONLY = "recipe"  # where nothing differs
MODEL = "model.name"


def labels_of(
    rows: Sequence[Settings], tables: Sequence[str] = (), baseline: Settings | None = None
) -> list[str]:
    """A label for each of these settings: `dense=[512], norm=batch`.

    `tables` are settings that stand in the headings. With a baseline, one of the rows, the others
    say where they differ from it; a setting that a net does not have is not spoken of unless rows
    would be called the same: those tell all in which they differ.
    """
    different = [name for name in differing(rows) if name not in tables]
    told = [told_of(row, different, baseline) for row in rows]
    names = short_names(different)
    labels = [in_words(row, some, names) for row, some in zip(rows, told, strict=True)]
    for label in [label for label, count in Counter(labels).items() if count > 1]:
        alike = [number for number, other in enumerate(labels) if other == label]
        apart = [name for name in differing([rows[number] for number in alike]) if name in names]
        for number in alike:
            more = [name for name in apart if name not in told[number]]
            labels[number] = in_words(rows[number], [*told[number], *more], names)
    nothing = ONLY if baseline is None else BASELINE
    return [
        BASELINE if row is baseline else label or nothing
        for row, label in zip(rows, labels, strict=True)
    ]


def told_of(row: Settings, different: Sequence[str], baseline: Settings | None) -> list[str]:
    """The settings that a row's label tells, if no other row has the same label."""
    if baseline is None:
        return [name for name in different if name in row] or list(different)
    same_net = row.get(MODEL) == baseline.get(MODEL)
    return [
        name
        for name in different
        if row.get(name) != baseline.get(name) and (name in row or same_net)
    ]


def differing(rows: Sequence[Settings]) -> list[str]:
    """The settings that are not the same in all rows, or that some do not have."""
    names = dict.fromkeys(name for row in rows for name in row)
    first = rows[0]
    return [
        name
        for name in names
        if any(name not in row or name not in first or row[name] != first[name] for row in rows)
    ]


def in_words(settings: Settings, told: Sequence[str], names: Mapping[str, str]) -> str:
    """`dense=[512], norm=batch`."""
    return ", ".join(f"{names[name]}={_value(settings, name)}" for name in told)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Dotted names to their last part, where no two have the same."""
    count = Counter(short(name) for name in names)
    return {name: short(name) if count[short(name)] == 1 else name for name in names}


def in_full(settings: Settings, rows: Sequence[Settings]) -> str:
    """All settings in which the rows differ, with the values that they have here."""
    return ", ".join(f"{n} {_value(settings, n)}" for n in differing(rows) if n in settings)


def table_of(settings: Settings, tables: Sequence[str]) -> str:
    """The heading of the table that a row belongs to; empty where there is one table."""
    return ", ".join(f"{name} {_value(settings, name)}" for name in tables)


def baseline_of(rows: Sequence[Settings], wanted: Settings) -> Settings | None:
    """The one row that has the baseline's settings; None where there is none, or several."""
    found = [row for row in rows if all(row.get(name) == v for name, v in wanted.items())]
    return found[0] if wanted and len(found) == 1 else None


def _value(settings: Settings, name: str) -> str:
    if name not in settings:
        return "default"
    return "null" if settings[name] is None else str(settings[name])
