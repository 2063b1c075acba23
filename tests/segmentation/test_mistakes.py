"""What users get wrong: one line that names it, exit code 2, nothing lost."""

import json
import os
import shutil

import numpy as np
import pytest
import torch

from classification import evaluate as classify_evaluate
from knorm.training.mistakes import run_program
from segmentation import evaluate, runs, train
from tests.classification.runs import run as classify
from tests.segmentation.runs import QUICK, quick, rows, run
from tests.segmentation.trees import cityscapes, pairs, random_image, random_labels, save

PAIRS = ["--data.name=pairs", "--data.pairs.classes=pairs/classes.txt", "--data.root=pairs"]
SIZED = [*PAIRS, "--data.size=[32, 64]"]
LIST = "--data.pairs.classes"
DEEPLAB = ["--model.name=deeplabv3plus", "--model.options={backbone: knresnet13, head_channels: 8}"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A working folder with settings and lists that are wrong in one point each."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "key.yaml": "loss: {ohem: 0.7}",
        "private.yaml": "privacy: {epsilon: 1, delta: 1.0e-5}",
        "classes.txt": "0 road\n1 car\n1 bus\n",
        "one.txt": "0 road\n",
        "words.txt": "road 0\n",
        "pairs/classes.txt": "0 back\n1 thing\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "taken" / "last").mkdir(parents=True)


MISTAKES = {
    "an option that is not there": (["--loss.ohem_treshold=1"], "did you mean '--loss.ohem_thres"),
    "an option of classification": (["--augment.crop_padding=4"], "augment.crop_padding: no such"),
    "a key that is not there": (["--config=key.yaml"], "key.yaml: loss.ohem: no such option"),
    "a net that is not there": (["--model.name=fcn_resnet81"], "did you mean 'fcn_resnet18'?"),
    "a net that classifies": (["--model.name=knresnet18"], "unknown model 'knresnet18'"),
    "a net of timm's": (
        ["--model.name=timm:resnet18"],
        "--model.name fcn --model.options.backbone timm:resnet18",
    ),
    "a backbone that is not there": (
        ["--model.options.backbone=knresnet81"],
        "did you mean 'knresnet18'?",
    ),
    "a backbone that timm has not": (
        ["--model.norm=null", "--model.options={backbone: 'timm:resnett18'}"],
        "did you mean 'timm:resnet18",
    ),
    "an option of the backbone": (
        ["--model.options.backbone_options={widht: 0.5}"],
        "did you mean 'width'?",
    ),
    "an option the net has not": (["--model.options.hed_channels=8"], "did you mean 'head_chann"),
    "a stride of 7": (["--model.options.output_stride=7"], "output_stride"),
    "a word for aux": (["--model.options.aux=yes please"], "aux takes True or False, got 'yes"),
    "a decoder without fine maps": (
        [*DEEPLAB, "--model.options.backbone=fcn"],
        "unknown backbone 'fcn'",
    ),
    "the classes as an option": (["--model.options.num_classes=3"], "known from the data"),
    "a norm that is not there": (["--model.norm=kernl"], "did you mean 'kernel'?"),
    "weights of some classes": (
        ["--loss.class_weights=[1, 2]"],
        "loss.class_weights has 2 numbers for 19 classes",
    ),
    "weights of nothing": ([f"--loss.class_weights={[0.0] * 19}"], "are all 0"),
    "weights of no class": (["--loss.class_weights=[]"], "loss.class_weights is empty; give null"),
    "a mean of means": (["--loss.mean=pixel"], "loss.mean: expected one of image, batch"),
    "heads that run away": (["--head_rate=0"], "head_rate must be positive, got 0"),
    "heads without end": (["--head_rate=1e9"], "head_rate must lie between 0 and 1000"),
    "pictures without end": (["--examples=1000"], "examples must lie between 0 and 100"),
    "epochs and steps": (["--steps=5"], "give epochs or steps, and null for the other"),
    "neither epochs nor steps": (["--epochs=null"], "give epochs or steps, and null for the oth"),
    "a scale of nothing": (["--augment.scale=[0, 1]"], "augment.scale must be [low, high]"),
    "a step of next to nothing": (["--augment.scale_step=1e-300"], "augment.scale_step must lie"),
    "a number for a range": (["--augment.scale=1"], "augment.scale: expected a tuple"),
    "a crop of nothing": (["--augment.crop=[0, 8]"], "augment.crop must lie between 1"),
    "windows without windows": (["--inference.stride=[4, 4]"], "belongs to inference.crop"),
    "scenes too small": (["--data.scenes.height=8"], "data.scenes.height must lie between 32"),
    "a data set that is not there": (["--data.name=cityscape"], "did you mean 'cityscapes'?"),
    "a data set of classification": (["--data.name=mnist"], "data.name: expected one of scenes"),
    "settings of another set": (["--data.name=camvid"], "data.scenes is for data.name scenes"),
    "privacy": (["--privacy.epsilon=1"], "--privacy.epsilon is for python -m privacy.train"),
    "a private recipe": (["--config=private.yaml"], "private.yaml has a section privacy; train it"),
    "a folder that is taken": (["--run_dir=taken"], "run_dir taken exists already"),
    "to go on with nothing": (["--resume=nowhere"], "nowhere is no run folder"),
    "weights of nothing saved": (["--model.weights=nowhere"], "model.weights: nowhere is no run"),
    "passes without images": (["--accumulation=3"], "needs a batch_size of 3 or more"),
}
LISTS = {
    "no class list": (["--data.name=pairs"], "data.name pairs needs data.pairs.classes"),
    "a class list that is not there": (
        [*SIZED, f"{LIST}=nowhere.txt"],
        "nowhere.txt",
    ),
    "a value given twice": (
        [*SIZED, f"{LIST}=classes.txt"],
        "classes.txt, line 3",
    ),
    "one class": (
        [*SIZED, f"{LIST}=one.txt"],
        "one.txt: 1 classes; it takes 2",
    ),
    "words first": (
        [*SIZED, f"{LIST}=words.txt"],
        "words.txt, line 1: a line is",
    ),
    "no crop for images of any size": (PAIRS, "augment.crop [height, width] must be given"),
    "masks where the images are": (
        [*SIZED, "--data.pairs.masks={split}/images"],
        "data.pairs.images and data.pairs.masks are both",
    ),
    "weights of other classes": (
        [*SIZED, "--loss.class_weights=[1, 2, 3]"],
        "loss.class_weights has 3 numbers for 2 classes",
    ),
}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("case", [*MISTAKES, *LISTS])
def test_a_mistake_is_one_line_and_exit_code_2_before_any_process_group(
    case, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(runs, "start", lambda launch: pytest.fail("a process group was opened"))
    arguments, message = (MISTAKES | LISTS)[case]
    if case in MISTAKES and not any(argument.startswith("--config") for argument in arguments):
        arguments = [*quick(tmp_path / "new")[:-1], *arguments]
    assert run_program(lambda: train.main(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not torch.distributed.is_initialized()
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "data").exists()


CITY = ["--data.name=cityscapes", "--augment.crop=[16, 24]", "--epochs=1", "--examples=0"]
STEM = "aachen/aachen_000001_000019"


def city_run(root, *arguments):
    """The exit code of a run on a tree of Cityscapes; the images are 20 x 30."""
    given = [*QUICK, *CITY, f"--data.root={root}", f"--run_dir={root.parent / 'run'}", *arguments]
    return run_program(lambda: train.main(given))


@pytest.fixture
def city(tmp_path):
    return cityscapes(tmp_path / "city")


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def wrong_size(path):
    save(path, random_labels(range(34), sides=(20, 31)))


def label(root, split="train", stem=STEM):
    return root / f"gtFine/{split}/{stem}_gtFine_labelIds.png"


def image(root, split="train", stem=STEM):
    return root / f"leftImg8bit/{split}/{stem}_leftImg8bit.png"


TEST = "munster/munster_000000_000019"
TREES = {
    "a missing label file": (
        lambda root: label(root).unlink(),
        f"leftImg8bit/train/{STEM}_leftImg8bit.png: no label file of that name",
    ),
    "a missing image": (
        lambda root: image(root).unlink(),
        f"gtFine/train/{STEM}_gtFine_labelIds.png: no image of that name",
    ),
    "labels of another size": (
        lambda root: wrong_size(label(root)),
        f"{STEM}_leftImg8bit.png: 20 x 30 pixels, but its label file",
    ),
    "labels of another size to test on": (
        lambda root: wrong_size(label(root, "val", TEST)),
        f"{TEST}_leftImg8bit.png: 20 x 30 pixels, but its label file",
    ),
    "an unknown value": (
        lambda root: save(label(root), np.full((20, 30), 77, np.uint8)),
        f"{STEM}_gtFine_labelIds.png: the value 77 (row 0, column 0) belongs to no class",
    ),
    "an unknown value to test on": (
        lambda root: save(label(root, "val", TEST), np.full((20, 30), 77, np.uint8)),
        f"{TEST}_gtFine_labelIds.png: the value 77",
    ),
    "colors for labels": (
        lambda root: save(label(root), random_image(sides=(20, 30))),
        f"{STEM}_gtFine_labelIds.png: RGB pixels; a label file has one channel",
    ),
    "16 bits for labels": (
        lambda root: save(label(root), np.full((20, 30), 7, np.uint16)),
        f"{STEM}_gtFine_labelIds.png: I;16 pixels; only those of 8 bits",
    ),
    "an empty folder": (
        lambda root: shutil.rmtree(root / "leftImg8bit/train/aachen"),
        "no image of that name",
    ),
    "no images at all": (
        lambda root: shutil.rmtree(root / "leftImg8bit/train"),
        "leftImg8bit/train holds no images",
    ),
    "no labels at all": (
        lambda root: shutil.rmtree(root / "gtFine/val"),
        "gtFine/val holds no <city>/*_gtFine_labelIds.png",
    ),
    "no folder of labels": (lambda root: shutil.rmtree(root / "gtFine"), "gtFine not found"),
    "half an image": (lambda root: cut(image(root)), f"{STEM}_leftImg8bit.png"),
    "half a label file": (lambda root: cut(label(root)), f"{STEM}_gtFine_labelIds.png"),
    "half an image to test on": (
        lambda root: cut(image(root, "val", TEST)),
        f"{TEST}_leftImg8bit.png",
    ),
    "an image that is none": (
        lambda root: image(root).write_text("x"),
        f"{STEM}_leftImg8bit.png: not an image that can be read",
    ),
}


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_a_label_is_told_before_there_is_a_run(split, city, capsys):
    labels = sorted((city / "gtFine" / split).rglob("*_labelIds.png"))
    for path in labels[1:]:
        save(path, np.full((20, 30), 0, np.uint8))  # unlabeled
    assert city_run(city, "--data.val_fraction=0", "--dry_run") == 0  # one file has labels
    save(labels[0], np.full((20, 30), 0, np.uint8))
    capsys.readouterr()
    assert city_run(city, "--data.val_fraction=0") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert str(labels[0]) in err
    assert f"the {'test' if split == 'val' else split} split" in err
    assert not (city.parent / "run").exists()


@pytest.mark.parametrize("case", TREES)
def test_a_broken_tree_is_one_line_that_names_the_file_before_there_is_a_run(case, city, capsys):
    damage, message = TREES[case]
    damage(city)
    assert city_run(city) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert str(city) in err
    assert message in err
    assert not (city.parent / "run").exists()


@pytest.mark.parametrize("resident", ["true", "false"])
def test_what_breaks_while_it_trains_is_named_and_what_was_trained_is_kept(
    resident, city, monkeypatch, capsys
):
    """As a disk that goes bad: the checks before training saw whole files."""
    folder = city.parent / "run"

    def breaks(rest, epoch, details):
        for path in (city / "leftImg8bit/train").rglob("*.png"):
            path.write_bytes(path.read_bytes()[:60])

    monkeypatch.setattr(
        "segmentation.work.SegmentationWork.write_examples", lambda *a: breaks(*a[1:])
    )
    code = city_run(city, "--epochs=2", f"--data.resident={resident}", "--data.val_fraction=0.3")
    err = capsys.readouterr().err
    assert [row["epoch"] for row in rows(folder)] == ([1, 2] if resident == "true" else [1])
    if resident == "true":
        assert code == 0
        return
    assert code == 2
    assert err.count("\n") == 1
    assert "_leftImg8bit.png: not an image that can be read" in err


def test_images_smaller_than_the_crop_are_filled_up(city):
    options = ["--augment.crop=[40, 50]", "--augment.scale=[0.5, 1]"]
    assert city_run(city, *options, "--inference.crop=[40, 50]") == 0
    assert (city.parent / "run" / "result.json").exists()


def test_images_of_several_sizes_and_kinds_are_trained_on_and_told(tmp_path):
    root = pairs(tmp_path / "pairs")
    options = ["--data.name=pairs", f"--data.pairs.classes={root}/classes.txt"]
    options += [f"--data.root={root}", "--augment.crop=[16, 16]", f"--run_dir={tmp_path / 'run'}"]
    train.main([*QUICK, *options])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [row["class"] for row in result["per_class"]["classes"]] == ["back", "thing"]
    assert "category_miou" not in {row["metric"] for row in result["results"]}


def test_a_missing_package_is_named_before_anything_starts(monkeypatch, capsys):
    monkeypatch.setattr(runs, "find_spec", lambda name: None)
    assert run_program(lambda: train.main([])) == 2
    line = "error: a run's pictures needs matplotlib: pip install 'knorm[train]'\n"
    assert capsys.readouterr().err == line


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run of each pipeline."""
    root = tmp_path_factory.mktemp("both")
    run(root / "segment", "--epochs=1", "--examples=0")
    classify(root / "classify", "--epochs=1")
    return root


@pytest.mark.parametrize(
    ("program", "name"), [(evaluate, "classify"), (classify_evaluate, "segment")]
)
def test_a_run_is_evaluated_by_its_own_pipeline(program, name, both, capsys):
    assert run_program(lambda: program.main([str(both / name)])) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{both / name}" in err


def test_weights_of_a_run_that_classifies_are_refused(both, tmp_path, capsys):
    arguments = quick(tmp_path / "run", f"--model.weights={both / 'classify'}")
    assert run_program(lambda: train.main(arguments)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "classify" in err
