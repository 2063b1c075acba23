import pytest

from segmentation.inference_config import Inference


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": (0, 5)}, r"inference\.crop must lie between"),
        ({"stride": (2, 2)}, r"inference\.stride belongs to inference\.crop"),
        ({"crop": (4, 8), "stride": (4, 9)}, r"inference\.stride \[4, 9\] is more than .*\[4, 8\]"),
        ({"windows": 0}, r"inference\.windows must lie between"),
        ({"scales": ()}, r"inference\.scales is empty"),
        ({"scales": (1.0, 0.0)}, r"inference\.scales must be positive, got 0"),
        ({"scales": (99.0,)}, r"inference\.scales must lie between"),
    ],
)
def test_wrong_settings_are_one_line_that_names_them(settings, message):
    with pytest.raises(ValueError, match=message):
        Inference(**settings)


def test_windows_overlap_by_a_third_unless_asked():
    assert Inference(crop=(512, 769)).steps == (342, 513)
    assert Inference(crop=(1, 2)).steps == (1, 2)
    assert Inference(crop=(512, 769), stride=(512, 10)).steps == (512, 10)
