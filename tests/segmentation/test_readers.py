import pytest

from knorm.training.mistakes import UserMistakeError
from segmentation.classes import CITYSCAPES, TRAIN_IDS, lookup_table
from segmentation.data_config import Data, Pairs
from segmentation.readers import READERS
from tests.segmentation.trees import cityscapes, pairs, random_image, random_labels, save


def read(name, root, **settings):
    data = Data(name=name, root=str(root), **settings)
    return READERS[name](data)


def read_pairs(root, **settings):
    return read("pairs", root, pairs=Pairs(classes=str(root / "classes.txt"), **settings))


@pytest.mark.parametrize(
    ("kind", "file_values"),
    [("labelIds", CITYSCAPES.file_values), ("labelTrainIds", TRAIN_IDS)],
)
def test_cityscapes_is_read_from_its_own_folders_whichever_labels_there_are(
    tmp_path, kind, file_values
):
    source = read("cityscapes", cityscapes(tmp_path, kind))
    assert source.val is None
    assert len(source.train.names) == 9
    assert source.test.names == tuple(f"munster/munster_00000{n}_000019" for n in range(3))
    assert source.test.images[0].endswith("val/munster/munster_000000_000019_leftImg8bit.png")
    assert source.test.labels[0].endswith(f"munster_000000_000019_gtFine_{kind}.png")
    assert source.test.table == lookup_table(file_values)
    assert source.train.groups == ("aachen",) * 4 + ("bremen",) * 3 + ("ulm",) * 2


def test_of_both_kinds_of_labels_the_label_ids_are_taken(tmp_path):
    cityscapes(tmp_path, "labelTrainIds", range(19))
    source = read("cityscapes", cityscapes(tmp_path))
    assert all(path.endswith("_labelIds.png") for path in source.train.labels)


def test_camvid_is_read_as_segnet_split_it(tmp_path):
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for number in range(count):
            save(tmp_path / split / f"{number}.jpg", random_image())
            save(tmp_path / f"{split}annot" / f"{number}.png", random_labels(range(12)))
    source = read("camvid", tmp_path)
    splits = (source.train, source.val, source.test)
    assert [len(split.names) for split in splits] == [3, 2, 1]
    assert source.train.groups == ("0", "1", "2")


def test_pairs_have_the_same_name_but_for_the_suffix(tmp_path):
    source = read_pairs(pairs(tmp_path))
    assert source.train.names == ("deep/0", "deep/1", "deep/2", "deep/3")
    assert source.train.images[1].endswith("train/images/deep/1.jpg")
    assert source.train.labels[1].endswith("train/masks/deep/1.png")
    assert len(source.val.names) == len(source.test.names) == 4


def test_folders_of_pairs_may_be_named_otherwise(tmp_path):
    for split in ("train", "val"):
        save(tmp_path / "pictures" / split / "a.png", random_image())
        save(tmp_path / "truth" / split / "a.gif", random_labels((0, 1)))
    (tmp_path / "classes.txt").write_text("0 a\n1 b")
    source = read_pairs(tmp_path, images="pictures/{split}", masks="truth/{split}")
    assert source.val is None
    assert source.test.labels[0].endswith("truth/val/a.gif")


def without(root, path):
    (root / path).unlink()


def more(root, path):
    save(root / path, random_labels((0, 1)))


CITY = "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png"
PICTURE = "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png"


@pytest.mark.parametrize(
    ("make", "path", "message"),
    [
        (without, CITY, f"{PICTURE}: no label file of that name in "),
        (without, PICTURE, f"{CITY}: no image of that name in "),
    ],
)
def test_what_stands_alone_in_cityscapes_is_named(tmp_path, make, path, message):
    make(cityscapes(tmp_path), path)
    with pytest.raises(UserMistakeError, match=message):
        read("cityscapes", tmp_path)


@pytest.mark.parametrize(
    ("make", "path", "message"),
    [
        (without, "val/masks/deep/2.png", "deep/2.png: no label file of that name in .*val/masks$"),
        (more, "val/masks/deep/7.png", "masks/deep/7.png: no image of that name in .*val/images$"),
        (more, "val/images/deep/0.bmp", "deep/0.png: another image of that name is .*deep/0.bmp"),
    ],
)
def test_pairs_that_do_not_fit_are_named(tmp_path, make, path, message):
    make(pairs(tmp_path), path)
    with pytest.raises(UserMistakeError, match=message):
        read_pairs(tmp_path)


def test_how_many_more_stand_alone_is_told(tmp_path):
    pairs(tmp_path)
    for number in range(3):
        without(tmp_path, f"train/masks/deep/{number}.png")
    with pytest.raises(UserMistakeError, match=r"deep/0.png: .* \(2 more stand alone\)"):
        read_pairs(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    cityscapes(tmp_path / "a")
    for path in (tmp_path / "a/leftImg8bit/val").rglob("*.png"):
        path.unlink()
    with pytest.raises(UserMistakeError, match="leftImg8bit/val holds no images"):
        read("cityscapes", tmp_path / "a")
    cityscapes(tmp_path / "b")
    for path in (tmp_path / "b/gtFine/train").rglob("*_labelIds.png"):
        path.unlink()
    with pytest.raises(UserMistakeError, match=r"train holds no <city>/\*_gtFine_labelIds.png or"):
        read("cityscapes", tmp_path / "b")
    pairs(tmp_path / "c")
    for path in (tmp_path / "c/train/masks").rglob("*.png"):
        path.unlink()
    with pytest.raises(UserMistakeError, match="train/masks holds no images"):
        read_pairs(tmp_path / "c")


def test_a_wrong_root_tells_what_is_there(tmp_path):
    (tmp_path / "cityscapes").mkdir()
    (tmp_path / "gtFine").mkdir()
    with pytest.raises(
        UserMistakeError, match=r"leftImg8bit not found, .* holds cityscapes, gtFine"
    ):
        read("cityscapes", tmp_path)
    with pytest.raises(
        UserMistakeError, match=r"train is no folder; data.root .*cityscapes, gtFine"
    ):
        read("camvid", tmp_path)
    with pytest.raises(UserMistakeError, match=r"nowhere is no folder"):
        read("camvid", tmp_path / "nowhere")


def test_pairs_need_something_to_be_tested_on(tmp_path):
    with pytest.raises(UserMistakeError, match="must hold val/images or test/images beside"):
        read_pairs(pairs(tmp_path, splits=("train",)))
