"""Short training runs, and what is read from their folders."""

import json

from classification import evaluate, train

QUICK = ["--model.options.width=0.25", "--data.limit=300", "--schedule.warmup_epochs=0"]


def run(folder, *arguments):
    train.main([*QUICK, f"--run_dir={folder}", *arguments])
    return json.loads((folder / "result.json").read_text())


def value(result, split, weights, metric):
    (row,) = (
        row
        for row in result["results"]
        if (row["split"], row["weights"], row["metric"]) == (split, weights, metric)
    )
    return row["value"]


def evaluated(capsys, *arguments):
    capsys.readouterr()
    evaluate.main([str(argument) for argument in arguments])
    return json.loads(capsys.readouterr().out)
