import pytest

from knorm.training.config import to_yaml
from segmentation.config import PrivateRun, Recipe, load_recipe, parse_recipe


def test_a_run_is_named_after_the_recipe_that_is_asked_for_or_else_data_and_net():
    assert parse_recipe([]).name == "scenes-deeplabv3plus"
    assert parse_recipe(["--config", "scenes"]).name == "scenes"
    assert parse_recipe(["--config", "cityscapes-paper/knresnet18"]).name == (
        "cityscapes-paper-knresnet18"
    )


@pytest.mark.parametrize(
    ("options", "crop"),
    [
        ([], (128, 256)),
        (["--data.scenes.height=64"], (64, 256)),
        (["--data.size=[32, 48]"], (32, 48)),
        (["--augment.crop=[16, 24]"], (16, 24)),
        (["--data.name=cityscapes"], (512, 1024)),
    ],
)
def test_the_usual_crop_follows_the_data_set(options, crop):
    assert parse_recipe(options).augment.crop == crop


def test_a_saved_recipe_is_the_recipe(tmp_path):
    options = ["--augment.scale=[0.5, 2]", "--inference.crop=[8, 9]", "--inference.scales=[0.5, 1]"]
    options += [f"--loss.class_weights={[0.5] * 19}", "--steps=7", "--epochs=null"]
    recipe = parse_recipe([*options, "--head_rate=10"])
    (tmp_path / "config.yaml").write_text(to_yaml(recipe))
    assert load_recipe(tmp_path) == recipe
    assert recipe.inference.steps == (6, 6)


def test_a_private_run_is_read_with_its_budget(tmp_path):
    text = to_yaml(parse_recipe([])) + "privacy: {epsilon: 3.0}\n"
    (tmp_path / "config.yaml").write_text(text)
    recipe = load_recipe(tmp_path)
    assert isinstance(recipe, PrivateRun)
    assert isinstance(recipe, Recipe)
    assert recipe.privacy == {"epsilon": 3.0}


def test_there_is_one_place_to_begin_from():
    with pytest.raises(ValueError, match=r"backbone_weights and model\.weights both say"):
        parse_recipe(["--backbone_weights=a", "--model.weights=b"])
