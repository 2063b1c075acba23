import pytest

from classification import train
from knorm.training import rehearsal
from knorm.training.mistakes import run_program
from tests.classification.runs import QUICK


def dry_run(*arguments):
    train.main([*QUICK, "--dry_run=true", *arguments])


def test_a_dry_run_prints_the_plan_and_keeps_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dry_run("--ema_decay=0.9", "--accumulation=2", "--batch_size=30")
    out = capsys.readouterr().out
    for words in (
        "129,818 parameters",
        "30 = 15 x 1 process(es) x 2 pass(es)",
        "120 steps = 12 epochs x 10",
        "0.05 cosine",
        "0.8 million per image",
        "MiB at most",
        "ms a step",
        "dry run passed",
    ):
        assert words in out
    assert not list(tmp_path.iterdir())


def test_what_is_tried_is_on_the_disk_of_the_runs_folder(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(rehearsal, "check_equal", lambda *_: seen.extend(tmp_path.iterdir()))
    dry_run(f"--run_dir={tmp_path / 'runs' / 'new'}")
    assert [path.name[:9] for path in seen] == [".dry-run-"]
    assert not list(tmp_path.iterdir())


def test_a_node_that_sees_another_disk_is_told(tmp_path, monkeypatch, capsys):
    def elsewhere(place):
        place[0] = str(tmp_path / "of another machine")

    monkeypatch.setattr(rehearsal, "broadcast_object_list", elsewhere)
    monkeypatch.setenv("RANK", "1")
    assert run_program(lambda: dry_run(f"--run_dir={tmp_path / 'new'}")) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"does not see {tmp_path} as the first process does; a run needs a folder" in err


def test_the_curve_shows_the_rate_over_the_run(capsys):
    dry_run("--schedule.warmup_epochs=6")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("curve"))
    blocks = line.split()[1]
    assert blocks[0] == blocks[-1] == "▁"
    assert "█" in blocks[25:35]


def test_weights_that_do_not_come_back_are_found(monkeypatch):
    monkeypatch.setattr(rehearsal.Run, "resume", lambda *_: None)
    with pytest.raises(RuntimeError, match="did not come back from the checkpoint"):
        dry_run()
