import subprocess
import sys

import pytest

from segmentation.classes import CAMVID, CITYSCAPES
from segmentation.data_config import DATA_FACTS, Data, Pairs, Scenes
from segmentation.readers import READERS


def test_every_named_data_set_has_facts_and_a_reader():
    assert DATA_FACTS.keys() == READERS.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_fraction": 1.0}, r"data.val_fraction must lie in \[0, 1\), got 1.0"),
        ({"size": (0, 8)}, "data.size must lie between 1 and 16384, got 0"),
        ({"limit": 0}, "data.limit must be positive, got 0"),
        ({"workers": 0}, "data.workers must lie between 1 and 1024, got 0"),
        ({"scaling": "fixed"}, "data.mean belongs to data.scaling fixed, which needs it"),
        ({"scaling": "fixed", "mean": [0.5], "std": [1.0]}, "data.mean needs 3 numbers"),
        ({"name": "camvid", "scenes": Scenes(seed=1)}, "data.scenes is for data.name scenes, not"),
        ({"pairs": Pairs(classes="a")}, "data.pairs is for data.name pairs, not for scenes"),
        ({"name": "pairs"}, "data.name pairs needs data.pairs.classes, a text file of lines"),
    ],
)
def test_mistakes_name_the_option_and_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        Data(**settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scenes(train=0), "data.scenes.train must lie between 1 and 1000000, got 0"),
        (lambda: Scenes(height=31), "data.scenes.height must lie between 32 and 16384, got 31"),
        (lambda: Scenes(seed=-1), "data.scenes.seed must not be negative, got -1"),
        (lambda: Pairs(images="img"), "data.pairs.images must say where the split's name belongs"),
        (lambda: Pairs(images="{split}", masks="{split}"), "are both {split}"),
    ],
)
def test_mistakes_in_a_set_of_ones_own_name_the_option(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("data", "size", "crop"),
    [
        (Data(), (128, 256), (128, 256)),
        (Data(scenes=Scenes(height=64)), (64, 256), (64, 256)),
        (Data(name="cityscapes"), (1024, 2048), (512, 1024)),
        (Data(name="cityscapes", size=(512, 1024)), (512, 1024), (512, 1024)),
        (Data(name="camvid"), (360, 480), (360, 480)),
        (Data(name="camvid", size=(180, 240)), (180, 240), (180, 240)),
        (Data(name="pairs", pairs=Pairs(classes="a")), None, None),
        (Data(name="pairs", pairs=Pairs(classes="a"), size=(8, 9)), (8, 9), (8, 9)),
    ],
)
def test_the_usual_crop_follows_the_size_of_the_images(data, size, crop):
    assert (data.facts.size, data.facts.crop) == (size, crop)


def test_classes_are_known_before_an_image_is_read(tmp_path):
    assert Data().read_classes() is CITYSCAPES
    assert Data(name="camvid").read_classes() is CAMVID
    (tmp_path / "list").write_text("0 a\n1 b")
    mine = Data(name="pairs", pairs=Pairs(classes=str(tmp_path / "list")))
    assert mine.read_classes().names == ("a", "b")


def test_settings_need_neither_torch_nor_numpy():
    code = "import sys, segmentation.augment_config as _;"
    code += "print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
