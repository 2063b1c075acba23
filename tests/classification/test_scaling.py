import pytest
import torch
from accelerate import Accelerator

from classification.config import parse_recipe
from classification.data import load_data
from classification.readers import ResidentSplit
from classification.scaling import pixel_statistics
from knorm.training.mistakes import UserMistakeError


def test_statistics_are_those_of_all_training_pixels():
    pixels = torch.randint(0, 256, (1100, 3, 4, 4), dtype=torch.uint8)
    mean, std = pixel_statistics(ResidentSplit(pixels, torch.zeros(1100).long()))
    scaled = pixels.double() / 255
    torch.testing.assert_close(mean.flatten().double(), scaled.mean((0, 2, 3)))
    torch.testing.assert_close(std.flatten().double(), scaled.std((0, 2, 3), correction=0))


def test_fixed_statistics_are_used_as_given():
    recipe = parse_recipe(["--data.scaling=fixed", "--data.mean=[0.25]", "--data.std=[0.5]"])
    data = load_data(recipe, Accelerator(cpu=True))
    images = data.splits["train"].images(torch.arange(3))
    torch.testing.assert_close(data.inputs(images), (images / 255 - 0.25) / 0.5)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_channel_without_any_variation_cannot_be_standardized(value):
    pixels = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8)
    pixels[:, 1] = value
    with pytest.raises(UserMistakeError, match="channel 1 of the training images is the same"):
        pixel_statistics(ResidentSplit(pixels, torch.zeros(20).long()))
