"""Files that are there as a whole or not at all, and what is read of those that came to harm."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from knorm.training.mistakes import UserMistakeError

WAY_OUT = "put back a copy of it, or make the run again"


def write_text(path: Path, text: str) -> None:
    """Put `text` into `path`; whoever reads meets the old content or the new one.

    Several processes may write the same file: the last of them wins.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with new.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
    flush(new)
    os.replace(new, path)


def flush(path: Path) -> None:
    """Wait until the file or folder is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def check_folder(path: Path) -> None:
    """Make the folder and try to write into it; `UserMistakeError` where that is refused."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserMistakeError(f"{path} cannot be written into: {error.strerror}") from error


def check_file(path: Path) -> None:
    """Make the file's folder; `UserMistakeError` unless a file of that name can be written."""
    check_folder(path.parent)
    if path.is_dir():
        raise UserMistakeError(f"{path} is a folder; name a file in it")
    if path.exists() and not os.access(path, os.W_OK):
        raise UserMistakeError(f"{path} exists already and cannot be written")


def damaged(path: Path, why: str, way_out: str = WAY_OUT) -> UserMistakeError:
    """The mistake to raise for a file of ours that is not as we wrote it."""
    return UserMistakeError(f"{path} is damaged: {why}; {way_out}")


def read_text(path: Path, way_out: str = WAY_OUT) -> str:
    """The text of a file of ours; `UserMistakeError` where it is missing or no UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserMistakeError(f"{path} cannot be read: {error.strerror}; {way_out}") from error
    except UnicodeDecodeError as error:
        raise damaged(path, "it is no text", way_out) from error


def read_json(path: Path, shape: Any, way_out: str = WAY_OUT) -> Any:
    """The content of a JSON file of ours, which is of that shape, see `misfit`.

    Raises `UserMistakeError`, which ends in the way out, for a file that is missing or damaged.
    """
    return parsed(path, read_text(path, way_out), shape, way_out)


def read_json_lines(path: Path, shape: Any, way_out: str = WAY_OUT) -> list[Any]:
    """`read_json` for a file each of whose lines, one or more, is a value of that shape."""
    text = read_text(path, way_out)
    return [
        parsed(path, line, shape, way_out, where=f"line {number}: ")
        for number, line in enumerate(text.splitlines() or [text], start=1)
    ]


def parsed(path: Path, text: str, shape: Any, way_out: str, where: str = "") -> Any:
    """A JSON text of that shape, which stands in `path`."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"no JSON, {error}" if text.strip() else "it is empty"
        raise damaged(path, where + reason, way_out) from error
    reason = misfit(value, shape)
    if reason:
        raise damaged(path, where + reason, way_out)
    return value


def misfit(value: Any, shape: Any, name: str = "") -> str | None:
    """Why `value` is not of that shape; None if it is.

    A shape is a type, or a union of such; a list of one shape, which all items have; or a mapping
    from keys, which must be there, to the shapes of their values.
    """
    kind = type(shape) if isinstance(shape, list | dict) else shape
    if not isinstance(value, kind):
        expected = getattr(kind, "__name__", str(kind))
        return f"{name + ' ' if name else ''}is a {type(value).__name__}, not a {expected}"
    parts: list[tuple[Any, Any, str]] = []
    if isinstance(shape, Mapping):
        missing = [key for key in shape if key not in value]
        if missing:
            return f"{name + ' ' if name else ''}lacks {missing[0]}"
        parts = [(value[key], inner, key) for key, inner in shape.items()]
    elif isinstance(shape, list):
        parts = [(item, shape[0], str(number)) for number, item in enumerate(value)]
    reasons = (misfit(*part, name=f"{name}.{key}".lstrip(".")) for *part, key in parts)
    return next((reason for reason in reasons if reason), None)
