"""A study as read: its rows, and the folders of their runs."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from classification.config import Recipe
from classification.study_published import Standing
from knorm.training.config import to_dict
from knorm.training.folder import AUTO
from knorm.training.recipes import is_part, leaves
from knorm.training.run_settings import MAY_DIFFER

Settings = Mapping[str, Any]

OWN = ("name", "seed", "seeds", "run_dir", "resume", "dry_run", "published")
"""settings that a study gives its runs by itself"""
PICTURES = ("bars", "parameters", "curves")
LONGEST_SLUG = 90


@dataclass(frozen=True)
class Row:
    """A recipe of a study."""

    number: int
    """its place in the file, from 1"""
    slug: str
    """name of its folder"""
    recipe: Recipe
    settings: Settings
    """all that its numbers depend on but the seed, by dotted name"""
    standing: Standing | None
    """the published line beside it"""

    def at(self, seed: int, folder: Path) -> Recipe:
        """The run of that seed in the study's folder, to begin or to go on with."""
        run_dir = str(folder / self.slug / f"seed-{seed}")
        return replace(self.recipe, seed=seed, run_dir=run_dir, resume=AUTO)


@dataclass(frozen=True)
class Study:
    """A study file with a budget."""

    name: str
    """of its folder"""
    title: str
    about: str
    rows: Sequence[Row]
    """those that were asked for"""
    others: Sequence[Row]
    """the rest of the file"""
    seeds: range
    baseline: Settings
    tables: Sequence[str]
    pictures: Sequence[str]
    budget: str | None
    """in words, what of the study this is; None: the whole"""


def make_row(
    study: str, number: int, recipe: Recipe, changed: Sequence[str], standing: Standing | None
) -> Row:
    """The row whose line in the file sets what is `changed`."""
    settings = settings_in(recipe)
    slug = slug_of(settings, changed)
    return Row(number, slug, replace(recipe, name=f"{study}-{slug}"), settings, standing)


def settings_in(recipe: Recipe) -> dict[str, Any]:
    """All that the numbers of a recipe's run depend on but the seed, by dotted name."""
    return decisive(leaves(to_dict(recipe), "a recipe"))


def decisive(settings: Settings) -> dict[str, Any]:
    """Those settings that a run's numbers depend on, without the seed."""
    free = (*OWN, *MAY_DIFFER)
    return {n: v for n, v in settings.items() if not any(is_part(n, name) for name in free)}


def has_all(settings: Settings, wanted: Settings) -> bool:
    """Whether those are values of these settings."""
    return all(settings.get(name) == value for name, value in wanted.items())


def slug_of(settings: Settings, changed: Sequence[str]) -> str:
    """A folder's name from what a row sets, with the values that hold: `dense=512_256`.

    It depends on no other row, so that rows may be added to a study that has begun.
    """
    names = [n for part in changed for n in settings if is_part(n, part)]
    words = [f"{short(name)}={_plain(settings[name])}" for name in dict.fromkeys(names)]
    slug = "-".join(words) or "recipe"
    if len(slug) <= LONGEST_SLUG:
        return slug
    return f"{slug[:LONGEST_SLUG].rstrip('-=._')}-{hashlib.sha256(slug.encode()).hexdigest()[:8]}"


def short(name: str) -> str:
    """model.options.dense -> dense; model.name -> model."""
    *sections, last = name.split(".")
    return sections[-1] if last == "name" and sections else last


def _plain(value: Any) -> str:
    text = "null" if value is None else str(value)
    return re.sub(r"[^\w.-]+", "_", text).strip("_")
