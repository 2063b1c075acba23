from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from knorm.training.mistakes import UserMistakeError
from segmentation.classes import CITYSCAPES, lookup_table
from segmentation.data_config import Data, Scenes
from segmentation.readers import READERS
from segmentation.scene_parts import IDS
from segmentation.scenes import TEXTURE, draw_scene, write_scenes

SMALL = {"height": 64, "width": 128}
FREQUENT = ("road", "sidewalk", "building", "pole", "vegetation", "terrain", "sky", "car")


@pytest.fixture(scope="module")
def scenes():
    made = Scenes(train=60)
    return [draw_scene(made, "train", n) for n in range(60)]


def test_the_same_settings_give_the_same_scenes_and_others_others():
    first, again, other, seed = (
        [np.asarray(part) for part in draw_scene(Scenes(seed=seed), "train", number)]
        for number, seed in ((0, 0), (0, 0), (1, 0), (0, 1))
    )
    for part in range(2):
        np.testing.assert_array_equal(first[part], again[part])
        assert (first[part] != other[part]).any()
        assert (first[part] != seed[part]).any()


def test_splits_share_no_scene():
    train, val = (draw_scene(Scenes(), split, 0) for split in ("train", "val"))
    assert (np.asarray(train[1]) != np.asarray(val[1])).mean() > 0.2


def test_many_classes_are_frequent_and_no_pixel_is_left_out(scenes):
    table = np.frombuffer(lookup_table(CITYSCAPES.file_values), np.uint8)
    ids = np.stack([np.asarray(labels) for _, labels in scenes])
    assert not (ids == IDS["unlabeled"]).any()
    numbers = table[ids]
    assert numbers[numbers != 255].max() < 19
    there = {
        name: [(part == number).sum() > 20 for part in numbers].count(True) / len(scenes)
        for number, name in enumerate(CITYSCAPES.names)
    }
    assert {name: there[name] for name in FREQUENT if there[name] < 0.75} == {}
    assert sum(share > 0.1 for share in there.values()) == 14
    assert (numbers == 255).mean() < 0.05
    assert np.bincount(numbers.ravel()).max() / numbers.size < 0.35


def test_no_single_color_tells_a_class(scenes):
    pixels = np.stack([np.asarray(image) for image, _ in scenes]).astype(float)
    ids = np.stack([np.asarray(labels) for _, labels in scenes])
    middles = {name: pixels[ids == IDS[name]].mean(0) for name in TEXTURE}
    distances = np.stack([np.abs(pixels - middle).sum(3) for middle in middles.values()])
    guess = np.array([IDS[name] for name in middles])[distances.argmin(0)]
    known = np.isin(ids, [IDS[name] for name in middles])
    assert (guess == ids)[known].mean() < 0.6


def test_scenes_are_written_as_cityscapes_folders_and_files(tmp_path):
    made = Scenes(train=12, val=3, test=2, **SMALL)
    root = write_scenes(tmp_path, made)
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    assert len(files) == 2 * (12 + 3 + 2)
    assert "leftImg8bit/train/altdorf/altdorf_000000_000019_leftImg8bit.png" in files
    assert "gtFine/val/moosach/moosach_000002_000019_gtFine_labelIds.png" in files
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            assert image.mode == ("L" if path.stem.endswith("labelIds") else "RGB")
            assert image.size == (128, 64)
            if path.is_relative_to(root / "gtFine/test"):
                assert set(np.asarray(image).ravel()) == {IDS["unlabeled"]}
    source = READERS["scenes"](Data(root=str(tmp_path), scenes=made))
    assert len(set(source.train.groups)) == 10
    assert len(source.test.names) == 3


def test_scenes_are_written_once_and_appear_all_at_once(tmp_path):
    made = Scenes(train=2, val=1, test=1, **SMALL)
    with ThreadPoolExecutor(4) as pool:
        roots = set(pool.map(lambda _: write_scenes(tmp_path / "new", made), range(4)))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [root.name for root in roots]
    (written,) = roots
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_scenes(tmp_path / "new", made)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before
    (tmp_path / "file").touch()
    with pytest.raises(
        UserMistakeError, match=r"data.root .*/file is a file; scenes need a folder"
    ):
        write_scenes(tmp_path / "file", made)
    other = write_scenes(tmp_path / "new", Scenes(train=2, val=1, test=1, seed=3, **SMALL))
    assert other != written
