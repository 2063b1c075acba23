"""Runs that begin with the weights of another, norms swapped or not, and with a backbone's."""

import json

import pytest
import torch
from safetensors.torch import load_file

from knorm.training.mistakes import run_program
from segmentation import train
from segmentation.evaluation import load_net
from tests.classification.runs import run as classify
from tests.classification.runs import value
from tests.segmentation.runs import evaluated, quick, run

STILL = ["--steps=1", "--epochs=null", "--optim.lr=1e-12", "--optim.weight_decay=0", "--examples=0"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run with group norm, and with a moving average of its weights."""
    folder = tmp_path_factory.mktemp("runs") / "base"
    run(folder, "--model.norm=group", "--ema_decay=0.5", "--epochs=1", "--examples=0")
    return folder


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """A run of classification with a net of the backbone's width."""
    folder = tmp_path_factory.mktemp("runs") / "classified"
    more = ["--model.options.width=0.125", "--data.name=synthetic", "--data.synthetic.train=64"]
    classify(folder, "--epochs=1", "--model.norm=group", "--batch_size=32", *more)
    return folder


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-8)


def test_a_run_begins_with_the_weights_that_another_was_evaluated_with(base, tmp_path):
    begin = [f"--model.weights={base}", "--model.norm=group"]
    run(tmp_path / "tuned", *STILL, *begin)
    average = load_file(base / "best" / "ema.safetensors")
    assert_close(load_file(tmp_path / "tuned" / "last" / "model.safetensors"), average)
    source = json.loads((tmp_path / "tuned" / "source.json").read_text())
    assert (source["run"], source["weights"]) == (str(base), "best")


def test_norms_are_swapped_after_loading(base, tmp_path, capsys):
    begin = [f"--model.weights={base}", "--model.norm=group", "--model.swap=kernel"]
    result = run(tmp_path / "tuned", *STILL, *begin)
    assert (tmp_path / "tuned" / "swap.txt").read_text().startswith("kernel: ")
    loaded = load_net(base, swap="kernel").net.state_dict()
    assert_close(load_file(tmp_path / "tuned" / "last" / "model.safetensors"), loaded)
    numbers = evaluated(capsys, tmp_path / "tuned", "--weights=last")
    assert numbers["swap"] == "kernel"
    assert numbers["loss"] == value(result, "test", "last", "loss")


def test_a_backbone_begins_with_the_weights_of_a_run_of_classification(classified, tmp_path):
    run(tmp_path / "run", *STILL, f"--backbone_weights={classified}", "--model.norm=group")
    ours = load_file(tmp_path / "run" / "last" / "model.safetensors")
    theirs = load_file(classified / "best" / "model.safetensors")
    for tensors in (ours, theirs):
        for name in [name for name in tensors if not name.startswith("features.")]:
            del tensors[name]
    assert_close(ours, theirs)
    source = json.loads((tmp_path / "run" / "source.json").read_text())
    assert source["backbone"] == str(classified)


def test_norms_of_a_backbone_that_begins_with_weights_are_swapped_after_loading(
    classified, tmp_path
):
    begin = [f"--backbone_weights={classified}", "--model.norm=group", "--model.swap=kernel"]
    run(tmp_path / "run", *STILL, *begin)
    assert (tmp_path / "run" / "swap.txt").read_text().startswith("kernel: ")
    ours = load_file(tmp_path / "run" / "last" / "model.safetensors")
    theirs = load_file(classified / "best" / "model.safetensors")
    name = "features.block1.body.unit1.conv.weight"
    torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-8)


MISTAKES = {
    "no folder": (["--model.weights=nowhere"], "model.weights: nowhere is no run folder"),
    "another norm": (["--model.weights={base}"], "model.norm group, not kernel"),
    "another width": (
        ["--model.weights={base}", "--model.norm=group", "--model.options.head_channels=9"],
        "/config.yaml gives them as they were",
    ),
    "no backbone": (["--backbone_weights=nowhere.pth"], "backbone_weights nowhere.pth"),
    "a backbone of another width": (
        [
            "--backbone_weights={classified}",
            "--model.norm=group",
            "--model.options.backbone_options.width=0.25",
        ],
        "is (8, 8, 3, 3) in the state dict, (16, 16, 3, 3) in the net",
    ),
    "a backbone from a run without weights": (["--backbone_weights={empty}"], "backbone_weights "),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line_and_exit_code_2(case, base, classified, tmp_path, capsys):
    arguments, message = MISTAKES[case]
    (tmp_path / "empty").mkdir()
    places = {"base": base, "classified": classified, "empty": tmp_path / "empty"}
    given = quick(tmp_path / "new", *(argument.format(**places) for argument in arguments))
    assert run_program(lambda: train.main(given)) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()
