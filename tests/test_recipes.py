"""Every recipe and every row of a study: it parses, builds its net, and says what it aims at."""

import csv
from functools import cache
from pathlib import Path

import pytest
import torch

from classification.config import DEFAULT_RECIPE, RECIPES, parse_recipe
from knorm.training.nets import make_model
from knorm.training.optim import make_optimizer
from knorm.training.recipes import list_recipes
from tests.recipe_headers import check_header

ALL = list_recipes(RECIPES)
STUDIES = {name.partition("/")[0]: name for name in ALL if "/" in name}
CLASSES = {"imagefolder": 1000, "cifar100": 100}
LINES = (Path(__file__).parent / "golden" / "kn_recipes.csv").read_text().splitlines()
PAPER = list(csv.DictReader(line for line in LINES if not line.startswith("#")))
KINDS = {"LN": "layer", "GN": "group", "BN": "batch"}


@cache
def recipe_of(name):
    return parse_recipe(["--config", name])


@cache
def shapes_of(name):
    """The shapes of all weights that are trained; no memory is taken for them."""
    recipe = recipe_of(name)
    with torch.device("meta"):
        net = make_model(
            recipe.model,
            num_classes=CLASSES.get(recipe.data.name, 10),
            in_chans=recipe.data.facts.in_chans,
            seed=0,
        )
    groups = make_optimizer(recipe.optim, net).param_groups
    return [parameter.shape for group in groups for parameter in group["params"]]


@pytest.mark.parametrize("name", ALL)
def test_every_recipe_builds_its_net_and_its_optimizer(name):
    assert shapes_of(name)
    assert ALL[name].about


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_says_in_its_header_how_to_run_it(path):
    default, rows = path.stem == DEFAULT_RECIPE, path.stem in STUDIES
    check_header(path, "classification.train", is_default=default, has_rows=rows)


def test_the_rows_of_the_papers_studies_are_those_of_its_tables():
    rows = {f"{row['study']}/{row['row']}" for row in PAPER}
    assert len(rows) == 63 + 12 + 4 + 2
    assert rows == {name for name, info in ALL.items() if info.published}


@pytest.mark.parametrize("row", PAPER, ids=lambda row: f"{row['study']}/{row['row']}")
def test_a_row_has_the_papers_rate_batch_size_parameters_and_number(row):
    name = f"{row['study']}/{row['row']}"
    recipe, info = recipe_of(name), ALL[name]
    assert (recipe.optim.lr, recipe.batch_size) == (float(row["lr"]), int(row["batch"]))
    assert info.published == row["top1"] + (f" ± {row['sd']}" if row["sd"] else "")
    assert info.source is not None
    assert "TMLR 02/2024" in info.source
    net, kind = row["model"].lower().replace("preact", "preact_"), "kernel"
    net = net.replace("convnext-", "convnext_").replace("knconv", "conv").replace("-", "")
    if recipe.model.norm != "kernel":
        net, kind = net[:-2], KINDS[row["model"][-2:]]
    assert (recipe.model.name, recipe.model.norm) == (net, kind)
    assert sum(shape.numel() for shape in shapes_of(name)) == int(row["parameters"])


STUDY_SETTINGS = {  # epochs, weight decay, scaling of kernel rows; paper, pages 8, 19 and 20
    "kn-cifar100": (150, 5e-4, "scale"),
    "kn-cifar10": (70, 0.0, "scale"),
    "kn-imagenet": (100, 1e-4, "fixed"),
}


RESIDUAL = [row for row in PAPER if row["study"] in STUDY_SETTINGS]


@pytest.mark.parametrize("row", RESIDUAL, ids=lambda row: f"{row['study']}/{row['row']}")
def test_a_residual_net_trains_as_the_paper_does(row):
    recipe = recipe_of(f"{row['study']}/{row['row']}")
    epochs, decay, kernel_scaling = STUDY_SETTINGS[row["study"]]
    optim, data = recipe.optim, recipe.data
    assert (optim.name, optim.momentum, optim.nesterov) == ("sgd", 0.9, False)
    assert (recipe.epochs, optim.weight_decay, optim.decay_vectors) == (epochs, decay, True)
    assert data.scaling == (kernel_scaling if recipe.model.norm == "kernel" else "fixed")
    assert data.val_fraction == 0
    assert recipe.schedule.per_epoch
    assert recipe.augment.flip
    assert recipe.name == f"{row['study']}-{row['row']}"


@pytest.mark.parametrize("norm", ["layer", "kernel"])
def test_convnext_trains_as_the_papers_code_does(norm):
    recipe = recipe_of(f"kn-convnext/{norm}")
    optim, schedule, data, augment = recipe.optim, recipe.schedule, recipe.data, recipe.augment
    assert (optim.name, optim.weight_decay, optim.decay_vectors) == ("adamw", 0.05, False)
    assert (schedule.name, schedule.per_epoch, schedule.warmup_epochs) == ("cosine", True, 5)
    assert (recipe.epochs, recipe.loss.label_smoothing) == (600, 0.1)
    assert (data.image_size, *data.eval_geometry, data.val_fraction) == (176, 224, 232, 0)
    assert (augment.policy, augment.erasing, augment.repeats) == ("trivial_wide", 0.1, 4)
    assert (augment.mixup, augment.cutmix, augment.flip) == (0.2, 1.0, True)
    assert recipe.model.options["stochastic_depth"] == 0.1
    # torchvision's reference script: 0.99998 refers to one sample and one epoch
    updates = recipe.batch_size * recipe.ema_every / recipe.epochs
    assert recipe.ema_every == 32
    assert recipe.ema_decay == pytest.approx(1 - (1 - 0.99998) * updates, abs=1e-7)
