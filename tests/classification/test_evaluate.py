"""With real launches on the CPU: few, with many checks each, for each takes seconds to start."""

import json
import sys

import pytest

from classification import evaluate, train
from knorm.training.mistakes import run_program
from tests.classification.awkward_sizes import SIZES
from tests.classification.runs import TWO, launch

SETTINGS = [
    "--model.options.width=0.25",
    "--model.dropout_p=0",
    "--schedule.warmup_epochs=0",
    "--epochs=2",
    "--eval_batch_size=50",
    "--launch.cpu=true",
    "--optim.lr=0.01",
    "--data.limit=320",
    "--penalty.weight_l2=1e-4",
    "--penalty.activation_l1=1e-4",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two processes."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    more = ["--launch.processes=2", "--test_flip=true", f"--run_dir={folder}"]
    launch(TWO, "classification.train", *SETTINGS, *more)
    return folder


def read(folder, name):
    return json.loads((folder / name).read_text())


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_make_one_run(folder):
    environment = read(folder, "environment.json")
    assert (environment["processes"], environment["distributed"]) == (2, "MULTI_CPU")
    assert not (folder.parent / "runs").exists()
    assert [row["step"] for row in rows(folder)] == [10, 20]
    assert rows(folder)[1]["train.loss"] < rows(folder)[0]["train.loss"]


def test_one_process_evaluates_their_weights_to_the_very_same_numbers(folder, capsys):
    evaluate.main([str(folder), "--weights", "best", "--cpu"])
    alone = json.loads(capsys.readouterr().out)
    expected = {
        row["metric"]: row["value"]
        for row in read(folder, "result.json")["results"]
        if (row["split"], row["weights"]) == ("test", "best")
    }
    assert {name: alone[name] for name in expected} == expected
    assert "top1_flip" in expected


def test_three_processes_evaluate_them_to_the_very_same_numbers(folder, capsys):
    three = [*TWO, "--num_processes", "3"]
    out = launch(three, "classification.evaluate", folder, "--split", "val", "--cpu")
    evaluate.main([str(folder), "--split", "val", "--cpu"])
    assert out == capsys.readouterr().out


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same run by one process, and without evaluation by mirror images."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    train.main([*SETTINGS, f"--run_dir={folder}"])
    return folder


def test_evaluation_by_mirror_images_is_a_number_beside_the_others(alone, capsys):
    capsys.readouterr()
    told = []
    for more in ([], ["--test_flip"]):
        evaluate.main([str(alone), "--split", "val", "--cpu", *more])
        told.append(json.loads(capsys.readouterr().out))
    assert 0 < told[1].pop("top1_flip") <= 1
    assert told[0] == told[1]


def test_one_process_trains_to_the_numbers_of_two(folder, alone):
    """Up to rounding: gradients are summed in another order."""
    for one, two in zip(rows(alone), rows(folder), strict=True):
        assert one["lr"] == two["lr"]
    first, second = rows(alone)[0], rows(folder)[0]
    assert first["train.loss"] == pytest.approx(second["train.loss"], rel=1e-3)
    assert first["train.penalty"] == pytest.approx(second["train.penalty"], rel=1e-3)
    assert first["train.penalty"] > 0.01


def test_awkward_sizes_give_the_very_same_numbers_at_1_2_and_3_processes():
    program = "tests.classification.awkward_sizes"
    alone = json.loads(launch([sys.executable], program))
    assert {size: numbers["count"] for size, numbers in alone.items()} == {
        str(size): size for size in SIZES
    }
    for num_processes in ("2", "3"):
        out = launch([*TWO, "--num_processes", num_processes], program)
        assert json.loads(out) == alone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run_dir"),
        (["nowhere"], "nowhere is no run folder"),
        (["taken", "--split=train"], "invalid choice: 'train'"),
        (["taken", "--wieghts=best"], "did you mean '--weights'?"),
        (["taken", "--eval_stats=exact"], "invalid choice: 'exact'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, capsys):
    assert run_program(lambda: evaluate.main(arguments)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
