import pytest

from classification.augment_config import Affine, Augment, Jitter
from classification.config import load_recipe, parse_recipe
from knorm.training.config import to_yaml
from knorm.training.mistakes import UserMistakeError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--augment.policy=cifar100", "did you mean 'cifar10'?"),
        ("--augment.polisy=svhn", "did you mean '--augment.policy'?"),
        ("--augment.repeats=0", "augment.repeats must lie between 1 and 100, got 0"),
        ("--augment.crop_padding=-1", "augment.crop_padding must lie between 0"),
        ("--augment.resized_crop=[0.5,0.1]", "augment.resized_crop must be [low, high]"),
        ("--augment.resized_crop=[0,1]", "augment.resized_crop must be positive, got 0"),
        ("--augment.resized_crop=[0.1,1.5]", "augment.resized_crop must be [low, high]"),
        ("--augment.resized_crop=0.1", "augment.resized_crop: expected"),
        ("--augment.resized_crop_ratio=[0,1]", "augment.resized_crop_ratio must be positive"),
        ("--augment.resized_crop=[0.1,1] --augment.crop_padding=4", "two ways to crop"),
        ("--augment.affine.degrees=181", "augment.affine.degrees must lie between 0 and 180"),
        ("--augment.affine.translate=2", "augment.affine.translate must lie between 0 and 1"),
        ("--augment.affine.scale=[2,1]", "augment.affine.scale must be [low, high]"),
        ("--augment.affine.scale=[0,1]", "augment.affine.scale must be positive"),
        ("--augment.affine.shear=90", "augment.affine.shear must lie between 0 and 89"),
        ("--augment.affine.angle=9", "no such option"),
        ("--augment.jitter.brightness=-1", "augment.jitter.brightness must lie between 0"),
        ("--augment.jitter.contrast=.inf", "augment.jitter.contrast must lie between 0 and 100"),
        ("--augment.jitter.hue=0.6", "augment.jitter.hue must lie between 0 and 0.5"),
        ("--augment.jitter.hue=0.1", "augment.jitter.hue needs images of 3 channels, not 1"),
        ("--augment.jitter.saturation=0.1", "saturation needs images of 3 channels, not 1"),
        ("--augment.erasing=1.1", "augment.erasing must lie between 0 and 1, got 1.1"),
        ("--augment.mixup=-0.1", "augment.mixup must lie between 0 and 100, got -0.1"),
        ("--augment.cutmix=-1", "augment.cutmix must lie between 0 and 100, got -1"),
        ("--augment.mixup=0.2 --batch_size=1", "mix pairs, so batch_size 1 is too low"),
    ],
)
def test_mistakes_name_the_option_and_the_value(arguments, message):
    with pytest.raises(UserMistakeError) as mistake:
        parse_recipe(arguments.split())
    assert message in str(mistake.value)


def test_a_policy_needs_images_that_its_operations_know():
    arguments = ["--data.name=synthetic", "--data.synthetic.channels=2"]
    with pytest.raises(UserMistakeError, match=r"augment\.policy needs images of 1 or 3 channels"):
        parse_recipe([*arguments, "--augment.policy=svhn"])


def test_policies_are_one_or_several():
    def policies(value):
        return parse_recipe(["--data.name=cifar10", f"--augment.policy={value}"]).augment.policies

    assert policies("null") == []
    assert policies("svhn") == ["svhn"]
    assert policies("[svhn, trivial_wide]") == ["svhn", "trivial_wide"]
    for wrong, message in (("[]", "at least one policy"), ("[svhn, cifar]", "policy")):
        with pytest.raises(UserMistakeError, match=message) as mistake:
            policies(wrong)
        assert "\n" not in str(mistake.value)
    augment = parse_recipe(["--data.name=cifar10", "--augment.policy=[svhn, cifar10]"]).augment
    assert "policy ['svhn', 'cifar10']" in augment.in_words()


def test_resized_crops_take_the_place_of_padded_ones():
    arguments = ["--data.name=cifar10", "--augment.resized_crop=[0.2,1]"]
    assert parse_recipe(arguments).augment.crop_padding == 0
    assert parse_recipe(arguments[:1]).augment.crop_padding == 4


def test_every_option_survives_the_run_folder(tmp_path):
    augment = Augment(
        repeats=4,
        resized_crop=(0.1, 0.9),
        crop_padding=0,
        flip=True,
        policy=["trivial_wide", "svhn"],
        affine=Affine(degrees=10, scale=(0.9, 1.1)),
        jitter=Jitter(hue=0.1),
        erasing=0.1,
        mixup=0.2,
        cutmix=1.0,
    )
    recipe = parse_recipe(["--data.name=cifar10"])
    recipe.augment = augment
    (tmp_path / "config.yaml").write_text(to_yaml(recipe))
    assert load_recipe(tmp_path).augment == augment


def test_the_plan_tells_all_that_is_switched_on_and_nothing_else():
    plain = Augment(crop_padding=0, flip=False)
    assert plain.in_words() == "no augmentation"
    some = Augment(crop_padding=4, flip=True, jitter=Jitter(hue=0.1), mixup=0.2)
    assert some.in_words() == "crop_padding 4  flip  hue 0.1  mixup 0.2"
