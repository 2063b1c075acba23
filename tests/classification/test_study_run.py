"""Studies from end to end: what is run, what is left, what a kill and a failure leave behind."""

import csv
import re
import sys
import time
from functools import partial

import pytest

from classification import study, study_run
from knorm.training.files import read_text
from knorm.training.mistakes import DivergedError, run_program
from tests.classification.runs import launched
from tests.classification.studies import call, results, write

TIMES = re.compile(r"\d+:\d\d:\d\d \| \d+( ± \d+)? \|$", re.MULTILINE)


def report_of(file, *options):
    """The report's Markdown and CSV, without times and memory."""
    call("report", file, *options)
    out = file.parent / "runs" / "tiny" / "report"
    texts = [out.with_suffix(ending).read_text() for ending in (".md", ".csv")]
    markdown, table = (text.replace(str(file), "FILE") for text in texts)
    rows = list(csv.DictReader(table.splitlines()))
    timed = ("training_seconds", "memory_bytes")
    cells = [{name: row[name] for name in row if name not in timed} for row in rows]
    return TIMES.sub("", markdown), cells


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The tiny study, never stopped."""
    file = write(tmp_path_factory.mktemp("whole"))
    call("run", file)
    return file


def test_every_row_is_run_with_every_seed_in_an_ordinary_folder(whole):
    folder = whole.parent / "runs" / "tiny"
    rows = ("norm=batch-lr=0.1", "norm=batch", "norm=none")
    assert results(folder) == [f"{row}/seed-{seed}" for row in rows for seed in (0, 1)]
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "report.md", "last"):
        assert (folder / "norm=none" / "seed-1" / name).exists()


def test_what_is_done_is_not_done_again(whole, capsys):
    folder = whole.parent / "runs" / "tiny"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/result.json")}
    call("run", whole)
    assert "6 runs in" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*/*/result.json")}


def test_a_study_that_was_killed_ends_with_the_same_report(whole, tmp_path):
    file = write(tmp_path)
    process = begin(file)
    wait_for(lambda: any((tmp_path / "runs").glob("tiny/norm=batch/seed-1/last")), process)
    process.kill()
    process.communicate()
    assert 1 <= len(results(tmp_path / "runs")) < 6
    call("run", file)
    assert report_of(file) == report_of(whole)
    for name in ("bars", "parameters", "curves"):
        pictures = [path.parent / f"runs/tiny/report-1-{name}.png" for path in (whole, file)]
        assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_two_workers_at_once_do_every_run_once(tmp_path):
    file = write(tmp_path)
    workers = [begin(file), begin(file)]
    outputs = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert len(results(tmp_path / "runs")) == 6
    for run in (tmp_path / "runs").glob("tiny/*/seed-*"):
        assert read_text(run / "command.txt").count("classification.study run") == 1
    assert "at work in another process" in outputs[0][0] + outputs[1][0]


def test_a_run_that_fails_does_not_stop_the_rest(tmp_path, monkeypatch, capsys):
    train = study_run.train

    def fail(work, place, command):
        if work.recipe.optim.lr == 0.1:
            raise DivergedError("the loss left all bounds in epoch 1: lower optim.lr")
        if work.recipe.seed == 1 and work.recipe.model.norm == "none":
            raise RuntimeError("a part broke")
        return train(work, place, command)

    file = write(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(study_run, "train", fail)
        with pytest.raises(SystemExit) as end:
            call("run", file)
    assert end.value.code == 1
    said = capsys.readouterr().out
    assert "6 runs" in said
    assert "3 done, 3 failed" in said
    folder = tmp_path / "runs" / "tiny"
    assert len(results(folder)) == 3
    lines = (folder / "norm=batch-lr=0.1" / "seed-0" / "failed.txt").read_text()
    assert lines == "the loss left all bounds in epoch 1: lower optim.lr\n"
    broken = (folder / "norm=none" / "seed-1" / "failed.txt").read_text()
    assert broken.startswith("Traceback")
    assert broken.endswith("RuntimeError: a part broke\n")
    call("status", file)
    assert "failed" in capsys.readouterr().out
    call("run", file)
    assert len(results(folder)) == 6
    assert not list(folder.rglob("failed.txt"))


def test_a_signal_stops_the_study_after_saving(tmp_path):
    file = write(tmp_path)
    process = begin(file, "--epochs", 200)
    wait_for(lambda: any((tmp_path / "runs").glob("tiny/norm=batch/seed-0/last")), process)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "saved" in out
    assert results(tmp_path / "runs") == []
    assert not list((tmp_path / "runs").rglob("failed.txt"))


def test_a_row_that_cannot_be_built_is_told_before_anything_trains(tmp_path, capsys):
    rows = [{}, {"set": {"model.options.widht": 1}}]
    file = write(tmp_path, rows=rows, baseline=None)
    assert run_program(lambda: call("run", file)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: row 2, widht=1: model.options.widht: knresnet13 takes no such")
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_another_row_is_refused(whole, tmp_path, capsys):
    file = write(tmp_path)
    for options in (["--optim.weight_decay", 0.1], ["--epochs", 3]):
        command = ["run", str(file), "--run_dir", str(whole.parent / "runs"), *map(str, options)]
        assert run_program(partial(study.main, command)) == 2
        error = capsys.readouterr().err
        assert "seed-0 is no run of this study; of row 1 it differs in" in error
        assert options[0].removeprefix("--") in error


def begin(file, *options):
    """The study in a process of its own."""
    run_dir = ["--run_dir", file.parent / "runs"]
    return launched([sys.executable], "classification.study", "run", file, *run_dir, *options)


def wait_for(there, process):
    """Until that is so."""
    end = time.monotonic() + 120
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
