import pytest

from segmentation.augment_config import Augment, Distortion
from segmentation.data_config import Data, Pairs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Augment(scale=(2.0, 0.5)), r"augment.scale must be \[low, high\] between"),
        (lambda: Augment(scale=(0.0, 1.0)), "augment.scale must be"),
        (lambda: Augment(scale_step=0), "augment.scale_step must be positive, got 0"),
        (lambda: Augment(crop=(0, 4)), "augment.crop must lie between 1 and 16384, got 0"),
        (lambda: Augment(cat_max_ratio=0), "augment.cat_max_ratio must be positive, got 0"),
        (lambda: Augment(cat_max_ratio=1.5), "augment.cat_max_ratio must lie between 0 and 1"),
        (lambda: Distortion(probability=2), "augment.distortion.probability must lie between"),
        (lambda: Distortion(hue=(-0.6, 0)), r"augment.distortion.hue must be \[low, high\]"),
        (lambda: Distortion(contrast=(1.5, 0.5)), "augment.distortion.contrast must be"),
    ],
)
def test_mistakes_name_the_option_and_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_crop_is_usual_for_the_data_set_or_must_be_given():
    augment, given = Augment(), Augment(crop=(7, 9))
    augment.complete(Data(name="cityscapes").facts)
    given.complete(Data(name="cityscapes").facts)
    assert (augment.crop, given.crop) == ((512, 1024), (7, 9))
    with pytest.raises(ValueError, match=r"augment.crop \[height, width\] must be given"):
        Augment().complete(Data(name="pairs", pairs=Pairs(classes="a")).facts)


def test_the_steps_of_the_hrnet_code_end_where_they_should():
    assert Augment(scale=(0.5, 2.1), scale_step=0.1).num_scales == 17
    assert Augment(scale=(0.5, 2.0), scale_step=0.4).num_scales == 4
    assert Augment().num_scales is None


def test_what_is_switched_on_is_told():
    told = Augment(crop=(4, 8), cat_max_ratio=0.75, distortion=Distortion(probability=0.5))
    assert told.in_words() == (
        "scale (0.5, 2.0)  crop (4, 8)  cat_max_ratio 0.75  flip  distortion 0.5"
    )
    assert Augment(scale=(1, 1), flip=False).in_words() == "no augmentation"
