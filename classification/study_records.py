"""What lies in the folder of a study: which runs there are, how far they came, whose they are."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from classification.config import load_recipe
from classification.study_rows import Row, Study, decisive, settings_in
from knorm.training.checkpoint import STATE
from knorm.training.files import read_json, read_text
from knorm.training.folder import (
    COMMAND,
    CONFIG,
    LAST,
    METRICS,
    RESULT,
    has_config,
    read_epochs,
    read_result,
)
from knorm.training.mistakes import UserMistakeError
from knorm.training.recipes import is_part, leaves, read_yaml

FAILED = "failed.txt"  # in a run's folder: why it failed
ASKED = "study.json"  # in the study's folder: which options all its runs were given
READ = ("data", "augment.resized_crop")  # settings that say how images are read
State = Literal["done", "failed", "begun", "missing"]


class Found(NamedTuple):
    """A run of a study that has begun."""

    folder: Path
    row: Row
    seed: int
    settings: Mapping[str, Any]
    """all that its numbers depend on, by dotted name, as its own config.yaml says"""


def state_of(folder: Path) -> State:
    """How far the run came."""
    if (folder / RESULT).is_file():
        return "done"
    if (folder / FAILED).is_file():
        return "failed"
    return "begun" if has_config(folder) else "missing"


def identify(folder: Path, study: Study) -> Found:
    """Whose run that is.

    Raises:
        UserMistakeError: none of the study's; the message names the run and what is different.
    """
    file = folder / CONFIG
    written = leaves(read_yaml(file), str(file))
    found = find(folder, decisive(written), written, study)
    if found is None:  # perhaps it is from before some setting was thought of
        today = settings_in(load_recipe(folder))
        found = find(folder, today, written, study)
        if found is None:
            raise stranger(folder, today, study)
    if found.seed not in study.seeds:
        raise UserMistakeError(
            f"{folder} is a run of seed {found.seed}, but the study has seeds 0 to "
            f"{study.seeds[-1]}; move it away, or give --seeds {found.seed + 1}"
        )
    return found


def find(
    folder: Path, settings: Mapping[str, Any], written: Mapping[str, Any], study: Study
) -> Found | None:
    """The run, if a row has these settings."""
    rows = (*study.rows, *study.others)
    row = next((row for row in rows if row.settings == settings), None)
    return None if row is None else Found(folder, row, written["seed"], settings)


def stranger(folder: Path, settings: Mapping[str, Any], study: Study) -> UserMistakeError:
    """The mistake to raise for a run that no row of the study has made."""
    rows = (*study.rows, *study.others)
    apart = [
        [
            f"{name} was {settings.get(name)}, now {row.settings.get(name)}"
            for name in sorted(settings.keys() | row.settings.keys())
            if settings.get(name) != row.settings.get(name)
        ]
        for row in rows
    ]
    nearest = min(apart, key=len)
    row = rows[apart.index(nearest)]
    return UserMistakeError(
        f"{folder} is no run of this study; of row {row.number} it differs in "
        f"{'; '.join(nearest[:3])}; move it away, or give what it was run with"
    )


def done_runs(folder: Path) -> list[Path]:
    """The folders of all finished runs of the study in `folder`."""
    return sorted(path.parent for path in folder.glob(f"*/*/{RESULT}"))


def check_same_data(runs: Sequence[Found]) -> None:
    """Raise `UserMistakeError` where runs with the same settings of data had other data.

    Settings tell no place, so that what lay there is compared: numbers of classes and images, and
    a hash of the test images. Records that a run does not have are not compared.
    """
    first: dict[tuple[str, str], tuple[Found, Any]] = {}
    for run in runs:
        asked = str([(n, v) for n, v in run.settings.items() if any(is_part(n, s) for s in READ)])
        for what, value in data_of(run.folder).items():
            other, known = first.setdefault((asked, what), (run, value))
            if value != known:
                raise UserMistakeError(
                    f"{other.folder} and {run.folder} had different data, {what} {known} and "
                    f"{value}: move the runs of one of them away"
                )


def data_of(folder: Path) -> dict[str, Any]:
    """What is on record of a finished run's data."""
    known = dict(read_result(folder).get("data", {}))
    if (folder / LAST / STATE).is_file():
        state = read_json(folder / LAST / STATE, {"fingerprints": {"test": str}})
        known["test images"] = state["fingerprints"]["test"]
    return known


def commands_of(folder: Path) -> list[str]:
    """What was typed for the run, each once, wherever the run was put."""
    lines = read_text(folder / COMMAND).splitlines()
    return list(dict.fromkeys(without_place(line) for line in lines))


def without_place(command: str) -> str:
    """The command without its --run_dir."""
    words = shlex.split(command)
    kept = [
        word
        for word, before in zip(words, ["", *words], strict=False)
        if "--run_dir" not in (word, before) and not word.startswith("--run_dir=")
    ]
    return shlex.join(kept)


def failure(folder: Path) -> str:
    """Why the run failed, in a line."""
    lines = read_text(folder / FAILED).strip().splitlines()
    return lines[-1] if lines else "for no known reason"


class Progress(NamedTuple):
    """Time that a run has taken, and the part of it that is done."""

    seconds: float
    part: float


def progress_of(folder: Path, row: Row) -> Progress:
    """From the run's own records."""
    if state_of(folder) == "done":
        return Progress(read_json(folder / RESULT, {"seconds": float | int})["seconds"], 1.0)
    if not (folder / METRICS).is_file() or not read_text(folder / METRICS):
        return Progress(0.0, 0.0)
    epochs, recipe = read_epochs(folder), row.recipe
    last = epochs[-1]
    done = last["epoch"] / recipe.epochs if recipe.epochs else last["step"] / (recipe.steps or 1)
    return Progress(sum(epoch["seconds"] for epoch in epochs), done)
