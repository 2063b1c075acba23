import pytest

from segmentation.loss_config import Loss


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weights": (1.0, -1.0)}, r"loss\.class_weights must lie between"),
        ({"class_weights": (0.0, 0.0)}, r"loss\.class_weights are all 0"),
        ({"label_smoothing": 2}, r"loss\.label_smoothing must lie between 0 and 1, got 2"),
        ({"ohem_threshold": 1.5}, r"loss\.ohem_threshold must lie between"),
        ({"ohem_min_kept": 0}, r"loss\.ohem_min_kept must lie between"),
        ({"dice": float("nan")}, r"loss\.dice must lie between"),
        ({"aux": -0.1}, r"loss\.aux must lie between"),
    ],
)
def test_wrong_settings_are_one_line_that_names_them(settings, message):
    with pytest.raises(ValueError, match=message):
        Loss(**settings)


def test_as_many_weights_as_classes():
    Loss(class_weights=(1.0, 2.0)).check_classes(2)
    Loss().check_classes(2)
    with pytest.raises(ValueError, match=r"loss\.class_weights has 2 numbers for 3 classes"):
        Loss(class_weights=(1.0, 2.0)).check_classes(3)
