import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knorm.training.mistakes import OneRankMistakeError, UserMistakeError
from segmentation.data_config import Data, Pairs
from segmentation.readers import READERS
from segmentation.splits import evenly, hold_out, in_order, keep_resident, make_splits
from tests.segmentation.trees import cityscapes, pairs, random_labels, save


def city_splits(root, **settings):
    data = Data(name="cityscapes", root=str(root), **settings)
    return make_splits(READERS["cityscapes"](data), data)


def pair_splits(root, **settings):
    settings |= {"pairs": Pairs(classes=str(root / "classes.txt"))}
    data = Data(name="pairs", root=str(root), **settings)
    return make_splits(READERS["pairs"](data), data)


def test_validation_of_cityscapes_is_whole_cities_and_the_published_val_is_the_test(tmp_path):
    splits = city_splits(cityscapes(tmp_path), val_fraction=0.35)
    cities = {name: {path.split("/")[0] for path in split.names} for name, split in splits.items()}
    assert cities["test"] == {"munster"}
    assert cities["train"] | cities["val"] == {"aachen", "bremen", "ulm"}
    assert not cities["train"] & cities["val"]
    assert len(splits["train"]) + len(splits["val"]) == 9
    assert 2 <= len(splits["val"]) <= 3


def test_without_a_fraction_there_is_no_validation(tmp_path):
    assert list(city_splits(cityscapes(tmp_path), val_fraction=0)) == ["train", "test"]


def test_a_published_validation_is_used_as_it_is(tmp_path):
    splits = pair_splits(pairs(tmp_path))
    assert {name: len(split) for name, split in splits.items()} == dict.fromkeys(
        ("train", "val", "test"), 4
    )


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    fraction=st.floats(0.01, 0.5),
    seed=st.integers(0, 5),
)
def test_whole_groups_are_held_out_and_no_more_than_asked_for(sizes, fraction, seed):
    groups = [str(group) for group, size in enumerate(sizes) for _ in range(size)]
    if len(groups) == 1:
        return
    numbers = hold_out(groups, fraction, seed)
    assert numbers == hold_out(groups, fraction, seed)
    assert 0 < len(numbers) < len(groups)
    held = {groups[number] for number in numbers}
    if len(sizes) > 1:
        assert len(numbers) == sum(groups.count(group) for group in held)
    assert len(numbers) <= round(fraction * len(groups)) or len(held) == 1


def test_another_seed_holds_out_others():
    groups = [str(number) for number in range(100)]
    assert len(hold_out(groups, 0.1, 0)) == 10
    assert hold_out(groups, 0.1, 0) != hold_out(groups, 0.1, 1)


def test_something_must_be_left_to_train_on():
    for groups in (["a"], ["a", "b"]):
        with pytest.raises(UserMistakeError, match=r"data.val_fraction 0.9 of \d training images"):
            hold_out(groups, 0.9, 0)


def test_a_limit_is_evenly_spread(tmp_path):
    splits = city_splits(cityscapes(tmp_path), val_fraction=0, limit=3)
    assert [name.split("/")[0] for name in splits["train"].names] == ["aachen", "aachen", "bremen"]
    assert evenly(10, 4) == [0, 2, 5, 7]
    assert evenly(3, 10) == [0, 1, 2]


def test_images_and_labels_come_by_number_in_files_and_in_memory(tmp_path):
    split = pair_splits(pairs(tmp_path))["train"]
    kept = split.decoded()
    for number in range(4):
        image, labels = split.read(number)
        assert image.shape == (3, 20 + number, 30 - number)
        assert (image.dtype, labels.dtype) == (torch.uint8, torch.uint8)
        assert set(labels.unique().tolist()) <= {0, 1, 255}
        for one, other in zip((image, labels), kept.read(number), strict=True):
            assert torch.equal(one, other)
    chosen = kept.subset([2, 0])
    assert chosen.names == ("deep/2", "deep/0")
    assert torch.equal(chosen.read(0)[0], split.subset([2, 0]).read(0)[0])


def test_a_fingerprint_is_of_names_and_sizes_wherever_the_files_are(tmp_path):
    first, second = (
        city_splits(cityscapes(tmp_path / name), val_fraction=0)["train"] for name in "ab"
    )
    assert first.fingerprint() == second.fingerprint() == second.decoded().fingerprint()
    assert first.subset(range(8)).fingerprint() != first.fingerprint()
    changed = next((tmp_path / "b/gtFine/train").rglob("*_labelIds.png"))
    changed.write_bytes(changed.read_bytes() + b"x")
    assert second.fingerprint() != first.fingerprint()


def test_ranks_share_the_files_whose_labels_are_checked(tmp_path):
    split = city_splits(cityscapes(tmp_path), val_fraction=0)["train"]
    values = random_labels((0,))
    values[1, 2] = 77
    save(tmp_path / "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png", values)
    split.check_labels(0, 2)
    with pytest.raises(OneRankMistakeError, match=r"aachen_000001_.*: the value 77 \(row 1"):
        split.check_labels(1, 2)


@pytest.mark.parametrize("kind", ["leftImg8bit", "gtFine"])
def test_a_file_that_was_cut_off_is_named(tmp_path, kind):
    split = city_splits(cityscapes(tmp_path), val_fraction=0)["test"]
    path = next((tmp_path / kind / "val").rglob("*[st].png"))
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(OneRankMistakeError, match=f"{path}: not an image"):
        split.check_ends(0, 1)


def test_small_sets_are_kept_in_memory_unless_told_otherwise(tmp_path):
    splits = city_splits(cityscapes(tmp_path)).values()
    assert keep_resident(splits, "auto")
    assert not keep_resident(splits, False)
    huge = city_splits(tmp_path, size=(16384, 16384)).values()
    assert not keep_resident(huge, "auto")
    assert keep_resident(huge, True)


def test_results_come_in_order_and_threads_do_not_run_far_ahead(tmp_path):
    split, begun = pair_splits(pairs(tmp_path))["train"], []

    def items():
        for number in range(20):
            begun.append(number)
            yield number

    results = in_order(split.pool, np.square, items(), ahead=3)
    for number in range(20):
        assert next(results) == number**2
        assert len(begun) <= number + 4
