"""Runs that are killed and go on; benchmarks/kill_and_resume does it at random moments."""

import json
import time
from contextlib import suppress

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from classification import train
from knorm.training import checkpoint
from knorm.training.mistakes import run_program
from knorm.training.run import Run
from tests.classification.runs import (
    QUICK,
    TWO,
    Killed,
    evaluated,
    kill_all,
    killed_at,
    launch,
    launched,
    run,
    value,
    what_remains,
)

KEPT = ["--epochs=3", "--ema_decay=0.9", "--accumulation=2", "--keep.minutes=0"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    run(folder, *KEPT)
    return what_remains(folder)


@pytest.mark.parametrize("step", [1, 9, 14, 27], ids=lambda step: f"after step {step}")
def test_a_killed_run_goes_on_to_the_same_bits(step, uninterrupted, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        killed_at(step, patch)
        with pytest.raises(Killed):
            run(folder, *KEPT, "--resume=auto")
    run(folder, *KEPT, "--resume=auto")
    weights, rows, results = what_remains(folder)
    assert (rows, results) == uninterrupted[1:]
    assert weights.keys() == uninterrupted[0].keys()
    assert all(torch.equal(weights[name], uninterrupted[0][name]) for name in weights)
    assert (folder / "command.txt").read_text().count("--resume=auto") == 2


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_run_killed_while_it_records_an_epoch_goes_on_to_the_same_bits(
    name, uninterrupted, tmp_path, monkeypatch
):
    folder, save = tmp_path / "run", Run.save

    def die(run, what, trainer):
        if what == name and trainer.step == 18 and len(run.rows) == 2:
            raise Killed
        save(run, what, trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", die)
        with pytest.raises(Killed):
            run(folder, *KEPT)
    train.main([*QUICK, *KEPT, f"--resume={folder}"])
    weights, rows, results = what_remains(folder)
    assert (rows, results) == uninterrupted[1:]
    assert all(torch.equal(weights[name], uninterrupted[0][name]) for name in weights)


@pytest.mark.parametrize("step", [9, 12, 13], ids=lambda step: f"after step {step}")
def test_a_run_of_so_many_steps_goes_on_to_the_same_bits(step, tmp_path, monkeypatch):
    options = ["--steps=13", "--epochs=null", "--keep.minutes=0", "--resume=auto"]
    run(tmp_path / "whole", *options)
    with monkeypatch.context() as patch:
        killed_at(step, patch)
        with pytest.raises(Killed):
            run(tmp_path / "killed", *options)
    run(tmp_path / "killed", *options)
    whole, killed = (what_remains(tmp_path / name) for name in ("whole", "killed"))
    assert killed[1:] == whole[1:]
    assert all(torch.equal(killed[0][name], whole[0][name]) for name in whole[0])


def test_a_finished_run_is_left_as_it_is(tmp_path, capsys):
    folder = tmp_path / "run"
    run(folder, "--epochs=1")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    train.main([f"--resume={folder}"])
    assert "is finished" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_auto_without_a_folder_goes_on_with_the_newest_run_of_these_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [*QUICK, "--epochs=1", "--name=mine", "--keep.minutes=0", "--resume=auto"]
    with monkeypatch.context() as patch:
        killed_at(4, patch)
        with pytest.raises(Killed):
            train.main(options)
    train.main(options)
    assert [path.name for path in (tmp_path / "runs" / "mine").iterdir()] == ["0000"]
    assert (tmp_path / "runs" / "mine" / "0000" / "result.json").is_file()


def test_the_moving_average_is_what_gets_evaluated_and_saved_beside_the_weights(tmp_path, capsys):
    result = run(tmp_path / "run", *KEPT)
    last = tmp_path / "run" / "last"
    plain, average = (load_file(last / f"{name}.safetensors") for name in ("model", "ema"))
    assert plain.keys() == average.keys()
    assert any(not torch.equal(plain[name], average[name]) for name in plain)
    numbers = evaluated(capsys, tmp_path / "run", "--weights=last")
    assert numbers["loss"] == value(result, "test", "last", "loss")


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    uninterrupted, tmp_path, monkeypatch, capsys
):
    folder, write = tmp_path / "run", checkpoint.save_file

    def full(tensors, path):
        state = folder / "last" / "state.json"
        if state.exists() and json.loads(state.read_text())["step"] == 13:
            raise SafetensorError("Error while serializing: I/O error: full (os error 28)")
        write(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        arguments = [*QUICK, *KEPT, f"--run_dir={folder}"]
        assert run_program(lambda: train.main(arguments)) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: no space left on the disk for ")
    assert err.count("\n") == 1
    run(folder, *KEPT, "--resume=auto")
    weights, rows, _ = what_remains(folder)
    assert rows == uninterrupted[1]
    assert all(torch.equal(weights[name], uninterrupted[0][name]) for name in weights)


def test_two_processes_that_are_killed_go_on_to_the_same_bits(tmp_path):
    options = [*QUICK, *KEPT, "--launch.cpu=true", "--model.norm=batch"]
    launch(TWO, "classification.train", *options, f"--run_dir={tmp_path / 'whole'}")
    arguments = (*options, f"--run_dir={tmp_path / 'killed'}", "--resume=auto")
    process = launched(TWO, "classification.train", *arguments)
    state = tmp_path / "killed" / "last" / "state.json"
    for _ in range(3000):
        with suppress(OSError):
            if json.loads(state.read_text())["step"] >= 11 or process.poll() is not None:
                break
        time.sleep(0.02)
    kill_all(process)
    assert not (tmp_path / "killed" / "result.json").exists()
    launch(TWO, "classification.train", *arguments)
    whole, killed = (what_remains(tmp_path / name) for name in ("whole", "killed"))
    assert killed[1:] == whole[1:]
    assert all(torch.equal(killed[0][name], whole[0][name]) for name in whole[0])
