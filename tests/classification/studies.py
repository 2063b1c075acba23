"""Small studies on the digits."""

import json
from pathlib import Path

import yaml

from classification import study

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


def result(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())
