"""Short training runs of segmentation, and what is read from their folders."""

import json

from segmentation import evaluate, train

SCENES = [
    "--data.scenes={train: 8, val: 3, test: 1, height: 32, width: 64}",  # of train 2 to validate
    "--data.val_fraction=0.25",
]
QUICK = [
    "--model.name=fcn",
    "--model.options={backbone: knresnet13, backbone_options: {width: 0.125}, head_channels: 8}",
    "--epochs=2",
    "--batch_size=2",
    "--launch.cpu=true",
    "--loss.dice=0",
]


def quick(folder, *arguments):
    """The arguments of a run in this folder; its scenes lie beside it."""
    data = [*SCENES, f"--data.root={folder.parent / 'data'}"]
    return [*QUICK, *data, f"--run_dir={folder}", *arguments]


def run(folder, *arguments):
    train.main(quick(folder, *arguments))
    return json.loads((folder / "result.json").read_text())


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def evaluated(capsys, *arguments):
    capsys.readouterr()
    evaluate.main([str(argument) for argument in (*arguments, "--cpu")])
    return json.loads(capsys.readouterr().out)
