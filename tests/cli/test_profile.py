import json

import pytest

from knorm.cli import profile
from knorm.training.mistakes import UserMistakeError

TINY = ["knresnet13", "--image_size", "16", "--batch_size", "2", "--rounds", "1", "--cpu"]
TINY += ["--option", "width=0.125"]


def test_two_norms_are_measured_side_by_side(capsys, tmp_path):
    trace = tmp_path / "traces" / "step.json"
    profile.main([*TINY, "--against", "batch", "--trace", str(trace)])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert lines[1][:2] == ["batch", "2x3x16x16"]
    rows = {line[0]: line[1:] for line in lines[3:5]}
    assert list(rows) == ["kernel", "batch"]
    assert all(float(number.replace(",", "")) > 0 for number in rows["kernel"])
    assert rows["batch"][6] == "0.00"
    assert rows["kernel"][5] == rows["batch"][5]
    assert [line[:4] for line in lines[5:7]] == [
        ["kernel", "over", "batch,", "forward:"],
        ["kernel", "over", "batch,", "step:"],
    ]
    assert json.loads(trace.read_text())["traceEvents"]


def test_a_net_for_segmentation_is_measured(capsys):
    small = ["--image_size", "33", "--batch_size", "1", "--rounds", "1", "--cpu"]
    profile.main(["fcn", *small, "--option", "backbone=resnet8"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert lines[1][:2] == ["batch", "1x3x33x33"]
    assert float(lines[3][-2]) == 0
    with pytest.raises(UserMistakeError, match="--option aux: a net is measured without"):
        profile.main(["fcn_resnet18", *small, "--option", "aux=True"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "kernel"], "the net has this norm itself"),
        (["--against", "bach"], "did you mean 'batch'"),
        (["--rounds", "0"], "rounds must be positive"),
        (["--batch_sise", "3"], "did you mean '--batch_size'"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(UserMistakeError, match=message):
        profile.main([*TINY, *arguments])
