import csv
import json
from types import SimpleNamespace

import pytest
from accelerate import Accelerator
from torch import nn

from knorm.training import checkpoint
from knorm.training.interrupt import Interrupted
from knorm.training.mistakes import UserMistakeError
from knorm.training.run import Run, check_folder, command_line, create_run, make_folder, to_json


def trainer_at(epoch):
    return SimpleNamespace(net=nn.Linear(1, 1), epoch=epoch, step=10 * epoch, seed=0)


@pytest.fixture
def run(tmp_path):
    return create_run(
        Accelerator(cpu=True), None, tmp_path, files={"command.txt": "x\n"}, facts={"classes": "ab"}
    )


def test_runs_are_numbered_and_never_share_a_folder(tmp_path):
    assert make_folder(None, tmp_path / "runs").name == "0000"
    (tmp_path / "runs" / "0007").mkdir()
    (tmp_path / "runs" / "notes").mkdir()
    assert make_folder(None, tmp_path / "runs").name == "0008"


def test_a_folder_with_anything_in_it_is_refused(tmp_path):
    assert check_folder(str(tmp_path)) == tmp_path
    assert check_folder(None) is None
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserMistakeError, match="exists already"):
            check_folder(str(taken))


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
    states = {name: checkpoint.load(run.folder / name)[1] for name in ("best", "last")}
    assert {name: state["epoch"] for name, state in states.items()} == {"best": 2, "last": 4}
    assert states["best"]["classes"] == "ab"


def test_without_a_score_there_are_no_best_weights(run):
    run.record(trainer_at(1), {"epoch": 1}, None)
    assert not (run.folder / "best").exists()


def test_weights_come_back_into_the_net(run):
    trainer = trainer_at(1)
    run.save("last", trainer)
    saved = trainer.net.weight.item()
    nn.init.zeros_(trainer.net.weight)
    run.load("last", trainer)
    assert trainer.net.weight.item() == saved


def test_a_stopped_run_saves_its_last_step(run, capsys):
    with pytest.raises(Interrupted), run.saved_when_stopped(trainer_at(3)):
        raise Interrupted(2)
    assert checkpoint.load(run.folder / "last")[1]["step"] == 30
    assert "stopped by SIGINT after step 30" in capsys.readouterr().out


def test_processes_other_than_the_first_write_nothing(tmp_path):
    other = Run(tmp_path, SimpleNamespace(is_main_process=False), {})
    other.record(trainer_at(1), {"epoch": 1}, (1.0,))
    other.write("result.json", "{}")
    assert not list(tmp_path.iterdir())
    assert other.best == {"epoch": 1}


def test_json_is_strict():
    assert to_json({"a": [float("inf"), 1.0], "b": (2,)}) == '{"a": [null, 1.0], "b": [2]}'


def test_a_command_can_be_pasted_into_a_shell():
    line = command_line("pipeline.train", ["--name", "two words"])
    assert line == "python -m pipeline.train --name 'two words'\n"
