import csv
import json
import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import SGD

from knorm.training import checkpoint
from knorm.training.interrupt import Interrupted
from knorm.training.loop import Trainer
from knorm.training.mistakes import UserMistakeError
from knorm.training.run import Run, command_line, make_folder, open_folder, to_json
from knorm.training.settings import Keep


def trainer_at(epoch):
    net = nn.Linear(1, 1)
    accelerator = Accelerator(cpu=True)
    return Trainer(
        accelerator=accelerator,
        model=net,
        optimizer=SGD(net.parameters(), lr=0.1),
        rate_at=lambda step: 0.1,
        seed=0,
        steps_per_epoch=10,
        steps=1000,
        step=10 * epoch,
    )


@pytest.fixture
def run(tmp_path):
    accelerator = Accelerator(cpu=True)
    files = {"command.txt": "x\n", "config.yaml": ""}
    with open_folder(accelerator, None, tmp_path, files) as folder:
        return Run(folder, accelerator, {"classes": "ab"})


def test_a_folder_that_goes_on_keeps_all_commands(run, tmp_path):
    files = {"command.txt": "y\n", "config.yaml": "other"}
    with open_folder(run.accelerator, run.folder, tmp_path, files) as folder:
        assert folder == run.folder
    assert (run.folder / "command.txt").read_text() == "x\ny\n"
    assert (run.folder / "config.yaml").read_text() == ""


def test_a_folder_is_open_to_one_job_at_a_time(run, tmp_path):
    def opened():
        return open_folder(run.accelerator, run.folder, tmp_path, {"command.txt": "y\n"})

    with opened(), pytest.raises(UserMistakeError, match="is in use by process"), opened():
        pytest.fail("two jobs are inside")
    with opened():
        assert (run.folder / "command.txt").read_text() == "x\ny\ny\n"


def test_runs_are_numbered_and_never_share_a_folder(tmp_path):
    assert make_folder(None, tmp_path / "runs").name == "0000"
    (tmp_path / "runs" / "0007").mkdir()
    (tmp_path / "runs" / "notes").mkdir()
    assert make_folder(None, tmp_path / "runs").name == "0008"


def test_every_epoch_is_a_row_of_both_tables(run):
    for epoch in (1, 2):
        run.record(trainer_at(epoch), {"epoch": epoch, "loss": float("nan")}, None)
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"epoch": 1, "loss": None},
        {"epoch": 2, "loss": None},
    ]
    with (run.folder / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    assert (run.folder / "command.txt").read_text() == "x\n"


def test_the_first_of_the_highest_scores_is_the_best(run):
    for epoch, score in enumerate([(0.5, -1.0), (0.8, -2.0), (0.8, -2.0), (0.8, -3.0)], start=1):
        run.record(trainer_at(epoch), {"epoch": epoch}, score)
    assert run.best == {"epoch": 2}
    states = {name: checkpoint.load(run.folder / name).state for name in ("best", "last")}
    assert {name: state["epoch"] for name, state in states.items()} == {"best": 2, "last": 4}
    assert states["best"]["classes"] == "ab"


def test_a_score_that_is_no_number_is_never_the_best(run):
    for epoch, score in enumerate([(math.nan, -1.0), (0.5, -1.0), (math.nan, 0.0)], start=1):
        run.record(trainer_at(epoch), {"epoch": epoch}, score)
        assert run.best == (None if epoch == 1 else {"epoch": 2})
        assert (run.folder / "best").exists() == (epoch > 1)


def test_without_a_score_there_are_no_best_weights(run):
    run.record(trainer_at(1), {"epoch": 1}, None)
    assert not (run.folder / "best").exists()


def test_weights_come_back_into_the_net(run):
    trainer = trainer_at(1)
    run.save("last", trainer)
    saved = trainer.net.weight.item()
    nn.init.zeros_(trainer.net.weight)
    run.load("last", trainer.net)
    assert trainer.net.weight.item() == saved


def test_a_run_that_goes_on_knows_its_rows_its_best_and_its_time(run):
    first = trainer_at(1)
    run.record(first, {"epoch": 1, "step": 10}, (0.5,))
    run.started -= 100
    run.save("last", first)
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write("of an epoch that was recorded but not saved")
    again = Run(run.folder, run.accelerator, {"classes": "ab"})
    trainer = trainer_at(0)
    again.resume(trainer)
    assert (trainer.step, trainer.epoch) == (10, 1)
    assert torch.equal(trainer.net.weight, first.net.weight)
    assert (again.rows, again.best, again.best_score) == (run.rows, run.rows[0], (0.5,))
    assert again.seconds >= 100
    assert json.loads((run.folder / "metrics.jsonl").read_text()) == run.rows[0]


def test_a_run_whose_data_changed_does_not_go_on(run):
    run.save("last", trainer_at(1))
    again = Run(run.folder, run.accelerator, {"classes": "abc"})
    with pytest.raises(UserMistakeError, match="its classes was ab, now it is abc"):
        again.resume(trainer_at(0))


@pytest.mark.parametrize(("minutes", "saves"), [(0.0, True), (10.0, False)])
def test_last_is_saved_in_mid_epoch_when_it_is_time(run, minutes, saves):
    run.keep = Keep(minutes=minutes)
    run.after_step(trainer_at(0.3))
    assert (run.folder / "last").exists() == saves


def test_every_so_many_epochs_are_kept_for_good(run):
    run.keep = Keep(every=2)
    for epoch in range(1, 6):
        run.record(trainer_at(epoch), {"epoch": epoch}, None)
    kept = sorted(path.name for path in run.folder.glob("epoch-*"))
    assert kept == ["epoch-0002", "epoch-0004"]
    assert checkpoint.load(run.folder / "epoch-0002").state["epoch"] == 2


def test_a_stopped_run_saves_its_last_step(run, capsys):
    with pytest.raises(Interrupted), run.saved_when_stopped(trainer_at(3)):
        raise Interrupted(2)
    assert checkpoint.load(run.folder / "last").state["step"] == 30
    assert "stopped by SIGINT after step 30" in capsys.readouterr().out


def test_a_run_stopped_within_a_step_saves_nothing(run, capsys):
    with pytest.raises(Interrupted), run.saved_when_stopped(trainer_at(3)):
        raise Interrupted(2, whole=False)
    assert not (run.folder / "last").exists()
    assert "is of an earlier step" in capsys.readouterr().out


def test_a_best_that_could_not_be_written_is_made_of_the_last(run):
    trainer = trainer_at(1)
    run.record(trainer, {"epoch": 1, "step": 10}, (0.5, -float("inf")))
    shutil.rmtree(run.folder / "best")
    again = Run(run.folder, run.accelerator, run.facts)
    again.resume(trainer_at(0))
    saved = checkpoint.load(run.folder / "best")
    assert torch.equal(saved.evaluated["weight"], trainer.net.weight)
    assert again.best_score == (0.5, -float("inf"))


def test_processes_other_than_the_first_write_nothing(tmp_path):
    other = Run(tmp_path, SimpleNamespace(is_main_process=False), {})
    other.record(trainer_at(1), {"epoch": 1}, (1.0,))
    other.write("result.json", "{}")
    other.after_step(trainer_at(1))
    assert not list(tmp_path.iterdir())
    assert other.best == {"epoch": 1}


def test_json_is_strict():
    assert to_json({"a": [float("inf"), 1.0], "b": (2,)}) == '{"a": [null, 1.0], "b": [2]}'


def test_a_command_can_be_pasted_into_a_shell():
    line = command_line("pipeline.train", ["--name", "two words"])
    assert line == "python -m pipeline.train --name 'two words'\n"
