"""Private recipes: each builds its net, keeps its budget, and has the published settings."""

from functools import cache

import pytest
import torch

from classification.data import Batch
from classification.task import Classification
from knorm.training.nets import make_model
from knorm.training.optim import make_optimizer
from knorm.training.recipes import list_recipes
from privacy.checks import prove, refuse_batch_statistics
from privacy.config import (
    DEFAULT_RECIPE,
    RECIPES,
    PrivateSegmentation,
    kind_of,
    parse_recipe,
)
from privacy.spending import budget_of
from tests.recipe_headers import check_header

ALL = list_recipes(RECIPES)
STUDIES = {name.partition("/")[0]: name for name in ALL if "/" in name}
IMAGES = {"digits": 1437, "mnist": 60_000, "cifar10": 50_000, "imagefolder": 1_281_167}
CLASSES = {"imagefolder": 1000}


@cache
def recipe_of(name):
    arguments = ["--config", name]
    return parse_recipe(arguments, kind_of(arguments))


def net_of(name):
    recipe = recipe_of(name)
    if isinstance(recipe, PrivateSegmentation):
        num_classes, in_chans = recipe.data.read_classes().num_classes, 3
    else:
        num_classes = CLASSES.get(recipe.data.name, 10)
        in_chans = recipe.data.facts.in_chans
    return make_model(recipe.model, num_classes=num_classes, in_chans=in_chans, seed=0)


@pytest.mark.parametrize("name", ALL)
def test_every_recipe_builds_a_net_that_can_be_private(name):
    with torch.device("meta"):
        net = net_of(name)
    refuse_batch_statistics(net)
    assert make_optimizer(recipe_of(name).optim, net).param_groups
    assert ALL[name].about


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_says_in_its_header_how_to_run_it(path):
    default, rows = path.stem == DEFAULT_RECIPE, path.stem in STUDIES
    check_header(path, "privacy.train", is_default=default, has_rows=rows)


PUBLISHED = {  # lr, batch, norm bound, delta, steps, noise at most, parameters, halvings, top-1
    "kn-imagenet32/knresnet18": (4, 8192, 2, 8e-7, 15_600, 0.854, 11_677_540, [70, 90], "22.01"),
    "kn-imagenet32/resnet18-group": (
        4, 8192, 2, 8e-7, 15_600, 0.854, 11_681_832, [70, 90], "20.99",
    ),
    "kn-imagenet32/resnet18-layer": (
        4, 8192, 2, 8e-7, 15_600, 0.854, 11_681_832, [70, 90], "20.81",
    ),
    "kn-cifar10/knresnet13-eps6": (2, 4096, 1.5, 1e-5, 1200, 2.495, 2_041_034, [50, 75], None),
    "kn-cifar10/knresnet13-eps8": (2, 4096, 1.5, 1e-5, 1200, 2.0, 2_041_034, [50, 75], None),
    "wrn-cifar10/wrn16-4-eps1": (2, 4096, 1, 1e-5, 875, 10, 2_753_818, [], None),
    "wrn-cifar10/wrn16-4-eps8": (4, 4096, 1, 1e-5, 2500, 3, 2_753_818, [], None),
}  # fmt: skip


def test_every_study_of_others_is_checked():
    assert PUBLISHED.keys() == {name for name in ALL if "/" in name}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_row_has_the_published_settings(name):
    recipe, privacy = recipe_of(name), recipe_of(name).privacy
    lr, batch, max_norm, delta, steps, noise, parameters, milestones, top1 = PUBLISHED[name]
    optim = recipe.optim
    assert (optim.name, optim.lr, recipe.batch_size) == ("sgd", lr, batch)
    assert (optim.momentum, optim.weight_decay, recipe.data.val_fraction) == (0, 0, 0)
    assert (privacy.max_norm, privacy.delta, privacy.clipping) == (max_norm, delta, "flat")
    assert (recipe.schedule.milestones, ALL[name].published) == (milestones, top1)
    if milestones:
        assert (recipe.schedule.gamma, privacy.accountant) == (0.5, "rdp")
        assert recipe.augment.in_words() == "no augmentation"
        assert recipe.model.activation == "mish"
    budget = budget_of(recipe, IMAGES[recipe.data.name])
    assert (budget.steps, budget.epsilon() <= privacy.epsilon) == (steps, True)
    assert noise * 0.8 < budget.noise_multiplier <= noise
    with torch.device("meta"):
        assert sum(p.numel() for p in net_of(name).parameters()) == parameters


@pytest.mark.parametrize("name", ["wrn-cifar10/wrn16-4-eps1", "wrn-cifar10/wrn16-4-eps8"])
def test_a_wide_net_has_the_published_views_and_average(name):
    recipe = recipe_of(name)
    assert (recipe.privacy.views, recipe.augment.crop_padding, recipe.augment.flip) == (16, 4, True)
    window = (recipe.privacy.steps + 10) / 9  # of min(0.9999, (1 + t) / (10 + t)) at the end
    assert 1 / (1 - recipe.ema_decay) == pytest.approx(window, rel=0.12)


def test_standardized_weights_have_gradients_image_by_image():
    views, name = 2, "wrn-cifar10/wrn16-4-eps1"
    smaller = [f"--privacy.views={views}", "--model.options.width=0.25"]
    recipe = parse_recipe(["--config", name, *smaller])

    def made(records, seed):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(records * views, 3, 8, 8, generator=generator)
        labels = torch.randint(0, 10, (records,), generator=generator).repeat_interleave(views)
        return Batch(images, labels, labels, records * views)

    net = make_model(recipe.model, num_classes=10, in_chans=3, seed=0)
    proof = prove(net, Classification(recipe.loss, 10).loss, made, recipe.privacy)
    assert proof.parameters == len(list(net.parameters()))
