"""What the rows of a study are called: the settings in which they differ, as they were run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from classification.study_rows import short
from knorm.training.compare import differing

Settings = Mapping[str, Any]

BASELINE = "baseline"
ONLY = "recipe"  # where nothing differs
MODEL = "model.name"


def labels_of(
    rows: Sequence[Settings], tables: Sequence[str] = (), baseline: Settings | None = None
) -> list[str]:
    """A label for each of these settings: `dense=[512], norm=batch`.

    `tables` are settings that stand in the headings. With a baseline, one of the rows, the others
    say where they differ from it; a setting that a net does not have is not spoken of.
    """
    different = [name for name in differing(rows) if name not in tables]
    names = short_names(different)
    if not different:
        return [ONLY for _ in rows]
    if baseline is None:
        return [in_words(row, [n for n in different if n in row], names) for row in rows]
    labels = []
    for row in rows:
        same_net = row.get(MODEL) == baseline.get(MODEL)
        told = [n for n in different if row.get(n) != baseline.get(n) and (n in row or same_net)]
        labels.append(in_words(row, told, names) or BASELINE)
    return labels


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
