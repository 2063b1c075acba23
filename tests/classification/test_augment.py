import pytest
import torch
import torch.nn.functional as F

from classification.augment import augmented, to_input
from classification.config import Augment

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


def test_inputs_are_scaled_and_then_standardized():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    mean, std = torch.full((1, 1, 1), 0.2), torch.full((1, 1, 1), 0.5)
    plain = to_input(pixels, torch.zeros(1), torch.ones(1), torch.contiguous_format)
    assert plain.flatten().tolist() == pytest.approx([0, 0.2, 1])
    standard = to_input(pixels, mean, std, torch.contiguous_format)
    assert standard.flatten().tolist() == pytest.approx([-0.4, 0, 1.6])


def test_inputs_may_have_their_channels_last():
    inputs = to_input(images(2), torch.zeros(1), torch.ones(1), torch.channels_last)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
