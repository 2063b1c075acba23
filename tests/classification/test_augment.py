import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from classification.augment import JITTER, augmented
from classification.augment_config import Affine, Augment, Jitter
from knorm.training.seeds import mix, uniform

CROP_AND_FLIP = Augment(crop_padding=4, flip=True)


def images(count, channels=3):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, 9, 12), dtype=torch.uint8, generator=generator)


def change(pixels, samples, augment=CROP_AND_FLIP, *, seed=0, epoch=1):
    return augmented(pixels, samples, augment, seed=seed, epoch=epoch)


@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_what_happens_to_a_sample_does_not_depend_on_its_batch(batch_size):
    pixels, samples = images(40), torch.randperm(1000)[:40]
    together = change(pixels, samples)
    order = torch.randperm(40)
    for part in order.split(batch_size):
        assert torch.equal(change(pixels[part], samples[part]), together[part])


def test_seed_and_epoch_change_it_and_torchs_generator_does_not():
    pixels, samples = images(40), torch.arange(40)
    first = change(pixels, samples)
    torch.manual_seed(9)
    assert torch.equal(change(pixels, samples), first)
    assert not torch.equal(change(pixels, samples, epoch=2), first)
    assert not torch.equal(change(pixels, samples, seed=1), first)


@pytest.mark.parametrize("augment", [CROP_AND_FLIP, Augment(crop_padding=2, flip=False)])
def test_every_result_is_a_crop_of_the_padded_image_or_of_its_mirror(augment):
    pixels = images(30)
    results = change(pixels, torch.arange(30), augment)
    padding = augment.crop_padding
    seen = set()
    for image, result in zip(pixels, results, strict=True):
        found = [
            (top, left, mirrored)
            for mirrored in (False, True)
            if augment.flip or not mirrored
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            if torch.equal(
                F.pad(image.flip(2) if mirrored else image, (padding,) * 4)[
                    :, top : top + 9, left : left + 12
                ],
                result,
            )
        ]
        assert len(found) == 1
        seen |= set(found)
    assert len(seen) > 10


def test_half_of_the_images_are_mirrored():
    pixels = images(1000, channels=1)
    results = change(pixels, torch.arange(1000), Augment(crop_padding=0, flip=True))
    mirrored = [torch.equal(a.flip(2), b) for a, b in zip(pixels, results, strict=True)]
    assert 430 < sum(mirrored) < 570


def test_nothing_asked_for_is_nothing_done():
    pixels = images(4)
    assert change(pixels, torch.arange(4), Augment(crop_padding=0, flip=False)) is pixels


HEAVY = [
    Augment(resized_crop=(0.08, 1.0), crop_padding=0, flip=True),
    Augment(crop_padding=4, flip=True, policy="trivial_wide"),
    Augment(crop_padding=0, flip=False, policy="cifar10"),
    Augment(affine=Affine(degrees=20, translate=0.2, scale=(0.8, 1.2), shear=10)),
    Augment(jitter=Jitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2)),
]
NAMES = ["resized crop", "trivial", "autoaugment", "affine", "jitter"]


@pytest.mark.parametrize("augment", HEAVY, ids=NAMES)
@given(order=st.permutations(range(24)), cut=st.integers(1, 23))
@settings(max_examples=10)
def test_no_change_depends_on_order_or_batch(augment, order, cut):
    pixels, samples = images(24), torch.arange(24) * 13
    together = change(pixels, samples, augment)
    for part in (torch.tensor(order[:cut]), torch.tensor(order[cut:])):
        assert torch.equal(change(pixels[part], samples[part], augment), together[part])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augment", HEAVY[:4], ids=NAMES[:4])
def test_changes_keep_shape_and_type_and_follow_seed_and_epoch(augment, channels):
    pixels, samples = images(24, channels), torch.arange(24)
    first, before = change(pixels, samples, augment), pixels.clone()
    assert (first.shape, first.dtype) == (pixels.shape, torch.uint8)
    assert not torch.equal(change(pixels, samples, augment, epoch=2), first)
    assert not torch.equal(change(pixels, samples, augment, seed=1), first)
    assert torch.equal(pixels, before)


def test_copies_of_a_sample_are_changed_each_in_its_own_way():
    pixels = images(1).expand(8, -1, -1, -1)
    copies = change(pixels, torch.arange(8) * 50_000, HEAVY[1])
    assert len({tuple(copy.flatten().tolist()) for copy in copies}) > 4


def test_an_affine_map_stays_within_its_bounds():
    """A single bright pixel in the middle of the image tells the shift."""
    pixels = torch.zeros(400, 1, 21, 31, dtype=torch.uint8)
    pixels[:, :, 10, 15] = 255
    results = change(pixels, torch.arange(400), Augment(affine=Affine(translate=0.2)))
    _, _, row, column = results.nonzero().unbind(1)
    assert len(row) == 400
    assert set((row - 10).tolist()) == set(range(-4, 5))
    assert set((column - 15).tolist()) == set(range(-6, 7))


def test_scale_and_shear_do_what_they_say():
    pixels = torch.zeros(300, 1, 33, 33, dtype=torch.uint8)
    pixels[:, :, 8:25, 16] = 255
    larger = change(pixels, torch.arange(300), Augment(affine=Affine(scale=(1.5, 1.5))))
    heights = (larger > 0).any(3).sum(2)
    assert set(heights.flatten().tolist()) <= {25, 26, 27}
    leaning = change(pixels, torch.arange(300), Augment(affine=Affine(shear=30)))
    lean = [image[0].nonzero()[0, 1] - image[0].nonzero()[-1, 1] for image in leaning]
    assert -10 <= min(lean) < -7
    assert 7 < max(lean) <= 10


def test_jitter_draws_each_factor_and_the_order_as_torchvision_may():
    """Each image is what torchvision's functions make of it in one of their 24 orders."""
    jitter = Jitter(brightness=0.4, contrast=0.5, saturation=2.0, hue=0.3)
    pixels, samples = images(30), torch.arange(30)
    key = mix(mix(0, 1), JITTER)
    low_high = [(0.6, 1.4), (0.5, 1.5), (0.0, 3.0), (-0.3, 0.3)]
    factors = [
        uniform(mix(key, number), samples, *limits) for number, limits in enumerate(low_high)
    ]
    theirs = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    orders = set()
    for number, result in enumerate(change(pixels, samples, Augment(jitter=jitter))):
        gaps = {}
        for order in itertools.permutations(range(4)):
            image = pixels[number]
            for which in order:
                image = theirs[which](image, factors[which][number].item())
            gaps[order] = (image.int() - result.int()).abs().float().mean()
        nearest = min(gaps, key=gaps.get)
        assert gaps[nearest] < 0.05
        orders.add(nearest)
    assert len(orders) > 10


def test_jitter_of_no_strength_is_no_change():
    pixels = images(20)
    assert change(pixels, torch.arange(20), Augment(jitter=Jitter())) is pixels
    weak = Augment(jitter=Jitter(brightness=1e-9, hue=1e-9))
    assert (change(pixels, torch.arange(20), weak).int() - pixels.int()).abs().max() <= 1


def test_a_resized_crop_of_everything_is_the_image():
    pixels = images(5)
    whole = Augment(resized_crop=(1.0, 1.0), resized_crop_ratio=(12 / 9, 12 / 9))
    assert torch.equal(change(pixels, torch.arange(5), whole), pixels)
