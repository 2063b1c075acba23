"""Study files: many recipes in one table, what is published of them, what their report shows.

    title, about      what is asked, and where that comes from
    recipe            what all rows have in common, sections as in a recipe file
    rows              [{set: {dotted.setting: value}, published: {column: value}}]
    for_each          such rows too: all of `rows` once with each of them
    grid              {dotted.setting: [values]}: all of the above once with each of them
    seeds             how many runs every row has
    baseline          {dotted.setting: value} of the row that the others stand beside
    published         {file, where: {column: value}, metric, factor (to percent), parameters}
    tables            settings; the report has a table for each of their values
    pictures          some of bars, parameters, curves; all by default
    budgets           {small: {set: {dotted.setting: value}, only: {dotted.setting: value}, seeds}}

A row's `published` names its line of the published table. What a row is called in a report is
written nowhere: `classification.study_labels` makes it of the settings that its runs had.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from classification.config import Recipe
from classification.study_checks import check_apart, check_report
from classification.study_published import PublishedTable, Standing, read_lines
from classification.study_rows import OWN, PICTURES, Row, Study, make_row
from knorm.choices import nearest
from knorm.training.config import parse_content, told_with
from knorm.training.mistakes import (
    UserMistakeError,
    check_range,
    did_you_mean,
    mistakes_of_the_user,
)
from knorm.training.recipes import flat, merged, read_yaml
from knorm.training.run_settings import MOST_COUNT
from knorm.training.tables import counted

STUDIES = Path(__file__).parent / "studies"
Kinds = Mapping[str, Any]
STUDY: Kinds = {
    "title": str,
    "about": str,
    "recipe": dict,
    "seeds": int,
    "rows": list,
    "for_each": list,
    "grid": dict,
    "baseline": dict,
    "published": dict,
    "tables": list,
    "pictures": list,
    "budgets": dict,
}
ROW: Kinds = {"set": dict, "published": dict}
PUBLISHED: Kinds = {
    "file": str,
    "metric": str,
    "where": dict,
    "factor": int | float,
    "parameters": str,
}
BUDGET: Kinds = {"set": dict, "only": dict, "seeds": int}
WORDS = {dict: "a mapping", list: "a list", str: "a text", int: "a whole number"}


class Wish(NamedTuple):
    """What the command line says of a study besides its name."""

    budget: str | None = None
    only: Mapping[str, Any] = {}
    """settings in the file of the rows that are asked for"""
    seeds: int | None = None
    overrides: Sequence[str] = ()
    """options of recipes, for all rows"""


class Line(NamedTuple):
    """A row before it is parsed."""

    changes: Mapping[str, Any]
    """dotted setting -> value"""
    published: Mapping[str, Any]


def find_study(name: str) -> Path:
    """The study of that name, or the file."""
    for file in (Path(name), STUDIES / f"{name}.yaml"):
        if file.is_file():
            return file
    known = [path.stem for path in STUDIES.glob("*.yaml")]
    hint = nearest(Path(name).stem, known) or f"; studies: {known_studies()}"
    raise UserMistakeError(f"{name}: no such file and no such study{hint}")


def known_studies() -> str:
    """The names of ours."""
    return ", ".join(sorted(path.stem for path in STUDIES.glob("*.yaml")))


def read_study(file: Path, wish: Wish | None = None) -> Study:
    """The study with all its rows parsed, those too that `wish` leaves out.

    Raises:
        UserMistakeError: an unknown key, a row that is no recipe, a published number that is not in
            its table, two rows that are one; the message names the row by its number.
    """
    wish = wish or Wish()
    content = checked(read_yaml(file), STUDY, ("title", "about", "recipe", "seeds"), str(file))
    budget = budget_of(content, wish.budget, str(file))
    check_overrides(wish.overrides)
    seeds = wish.seeds if wish.seeds is not None else budget.get("seeds", content["seeds"])
    with told_with(str(file)), mistakes_of_the_user():
        check_range("seeds", seeds, 1, MOST_COUNT)
    only = {**budget.get("only", {}), **wish.only}
    rows, others = parsed_rows(content, budget, only, wish.overrides, file)
    check_apart(rows, file)
    fewer = range(seeds) if seeds != content["seeds"] else None
    study = Study(
        name=file.stem if wish.budget is None else f"{file.stem}-{wish.budget}",
        title=content["title"],
        about=" ".join(content["about"].split()),
        rows=rows,
        others=others,
        seeds=range(seeds),
        baseline=content.get("baseline", {}),
        tables=content.get("tables", []),
        pictures=content.get("pictures", PICTURES),
        budget=budget_in_words(wish.budget, budget.get("set", {}), only, fewer, rows[0]),
    )
    check_report(study, file, free=bool(wish.overrides or budget))
    return study


def check_overrides(overrides: Iterable[str]) -> None:
    """Raise `UserMistakeError` for an option that would be overruled."""
    for word in overrides:
        name = word.partition("=")[0]
        if name.startswith("--") and name.removeprefix("--") in OWN:
            raise UserMistakeError(f"{name}: a study sets this by itself; leave it out")


def parsed_rows(
    content: Mapping[str, Any],
    budget: Mapping[str, Any],
    chosen: Mapping[str, Any],
    overrides: Sequence[str],
    file: Path,
) -> tuple[list[Row], list[Row]]:
    """The rows that are asked for, and the others."""
    table = published_table(content.get("published"), file)
    rows, others, known = [], [], dict[str, Any]()
    for number, line in enumerate(combinations(content, file), start=1):
        where = f"{file}: row {number}"
        options = with_changes(content["recipe"], line.changes)
        given = dict(flat(options, where))
        known |= given
        asked_for = all(given.get(name) == value for name, value in chosen.items())
        options = with_changes(options, budget.get("set", {}))
        for name in OWN:
            if name in options:
                raise UserMistakeError(f"{where}: {name}: a study sets this by itself")
        recipe = parse_content(Recipe, options, overrides, where=where)
        with told_with(where), mistakes_of_the_user():
            standing = standing_of(table, line.published)
        row = make_row(file.stem, number, recipe, list(line.changes), standing)
        (rows if asked_for else others).append(row)
    for name in chosen:
        if name not in known:
            raise UserMistakeError(f"only {name}: no row sets this{did_you_mean(name, known)}")
    if not rows:
        raise UserMistakeError(f"{file}: no row has {in_words(chosen)}")
    return rows, others


def combinations(content: Mapping[str, Any], file: Path) -> Iterator[Line]:
    """Every row with every one of `for_each` and of the grid's values."""
    axes = [lines_of(content, name, file) for name in ("for_each", "rows")]
    grid = content.get("grid", {})
    check_names(grid, f"{file}: grid")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UserMistakeError(f"{file}: grid: {name}: must be a list, got {values!r}")
        axes.append([Line({name: value}, {}) for value in values])
    for lines in product(*axes):
        first, *rest = lines
        changes, published = dict[str, Any](), dict[str, Any]()
        for line in (*rest, first):  # a folder is called by what its row sets first
            changes |= line.changes
            published |= line.published
        yield Line(changes, published)


def lines_of(content: Mapping[str, Any], name: str, file: Path) -> list[Line]:
    """The rows of that part of the file; without it one that sets nothing."""
    rows, lines = content.get(name, [{}]), []
    if not rows:
        raise UserMistakeError(f"{file}: {name}: must have an entry; leave it out for a single row")
    for number, row in enumerate(rows, start=1):
        where = f"{file}: {name}, entry {number}"
        row = checked(row, ROW, (), where)
        check_names(row.get("set", {}), f"{where}: set")
        lines.append(Line(row.get("set", {}), row.get("published", {})))
    return lines


def with_changes(options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The options with what is set by dotted name in them."""
    changed = dict(options)
    for name, value in changes.items():
        nested = value
        for key in reversed(name.split(".")):
            nested = {key: nested}
        changed = merged(changed, nested)
    return changed


def published_table(given: Mapping[str, Any] | None, file: Path) -> PublishedTable | None:
    """The published table that the study names."""
    if given is None:
        return None
    given = dict(checked(given, PUBLISHED, ("file", "metric"), f"{file}: published"))
    return PublishedTable(read_lines(given["file"], file), **given)


def standing_of(table: PublishedTable | None, wanted: Mapping[str, Any]) -> Standing | None:
    """What is published of a row; ValueError where its line cannot be found."""
    if not wanted:
        return None
    if table is None:
        raise ValueError("published: the study names no table; give it published: {file, metric}")
    return table.standing(wanted)


def checked(content: Any, kinds: Kinds, needed: Sequence[str], where: str) -> Mapping[str, Any]:
    """The mapping, if its keys and the kinds of their values are those of `kinds`."""
    if not isinstance(content, dict):
        raise UserMistakeError(f"{where}: must hold `key: value` lines, got {content!r}")
    for key, value in content.items():
        if key not in kinds:
            hint = nearest(key, kinds) or f"; there are {', '.join(kinds)}"
            raise UserMistakeError(f"{where}: {key}: no such part of a study{hint}")
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            what = WORDS.get(kinds[key], "a number")
            raise UserMistakeError(f"{where}: {key}: must be {what}, got {value!r}")
    for key in needed:
        if key not in content:
            raise UserMistakeError(f"{where}: lacks {key}")
    return content


def check_names(settings: Mapping[Any, Any], where: str) -> None:
    """Raise `UserMistakeError` for a key that is no text."""
    for name in settings:
        if not isinstance(name, str):
            raise UserMistakeError(f"{where}: {name!r} is no name of a setting")


def budget_of(content: Mapping[str, Any], name: str | None, where: str) -> Mapping[str, Any]:
    """What the budget of that name changes."""
    budgets = content.get("budgets", {})
    checked_budgets = {
        key: checked(value, BUDGET, (), f"{where}: budgets: {key}")
        for key, value in budgets.items()
    }
    for key, value in checked_budgets.items():
        for part in ("set", "only"):
            check_names(value.get(part, {}), f"{where}: budgets: {key}: {part}")
    if name is None:
        return {}
    if name not in budgets:
        hint = nearest(name, budgets) or f"; it has {', '.join(budgets) or 'none'}"
        raise UserMistakeError(f"{where}: has no budget {name!r}{hint}")
    return checked_budgets[name]


def budget_in_words(
    name: str | None,
    changes: Mapping[str, Any],
    only: Mapping[str, Any],
    seeds: range | None,
    row: Row,
) -> str | None:
    """`small budget: epochs 2, data.limit 5000; 2 seeds; only rows with data.name mnist`.

    With the values that hold in this row, which options of the command line may have changed;
    `seeds` are None where they are the study's. None: the whole study.
    """
    parts = [in_words({name: row.settings.get(name, value) for name, value in changes.items()})]
    parts += [] if seeds is None else [counted(len(seeds), "seed")]
    parts += [f"only rows with {in_words(only)}"] if only else []
    told = "; ".join(part for part in parts if part)
    if name is None:
        return f"part of the study: {told}" if told else None
    return f"{name} budget: {told}"


def in_words(settings: Mapping[str, Any]) -> str:
    """`epochs 2, data.limit 5000`."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())
