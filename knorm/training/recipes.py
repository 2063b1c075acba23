"""Recipes: YAML files, and studies, i.e. files in which every row is a recipe.

    source: where the published numbers stand, and what they measure
    base: an ordinary recipe, which all rows share
    variants:
      row-name: {published: 79.3, optim: {lr: 0.1}}   # a row says where it differs

A study's rows are called `study/row`, in the place of a file's path `file.yaml/row`. A run is named
`study-row` unless its recipe names it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from knorm.choices import nearest
from knorm.training.mistakes import UserMistakeError, did_you_mean

STUDY_KEYS = ("source", "base", "variants")
PUBLISHED = "published"


@dataclass(frozen=True)
class RecipeInfo:
    """What is told of a recipe where all of them are listed."""

    about: str
    """first sentence of its file's header"""
    published: str | None = None
    """the number that it aims at; None: none is published"""
    source: str | None = None
    """where that number stands, and what it measures"""


class Part(NamedTuple):
    """A mapping of options, and where it stands."""

    where: str
    options: Any


def find_recipe(name: str, recipes: Path) -> Path:
    """The file of that path or the recipe of that name; for a row of a study `file.yaml/row`."""
    file, row = _file(name, recipes), None
    if file is None and "/" in name:
        study, _, row = name.rpartition("/")
        file = _file(study, recipes)
    if file is None:
        known = sorted(path.stem for path in recipes.glob("*.yaml"))
        wanted = Path(name.split("/")[0] if row else name).stem
        hint = did_you_mean(wanted, known) or f"; recipes: {', '.join(known)}"
        raise UserMistakeError(f"--config {name}: no such file and no such recipe{hint}")
    variants = read_study(file)["variants"] if is_study(file) else {}
    if row is None and variants:
        raise UserMistakeError(
            f"--config {name}: a study of {len(variants)} rows; name one of them, "
            f"such as {name}/{next(iter(variants))}"
        )
    if row is not None and row not in variants:
        what = did_you_mean(row, variants) if variants else "; it is a single recipe"
        raise UserMistakeError(f"--config {name}: {file} has no such row{what}")
    return file if row is None else file / row


def _file(name: str, recipes: Path) -> Path | None:
    files = (Path(name), recipes / f"{name}.yaml")
    return next((file for file in files if file.is_file()), None)


def parts_of(place: Path) -> list[Part]:
    """The mappings that a recipe is made of, later ones winning: its file, or base and row."""
    if place.is_file():
        return [Part(str(place), read_yaml(place))]
    study = read_study(place.parent)
    row = {key: value for key, value in study["variants"][place.name].items() if key != PUBLISHED}
    return [Part(f"{place.parent}: base", study["base"]), Part(str(place), row)]


def read_recipe(place: Path) -> Any:
    """The options of a recipe; a row's with those of its base that it leaves alone."""
    if place.is_file():
        return read_yaml(place)
    study = read_study(place.parent)
    options: dict[str, Any] = {"name": f"{place.parent.stem}-{place.name}"}
    number = study["variants"][place.name].get(PUBLISHED)
    if number is not None:
        options[PUBLISHED] = f"{number} ({study.get('source')})"
    for part in parts_of(place):
        options = merged(options, part.options)
    return options


def recipe_text(place: Path) -> str:
    """`read_recipe` as YAML."""
    return yaml.safe_dump(read_recipe(place), sort_keys=False)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` in it, section by section."""
    both = {
        key: merged(base[key], value)
        for key, value in changes.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return {**base, **changes, **both}


def is_study(file: Path) -> bool:
    """Whether the file holds a table of recipes instead of one."""
    content = read_yaml(file)
    return isinstance(content, dict) and "variants" in content


def read_study(file: Path) -> dict[str, Any]:
    """A study's source, base and variants, of the kinds that they must be."""
    content = read_yaml(file)
    for key in content:
        if key not in STUDY_KEYS:
            hint = nearest(key, STUDY_KEYS) or f"; a study holds {', '.join(STUDY_KEYS)}"
            raise UserMistakeError(f"{file}: {key}: no such part of a study{hint}")
    base, variants = content.get("base"), content["variants"]
    if not isinstance(base, dict):
        raise UserMistakeError(f"{file}: base: must hold the `option: value` lines of all rows")
    if not isinstance(variants, dict) or not variants:
        raise UserMistakeError(f"{file}: variants: must hold `row: {{option: value}}` lines")
    for row, options in variants.items():
        if not isinstance(row, str):
            raise UserMistakeError(f"{file}: variants: {row!r} is no name; put it in quotes")
        if not isinstance(options, dict):
            raise UserMistakeError(f"{file}/{row}: must hold {{option: value}}, got {options!r}")
    return content


def list_recipes(folder: Path) -> dict[str, RecipeInfo]:
    """All recipes of a folder by name, rows as `study/row`, with the numbers that they aim at."""
    found: dict[str, RecipeInfo] = {}
    for file in sorted(folder.glob("*.yaml")):
        about = first_sentence(file)
        if not is_study(file):
            found[file.stem] = RecipeInfo(about)
            continue
        study = read_study(file)
        for row, options in study["variants"].items():
            number = options.get(PUBLISHED)
            published = None if number is None else str(number)
            found[f"{file.stem}/{row}"] = RecipeInfo(about, published, study.get("source"))
    return found


def first_sentence(file: Path) -> str:
    """The first sentence of the comment that a file begins with, without its full stop."""
    lines = file.read_text(encoding="utf-8").splitlines()
    end = next((number for number, line in enumerate(lines) if line[:1] != "#"), len(lines))
    text = " ".join(line.removeprefix("#").strip() for line in lines[:end])
    return text.partition(". ")[0].strip().removesuffix(".")


class StrictLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice is a mistake instead of the first one being lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"{key} stands twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, which nobody may change: it is kept while the file stays."""
    try:
        return _loaded(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserMistakeError(f"{path}: {line}{error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserMistakeError(f"{path}: not a YAML file: {error}") from error


@lru_cache(maxsize=16)
def _loaded(text: str) -> Any:
    return yaml.load(text, StrictLoader)


def flat(content: Any, where: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of a nested mapping, sections included."""
    if not isinstance(content, dict):
        raise UserMistakeError(f"{where}: must hold `option: value` lines")
    for key, value in content.items():
        name = f"{prefix}{key}"
        yield name, value
        if isinstance(value, dict):
            yield from flat(value, where, prefix=f"{name}.")


def leaves(content: Any, where: str) -> dict[str, Any]:
    """Dotted name -> value of every setting that is no section; they stand in `where`."""
    return {name: v for name, v in flat(content, where) if not isinstance(v, dict)}


def is_part(name: str, setting: str) -> bool:
    """Whether the dotted `name` is the setting or a part of it."""
    return name == setting or name.startswith(f"{setting}.")
