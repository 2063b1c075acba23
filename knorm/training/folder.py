"""A run folder as its name on the command line: what is in it, and whether it is one."""

from collections.abc import Sequence
from pathlib import Path

from knorm.training.mistakes import UserMistakeError

CONFIG, COMMAND, ENVIRONMENT = "config.yaml", "command.txt", "environment.json"
RESULT = "result.json"
LAST, BEST = "last", "best"
AUTO = "auto"


def existing(resume: str) -> Path:
    """The run folder of that name."""
    if not has_config(Path(resume)):
        raise UserMistakeError(
            f"--resume {resume} is no run folder: it holds no {CONFIG}; "
            "give a folder that a run has made, or `auto`"
        )
    return Path(resume)


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
        if folder not in (AUTO, "", "null"):
            return [f"--config={existing(folder) / CONFIG}", *words]
    return words
