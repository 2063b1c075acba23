"""Experiment trackers (TensorBoard, Weights & Biases, ...), through Accelerate."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import filter_trackers


def start_tracking(
    accelerator: Accelerator, names: Sequence[str], folder: Path, settings: Mapping[str, Any]
) -> None:
    """Open the trackers and hand them the settings, whose "name" they get as the project's.

    Those that write files write them into `folder`.
    """
    if not names:
        return
    accelerator.project_configuration.set_directories(str(folder))
    accelerator.log_with = filter_trackers(list(names), accelerator.logging_dir)
    accelerator.init_trackers(str(settings["name"]), config=dict(plain(settings)))


def track(accelerator: Accelerator, row: Mapping[str, Any]) -> None:
    """Send an epoch's numbers, which stand at its last optimizer step."""
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
    accelerator.log(numbers, step=row["step"])


def plain(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of nested settings, of the kinds that every tracker takes."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from plain(value, prefix=f"{prefix}{name}.")
        else:
            simple = isinstance(value, bool | int | float | str)
            yield f"{prefix}{name}", value if simple else str(value)
