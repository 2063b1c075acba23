import math

import pytest
import torch
from torchvision.transforms import AutoAugmentPolicy
from torchvision.transforms.v2 import AutoAugment, TrivialAugmentWide

from classification import policies
from classification.policies import KINDS, NAMES, TURNS, apply_policy, auto_strengths

COUNT = 20_000
UNSIGNED = {"Posterize", "Solarize", "AutoContrast", "Equalize", "Invert", "Identity"}


def images(count=40, channels=3, height=17, width=12):
    generator = torch.Generator().manual_seed(count)
    shape = (count, channels, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def rows(name):
    for line in policies.AUTOAUGMENT[name].strip().splitlines():
        words = line.split()
        yield tuple(
            (operation, float(chance), None if number == "-" else int(number))
            for operation, chance, number in (words[:3], words[3:])
        )


@pytest.mark.parametrize("name", ["cifar10", "imagenet", "svhn"])
def test_the_tables_of_autoaugment_are_torchvisions(name):
    assert list(rows(name)) == AutoAugment(AutoAugmentPolicy(name))._policies


@pytest.mark.parametrize("sides", [(32, 32), (224, 300)])
def test_the_strengths_of_autoaugment_are_torchvisions(sides):
    space = AutoAugment._AUGMENTATION_SPACE
    ours = auto_strengths(*sides)
    assert set(space) == set(NAMES) - {"Identity"}
    for name, (theirs, signed) in space.items():
        strengths, kind = ours[NAMES.index(name)], KINDS[name]
        assert kind.signed == signed
        if theirs(10, *sides) is not None:
            strengths = strengths.round() if name == "Posterize" else strengths
            assert torch.equal(strengths, theirs(10, *sides).float())


def test_the_strengths_of_trivial_augment_are_torchvisions():
    space = TrivialAugmentWide._AUGMENTATION_SPACE
    assert set(space) == set(NAMES[: policies.NUM_WIDE])
    for name, (theirs, signed) in space.items():
        kind = KINDS[name]
        assert kind.signed == signed
        if theirs(31, 32, 32) is not None:
            strengths = torch.linspace(*kind.wide, 31)
            strengths = strengths.round() if name == "Posterize" else strengths
            assert torch.equal(strengths, theirs(31, 32, 32).float())


def within_noise(count, total, probability):
    """Within five deviations of what that many draws give."""
    deviation = math.sqrt(total * probability * (1 - probability))
    return abs(count - total * probability) <= 5 * deviation


def test_trivial_augment_draws_all_operations_and_strengths_alike():
    ((chosen, strengths),) = TURNS["trivial_wide"](3, torch.arange(COUNT), 32, 32)
    for number, name in enumerate(NAMES[: policies.NUM_WIDE]):
        mine = strengths[chosen == number]
        assert within_noise(len(mine), COUNT, 1 / policies.NUM_WIDE)
        bins = torch.linspace(*KINDS[name].wide, 31)
        if KINDS[name].signed:
            assert within_noise((mine < 0).sum(), len(mine), 0.5 * 30 / 31)
        for strength in bins.unique():
            probability = (bins == strength).float().mean().item()
            assert within_noise((mine.abs() == strength).sum(), len(mine), probability)


@pytest.mark.parametrize("name", ["cifar10", "imagenet", "svhn"])
def test_autoaugment_draws_its_rows_alike_and_each_operation_with_its_probability(name):
    for turn, (chosen, _) in enumerate(TURNS[name](3, torch.arange(COUNT), 32, 32)):
        for operation in NAMES:
            chances = [row[turn][1] for row in rows(name) if row[turn][0] == operation]
            found = (chosen == NAMES.index(operation)).sum()
            assert within_noise(found, COUNT, sum(chances) / 25)
        idle = sum(1 - row[turn][1] for row in rows(name)) / 25
        assert within_noise((chosen == -1).sum(), COUNT, idle)


def theirs(transform, image, name, strength):
    return transform._apply_image_or_video_transform(
        image, name, strength, interpolation=transform.interpolation, fill=transform._fill
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", TURNS)
def test_a_policy_does_what_torchvision_does_with_the_same_draws(policy, channels):
    pixels, samples = images(200, channels), torch.arange(200)
    transform, expected = TrivialAugmentWide(), list(pixels)
    for chosen, strengths in TURNS[policy](9, samples, 17, 12):
        for sample, (number, strength) in enumerate(
            zip(chosen.tolist(), strengths.tolist(), strict=True)
        ):
            if number >= 0:
                whole = round(strength) if NAMES[number] == "Posterize" else strength
                expected[sample] = theirs(transform, expected[sample], NAMES[number], whole)
    difference = (
        apply_policy([policy], pixels, samples, 9).int() - torch.stack(expected).int()
    ).abs()
    assert (difference > 1).float().mean() < 2e-3  # pixels midway between two others
    assert difference.gt(0).float().mean() < 1e-2


@pytest.mark.parametrize("policy", TURNS)
def test_a_policy_does_not_depend_on_the_batch(policy):
    pixels, samples = images(), torch.arange(40) * 7
    together = apply_policy([policy], pixels, samples, 4)
    for part in torch.randperm(40).split(9):
        assert torch.equal(apply_policy([policy], pixels[part], samples[part], 4), together[part])
    assert not torch.equal(apply_policy([policy], pixels, samples, 5), together)


def test_each_image_draws_one_of_several_policies_all_equally_often():
    pixels, samples = images(COUNT // 10), torch.arange(COUNT // 10)
    policies = ["cifar10", "imagenet", "svhn", "trivial_wide"]
    found = apply_policy(policies, pixels, samples, 9)
    alone = torch.stack([apply_policy([policy], pixels, samples, 9) for policy in policies])
    same = (found == alone).flatten(2).all(2)  # policy, sample
    assert same.any(0).all()
    certain = same[:, same.sum(0) == 1]
    counts = certain.sum(1)
    assert len(certain[0]) > COUNT // 20
    assert (counts > 0.8 * counts.float().mean()).all()
    part = torch.tensor([3, 77, 5])
    assert torch.equal(apply_policy(policies, pixels[part], samples[part], 9), found[part])
