import pytest

from knorm.training.mistakes import OneLineParser
from segmentation.inference_config import Inference
from segmentation.inference_options import add_inference, inference_of

RUN = Inference(crop=(8, 8), stride=(2, 2), windows=3, scales=(0.5, 1.0), flip=True)


def changed(settings, *arguments):
    parser = OneLineParser()
    add_inference(parser)
    return inference_of(parser.parse_args(arguments), settings)


def test_what_is_not_given_is_as_in_the_run():
    assert changed(RUN) == RUN


def test_what_is_given_takes_its_place():
    found = changed(Inference(), "--crop", "4", "6", "--windows=2", "--scales", "1", "2", "--flip")
    assert found == Inference(crop=(4, 6), windows=2, scales=(1.0, 2.0), flip=True)
    assert changed(RUN, "--stride", "3", "4").stride == (3, 4)


def test_windows_of_another_size_have_the_usual_stride():
    found = changed(RUN, "--crop", "3", "3")
    assert (found.crop, found.steps) == ((3, 3), (2, 2))
    assert changed(RUN, "--whole").crop is None


def test_whole_images_have_no_windows():
    with pytest.raises(ValueError, match="--whole is without windows"):
        changed(RUN, "--whole", "--crop", "3", "3")
