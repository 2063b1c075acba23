"""List the recipes of the pipelines, or print one with everything that it sets.

    knorm recipes
    knorm recipes "kn-cifar100/knresnet*"
    knorm recipes kn-cifar100/knresnet18-b32

A recipe is run from a checkout, by the command above its table. "published" is the number that it
aims at.
"""

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from knorm.choices import nearest
from knorm.training.mistakes import OneLineParser, UserMistakeError
from knorm.training.recipes import RecipeInfo, find_recipe, list_recipes, recipe_text
from knorm.training.tables import columns

CHECKOUT = Path(__file__).parents[2]
PIPELINES = ("classification", "segmentation", "privacy")


def main(argv: Sequence[str]) -> None:
    """Print the tables of all pipelines, or one recipe."""
    parser = OneLineParser(
        prog="knorm recipes", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("pattern", nargs="?", default="*", help="a name, or shell-style")
    pattern = parser.parse_args(argv).pattern
    folders = {name: place for name in PIPELINES if (place := CHECKOUT / name / "recipes").is_dir()}
    if not folders:
        raise UserMistakeError(
            "recipes belong to the pipelines, which are not installed: work in a checkout"
        )
    found = {pipeline: list_recipes(folder) for pipeline, folder in folders.items()}
    exact = {name: recipes[pattern] for name, recipes in found.items() if pattern in recipes}
    if exact:
        texts = [show(name, pattern, folders[name], info) for name, info in exact.items()]
        print("\n\n".join(texts))
        return
    matching = {name: matches(pattern, recipes) for name, recipes in found.items()}
    if not any(matching.values()):
        known = {name for recipes in found.values() for name in recipes}
        raise UserMistakeError(f"no recipe matches {pattern!r}{nearest(pattern, sorted(known))}")
    tables = [f"{command(name)}\n\n{table(rows)}" for name, rows in matching.items() if rows]
    print("\n\n".join(tables))


def command(pipeline: str) -> str:
    """What trains a recipe of a pipeline."""
    return f"python -m {pipeline}.train --config RECIPE"


def matches(pattern: str, recipes: dict[str, RecipeInfo]) -> dict[str, RecipeInfo]:
    """Those of that name, shell-style, or rows of the study of that name."""
    patterns = (pattern, f"{pattern}/*")
    return {
        name: info for name, info in recipes.items() if any(fnmatch(name, one) for one in patterns)
    }


def table(recipes: dict[str, RecipeInfo]) -> str:
    """One line per recipe, under what is said of its file."""
    blocks: dict[tuple[str, str], list[list[str]]] = {}
    for name, info in recipes.items():
        row = [f"  {name}", info.published or ""]
        blocks.setdefault((info.about, info.source or ""), []).append(row)
    texts = []
    for (about, source), rows in blocks.items():
        heads = ["  recipe", "published"] if source else ["  recipe"]
        body = columns(heads, [row[: len(heads)] for row in rows])
        texts.append("\n".join([about, *([f"published: {source}"] if source else []), body]))
    return "\n\n".join(texts)


def show(pipeline: str, name: str, folder: Path, info: RecipeInfo) -> str:
    """Everything that the recipe sets, as YAML."""
    lines = [f"# {info.about}", f"# {command(pipeline).replace('RECIPE', name)}"]
    if info.published:
        lines.append(f"# published: {info.published}, {info.source}")
    return "\n".join([*lines, recipe_text(find_recipe(name, folder)).rstrip()])
