"""Recipes of segmentation: each builds its net, says how it is run and what it aims at."""

from functools import cache

import pytest
import torch

from knorm.training.nets import make_model
from knorm.training.recipes import list_recipes
from segmentation.config import DEFAULT_RECIPE, RECIPES, parse_recipe
from segmentation.task import BACKBONE
from segmentation.work import IN_CHANS
from tests.recipe_headers import check_header

ALL = list_recipes(RECIPES)
STUDIES = {name.partition("/")[0]: name for name in ALL if "/" in name}


@cache
def recipe_of(name):
    return parse_recipe(["--config", name])


@cache
def net_of(name):
    """Without memory for its weights."""
    recipe = recipe_of(name)
    if "timm:" in recipe.model.options.get("backbone", ""):
        pytest.importorskip("timm")
    num_classes = recipe.data.read_classes().num_classes
    with torch.device("meta"):
        return make_model(recipe.model, num_classes=num_classes, in_chans=IN_CHANS, seed=0)


def parameters(name):
    return sum(parameter.numel() for parameter in net_of(name).parameters())


@pytest.mark.parametrize("name", ALL)
def test_every_recipe_builds_its_net_for_its_crops(name):
    recipe, net = recipe_of(name), net_of(name)
    assert ALL[name].about
    assert recipe.augment.crop is not None
    found = net.train()(torch.empty(2, IN_CHANS, *recipe.augment.crop, device="meta"))
    logits = found["out"] if isinstance(found, dict) else found
    num_classes = recipe.data.read_classes().num_classes
    assert logits.shape == (2, num_classes, *recipe.augment.crop)
    assert isinstance(found, dict) == recipe.model.options.get("aux", False)
    assert {name.startswith(BACKBONE) for name, _ in net.named_parameters()} == {True, False}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_says_in_its_header_how_to_run_it(path):
    default, rows = path.stem == DEFAULT_RECIPE, path.stem in STUDIES
    check_header(path, "segmentation.train", is_default=default, has_rows=rows)


def test_every_recipe_but_the_default_says_the_published_number_that_it_aims_at():
    assert {name for name in ALL if not recipe_of(name).published} == {DEFAULT_RECIPE}


def test_the_default_needs_no_file():
    recipe = parse_recipe([])
    assert recipe.data.name == "scenes"
    assert recipe == parse_recipe([f"--config={DEFAULT_RECIPE}", f"--name={recipe.name}"])


DEPTHS = {
    "resnet18": (13_546_579, ("59.10 ± 0.46", "62.33 ± 0.52", "62.25 ± 0.67", "63.90 ± 0.06")),
    "resnet34": (23_654_739, ("60.19 ± 0.32", "64.21 ± 0.58", "64.75 ± 0.38", "66.94 ± 0.34")),
    "resnet50": (32_955_987, ("57.88 ± 0.84", "62.14 ± 0.68", "64.03 ± 0.02", "65.19 ± 0.50")),
}
KERNEL = {
    "knresnet18": (13_525_380, "64.37 ± 0.14"),
    "knresnet34": (23_399_315, "67.61 ± 0.17"),
    "knresnet50": (32_873_971, "68.02 ± 0.13"),
}
PAPER = {
    f"cityscapes-paper/{net}-{norm}": (count, number)
    for net, (count, numbers) in DEPTHS.items()
    for norm, number in zip(("layer", "group", "lcn", "batch"), numbers, strict=True)
} | {f"cityscapes-paper/{net}": row for net, row in KERNEL.items()}


def test_the_rows_of_the_paper_are_those_of_its_table():
    assert PAPER.keys() == {name for name in ALL if name.startswith("cityscapes-paper/")}


@pytest.mark.parametrize("name", PAPER)
def test_a_row_has_the_papers_parameters_number_and_settings(name):
    recipe, (count, number) = recipe_of(name), PAPER[name]
    assert ALL[name].published == number
    assert str(recipe.published).startswith(number)
    assert "Table 3" in str(ALL[name].source)
    assert (recipe.epochs, recipe.batch_size) == (500, 16)
    assert recipe.augment.crop == (512, 1024)
    assert (recipe.augment.scale, recipe.augment.flip) == ((0.5, 2.0), True)
    assert (recipe.schedule.name, recipe.data.val_fraction) == ("poly", 0)
    assert parameters(name) == count
