"""Recipes of a pipeline: read from the command line, and again from a run's folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from knorm.training.config import has_section, parse, refuse_section
from knorm.training.folder import CONFIG, checked, with_resumed_config
from knorm.training.recipes import read_yaml
from knorm.training.run_settings import RunSettings

AnyRecipe = TypeVar("AnyRecipe", bound=RunSettings)


@dataclass(frozen=True)
class PipelineRecipes:
    """Where a pipeline's recipes are, and what it must not train."""

    folder: Path
    default: str
    """the recipe that stands for no --config"""
    foreign: str
    """a section of recipes that another program alone may train"""
    owner: str
    """that program"""
    why: str
    """what would be wrong here"""

    def parse(
        self, cls: type[AnyRecipe], argv: Sequence[str], prog: str, about: str | None
    ) -> AnyRecipe:
        """The recipe that the command line asks for; `about` introduces --help."""
        argv, places = with_resumed_config(argv), {"recipes": self.folder, "default": self.default}
        refuse_section(argv, self.foreign, self.owner, self.why, **places)
        return parse(cls, argv, prog=prog, about=about, **places)

    def load(self, run_dir: Path, cls: type[AnyRecipe], foreign: type[AnyRecipe]) -> AnyRecipe:
        """What a run has written into its folder: a `foreign` one where it has that section."""
        file = checked(run_dir) / CONFIG
        kind = foreign if has_section(read_yaml(file), self.foreign) else cls
        return parse(kind, [f"--config={file}"], prog="", recipes=self.folder, default=self.default)
