import io

import pytest
from rich.console import Console

from knorm.training.progress import Progress, in_words

ROW = {
    "epoch": 1,
    "lr": 0.05,
    "train.loss": 1.0,
    "val.loss": 2.0,
    "val.top1": 0.5,
    "val.count": 10,
    "samples_per_second": 1234.5,
}


def test_an_epoch_is_one_plain_line_where_there_is_no_terminal(capsys):
    with Progress(epochs=2, steps=3, unit="img", enabled=True) as progress:
        for _ in range(3):
            progress.step(lambda: pytest.fail("nothing is shown, so nothing is waited for"))
        progress.end_epoch(ROW)
    line = "epoch 1/2  train loss 1.0000  val loss 2.0000 top1 0.5000  lr 0.05  1234 img/s  ETA "
    out = capsys.readouterr().out
    assert out.startswith(line)
    assert out.count("\n") == 1


def test_long_epochs_are_reported_in_between(capsys):
    progress = Progress(epochs=1, steps=3, unit="img", enabled=True)
    progress.interval = 0
    progress.step(lambda: {"loss": 0.25})
    assert capsys.readouterr().out.startswith("epoch 1/1 step 1/3  loss 0.2500  ETA ")


def test_only_one_process_prints(capsys):
    progress = Progress(epochs=1, steps=3, unit="img", enabled=False)
    progress.interval = 0
    progress.step(dict)
    progress.end_epoch(ROW)
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    screen = io.StringIO()
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        "knorm.training.progress.Console",
        lambda **options: Console(**options | {"file": screen, "force_terminal": True}),
    )
    with Progress(epochs=1, steps=2, unit="img", enabled=True) as progress:
        progress.interval = 0
        progress.step(lambda: {"loss": 0.25})
        assert progress.bar is not None
        assert progress.bar.tasks[0].completed == 1
        progress.end_epoch(ROW)
    assert "━" in screen.getvalue()
    assert "train loss 1.0000" in screen.getvalue()


def test_each_split_is_named_once():
    words = in_words({"train.loss": 1.0, "train.top1": 0.5, "val.loss": 2.0})
    assert words == "train loss 1.0000 top1 0.5000  val loss 2.0000"
