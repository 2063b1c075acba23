"""Files that are there as a whole or not at all, whenever the process or the machine stops."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Put `text` into `path`; whoever reads meets the old content or the new one."""
    new = path.with_name(f".{path.name}.tmp")
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
