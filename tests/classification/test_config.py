from pathlib import Path

import pytest

from classification.config import DEFAULT_RECIPE, Recipe, load_recipe, parse_recipe
from knorm.training.config import to_yaml


def test_a_run_is_named_after_the_recipe_that_is_asked_for():
    assert parse_recipe([]).name == "digits-knresnet13"
    assert parse_recipe(["--config", "digits", "--optim.lr=0.1"]).name == "digits"
    assert parse_recipe(["--config", "kn-cifar100/knresnet18-b32"]).name == (
        "kn-cifar100-knresnet18-b32"
    )
    assert parse_recipe(["--config", "digits", "--name=mine"]).name == "mine"


def test_without_arguments_the_default_recipe_is_trained():
    named = parse_recipe(["--config", DEFAULT_RECIPE, "--name=digits-knresnet13"])
    assert parse_recipe([]) == named


@pytest.mark.parametrize(
    ("name", "crop_padding", "flip"),
    [("digits", 0, False), ("mnist", 0, False), ("cifar10", 4, True)],
)
def test_the_usual_augmentation_follows_the_data_set(name, crop_padding, flip):
    augment = parse_recipe(["--data.name", name]).augment
    assert (augment.crop_padding, augment.flip) == (crop_padding, flip)
    augment = parse_recipe(["--data.name", name, "--augment.flip", str(not flip)]).augment
    assert augment.flip is not flip


def test_a_run_is_named_after_data_and_net():
    assert parse_recipe([]).name == "digits-knresnet13"
    assert parse_recipe(["--name", "mine"]).name == "mine"


def test_a_saved_recipe_is_the_recipe(tmp_path):
    recipe = parse_recipe(
        ["--optim.name=adam", "--optim.nesterov=false", "--optim.betas=[0.5, 0.9]"]
    )
    (tmp_path / "config.yaml").write_text(to_yaml(recipe))
    assert load_recipe(tmp_path) == recipe
    assert isinstance(recipe, Recipe)


def test_a_folder_without_a_recipe_is_no_run():
    with pytest.raises(ValueError, match=r"no config\.yaml"):
        load_recipe(Path("nowhere"))
