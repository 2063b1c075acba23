import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from classification.config import parse_recipe
from classification.data import (
    Batch,
    balanced_order,
    count_classes,
    evaluation_batches,
    load_data,
    make_splits,
    training_windows,
)
from classification.data_config import DATA_FACTS, Data
from classification.readers import READERS, FolderSplit, ResidentSplit, Source, read_digits
from knorm.training.mistakes import OneRankMistakeError, UserMistakeError
from knorm.training.sampling import Sampling


def labelled(*counts):
    """A split whose pixels are the sample numbers."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return ResidentSplit(torch.arange(len(labels)).view(-1, 1, 1, 1), labels)


def numbers(split):
    return split.pixels.flatten().tolist()


@pytest.fixture
def folder(tmp_path):
    """Two classes of 6 and 4 coloured images in train and test, of several sizes and formats."""
    for split in ("train", "test"):
        for label, (name, count) in enumerate({"cat": 6, "dog": 4}.items()):
            place = tmp_path / split / name / "nested"
            place.mkdir(parents=True)
            for i in range(count):
                color = (200 * label, 10 * i, 100)
                kind = "png" if i % 2 else "jpg"
                Image.new("RGB", (9 + 3 * i, 14), color).save(place / f"{i}.{kind}", quality=95)
            (place / "notes.txt").touch()
    return tmp_path


def folder_recipe(folder, *more):
    return parse_recipe(
        [
            "--data.name=imagefolder",
            f"--data.root={folder}",
            "--data.image_size=8",
            "--data.val_fraction=0.2",
            "--batch_size=4",
            *more,
        ]
    )


def test_every_named_data_set_has_facts_and_a_reader():
    assert DATA_FACTS.keys() == READERS.keys()


@pytest.mark.parametrize("counts", [(10, 10, 10), (50, 5, 1), (3,)])
def test_every_beginning_of_a_balanced_order_holds_the_classes_in_proportion(counts):
    split = labelled(*counts)
    order = balanced_order(split.labels, seed=0)
    assert sorted(order.tolist()) == list(range(len(order)))
    for end in range(1, len(order) + 1):
        found = split.labels[order[:end]].bincount(minlength=len(counts))
        fair = torch.tensor(counts) * end / len(order)
        assert (found - fair).abs().max() <= 1


def test_a_balanced_order_is_a_function_of_its_seed():
    labels = labelled(30, 30).labels
    assert torch.equal(balanced_order(labels, 1), balanced_order(labels, 1))
    assert not torch.equal(balanced_order(labels, 1), balanced_order(labels, 2))


def test_validation_comes_out_of_the_training_set_and_the_test_set_stays_whole():
    source = Source(labelled(50, 50), labelled(7, 7), ["a", "b"])
    splits = make_splits(source, Data(name="digits", val_fraction=0.1))
    assert splits["val"].labels.bincount().tolist() == [5, 5]
    assert sorted(numbers(splits["train"]) + numbers(splits["val"])) == list(range(100))
    assert splits["test"] is source.test


def test_without_a_validation_fraction_there_is_no_validation_split():
    source = Source(labelled(5, 5), labelled(2, 2), ["a", "b"])
    assert list(make_splits(source, Data(name="digits", val_fraction=0))) == ["train", "test"]


def test_a_published_validation_split_is_used_as_it_is():
    source = Source(labelled(5, 5), labelled(2, 2), ["a", "b"], val=labelled(3, 3))
    splits = make_splits(source, Data(name="digits"))
    assert splits["val"] is source.val
    assert len(splits["train"].labels) == 10


def test_a_limit_is_for_every_split_and_keeps_the_classes_in_proportion():
    source = Source(labelled(60, 30), labelled(20, 10), ["a", "b"])
    splits = make_splits(source, Data(name="digits", limit=6))
    found = {name: split.labels.bincount().tolist() for name, split in splits.items()}
    assert found == {"train": [4, 2], "val": [4, 2], "test": [4, 2]}


def test_splits_do_not_depend_on_the_run_seed():
    first, second = (
        load_data(parse_recipe([f"--seed={seed}"]), Accelerator(cpu=True)) for seed in (0, 1)
    )
    for name, split in first.splits.items():
        assert torch.equal(split.pixels, second.splits[name].pixels)


def test_digits_keep_a_fifth_of_every_class_for_the_test():
    source = read_digits(Data(name="digits"))
    test, train = source.test.labels.bincount(), source.train.labels.bincount()
    assert len(source.test.labels) == 359
    assert ((test / (test + train)) - 0.2).abs().max() < 0.01
    assert source.train.images(torch.arange(5)).shape == (5, 1, 8, 8)
    assert source.train.images(torch.arange(500)).max() == 255


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_ranks_together_see_the_batches_of_one_process(num_ranks):
    recipe = parse_recipe(["--augment.crop_padding=2"])
    data = load_data(recipe, Accelerator(cpu=True))

    sampling = Sampling(num_samples=len(data.labels("train")), batch_size=32, seed=3)

    def batches(rank, ranks):
        alone = SimpleNamespace(process_index=rank, num_processes=ranks, device=torch.device("cpu"))
        part = replace(data, accelerator=alone)
        for window in training_windows(part, recipe.augment, sampling, 2):
            yield window.batches[0]

    parts = zip(*(batches(rank, num_ranks) for rank in range(num_ranks)), strict=True)
    for whole, shares in zip(batches(0, 1), parts, strict=True):
        assert torch.equal(torch.cat([share.inputs for share in shares]), whole.inputs)
        assert torch.equal(torch.cat([share.labels for share in shares]), whole.labels)


def test_images_of_a_folder_are_cropped_to_squares_in_rgb(folder):
    recipe = folder_recipe(folder)
    data = load_data(recipe, Accelerator(cpu=True))
    assert count_classes(recipe.data) == 2
    assert data.classes == ["cat", "dog"]
    assert {name: len(split.labels) for name, split in data.splits.items()} == {
        "train": 8,
        "val": 2,
        "test": 10,
    }
    test = data.splits["test"]
    pixels = test.images(torch.arange(10)).float().mean((2, 3))
    assert pixels.shape == (10, 3)
    colors = [[200 * label, 10 * i, 100] for label, n in ((0, 6), (1, 4)) for i in range(n)]
    order = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    np.testing.assert_allclose(pixels[order].numpy(), colors, atol=3)


@pytest.mark.parametrize("scaling", ["scale", "standard"])
def test_streamed_images_are_those_in_memory(folder, scaling):
    batches = {}
    for resident in ("true", "false"):
        recipe = folder_recipe(folder, f"--data.resident={resident}", f"--data.scaling={scaling}")
        data = load_data(recipe, Accelerator(cpu=True))
        assert isinstance(data.splits["train"], FolderSplit) == (resident == "false")
        sampling = Sampling(num_samples=8, batch_size=4, seed=0, repeats=2)
        windows = training_windows(data, recipe.augment, sampling, 1)
        trained = [batch for window in windows for batch in window.batches]
        evaluated = evaluation_batches(data, "test", 3)
        batches[resident] = [*trained, *(batch for _, _, batch in evaluated)]
    for streamed, resident in zip(batches["false"], batches["true"], strict=True):
        assert torch.equal(streamed.inputs, resident.inputs)
        assert torch.equal(streamed.labels, resident.labels)


def test_a_folder_may_have_validation_and_test_of_its_own(folder):
    (folder / "train").rename(folder / "val")
    (folder / "val" / "cat").joinpath("nested", "0.jpg").unlink()
    for name in ("cat", "dog"):
        place = folder / "train" / name
        place.mkdir(parents=True)
        Image.new("L", (20, 20)).save(place / "grey.png")
    data = load_data(folder_recipe(folder), Accelerator(cpu=True))
    assert {name: len(split.labels) for name, split in data.splits.items()} == {
        "train": 2,
        "val": 9,
        "test": 10,
    }


def test_a_folder_with_val_alone_uses_it_as_the_test(folder):
    (folder / "test").rename(folder / "val")
    data = load_data(folder_recipe(folder), Accelerator(cpu=True))
    assert len(data.splits["test"].labels) == 10
    assert len(data.splits["val"].labels) == 2


def test_class_folders_must_agree_between_splits(folder):
    (folder / "test" / "bird").mkdir()
    with pytest.raises(UserMistakeError, match="train and test differ in the class folders bird"):
        count_classes(folder_recipe(folder).data)


def test_a_class_without_images_is_refused(folder):
    for split in ("train", "test"):
        (folder / split / "bird").mkdir()
    with pytest.raises(UserMistakeError, match="bird holds no images"):
        load_data(folder_recipe(folder), Accelerator(cpu=True))


def test_a_broken_image_is_named(folder):
    broken = folder / "train" / "cat" / "nested" / "0.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(UserMistakeError, match=r"nested.0\.jpg: not an image"):
        load_data(folder_recipe(folder), Accelerator(cpu=True))


def test_images_of_more_than_8_bits_are_refused_instead_of_clipped(folder):
    deep = np.full((8, 8), 40000, dtype=np.uint16)
    Image.fromarray(deep).save(folder / "train" / "cat" / "deep.png")
    with pytest.raises(UserMistakeError, match=r"deep\.png: I;16 pixels"):
        load_data(folder_recipe(folder), Accelerator(cpu=True))


def test_hidden_folders_are_no_classes(folder):
    (folder / "train" / ".cache").mkdir()
    assert ".cache" not in load_data(folder_recipe(folder), Accelerator(cpu=True)).classes


def test_a_set_that_cannot_be_downloaded_is_named(monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")

    def offline(root, *, train, download):
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "MNIST", offline)
    with pytest.raises(UserMistakeError, match=r"MNIST is not in data\.root here.*no route"):
        READERS["mnist"](Data(name="mnist", root="here"))


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10"])
def test_torchvisions_sets_become_resident_splits(monkeypatch, tmp_path, name):
    datasets = pytest.importorskip("torchvision.datasets")

    class Fake:
        classes = ("a", "b")

        def __init__(self, root, *, train, download):
            assert root == str(tmp_path)
            assert download
            grey = name == "MNIST"
            self.data = torch.zeros(6, 5, 5) if grey else np.zeros((6, 5, 5, 3), dtype=np.uint8)
            self.targets = torch.arange(6) % 2 if grey else [0, 1] * 3

    monkeypatch.setattr(datasets, name, Fake)
    source = READERS[name.lower()](Data(name=name.lower(), root=str(tmp_path)))
    channels = 1 if name == "MNIST" else 3
    assert source.train.images(torch.tensor([0, 1])).shape == (2, channels, 5, 5)
    assert source.test.labels.tolist() == [0, 1] * 3


def test_a_file_broken_in_the_middle_of_a_streamed_epoch_is_named(folder):
    recipe = folder_recipe(folder, "--data.resident=false")
    data = load_data(recipe, Accelerator(cpu=True))
    sampling = Sampling(num_samples=8, batch_size=2, seed=0)
    windows = training_windows(data, recipe.augment, sampling, 1)
    last = data.splits["train"].paths[sampling.batches(1)[-1][0]].decode()
    Path(last).write_bytes(b"\x89PNG no more")
    with pytest.raises(OneRankMistakeError, match=f"{re.escape(last)}: not an image"):
        list(windows)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_file_that_is_read_late_and_was_cut_off_is_told_at_the_start(folder, split):
    recipe = folder_recipe(folder, "--data.resident=false")
    data = load_data(recipe, Accelerator(cpu=True))
    path = Path(data.splits[split].paths[-1].decode())
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(OneRankMistakeError, match=f"{re.escape(str(path))}: not an image"):
        load_data(recipe, Accelerator(cpu=True))


def test_another_file_of_the_same_name_makes_another_streamed_split(folder):
    recipe = folder_recipe(folder, "--data.resident=false")
    split = load_data(recipe, Accelerator(cpu=True)).splits["test"]
    before = split.fingerprint()
    assert split.fingerprint() == before
    with open(split.paths[0], "ab") as file:
        file.write(b"more")
    assert split.fingerprint() != before


def test_evaluated_images_may_have_a_margin_and_a_size_of_their_own(folder):
    recipe = folder_recipe(folder, "--data.eval_size=6", "--data.eval_resize=12")
    data = load_data(recipe, Accelerator(cpu=True))
    shapes = {name: split.pixels.shape[2:] for name, split in data.splits.items()}
    assert shapes == {"train": (8, 8), "val": (6, 6), "test": (6, 6)}


def test_resized_crops_of_files_come_from_the_whole_image_and_follow_seed_epoch_and_copy(folder):
    recipe = folder_recipe(folder, "--augment.resized_crop=[0.1,1]", "--augment.flip=false")
    data = load_data(recipe, Accelerator(cpu=True))
    split = data.splits["train"]
    assert isinstance(split, FolderSplit)  # although there is little of it
    copies = Sampling(num_samples=8, batch_size=4, seed=0, repeats=2)

    def epoch(number, batch_size=4):
        cut = replace(copies, batch_size=batch_size)
        windows = training_windows(data, recipe.augment, cut, number)
        return torch.cat([batch.inputs for window in windows for batch in window.batches])

    assert torch.equal(epoch(1), epoch(1, batch_size=2))
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for path in split.paths:
        Image.fromarray(noise).save(path.decode())
    assert not torch.equal(epoch(1), epoch(2))
    assert len(epoch(1).flatten(1).unique(dim=0)) == 8


def test_labels_that_are_no_class_are_named(monkeypatch):
    source = Source(labelled(5, 5, 5), labelled(5, 5), ["a", "b"])
    monkeypatch.setitem(READERS, "digits", lambda data: source)
    with pytest.raises(UserMistakeError, match=r"sample 10 has the label 2, .* none of 0 to 1"):
        load_data(parse_recipe([]), Accelerator(cpu=True))


MIXING = ["--augment.mixup=0.2", "--augment.cutmix=1", "--augment.erasing=0.5"]


@pytest.mark.parametrize(("num_ranks", "passes"), [(1, 2), (2, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize("repeats", [1, 3])
def test_ranks_and_passes_together_mix_as_one(num_ranks, passes, repeats):
    recipe = parse_recipe(["--data.name=synthetic", *MIXING, "--augment.policy=cifar10"])
    data = load_data(recipe, Accelerator(cpu=True))
    whole = Sampling(num_samples=90, batch_size=22, seed=3, together=2, repeats=repeats)

    def batches(rank, sampling, ranks):
        alone = SimpleNamespace(process_index=rank, num_processes=ranks, device=torch.device("cpu"))
        part = replace(data, accelerator=alone)
        for window in training_windows(part, recipe.augment, sampling, 2):
            yield [Batch(*(t[: b.real] for t in b[:3]), b.real) for b in window.batches]

    parts = [batches(rank, replace(whole, passes=passes), num_ranks) for rank in range(num_ranks)]
    for (one,), *shares in zip(batches(0, whole, 1), *parts, strict=True):
        together = [batch for share in shares for batch in share]
        for name in ("inputs", "labels", "targets"):
            found = torch.cat([getattr(batch, name) for batch in together])
            assert torch.equal(found, getattr(one, name))
        assert one.targets.shape == (22, 10)


def test_copies_are_mixed_with_another_image_and_not_with_each_other():
    sampling = Sampling(num_samples=99, batch_size=20, seed=1, repeats=4, together=2)
    for batch in sampling.batches(1):
        first, second = batch.view(-1, 2).unbind(1)
        assert (first % 99 != second % 99).all()
        assert torch.equal(first // 99, second // 99)
