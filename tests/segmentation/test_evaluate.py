"""With real launches on the CPU: few, with many checks each, for each takes seconds to start."""

import json
import shutil

import pytest
from PIL import Image

from knorm.training.mistakes import run_program
from segmentation import evaluate
from tests.classification.runs import TWO, launch, value
from tests.segmentation.runs import evaluated, quick, run

SCORES = ("miou", "pixel_accuracy", "mean_accuracy", "category_miou", "loss")
OTHER = ["--crop", "24", "40", "--stride", "16", "32", "--windows", "3", "--scales", "0.75", "1.0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two processes, whose running statistics differ."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    more = ["--model.norm=batch", "--inference.flip=true", "--examples=1"]
    launch(TWO, "segmentation.train", *quick(folder, *more))
    return folder


@pytest.fixture(scope="module")
def result(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("weights", ["best", "last"])
def test_one_process_repeats_the_numbers_of_two_to_the_last_digit(
    folder, result, capsys, split, weights
):
    numbers = evaluated(capsys, folder, "--split", split, "--weights", weights)
    for metric in SCORES:
        assert numbers[metric] == value(result, split, weights, metric)
    assert (numbers["split"], numbers["weights"]) == (split, weights)
    assert numbers["count"] == {"val": 2, "test": 3}[split]
    assert numbers["inference"]["flip"] is True


def test_three_processes_tell_the_very_same_whatever_the_windows(folder, capsys):
    command = [*TWO, "--num_processes", "3"]
    out = launch(command, "segmentation.evaluate", folder, "--cpu", *OTHER)
    assert json.loads(out) == evaluated(capsys, folder, *OTHER)


def test_other_ways_to_ask_change_the_numbers_and_are_told(folder, result, capsys):
    told = {
        way: evaluated(capsys, folder, *options)
        for way, options in {
            "run": [],
            "whole": ["--whole"],
            "windows": OTHER,
            "scales": ["--scales", "0.5", "1.5"],
        }.items()
    }
    assert told["run"] == told["whole"]
    losses = [told[way]["loss"] for way in ("run", "windows", "scales")]
    assert len(set(losses)) == 3
    assert told["windows"]["inference"] == {
        "crop": [24, 40],
        "stride": [16, 32],
        "windows": 3,
        "scales": [0.75, 1.0],
        "flip": True,
    }
    assert told["scales"]["inference"]["crop"] is None


def test_classes_are_told_on_standard_error_and_numbers_alone_on_standard_output(folder, capsys):
    evaluate.main([str(folder), "--cpu"])
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert err.startswith("road ")
    assert "bicycle        IoU      -" in err
    assert "test: miou " in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith(", 3 images")


def test_norms_are_swapped_for_an_evaluation(folder, capsys):
    plain, swapped = (
        evaluated(capsys, folder, *options)
        for options in ([], ["--swap=none", '--swap_options={"fold": true}'])
    )
    assert (plain["swap"], swapped["swap"]) == (None, "none")
    assert swapped["loss"] == pytest.approx(plain["loss"], rel=1e-4)


@pytest.fixture
def copy(folder, tmp_path):
    """The run and its data, to be changed; the run says where its data are."""
    copy = shutil.copytree(folder.parent, tmp_path / "copy")
    config = (copy / "two" / "config.yaml").read_text()
    changed = config.replace(str(folder.parent / "data"), str(copy / "data"))
    assert changed != config
    (copy / "two" / "config.yaml").write_text(changed)
    return copy


def test_other_images_are_not_evaluated_as_the_runs_own(copy, capsys):
    assert evaluated(capsys, copy / "two")["count"] == 3
    (image, *_) = sorted(copy.glob("data/*/leftImg8bit/val/*/*.png"))
    Image.new("RGB", (64, 32), (255, 0, 0)).save(image)
    assert run_program(lambda: evaluate.main([str(copy / "two"), "--cpu"])) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"data.root {copy / 'data'}: the test split is not the one that {copy / 'two'}" in err
    assert evaluated(capsys, copy / "two", "--split=val")["count"] == 2


def test_a_run_without_validation_has_nothing_to_tell_of_it(tmp_path, capsys):
    run(tmp_path / "run", "--epochs=1", "--data.val_fraction=0", "--examples=0")
    assert run_program(lambda: evaluate.main([str(tmp_path / "run"), "--split=val"])) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{tmp_path / 'run'} has no val split" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run_dir"),
        (["nowhere"], "nowhere is no run folder"),
        (["taken", "--split=train"], "invalid choice: 'train'"),
        (["taken", "--wieghts=best"], "did you mean '--weights'?"),
        (["taken", "--crop", "5"], "--crop: expected 2 arguments"),
        (["{}", "--stride", "5", "5"], "inference.stride belongs to inference.crop"),
        (["{}", "--whole", "--crop", "5", "5"], "--whole is without windows"),
        (["{}", "--scales", "0"], "inference.scales must be positive, got 0"),
        (["{}", "--crop", "5", "5", "--stride", "5", "6"], "inference.stride [5, 6] is more than"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, folder, capsys):
    arguments = [argument.format(folder) for argument in arguments]
    assert run_program(lambda: evaluate.main(arguments)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
