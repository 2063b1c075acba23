import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from knorm.vision import operations

COUNT = 40


def images(channels, height=13, width=18, count=COUNT):
    generator = torch.Generator().manual_seed(channels)
    noise = torch.randint(0, 256, (count, channels, height, width), generator=generator)
    noise[0] = 77  # without any contrast
    noise[1, :, :, : width // 2] = 200
    noise[2] = noise[2, :1]  # grey in colors
    return noise.to(torch.uint8)


def between(low, high):
    return torch.linspace(low, high, COUNT)


CASES = {  # operation, strengths, torchvision's for one image and strength, levels that may differ
    "brightness": (operations.brightness, between(0, 2), tv.adjust_brightness, 0),
    "contrast": (operations.contrast, between(0, 2), tv.adjust_contrast, 1),
    "saturation": (operations.saturation, between(0, 2), tv.adjust_saturation, 1),
    "sharpness": (operations.sharpness, between(0, 2), tv.adjust_sharpness, 1),
    "hue": (operations.hue, between(-0.5, 0.5), tv.adjust_hue, 1),
    "posterize": (
        operations.posterize,
        between(0, 8).round(),
        lambda image, bits: tv.posterize(image, int(bits)),
        0,
    ),
    "solarize": (
        operations.solarize,
        between(0, 1),
        lambda image, part: tv.solarize(image, 255.0 * part),
        0,
    ),
    "invert": (operations.invert, between(0, 0), lambda image, _: tv.invert(image), 0),
    "autocontrast": (
        operations.autocontrast,
        between(0, 0),
        lambda image, _: tv.autocontrast(image),
        0,
    ),
    "equalize": (operations.equalize, between(0, 0), lambda image, _: tv.equalize(image), 0),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_operations_are_torchvisions_with_a_strength_for_each_sample(name, channels):
    operation, strengths, theirs, levels = CASES[name]
    pixels = images(channels)
    ours = operation(pixels, strengths)
    expected = [theirs(image, s) for image, s in zip(pixels, strengths.tolist(), strict=True)]
    assert ours.dtype == torch.uint8
    difference = ours.int() - torch.stack(expected).int()
    assert difference.abs().max() <= levels
    assert difference.ne(0).float().mean() < 1e-2


def sheared(axis):
    def theirs(image, slope):
        angles = [0.0, 0.0]
        angles[axis] = torch.tensor(slope, dtype=torch.float64).atan().rad2deg().item()
        return tv.affine(image, 0.0, [0, 0], 1.0, angles, center=[0, 0])

    return theirs


def moved(axis):
    def theirs(image, pixels):
        shift = [0, 0]
        shift[axis] = int(pixels)
        return tv.affine(image, 0.0, shift, 1.0, [0.0, 0.0])

    return theirs


MAPS = {
    "rotate": (operations.rotate, between(-135, 135), tv.rotate),
    "shear x": (operations.shear(0), between(-0.99, 0.99), sheared(0)),
    "shear y": (operations.shear(1), between(-0.99, 0.99), sheared(1)),
    "translate x": (operations.translate(0), between(-20, 20), moved(0)),
    "translate y": (operations.translate(1), between(-20, 20), moved(1)),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", MAPS)
def test_maps_are_torchvisions_but_for_pixels_between_two_others(name, channels):
    operation, strengths, theirs = MAPS[name]
    pixels = images(channels)
    expected = [theirs(image, s) for image, s in zip(pixels, strengths.tolist(), strict=True)]
    ours = operation(pixels, strengths)
    assert (ours != torch.stack(expected)).float().mean() < 2e-3


@pytest.mark.parametrize(
    ("name", "strength"),
    [
        ("brightness", 1),
        ("contrast", 1),
        ("saturation", 1),
        ("sharpness", 1),
        ("hue", 0),
        ("posterize", 8),
    ],
)
def test_no_strength_is_no_change(name, strength):
    pixels = images(3)
    operation = CASES[name][0]
    assert torch.equal(operation(pixels, torch.full((COUNT,), float(strength))), pixels)


@pytest.mark.parametrize("name", MAPS)
def test_maps_of_no_strength_are_no_change(name):
    pixels = images(3)
    assert torch.equal(MAPS[name][0](pixels, torch.zeros(COUNT)), pixels)


def test_tiny_images_have_no_inside_to_sharpen():
    pixels = images(3, 2, 9)
    assert torch.equal(operations.sharpness(pixels, torch.zeros(COUNT)), pixels)


def test_each_sample_gets_the_operation_chosen_for_it_and_the_batch_stays_as_it_was():
    pixels = images(3, count=6)
    before = pixels.clone()
    table = [operations.invert, operations.brightness]
    chosen = torch.tensor([0, 1, -1, 1, 0, -1])
    strengths = torch.tensor([9, 0.5, 9, 2, 9, 9])
    changed = operations.apply(table, pixels, chosen, strengths)
    assert torch.equal(pixels, before)
    for number, (which, strength) in enumerate(zip(chosen.tolist(), strengths, strict=True)):
        alone = pixels[number : number + 1]
        expected = alone if which < 0 else table[which](alone, strength[None])
        assert torch.equal(changed[number : number + 1], expected)


def test_inputs_are_scaled_and_then_standardized():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    mean, std = torch.full((1, 1, 1), 0.2), torch.full((1, 1, 1), 0.5)
    plain = operations.to_input(pixels, torch.zeros(1), torch.ones(1), torch.contiguous_format)
    assert plain.flatten().tolist() == pytest.approx([0, 0.2, 1])
    standard = operations.to_input(pixels, mean, std, torch.contiguous_format)
    assert standard.flatten().tolist() == pytest.approx([-0.4, 0, 1.6])


def test_inputs_may_have_their_channels_last():
    inputs = operations.to_input(images(3), torch.zeros(1), torch.ones(1), torch.channels_last)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
