import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from knorm.training.mistakes import OneRankMistakeError, UserMistakeError
from knorm.training.sampling import Sampling
from segmentation.augment_config import Augment, Distortion
from segmentation.classes import CAMVID, CITYSCAPES, IGNORE
from segmentation.data import evaluation_images, load_data, mean_color, training_windows
from segmentation.data_config import Data, Pairs, Scenes
from tests.segmentation.trees import cityscapes, pairs, random_labels, save

SMALL = Scenes(train=6, val=2, test=1, height=32, width=64)
STRONG = Augment(crop=(16, 24), cat_max_ratio=0.75, distortion=Distortion(probability=0.5))


def load(**settings):
    settings.setdefault("val_fraction", 0)
    return load_data(Data(**settings), Accelerator(cpu=True), channels_last=False)


@pytest.fixture
def city(tmp_path):
    """Settings of nine training images and three to test on."""
    return {"name": "cityscapes", "root": str(cityscapes(tmp_path))}


def as_rank(data, rank, num_ranks):
    cpu = torch.device("cpu")
    alone = SimpleNamespace(process_index=rank, num_processes=num_ranks, device=cpu)
    return replace(data, accelerator=alone)


def batches(data, augment=STRONG, epoch=2, first_step=0, **sampling):
    cut = Sampling(num_samples=9, seed=3, **({"batch_size": 4, "drop_last": False} | sampling))
    windows = training_windows(data, augment, cut, epoch, first_step)
    return [batch for window in windows for batch in window.batches]


def together(parts):
    """The samples that count of several batches."""
    counted = [(part.inputs[: part.real], part.labels[: part.real]) for part in parts]
    return [torch.cat(tensors) for tensors in zip(*counted, strict=True)]


def assert_same(ones, others):
    for one, other in zip(ones, others, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("num_ranks", "passes"), [(1, 1), (2, 1), (3, 1), (4, 1), (2, 2)])
def test_ranks_together_see_the_batches_of_one_process(city, num_ranks, passes):
    data = load(**city)
    whole = batches(data)
    assert [len(batch.inputs) for batch in whole] == [4, 4, 1]
    ranks = [batches(as_rank(data, rank, num_ranks), passes=passes) for rank in range(num_ranks)]
    for step, batch in enumerate(whole):
        parts = [part for rank in ranks for part in rank[step * passes : (step + 1) * passes]]
        assert_same(together(parts), batch[:2])


def test_batches_do_not_depend_on_threads_or_where_the_images_are(city):
    first, *others = (
        together(batches(load(**city, workers=workers, resident=resident)))
        for workers, resident in ((1, False), (7, False), (3, True))
    )
    for other in others:
        assert_same(first, other)
    assert first[0].dtype == torch.float32
    assert first[1].dtype == torch.int64
    assert first[0].shape == (9, 3, 16, 24)
    assert set(first[1].unique().tolist()) <= {*range(19), IGNORE}


def test_every_epoch_has_draws_of_its_own_and_can_be_entered_at_any_step(city):
    data = load(**city)
    assert_same(together(batches(data)[1:]), together(batches(data, first_step=1)))
    assert not torch.equal(batches(data)[0].inputs, batches(data, epoch=3)[0].inputs)


def test_copies_of_a_sample_are_drawn_apart(city):
    data = load(**city).first("train", 1)
    cut = Sampling(num_samples=1, batch_size=1, seed=0)
    copies = SimpleNamespace(
        seed=0, windows=lambda *_: iter([([share], 2) for share in doubled(cut)])
    )
    (window,) = training_windows(data, STRONG, copies, 0)
    first, second = window.batches[0].inputs
    assert not torch.equal(first, second)


def doubled(cut):
    ((share,), _) = next(cut.windows(0, 0, 1))
    yield share._replace(samples=torch.tensor([0, 1]), real=2)


def test_an_image_smaller_than_the_crop_is_filled_up_with_0_and_ignored_labels(city):
    data = load(**city, scaling="standard")
    augment = Augment(crop=(40, 44), scale=(1.0, 1.0), distortion=Distortion(probability=1.0))
    inputs, labels = together(batches(data, augment))
    outside = torch.ones(40, 44, dtype=torch.bool)
    outside[:20, :30] = False
    assert (inputs[:, :, outside] == 0).all()
    assert (labels[:, outside] == IGNORE).all()
    assert (inputs[:, :, ~outside] != 0).float().mean() > 0.9
    np.testing.assert_allclose(mean_color(data), data.mean.flatten() * 255, atol=0.5)


def test_pixels_are_scaled_by_the_training_set_or_by_fixed_numbers(city):
    standard = load(**city, scaling="standard")
    whole = torch.stack([standard.splits["train"].read(number)[0] for number in range(9)])
    inputs = standard.inputs(whole)
    assert inputs.mean((0, 2, 3)).abs().max() < 1e-5
    assert (inputs.var((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    fixed = load(**city, scaling="fixed", mean=[0.1, 0.2, 0.3], std=[1, 2, 4])
    expected = (whole / 255 - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / fixed.std
    torch.testing.assert_close(fixed.inputs(whole), expected)
    earlier = load_data(
        Data(**city, scaling="standard"),
        Accelerator(cpu=True),
        channels_last=True,
        statistics=(fixed.mean, fixed.std),
    )
    assert torch.equal(earlier.mean, fixed.mean)
    assert earlier.inputs(whole).is_contiguous(memory_format=torch.channels_last)


def test_images_that_are_all_alike_cannot_be_standardized(city):
    for path in Path(city["root"], "leftImg8bit").rglob("*.png"):
        save(path, np.full((20, 30, 3), 7, np.uint8))
    with pytest.raises(UserMistakeError, match=r"data.scaling standard: channel 0 of the training"):
        load(**city, scaling="standard")


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_ranks_together_evaluate_every_image_once(city, num_ranks):
    data = load(**city)
    found = [
        image
        for rank in range(num_ranks)
        for image in evaluation_images(as_rank(data, rank, num_ranks), "test")
    ]
    assert sorted(number for number, _, _ in found) == [0, 1, 2]
    for number, image, labels in found:
        assert_same((image, labels), data.splits["test"].read(number))


def test_images_of_any_size_are_evaluated_as_they_are(tmp_path):
    mine = Pairs(classes=str(pairs(tmp_path) / "classes.txt"))
    data = load(name="pairs", root=str(tmp_path), pairs=mine)
    shapes = [image.shape for _, image, _ in evaluation_images(data, "val")]
    assert shapes == [(3, 20 + number, 30 - number) for number in range(4)]
    assert data.classes.names == ("back", "thing")
    same = load(name="pairs", root=str(tmp_path), pairs=mine, size=(10, 12))
    assert {image.shape for _, image, _ in evaluation_images(same, "val")} == {(3, 10, 12)}


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_wrong_value_is_told_before_training(city, split):
    path = next(Path(city["root"], "gtFine", split).rglob("*_labelIds.png"))
    save(path, random_labels((7, 40)))
    with pytest.raises(OneRankMistakeError, match=rf"{path}: the value 40 \(row .* belongs to no"):
        load(**city)


@pytest.mark.parametrize("folder", ["leftImg8bit", "gtFine"])
def test_all_files_that_are_read_late_are_whole(city, folder, monkeypatch):
    monkeypatch.setattr("segmentation.splits.CHECKED_LABELS", 1)
    path = sorted(Path(city["root"], folder, "val").rglob("*[st].png"))[-1]
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(OneRankMistakeError, match=f"{path}: not an image"):
        load(**city, resident=False)


def test_a_file_that_breaks_later_is_named_too(city):
    data = load(**city, resident=False)
    for folder in ("train", "val"):
        for path in Path(city["root"], "leftImg8bit", folder).rglob("*.png"):
            path.write_bytes(b"gone")
    with pytest.raises(OneRankMistakeError, match=r"leftImg8bit.png: not an image"):
        batches(data)
    with pytest.raises(OneRankMistakeError, match=r"munster_000000.*: not an image"):
        list(evaluation_images(data, "test"))


def test_the_default_needs_nothing_but_a_folder_to_write_to(tmp_path):
    data = load(root=str(tmp_path / "new"), scenes=SMALL, val_fraction=0.2)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 5,
        "val": 1,
        "test": 2,
    }
    assert data.classes is CITYSCAPES
    assert data.splits["train"].kept is not None
    for _, image, labels in evaluation_images(data, "test"):
        assert image.shape == (3, 32, 64)
        assert labels.shape == (32, 64)


def test_a_rehearsal_takes_the_first_samples(city):
    data = load(**city)
    few = data.first("train", 2)
    assert few.splits["train"].names == data.splits["train"].names[:2]
    assert len(few.splits["test"]) == 3


@pytest.mark.data
def test_camvid_is_read_whole():
    root = os.environ.get("KNORM_DATA")
    if root is None or not Path(root, "CamVid").is_dir():
        pytest.skip("KNORM_DATA names no folder with CamVid in it")
    data = load(name="camvid", root=str(Path(root, "CamVid")), resident=True, workers=2)
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 367, "val": 101, "test": 233}
    assert data.classes is CAMVID
    seen = set()
    for split in data.splits.values():
        for image, labels in split.kept:
            assert image.shape == (360, 480, 3)
            seen |= set(np.unique(labels).tolist())
    assert seen == {*range(11), IGNORE}
