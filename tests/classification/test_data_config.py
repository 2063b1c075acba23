import pytest

from classification.config import parse_recipe
from knorm.training.mistakes import UserMistakeError

FOLDER = "--data.name=imagefolder --data.image_size=224"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data.scaling=fixed", "data.mean belongs to data.scaling fixed, which needs it"),
        ("--data.scaling=fixed --data.mean=[0.5]", "data.std belongs to data.scaling fixed"),
        ("--data.std=[0.5]", "data.std belongs to data.scaling fixed, which needs it, got [0.5]"),
        (
            "--data.name=cifar10 --data.scaling=fixed --data.mean=[0.5] --data.std=[1,1,1]",
            "data.mean needs 3 numbers, one for each channel, got [0.5]",
        ),
        (
            "--data.scaling=fixed --data.mean=[0.5] --data.std=[0]",
            "data.std must be positive, got 0",
        ),
        (
            "--data.scaling=fixed --data.mean=[128] --data.std=[1]",
            "data.mean must lie between 0 and 1, got 128",
        ),
        ("--data.scaling=standart", "did you mean 'standard'?"),
        ("--data.eval_size=6", "data.eval_size is for imagefolder, not for digits"),
        ("--data.eval_resize=6", "data.eval_resize is for imagefolder, not for digits"),
        (f"{FOLDER} --data.eval_resize=200", "must not be less than the side of the square, 224"),
        (f"{FOLDER} --data.eval_size=0", "data.eval_size must lie between 1 and 16384, got 0"),
        ("--data.image_size=8", "data.image_size belongs to data.name imagefolder"),
        ("--data.resident=true", "data.resident is for imagefolder"),
        ("--data.synthetic.classes=3", "data.synthetic is for data.name synthetic, not for digits"),
        ("--data.synthetic.test=0", "data.synthetic.test must be positive, got 0"),
        ("--data.synthetic.noise=-1", "data.synthetic.noise must not be negative, got -1"),
    ],
)
def test_mistakes_name_the_option_and_the_value(arguments, message):
    with pytest.raises(UserMistakeError) as mistake:
        parse_recipe(arguments.split())
    assert message in str(mistake.value)


@pytest.mark.parametrize(
    ("arguments", "geometry"),
    [
        ("", (224, 224)),
        ("--data.eval_resize=256", (224, 256)),
        ("--data.eval_size=192", (192, 192)),
        ("--data.eval_size=192 --data.eval_resize=200", (192, 200)),
    ],
)
def test_images_are_evaluated_at_the_training_size_unless_told_otherwise(arguments, geometry):
    recipe = parse_recipe([*FOLDER.split(), *arguments.split()])
    assert recipe.data.eval_geometry == geometry


def test_facts_of_the_synthetic_set_are_its_settings():
    arguments = ["--data.synthetic.classes=3", "--data.synthetic.channels=1"]
    facts = parse_recipe(["--data.name=synthetic", *arguments]).data.facts
    assert (facts.num_classes, facts.in_chans) == (3, 1)
