import pytest

from classification import rehearsal, train
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
