import pytest

from knorm.vision.scaling import check_scaling


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("fixed", None, None), "data.mean belongs to data.scaling fixed, which needs it"),
        (("scale", None, [1.0]), "data.std belongs to data.scaling fixed, which needs it, got"),
        (("fixed", [0.5], [1.0]), "data.mean needs 3 numbers, one for each channel, got"),
        (("fixed", [0.5, 0.5, 128], [1.0] * 3), "data.mean must lie between 0 and 1, got 128"),
        (("fixed", [0.5] * 3, [1.0, 1.0, 0]), "data.std must be positive, got 0"),
    ],
)
def test_mean_and_deviation_are_given_where_they_are_used_one_a_channel(settings, message):
    with pytest.raises(ValueError, match=message):
        check_scaling(*settings, channels=3)


def test_what_fits_is_accepted():
    check_scaling("standard", None, None, channels=3)
    check_scaling("fixed", [0.5], [0.2], channels=1)
