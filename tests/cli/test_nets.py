import pytest

from knorm.cli.nets import LARGE, SMALL, usual


@pytest.mark.parametrize(("image_size", "expected"), [(28, SMALL), (64, LARGE), (224, LARGE)])
def test_the_size_of_the_images_decides_on_stem_and_classes(image_size, expected):
    assert usual(image_size) == expected
