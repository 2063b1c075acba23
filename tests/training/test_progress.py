import io
import re

import pytest
import torch
from rich.console import Console

from knorm.training.progress import Progress, in_words

ROW = {
    "epoch": 1,
    "lr": 0.05,
    "train.loss": 1.0,
    "val.loss": 2.0,
    "val.top1": 0.5,
    "val.count": 10,
    "seconds": 1.0,
    "samples_per_second": 1234.5,
    "data_wait": 0.05,
}
SO_FAR = {"loss": 0.25, "seconds": 1.0, "samples_per_second": 77.0, "data_wait": 0.5}


def test_an_epoch_is_one_plain_line_where_there_is_no_terminal(capsys):
    with Progress(epochs=2, steps=3, unit="img", enabled=True) as progress:
        for _ in range(3):
            progress.step(lambda: pytest.fail("nothing is shown, so nothing is waited for"))
        progress.end_epoch(ROW)
    line = "epoch 1/2  train loss 1.0000  val loss 2.0000 top1 0.5000  lr 0.05  "
    line += "1234 img/s  data wait 5 %  ETA "
    out = capsys.readouterr().out
    assert out.startswith(line)
    assert out.count("\n") == 1


def test_long_epochs_are_reported_in_between(capsys):
    progress = Progress(epochs=1, steps=3, unit="img", enabled=True)
    progress.interval = 0
    progress.step(lambda: SO_FAR)
    line = "epoch 1/1 step 1/3  loss 0.2500  77 img/s  data wait 50 %  ETA "
    assert capsys.readouterr().out.startswith(line)


def test_memory_is_told_for_a_device(capsys):
    device = torch.device("cpu")
    Progress(epochs=1, steps=3, unit="img", enabled=True, device=device).end_epoch(ROW)
    assert re.search(r"data wait 5 %  [1-9]\d+ MiB  ETA ", capsys.readouterr().out)


def test_a_long_wait_for_data_is_hinted_at_once(capsys):
    progress = Progress(epochs=3, steps=3, unit="img", enabled=True)
    for wait in (0.2, 0.35, 0.4):
        progress.end_epoch(ROW | {"data_wait": wait})
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("hint: ") for line in lines] == [False, False, True, False]
    assert lines[2].startswith("hint: 35 % of the time is spent waiting for data; more workers")


def test_a_resumed_run_goes_on_in_the_middle_of_an_epoch(capsys, monkeypatch):
    clock = iter([100.0, 110.0, 120.0])
    monkeypatch.setattr("knorm.training.progress.time.monotonic", lambda: next(clock))
    progress = Progress(epochs=3, steps=4, unit="img", enabled=True, first_epoch=2, first_step=2)
    progress.interval = 15
    progress.step(lambda: SO_FAR)
    progress.step(lambda: SO_FAR)  # two steps in 20 s, and four more to do
    line = capsys.readouterr().out
    assert line.startswith("epoch 2/3 step 4/4  ")
    assert line.endswith("ETA 0:00:40\n")


def at(monkeypatch, seconds):
    monkeypatch.setattr("knorm.training.progress.time.monotonic", lambda: seconds)


def test_the_end_of_an_epoch_counts_once_an_epoch_and_not_once_a_step(monkeypatch):
    at(monkeypatch, 0)
    progress = Progress(epochs=4, steps=100, unit="img", enabled=True, first_epoch=2, first_step=98)
    for seconds in (1, 2):
        at(monkeypatch, seconds)
        progress.step(dict)
    assert progress.time_left() == "0:03:20"  # 200 steps of 1 s
    at(monkeypatch, 62)
    progress.end_epoch(ROW)  # a validation of 60 s
    assert progress.time_left() == "0:05:20"  # 200 steps and two validations


def test_a_run_that_goes_on_after_an_epochs_last_step_guesses_no_speed(monkeypatch, capsys):
    at(monkeypatch, 0)
    progress = Progress(epochs=2, steps=100, unit="img", enabled=True, first_step=100)
    at(monkeypatch, 60)
    progress.end_epoch(ROW)
    assert capsys.readouterr().out.endswith("ETA ?\n")
    at(monkeypatch, 61)
    progress.step(dict)
    assert progress.time_left() == "0:02:39"  # 99 steps of 1 s and a validation


def test_the_bar_of_a_resumed_run_does_not_start_at_zero(terminal):
    with Progress(epochs=1, steps=9, unit="img", enabled=True, first_step=5) as progress:
        assert progress.bar.tasks[0].completed == 5


def test_only_one_process_prints(capsys):
    progress = Progress(epochs=1, steps=3, unit="img", enabled=False)
    progress.interval = 0
    progress.step(dict)
    progress.end_epoch(ROW)
    assert capsys.readouterr().out == ""


@pytest.fixture
def terminal(monkeypatch, request):
    """What is shown on a terminal, of 160 columns where no other number is given."""
    screen, width = io.StringIO(), getattr(request, "param", 160)
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        "knorm.training.progress.Console",
        lambda **options: Console(
            **options | {"file": screen, "force_terminal": True, "width": width}
        ),
    )
    return screen


def test_a_terminal_gets_a_bar(terminal):
    with Progress(epochs=1, steps=2, unit="img", enabled=True) as progress:
        progress.interval = 0
        progress.step(lambda: SO_FAR)
        assert progress.bar is not None
        assert progress.bar.tasks[0].completed == 1
        progress.end_epoch(ROW)
    assert "━" in terminal.getvalue()
    assert "train loss 1.0000" in terminal.getvalue()


@pytest.mark.parametrize("terminal", [60], indirect=True)
def test_a_narrow_terminal_keeps_what_matters_most(terminal):
    with Progress(epochs=150, steps=1000, unit="img", enabled=True) as progress:
        progress.interval = 0
        progress.step(lambda: SO_FAR)
        progress.bar.refresh()
    assert re.search(r"epoch   1/150 .*1/1000.* ETA \d.* loss 0\.2500", terminal.getvalue())
    assert "━" not in terminal.getvalue()


def test_each_split_is_named_once():
    words = in_words({"train.loss": 1.0, "train.top1": 0.5, "val.loss": 2.0})
    assert words == "train loss 1.0000 top1 0.5000  val loss 2.0000"
