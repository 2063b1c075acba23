import csv
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from knorm.models import segmenter
from knorm.training.nets import make_model
from segmentation import train, work
from segmentation.classes import CITYSCAPES
from segmentation.config import load_recipe
from segmentation.metrics import summary
from tests.classification.runs import TWO, launch, value
from tests.segmentation.runs import quick, rows, run

FILES = {
    ".lock",
    "best",
    "command.txt",
    "config.yaml",
    "confusion.csv",
    "confusion.png",
    "curves.png",
    "environment.json",
    "examples",
    "examples.png",
    "iou.png",
    "last",
    "metrics.csv",
    "metrics.jsonl",
    "report.md",
    "result.json",
}
SCORES = ("miou", "pixel_accuracy", "mean_accuracy", "category_miou", "loss")
PLAIN_SGD = ["--optim={name: sgd, lr: 0.5, momentum: 0, nesterov: false, weight_decay: 0}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "scenes"
    run(folder, "--examples=2")
    return folder


@pytest.fixture(scope="module")
def result(folder):
    return json.loads((folder / "result.json").read_text())


def weights(folder):
    return load_file(folder / "last" / "model.safetensors")


def confusion(folder):
    with (folder / "confusion.csv").open() as file:
        table = list(csv.reader(file))
    assert table[0][1:] == [*CITYSCAPES.names, "no class"]
    assert [row[0] for row in table[1:]] == list(CITYSCAPES.names)
    return torch.tensor([[int(count) for count in row[1:]] for row in table[1:]])


def test_a_run_folder_tells_the_whole_story(folder, result):
    assert {path.name for path in folder.iterdir()} == FILES
    assert load_recipe(folder).examples == 2
    assert f"--run_dir={folder}" in (folder / "command.txt").read_text()
    for text in ("| test | best | miou |", "python -m segmentation.train", "name: scenes"):
        assert text in (folder / "report.md").read_text()
    assert result["parameters"] == sum(tensor.numel() for tensor in weights(folder).values())
    assert result["macs"] > 0
    assert result["seconds"] > result["training_seconds"] > 0


def test_every_evaluation_and_the_end_have_their_pictures(folder):
    pictures = {"curves.png", "confusion.png", "iou.png", "examples.png"}
    pictures |= {f"examples/epoch-{epoch:04d}.png" for epoch in (1, 2)}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")} == pictures
    text = (folder / "report.md").read_text()
    for name in pictures:
        with Image.open(folder / name) as image:
            assert min(image.size) > 100
        assert f"({name})" in text or name.startswith("examples/")


def test_every_number_of_the_result_says_its_split_weights_and_count(result):
    keys = {(row["split"], row["weights"], row["metric"]) for row in result["results"]}
    assert keys == {
        (split, weights, metric)
        for split in ("val", "test")
        for weights in ("best", "last")
        for metric in SCORES
    }
    counts = {(row["split"], row["count"]) for row in result["results"]}
    assert counts == {("val", 2), ("test", 3)}


def test_the_log_has_a_row_per_epoch_in_both_forms(folder):
    lines = rows(folder)
    with (folder / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [{name: float(text) for name, text in row.items()} for row in table] == lines
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 3), (2, 6)]
    assert {f"val.{name}" for name in SCORES} | {"train.pixel_accuracy"} <= lines[0].keys()


def test_the_tables_are_those_of_the_best_weights_on_the_test_split(folder, result):
    matrix = confusion(folder)
    found = summary(matrix, CITYSCAPES)
    for name in SCORES[:-1]:
        assert found[name] == value(result, "test", "best", name)
    table = result["per_class"]["classes"]
    assert [row["class"] for row in table] == list(CITYSCAPES.names)
    assert [row["pixels"] for row in table] == matrix.sum(1).tolist()
    ious = [row["iou"] for row in table if row["iou"] is not None]
    assert sum(ious) / len(ious) == pytest.approx(found["miou"])


def test_the_same_seed_gives_the_same_run_and_another_seed_another(folder, result, tmp_path):
    again = run(tmp_path / "again", "--examples=0")
    assert again["results"] == result["results"]
    ours, theirs = weights(folder), weights(tmp_path / "again")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    other = run(tmp_path / "other", "--examples=0", "--seed=1")
    assert other["results"] != result["results"]
    assert not list((tmp_path / "again").rglob("examples*"))


def test_the_test_split_has_no_say_in_what_is_best(folder, result, tmp_path, monkeypatch):
    evaluate = work.SegmentationWork.evaluate

    def spoiled(one, net, split):
        found = evaluate(one, net, split)
        bad = {"miou": 0.0, "loss": 99.0} if split == "test" else {}
        return found._replace(numbers={**found.numbers, **bad})

    monkeypatch.setattr(work.SegmentationWork, "evaluate", spoiled)
    blind = run(tmp_path / "blind", "--examples=0")
    assert blind["best_epoch"] == result["best_epoch"]
    assert value(blind, "test", "best", "miou") == 0
    assert value(blind, "val", "best", "miou") == value(result, "val", "best", "miou")


def test_without_validation_only_the_last_weights_are_tested(tmp_path):
    result = run(tmp_path / "run", "--epochs=1", "--data.val_fraction=0")
    assert {(row["split"], row["weights"]) for row in result["results"]} == {("test", "last")}
    for name in ("best", "examples"):
        assert not (tmp_path / "run" / name).exists()
    assert (tmp_path / "run" / "examples.png").exists()


def test_runs_without_a_folder_are_numbered_under_their_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (without,) = (one for one in quick(tmp_path / "x") if one.startswith("--run_dir"))
    train.main([one for one in quick(tmp_path / "x", "--epochs=1") if one != without])
    assert (tmp_path / "runs" / "scenes-fcn" / "0000" / "result.json").exists()


def test_every_seed_is_a_run_and_their_mean_is_told(tmp_path, capsys):
    summed = run(tmp_path / "seeds", "--epochs=1", "--seeds=2", "--examples=0")
    alone = [
        json.loads((tmp_path / "seeds" / f"seed-{seed}" / "result.json").read_text())
        for seed in (0, 1)
    ]
    for row in summed["results"]:
        values = [value(one, row["split"], row["weights"], row["metric"]) for one in alone]
        assert row["values"] == values
    assert "miou" in capsys.readouterr().out


def test_a_dry_run_prints_the_plan_and_keeps_nothing_but_the_scenes(tmp_path, capsys):
    train.main(quick(tmp_path / "run", "--dry_run", "--accumulation=2", "--ema_decay=0.9"))
    out = capsys.readouterr().out
    for words in (
        "net    fcn  34,571 parameters",
        "data   scenes  train 6  val 2  test 3  scale",
        "crop (32, 64)  flip",
        "2 = 1 x 1 process(es) x 2 pass(es)",
        "6 steps = 2 epochs x 3",
        "million per image",
        "dry run passed",
    ):
        assert words in out
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_steps_in_place_of_epochs_end_within_an_epoch(tmp_path):
    options = ["--steps=4", "--epochs=null", "--examples=0", "--schedule.name=poly"]
    result = run(tmp_path / "run", *options)
    lines = rows(tmp_path / "run")
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 3), (2, 4)]
    assert result["epochs"] == 2
    power, peak = load_recipe(tmp_path / "run").schedule.power, load_recipe(tmp_path / "run").optim
    assert lines[1]["lr"] == pytest.approx(peak.lr * (1 - 3 / 4) ** power)


def first_weights(folder):
    """What the run began with."""
    recipe = load_recipe(folder)
    return make_model(recipe.model, num_classes=19, in_chans=3, seed=recipe.seed).state_dict()


def test_heads_learn_at_their_own_rate(tmp_path):
    options = ["--steps=1", "--epochs=null", "--examples=0", *PLAIN_SGD]
    options += ["--model.options.aux=true", "--schedule.name=constant"]
    run(tmp_path / "one", *options)
    run(tmp_path / "four", *options, "--head_rate=4")
    begin = first_weights(tmp_path / "one")
    seen = set()
    for name, one in weights(tmp_path / "one").items():
        part = name.split(".")[0]
        scale = {"features": 1, "classifier": 4, "aux_classifier": 4}[part]
        moved, further = one - begin[name], weights(tmp_path / "four")[name] - begin[name]
        torch.testing.assert_close(further, scale * moved, rtol=1e-3, atol=1e-6)
        seen |= {part} if moved.abs().max() > 1e-4 else set()
    assert seen == {"features", "classifier", "aux_classifier"}


LOSSES = {
    "class weights": [f"--loss.class_weights={[1.0] * 18 + [2.0]}"],
    "hard pixels": ["--loss.ohem_threshold=0.9", "--loss.ohem_min_kept=100"],
    "hard pixels of a batch": ["--loss.ohem_threshold=0.9", "--loss.mean=batch"],
    "dice": ["--loss.dice=1", "--loss.label_smoothing=0.1"],
    "aux": ["--model.options.aux=true", "--model.norm=batch", "--loss.aux=0.2"],
    "distortion": ["--augment.distortion.probability=0.5", "--augment.cat_max_ratio=0.75"],
}


@pytest.mark.parametrize("case", LOSSES)
def test_every_loss_trains(case, tmp_path):
    result = run(tmp_path / "run", "--epochs=1", "--examples=0", *LOSSES[case])
    assert 0 < value(result, "test", "last", "loss") < 5


def test_a_mean_over_pixels_trains_alike_for_any_number_of_processes_and_passes(
    tmp_path, monkeypatch
):
    """Crops have unlike numbers of labels, and in the last step some ranks have no image."""
    monkeypatch.setattr(segmenter, "HEAD_DROPOUT", 0.0)
    options = ["--batch_size=6", "--drop_last=false", "--examples=0", "--data.val_fraction=0"]
    options += ["--augment.scale=[0.25, 1]", "--data.limit=7", *PLAIN_SGD, "--model.dropout_p=0"]
    options += ["--epochs=1"]  # later steps blow up any rounding: flat windows are divided by 1e-3
    for name, more in {"image": ["--loss.mean=image"], "passes": ["--accumulation=2"]}.items():
        run(tmp_path / name, *options, "--loss.mean=batch", *more)
    run(tmp_path / "one", *options, "--loss.mean=batch")
    arguments = quick(tmp_path / "three", *options, "--loss.mean=batch")
    launch([*TWO, "--num_processes", "3"], "tests.segmentation.without_dropout", *arguments)
    one, image = weights(tmp_path / "one"), weights(tmp_path / "image")
    assert max((one[key] - image[key]).abs().max() for key in one) > 1e-2
    for name in ("passes", "three"):
        for key, tensor in weights(tmp_path / name).items():
            torch.testing.assert_close(tensor, one[key], rtol=1e-3, atol=1e-5)
