"""Runs of segmentation that are killed and go on."""

import json
import time
from contextlib import suppress

import pytest
import torch

from knorm.training.run import Run
from tests.classification.runs import (
    TWO,
    Killed,
    kill_all,
    killed_at,
    launch,
    launched,
    what_remains,
)
from tests.segmentation.runs import quick, run

KEPT = [
    "--model.options.aux=true",
    "--model.dropout_p=0.1",
    "--augment.distortion.probability=0.5",
    "--loss.mean=batch",
    "--head_rate=3",
    "--ema_decay=0.9",
    "--keep.minutes=0",
    "--examples=0",
]
STEPS = ["--steps=5", "--epochs=null"]  # an epoch and two thirds


def assert_same(folder, whole):
    weights, log, results = what_remains(folder)
    assert (log, results) == whole[1:]
    assert weights.keys() == whole[0].keys()
    assert {name.split("/")[0] for name in weights} == {"best", "last"}
    assert all(torch.equal(weights[name], whole[0][name]) for name in weights)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    run(folder, *KEPT, *STEPS, "--accumulation=2")
    return what_remains(folder)


@pytest.mark.parametrize("step", [1, 3, 4, 5], ids=lambda step: f"after step {step}")
def test_a_killed_run_goes_on_to_the_same_bits(step, uninterrupted, tmp_path, monkeypatch):
    arguments = [*KEPT, *STEPS, "--accumulation=2", "--resume=auto"]
    with monkeypatch.context() as patch:
        killed_at(step, patch)
        with pytest.raises(Killed):
            run(tmp_path / "run", *arguments)
    run(tmp_path / "run", *arguments)
    assert_same(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_run_killed_while_it_records_an_epoch_goes_on_to_the_same_bits(
    name, uninterrupted, tmp_path, monkeypatch
):
    save = Run.save

    def die(run, what, trainer):
        if what == name and trainer.step == 3 and len(run.rows) == 1:
            raise Killed
        save(run, what, trainer)

    arguments = [*KEPT, *STEPS, "--accumulation=2", "--resume=auto"]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", die)
        with pytest.raises(Killed):
            run(tmp_path / "run", *arguments)
    run(tmp_path / "run", *arguments)
    assert_same(tmp_path / "run", uninterrupted)


def test_two_processes_that_are_killed_go_on_to_the_same_bits(tmp_path):
    options = [*KEPT, "--epochs=6", "--model.norm=batch"]
    launch(TWO, "segmentation.train", *quick(tmp_path / "whole", *options))
    arguments = quick(tmp_path / "killed", *options, "--resume=auto")
    process = launched(TWO, "segmentation.train", *arguments)
    state = tmp_path / "killed" / "last" / "state.json"
    for _ in range(6000):
        with suppress(OSError):
            if json.loads(state.read_text())["step"] >= 5 or process.poll() is not None:
                break
        time.sleep(0.01)
    kill_all(process)
    assert not (tmp_path / "killed" / "result.json").exists()
    launch(TWO, "segmentation.train", *arguments)
    assert_same(tmp_path / "killed", what_remains(tmp_path / "whole"))
