"""What must hold of a study's rows together, and of what its report is to show."""

from collections.abc import Sequence
from pathlib import Path

from classification.study_rows import PICTURES, Row, Study, has_all
from knorm.choices import nearest
from knorm.training.mistakes import UserMistakeError, did_you_mean


def check_apart(rows: Sequence[Row], file: Path) -> None:
    """No two rows are the same run or share a folder."""
    by_settings, by_slug = dict[str, int](), dict[str, int]()
    for row in rows:
        for seen, key in ((by_settings, str(sorted(row.settings.items()))), (by_slug, row.slug)):
            other = seen.setdefault(key, row.number)
            if other != row.number:
                raise UserMistakeError(
                    f"{file}: rows {other} and {row.number} are the same run, {row.slug}; with "
                    "options that make them so, choose between them with --only"
                )


def check_report(study: Study, file: Path, *, free: bool) -> None:
    """What the report needs is there: its settings, its pictures, one launch for one process.

    `free`: a budget or options may have taken the baseline's values from all rows.
    """
    rows = (*study.rows, *study.others)
    known = {name for row in rows for name in row.settings}
    for part, names in (("tables", study.tables), ("baseline", study.baseline)):
        for name in names:
            if not isinstance(name, str):
                raise UserMistakeError(f"{file}: {part}: {name!r} is no name of a setting")
            if name not in known:
                hint = did_you_mean(name, known)
                raise UserMistakeError(f"{file}: {part}: {name}: no row has this{hint}")
    if not free and not any(has_all(row.settings, study.baseline) for row in rows):
        raise UserMistakeError(f"{file}: baseline: {told_baseline(study, rows)}")
    for name in study.pictures:
        if name not in PICTURES:
            hint = nearest(str(name), PICTURES) or f"; there are {', '.join(PICTURES)}"
            raise UserMistakeError(f"{file}: pictures: {name}: no such picture{hint}")
    launches = [row.recipe.launch for row in rows]
    for row, launch in zip(rows, launches, strict=True):
        if launch != launches[0]:
            raise UserMistakeError(
                f"{file}: row {row.number}: launch must be the same for all rows of a study"
            )


def told_baseline(study: Study, rows: Sequence[Row]) -> str:
    """Which value of the baseline no row has, and those that there are."""
    for name, value in study.baseline.items():
        values = [row.settings[name] for row in rows if name in row.settings]
        if value not in values:
            there = ", ".join(dict.fromkeys(map(str, values)))
            return f"no row has {name} {value}; there are {there}"
    return "no row has all of its values"
