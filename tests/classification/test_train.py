import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from classification import evaluate, train
from classification.config import load_recipe
from classification.task import Classification
from knorm.training.mistakes import DivergedError, run_program
from tests.classification.runs import QUICK, ROOT, evaluated, run, value

FILES = {
    ".lock",
    "best",
    "command.txt",
    "config.yaml",
    "confusion.csv",
    "confusion.png",
    "curves.png",
    "environment.json",
    "last",
    "metrics.csv",
    "metrics.jsonl",
    "report.md",
    "result.json",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    run(folder, "--epochs=2")
    return folder


@pytest.fixture(scope="module")
def result(folder):
    return json.loads((folder / "result.json").read_text())


def test_a_run_folder_tells_the_whole_story(folder, result):
    assert {path.name for path in folder.iterdir()} == FILES
    assert load_recipe(folder).epochs == 2
    assert f"--run_dir={folder}" in (folder / "command.txt").read_text()
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["processes"] == 1
    for text in ("| test | best | top1 |", "python -m classification.train", "name: digits"):
        assert text in (folder / "report.md").read_text()
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert result["parameters"] == sum(
        tensor.numel() for tensor in load_file(folder / "last" / "model.safetensors").values()
    )
    assert 0 < result["macs"] < result["mult_adds"]
    assert result["seconds"] > result["training_seconds"] > 0
    assert result["memory_bytes"] > 2**20


def test_every_number_of_the_result_says_its_split_weights_and_count(result):
    keys = {(row["split"], row["weights"], row["metric"]) for row in result["results"]}
    assert keys == {
        (split, weights, metric)
        for split in ("val", "test")
        for weights in ("best", "last")
        for metric in ("top1", "top5", "loss")
    }
    assert {(row["split"], row["count"]) for row in result["results"]} == {
        ("val", 144),
        ("test", 300),
    }


def test_the_log_has_a_row_per_epoch_in_both_forms(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [{name: float(text) for name, text in row.items()} for row in rows] == lines
    assert [line["step"] for line in lines] == [9, 18]


def test_the_confusion_matrix_is_that_of_the_best_weights_on_the_test_split(folder, result):
    with (folder / "confusion.csv").open() as file:
        table = list(csv.reader(file))
    assert table[0][1:] == [str(digit) for digit in range(10)]
    counts = torch.tensor([[int(count) for count in row[1:]] for row in table[1:]])
    assert counts.sum() == 300
    assert counts.diagonal().sum() / 300 == pytest.approx(value(result, "test", "best", "top1"))


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("weights", ["best", "last"])
def test_evaluating_the_folder_repeats_its_numbers_to_the_last_digit(
    folder, result, capsys, split, weights
):
    numbers = evaluated(capsys, folder, "--split", split, "--weights", weights)
    for metric in ("top1", "top5", "loss"):
        assert numbers[metric] == value(result, split, weights, metric)
    assert (numbers["split"], numbers["weights"]) == (split, weights)


def test_sampled_statistics_repeat_for_a_seed_and_differ_between_seeds(folder, capsys):
    losses = [
        evaluated(capsys, folder, "--eval_stats", "sampled", "--seed", seed)["loss"]
        for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(folder, result, tmp_path):
    again = run(tmp_path / "again", "--epochs=2")
    assert again["results"] == result["results"]
    weights = [load_file(f / "last" / "model.safetensors") for f in (folder, tmp_path / "again")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    other = run(tmp_path / "other", "--epochs=2", "--seed=1")
    assert other["results"] != result["results"]


def test_the_test_split_has_no_say_in_what_is_best(folder, result, tmp_path, monkeypatch):
    summary = Classification.summary

    def spoiled(task, values, labels):
        numbers = summary(task, values, labels)
        return numbers | {"top1": 0.0, "loss": 99.0} if len(labels) == 300 else numbers

    monkeypatch.setattr(Classification, "summary", spoiled)
    blind = run(tmp_path / "blind", "--epochs=2")
    assert blind["best_epoch"] == result["best_epoch"]
    assert value(blind, "val", "best", "loss") == value(result, "val", "best", "loss")


def test_without_validation_only_the_last_weights_are_tested(tmp_path, capsys):
    result = run(tmp_path / "run", "--epochs=1", "--data.val_fraction=0")
    assert {(row["split"], row["weights"]) for row in result["results"]} == {("test", "last")}
    assert not (tmp_path / "run" / "best").exists()
    numbers = evaluated(capsys, tmp_path / "run")
    assert numbers["loss"] == value(result, "test", "last", "loss")


def test_other_settings_repeat_their_numbers_too(tmp_path, capsys):
    result = run(
        tmp_path / "run",
        "--epochs=1",
        "--model.norm=batch",
        "--data.scaling=standard",
        "--launch.mixed_precision=no",
        "--launch.channels_last=true",
        "--optim.name=adamw",
        "--optim.nesterov=false",
        "--optim.lr=0.001",
        "--optim.clip_norm=1",
        "--augment.crop_padding=1",
        "--loss.label_smoothing=0.1",
    )
    numbers = evaluated(capsys, tmp_path / "run", "--split=val")
    assert numbers["loss"] == value(result, "val", "best", "loss")


def test_steps_in_place_of_epochs_end_within_an_epoch(tmp_path):
    folder = tmp_path / "run"
    result = run(folder, "--steps=13", "--epochs=null", "--schedule.name=poly")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 9), (2, 13)]
    assert result["epochs"] == 2
    recipe = load_recipe(folder)
    fraction = (1 - 12 / 13) ** recipe.schedule.power
    assert lines[1]["lr"] == pytest.approx(recipe.optim.lr * fraction)


def test_a_loss_without_bounds_ends_the_run_with_a_hint(tmp_path):
    for resume in ("null", "auto", "auto"):
        arguments = ("--epochs=3", "--optim.lr=1e30", "--keep.minutes=0", f"--resume={resume}")
        with pytest.raises(DivergedError, match=r"in epoch 1: lower optim\.lr"):
            run(tmp_path / "run", *arguments)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""
    assert not (tmp_path / "run" / "result.json").exists()


def test_runs_without_a_folder_are_numbered_under_their_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        train.main([*QUICK, "--epochs=1", "--name=mine"])
    assert sorted(path.name for path in (tmp_path / "runs" / "mine").iterdir()) == ["0000", "0001"]


def test_seeds_repeat_the_run_and_are_taken_up_where_they_stopped(tmp_path, monkeypatch, capsys):
    arguments = [*QUICK, "--epochs=1", "--seeds=2", f"--run_dir={tmp_path / 'seeds'}"]
    train.main(arguments)
    summary = json.loads((tmp_path / "seeds" / "result.json").read_text())
    alone = [run(tmp_path / f"{seed}", "--epochs=1", f"--seed={seed}") for seed in (0, 1)]
    for row in summary["results"]:
        values = [value(one, row["split"], row["weights"], row["metric"]) for one in alone]
        assert row["values"] == values
    (tmp_path / "seeds" / "seed-1" / "result.json").unlink()
    train.main([*arguments, "--resume=auto"])
    out = capsys.readouterr().out
    assert "seed-0 is finished already" in out
    assert "seed-1 is finished already" not in out
    assert json.loads((tmp_path / "seeds" / "result.json").read_text()) == summary


CONSTANT = [
    "--model.name=convmixer",
    "--model.norm=instance",
    "--model.options={dim: 8, depth: 1, patch_size: 2}",
    "--data.limit=60",
    "--epochs=1",
]


def test_a_net_that_leaves_nothing_to_tell_images_apart_is_warned_of(tmp_path, capsys):
    words = "warning: convmixer gives its classifier the same features of every image"
    train.main([*CONSTANT, "--schedule.warmup_epochs=0", "--dry_run"])
    assert capsys.readouterr().err.count(words) == 1
    train.main([*CONSTANT, "--schedule.warmup_epochs=0", f"--run_dir={tmp_path / 'run'}"])
    assert capsys.readouterr().err.count(words) == 1
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (warning,) = result["warnings"]
    assert f"warning: {warning}".startswith(words)
    assert f"## Warnings\n\n- {warning}" in (tmp_path / "run" / "report.md").read_text()


def test_the_result_says_what_data_it_is_of(result):
    assert "warnings" not in result
    data = result["data"]
    assert (data["name"], data["num_classes"]) == ("digits", 10)
    assert set(data["images"]) == {"train", "val", "test"}
    assert len(data["hash"]) == 8


def test_a_batch_larger_than_the_training_set_is_the_users_mistake(tmp_path):
    with pytest.raises(ValueError, match="batch_size 5000 is more than the 300 training samples"):
        run(tmp_path / "run", "--batch_size=5000")


def test_ctrl_c_saves_the_last_step_and_exits_with_130(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "classification.train", *QUICK, "--epochs=10000"]
    process = subprocess.Popen(
        [*command, f"--run_dir={folder}"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for _ in range(600):
        if (folder / "last" / "state.json").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    state = json.loads((folder / "last" / "state.json").read_text())
    assert f"stopped by SIGINT after step {state['step']}" in out.decode()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert state["metrics"] in (None, rows[-1] if rows[-1]["step"] == state["step"] else None)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: (run / "best" / "state.json").unlink(), "cannot be read"),
        (lambda run: (run / "best" / "state.json").write_text("{"), "is damaged"),
        (lambda run: (run / "best" / "state.json").write_text("{}"), "is damaged: lacks epoch"),
        (lambda run: (run / "best" / "model.safetensors").write_bytes(b"0" * 40), "is damaged"),
        (
            lambda run: (run / "config.yaml").write_text(
                (run / "config.yaml").read_text().replace("width: 0.25", "width: 0.5")
            ),
            "weights of another net",
        ),
    ],
)
def test_evaluating_a_damaged_run_is_one_line(folder, tmp_path, capsys, damage, words):
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    assert run_program(lambda: evaluate.main([str(copy)])) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_the_shell_sees_the_exit_code():
    command = [sys.executable, "-m", "classification.train", "--optim.lrr", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: --optim.lrr: no such option; did you mean '--optim.lr'?\n"
    assert done.stdout == ""
