"""Small studies on the digits."""

import json
from functools import cache
from pathlib import Path

import yaml

from classification import study
from classification.study_file import STUDIES, Wish, find_study, read_study
from classification.study_rows import Study
from knorm.training.run import command_line
from knorm.training.run_settings import settings_of

TINY = {
    "title": "Norms of a small net",
    "about": "Which norm learns the digits.",
    "seeds": 2,
    "recipe": {
        "data": {"name": "digits", "limit": 200},
        "model": {"name": "knresnet13", "options": {"width": 0.125}},
        "optim": {"lr": 0.05},
        "batch_size": 32,
        "epochs": 2,
        "keep": {"minutes": 0},
        "launch": {"threads": 1},
    },
    "rows": [
        {"set": {"model.norm": "batch"}, "published": {"model": "bn"}},
        {"set": {"model.norm": "none"}, "published": {"model": "plain"}},
        {"set": {"model.norm": "batch", "optim.lr": 0.1}},
    ],
    "baseline": {"model.norm": "batch", "optim.lr": 0.05},
    "published": {"file": "digits.csv", "metric": "accuracy", "factor": 100, "parameters": "size"},
    "budgets": {"small": {"set": {"epochs": 1}, "only": {"model.norm": "batch"}, "seeds": 1}},
}
LINES = """model,metric,value
bn,accuracy,0.913
bn,size,12345
plain,accuracy,0.87
plain,size,33000
"""

NAMES = sorted(path.stem for path in STUDIES.glob("*.yaml"))


@cache
def ours(name: str, budget: str | None) -> Study:
    """A study of ours."""
    return read_study(find_study(name), Wish(budget))


def write(folder: Path, **changes) -> Path:
    """The tiny study with other parts, and its published table."""
    content = {key: value for key, value in {**TINY, **changes}.items() if value is not None}
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    (folder / "digits.csv").write_text(LINES)
    return file


def call(command, file, *options):
    """One of the commands, with runs beside the file."""
    study.main([command, str(file), "--run_dir", str(file.parent / "runs"), *map(str, options)])


def results(folder: Path) -> list[str]:
    """The finished runs of a study's folder, as row/seed."""
    runs = (path.parent for path in folder.rglob("result.json"))
    return sorted(run.relative_to(folder).as_posix() for run in runs)


def made_up(
    file: Path, tops: dict[tuple[int, int], float], wish: Wish | None = None, command: str = ""
) -> Path:
    """The study's folder with finished runs in it that nobody trained: (row, seed) -> top-1.

    `command` is what followed the study's name where they were made.
    """
    argv = ["run", str(file), *command.split(), "--run_dir", "elsewhere"]
    study = read_study(file, wish)
    folder = file.parent / "runs" / study.name
    for (number, seed), top1 in tops.items():
        row = next(row for row in study.rows if row.number == number)
        recipe = row.at(seed, folder)
        run = Path(recipe.run_dir or "")
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(settings_of(recipe))
        (run / "command.txt").write_text(command_line("classification.study", argv))
        (run / "environment.json").write_text(json.dumps(SURROUNDINGS))
        epoch = {"epoch": recipe.epochs, "step": 12, "seconds": 30.0, "val.top1": top1}
        (run / "metrics.jsonl").write_text(json.dumps(epoch) + "\n")
        scores = [
            {"split": split, "weights": weights, "metric": "top1", "value": value, "count": 200}
            for split, weights, value in (
                ("val", "last", top1),
                ("test", "last", top1),
                ("test", "best", top1 + 0.01),
            )
        ]
        result = RESULT | {"seed": seed, "epochs": recipe.epochs, "results": scores}
        (run / "result.json").write_text(json.dumps(result))
    return folder


SURROUNDINGS = {
    "python": "3.11.7",
    "versions": {"knorm": "0.1.0", "torch": "2.15.0"},
    "device": "cpu (x86_64)",
    "processes": 1,
    "threads": 1,
    "git": {"commit": "0123456789abcdef", "changed": False},
}
RESULT = {
    "name": "tiny",
    "parameters": 12345,
    "macs": 2_500_000,
    "mult_adds": 2_600_000,
    "training_seconds": 30.0,
    "seconds": 40.0,
    "samples_per_second": 100.0,
    "memory_bytes": 2**30,
}
