import pytest
import torch

from classification.data_config import Synthetic
from classification.synthetic import synthetic_images

SMALL = {"train": 300, "test": 90, "classes": 3, "image_size": 9}


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_sizes_are_those_asked_for_and_classes_equally_frequent(channels):
    made = Synthetic(**SMALL, channels=channels)
    for train, count in ((True, 300), (False, 90)):
        pixels, labels = synthetic_images(made, train=train)
        assert (pixels.shape, pixels.dtype) == ((count, channels, 9, 9), torch.uint8)
        assert labels.bincount().tolist() == [count // 3] * 3


def test_images_are_a_function_of_the_settings_and_differ_between_train_and_test():
    made = Synthetic(**SMALL)
    pixels, _ = synthetic_images(made, train=True)
    torch.manual_seed(1)
    assert torch.equal(synthetic_images(made, train=True)[0], pixels)
    assert not torch.equal(synthetic_images(made, train=False)[0], pixels[:90])
    other = Synthetic(**SMALL, seed=1)
    assert not torch.equal(synthetic_images(other, train=True)[0], pixels)


def test_a_larger_set_begins_with_the_smaller_one():
    small, large = (
        synthetic_images(Synthetic(train=count, image_size=4), train=True)[0]
        for count in (1500, 2500)
    )
    assert torch.equal(large[:1500], small)


def test_classes_can_be_told_apart_by_their_mean_training_image():
    made = Synthetic(**SMALL)
    (pixels, labels), (test, truth) = (synthetic_images(made, train=t) for t in (True, False))
    means = torch.stack([pixels[labels == label].double().mean(0) for label in range(3)])
    distance = torch.cdist(test.double().flatten(1), means.flatten(1))
    assert (distance.argmin(1) == truth).float().mean() > 0.95
