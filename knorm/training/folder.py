"""A run folder: what is in it, whether it is one, and its name on the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from knorm.training.files import read_json, read_json_lines
from knorm.training.mistakes import UserMistakeError

CONFIG, COMMAND, ENVIRONMENT = "config.yaml", "command.txt", "environment.json"
METRICS, RESULT = "metrics.jsonl", "result.json"
LOCK = ".lock"
LAST, BEST = "last", "best"
AUTO = "auto"

# What later commands need of these files, see `knorm.training.files.misfit`.
SURROUNDINGS = {
    "python": str,
    "versions": {"torch": str},
    "device": str,
    "processes": int,
    "threads": int,
    "git": dict | None,
}
SCORE = {"split": str, "weights": str, "metric": str, "value": float | int | None, "count": int}
OUTCOME = {
    "name": str,
    "seed": int,
    "epochs": int,
    "results": [SCORE],
    "parameters": int,
    "macs": int,
    "samples_per_second": float | int,
    "memory_bytes": int,
}
EPOCH = {"epoch": int}
MADE_AGAIN = (
    f"remove {RESULT} of that folder and give the run's command with --resume auto, which makes "
    "it again"
)


def read_environment(folder: Path) -> dict[str, Any]:
    """What the run's environment.json says; `UserMistakeError` where it is damaged."""
    return read_json(folder / ENVIRONMENT, SURROUNDINGS)


def read_result(folder: Path) -> dict[str, Any]:
    """What the finished run's result.json says; `UserMistakeError` where it is damaged."""
    return read_json(folder / RESULT, OUTCOME, MADE_AGAIN)


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The rows of the finished run's metrics.jsonl; `UserMistakeError` where it is damaged."""
    return read_json_lines(folder / METRICS, EPOCH, MADE_AGAIN)


def existing(resume: str) -> Path:
    """The run folder that `--resume` names."""
    if not resume:
        raise UserMistakeError("--resume: give a folder that a run has made, or `auto`")
    return checked(Path(resume), "--resume ")


def checked(folder: Path, option: str = "") -> Path:
    """The folder, which must be a run's; `option` is what named it."""
    if has_config(folder):
        return folder
    hint = f"give a folder that a run has made{', or `auto`' if option else ''}"
    if has_config(folder.absolute().parent):  # such as last/
        hint = f"it lies in one, {folder.parent}"
    raise UserMistakeError(f"{option}{folder} is no run folder: it holds no {CONFIG}; {hint}")


def has_config(folder: Path) -> bool:
    """Whether a run has begun there."""
    return (folder / CONFIG).is_file()


def with_resumed_config(argv: Sequence[str]) -> list[str]:
    """The arguments, with the folder's own config.yaml for `--resume FOLDER` without `--config`."""
    words = list(argv)
    for place, word in enumerate(words):
        if word == "--config" or word.startswith("--config="):
            return words
        if word == "--resume" and place + 1 < len(words):
            folder = words[place + 1]
        elif word.startswith("--resume="):
            folder = word.removeprefix("--resume=")
        else:
            continue
        if folder not in (AUTO, "null"):
            return [f"--config={existing(folder) / CONFIG}", *words]
    return words
