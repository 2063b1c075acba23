"""What a measurement leaves behind: its record as JSON, and the page that is made of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def publish(record: Record, render: Callable[[Record], str], out: Path | None) -> None:
    """Print the page of a record; with `out` also write OUT.json and OUT.md."""
    text = render(record)
    print(text, end="", flush=True)
    if out is not None:
        Path(f"{out}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        Path(f"{out}.md").write_text(text, encoding="utf-8")


def republished(render: Callable[[Record], str], out: Path) -> str:
    """The page that OUT.json gives today."""
    return render(json.loads(Path(f"{out}.json").read_text(encoding="utf-8")))
