import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from knorm.vision import operations
from segmentation.augment import (
    Draws,
    chosen_box,
    cropped,
    distorted,
    draw_crops,
    one_class_fills,
    resampled,
    scaled_size,
)
from segmentation.augment_config import Augment, Distortion
from tests.segmentation.trees import random_image, random_labels

SEED = {"seed": 3, "epoch": 5}
GREY = np.array([9, 8, 7], np.uint8)

sides = st.tuples(st.integers(2, 50), st.integers(2, 50))
scales = st.floats(0.5, 2.0)


def drawn(scale=1.0, places=((0.0, 0.0),), mirrored=False):
    return Draws(scale, list(places), mirrored)


@given(sides, sides, scales, st.integers(0, 10**6), st.booleans(), st.sampled_from([0, 1]))
def test_labels_move_with_the_pixels(size, crop, scale, sample, flip, axis):
    labels = np.indices(size, np.uint8)[axis]  # of each pixel its row, or its column
    image = np.stack([labels * 5] * 3, axis=2)  # and the image shows it
    augment = Augment(crop=crop, scale=(scale, scale), flip=flip)
    (draws,) = draw_crops(torch.tensor([sample]), augment, **SEED)
    found = cropped(image, labels, draws, augment, GREY)
    assert found.image.shape == (*crop, 3)
    assert found.labels.shape == crop
    inside = (slice(found.height), slice(found.width))
    shown = found.image[inside][..., 0] / 5
    assert np.abs(shown - found.labels[inside]).max() <= 1.2
    outside = np.ones(crop, bool)
    outside[inside] = False
    assert (found.labels[outside] == 255).all()
    assert (found.image[outside] == GREY).all()


@given(sides, sides, scales, st.integers(0, 10**6))
def test_no_new_label_appears(size, crop, scale, sample):
    labels = random_labels((0, 3, 18, 255), sample, size)
    augment = Augment(crop=crop, scale=(scale, scale), cat_max_ratio=0.75)
    (draws,) = draw_crops(torch.tensor([sample]), augment, **SEED)
    found = cropped(random_image(0, size), labels, draws, augment, GREY)
    assert set(np.unique(found.labels)) <= {0, 3, 18, 255}


@given(sides, scales, st.tuples(*[st.floats(0, 1)] * 2), sides, st.booleans())
def test_the_labels_of_a_crop_are_those_under_the_middles_of_its_pixels(
    size, scale, place, crop, flip
):
    numbers = np.arange(size[0] * size[1]).reshape(size)  # of every pixel another label
    augment = Augment(crop=crop, scale=(scale, scale))
    image = np.zeros((*size, 3), np.uint8)
    scaled = scaled_size(size, scale)
    (top, left, height, width), _ = chosen_box(numbers, drawn(scale, [place]), crop, scaled, 1.0)
    assert height == min(crop[0], scaled[0])
    assert width == min(crop[1], scaled[1])
    assert 0 <= top <= scaled[0] - height
    assert 0 <= left <= scaled[1] - width
    low = (numbers % 251).astype(np.uint8)
    found = cropped(image, low, drawn(scale, [place], flip), augment, GREY).labels[:height, :width]
    rows = ((top + np.arange(height) + 0.5) * size[0] / scaled[0] + 1e-9).astype(int)
    columns = ((left + np.arange(width) + 0.5) * size[1] / scaled[1] + 1e-9).astype(int)
    expected = low[rows][:, columns]
    np.testing.assert_array_equal(found, expected[:, ::-1] if flip else expected)


@given(sides, scales, st.data())
def test_a_resampled_box_is_cut_out_of_the_whole_scaled_image(size, scale, data):
    image, scaled = random_image(1, size), scaled_size(size, scale)
    top, left = (data.draw(st.integers(0, side - 1)) for side in scaled)
    height = data.draw(st.integers(1, scaled[0] - top))
    width = data.draw(st.integers(1, scaled[1] - left))
    whole = Image.fromarray(image).resize(scaled[::-1], Image.Resampling.BILINEAR)
    expected = np.asarray(whole).astype(int)[top : top + height, left : left + width]
    found = resampled(image, (top, left, height, width), scaled)
    assert np.abs(found - expected).max() <= 1  # Pillow's rounding of the edges


def test_nothing_asked_for_is_the_image_itself():
    image, labels = random_image(), random_labels(range(3))
    augment = Augment(crop=labels.shape, scale=(1.0, 1.0), flip=False)
    (draws,) = draw_crops(torch.tensor([7]), augment, **SEED)
    found = cropped(image, labels, draws, augment, GREY)
    np.testing.assert_array_equal(found.image, image)
    np.testing.assert_array_equal(found.labels, labels)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8, unique=True))
def test_draws_depend_on_seed_epoch_and_sample_alone(samples):
    augment = Augment(crop=(4, 4), cat_max_ratio=0.75)
    together = draw_crops(torch.tensor(samples), augment, **SEED)
    alone = [draw_crops(torch.tensor([sample]), augment, **SEED)[0] for sample in samples]
    assert together == alone
    assert draw_crops(torch.tensor(samples), augment, seed=3, epoch=6) != together
    assert draw_crops(torch.tensor(samples), augment, seed=4, epoch=5) != together


def test_scales_are_spread_over_their_range_or_its_steps():
    samples = torch.arange(4000)
    whole = [each.scale for each in draw_crops(samples, Augment(crop=(4, 4)), **SEED)]
    counts = np.histogram(whole, bins=5, range=(0.5, 2.0))[0]
    assert counts.sum() == 4000
    assert abs(counts - 800).max() < 100
    stepped = Augment(crop=(4, 4), scale=(0.5, 2.1), scale_step=0.1)
    values, counts = np.unique(
        [round(each.scale, 4) for each in draw_crops(samples, stepped, **SEED)], return_counts=True
    )
    np.testing.assert_allclose(values, np.arange(5, 22) / 10)
    assert counts.min() > 150


def test_places_and_mirrors_are_uniform():
    draws = draw_crops(torch.arange(4000), Augment(crop=(4, 4)), **SEED)
    assert 1850 < sum(each.mirrored for each in draws) < 2150
    for axis in range(2):
        counts = np.histogram([each.places[0][axis] for each in draws], bins=5, range=(0, 1))[0]
        assert abs(counts - 800).max() < 100
    assert not any(
        each.mirrored
        for each in draw_crops(torch.arange(50), Augment(crop=(4, 4), flip=False), **SEED)
    )


def test_every_place_can_be_drawn_up_to_the_last():
    labels, whole = np.zeros((10, 12), np.uint8), Augment(crop=(4, 4))
    for part, first in ((0.0, (0, 0)), (0.9999999, (6, 8)), (1.0, (6, 8))):
        box, _ = chosen_box(labels, drawn(places=[(part, part)]), whole.crop, (10, 12), 1.0)
        assert box[:2] == first


def test_crops_that_one_class_fills_are_drawn_again():
    labels = np.zeros((10, 40), np.uint8)
    labels[:, 30:] = np.arange(10)[:, None] % 3
    places = [(0.0, 0.0), (0.0, 0.1), (0.0, 0.99), (0.0, 0.0)]
    box, found = chosen_box(labels, drawn(places=places), (10, 10), (10, 40), 0.75)
    assert box[1] == 30
    assert not one_class_fills(found, 0.75)
    box, _ = chosen_box(labels, drawn(places=places), (10, 10), (10, 40), 1.0)
    assert box[1] == 0
    box, _ = chosen_box(labels * 0, drawn(places=places[:3]), (10, 10), (10, 40), 0.75)
    assert box[1] == 30  # the last, if none is better


@pytest.mark.parametrize(
    ("counts", "fills"),
    [
        ({0: 3, 1: 1}, True),
        ({0: 74, 1: 26}, False),
        ({0: 5, 7: 5, 255: 90}, False),
        ({0: 1, 255: 90}, True),
        ({255: 9}, True),
    ],
)
def test_ignored_pixels_do_not_count_in_the_part_of_a_class(counts, fills):
    labels = np.array(list(counts), np.uint8).repeat(list(counts.values()))
    assert one_class_fills(labels, 0.75) == fills
    assert not one_class_fills(labels, 1.0)


ALWAYS = Distortion(probability=1.0)


def test_distortion_is_the_operations_one_after_the_other():
    samples = torch.arange(6)
    images = torch.stack([torch.from_numpy(random_image(n)).permute(2, 0, 1) for n in range(6)])
    only = Distortion(
        probability=1.0, brightness=(1.1, 1.1), contrast=(1, 1), saturation=(0.5, 0.5), hue=(0, 0)
    )
    found = distorted(images, samples, only, **SEED)
    expected = operations.brightness(images, torch.full((6,), 1.1))
    expected = operations.saturation(expected, torch.full((6,), 0.5))
    assert (found.int() - expected.int()).abs().max() <= 1  # hue 0 rounds
    assert distorted(images, samples, Distortion(), **SEED) is images


def test_distortion_of_a_sample_does_not_depend_on_its_batch():
    images = torch.stack([torch.from_numpy(random_image(n)).permute(2, 0, 1) for n in range(8)])
    for distortion in (ALWAYS, Distortion(probability=0.5)):
        whole = distorted(images, torch.arange(8), distortion, **SEED)
        parts = [
            distorted(images[n : n + 3], torch.arange(8)[n : n + 3], distortion, **SEED)
            for n in (0, 3, 6)
        ]
        assert torch.equal(torch.cat(parts), whole)


def test_each_change_of_color_happens_with_its_probability():
    images = torch.from_numpy(random_image()).permute(2, 0, 1).repeat(400, 1, 1, 1)
    kept = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    for name, limits in (("brightness", (0.5, 0.5)), ("contrast", (2, 2)), ("saturation", (0, 0))):
        distortion = Distortion(probability=0.3, **(kept | {name: limits}))
        changed = distorted(images, torch.arange(400), distortion, **SEED)
        strong = (changed.int() - images.int()).abs().amax((1, 2, 3)) > 20
        assert 90 < strong.sum() < 150
