"""The names that a user chooses from, and one line for a name that is not among them.

Nothing here imports torch, so that a misspelt name is told at once.
"""

import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, get_args

NormKind = Literal[
    "batch", "sync_batch", "group", "layer", "instance", "local_context", "kernel", "none"
]
NORM_KINDS: tuple[NormKind, ...] = get_args(NormKind)
Stats = Literal["expected", "plain", "sampled"]
STATS: tuple[Stats, ...] = get_args(Stats)
Task = Literal["classification", "segmentation"]
TASKS: tuple[Task, ...] = get_args(Task)
SWAP_OPTIONS = ("groups", "affine", "eps", "modules", "keep_affine", "fold")
"""of `swap_norm`, besides those that nets give it by names of their own"""
TIMM = "timm:"  # before the names of what is timm's

_REGISTERED = re.compile(r"^@register_model(?:\(task=\"(\w+)\"\))?\ndef (\w+)", re.MULTILINE)


def model_names(task: Task = "classification") -> list[str]:
    """The names of `knorm.list_models(task=task)`; from their source where they are not loaded."""
    if "knorm.models" in sys.modules:
        return sys.modules["knorm.models"].list_models(task=task)
    files = Path(__file__).parent.glob("models/*.py")
    found = [match for file in files for match in _REGISTERED.findall(file.read_text("utf-8"))]
    return sorted(name for its, name in found if (its or TASKS[0]) == task)


def nearest(name: object, choices: Iterable[str]) -> str:
    """A question that names the choice most like `name`, after a semicolon; or nothing."""
    plain = {_plain(choice): choice for choice in choices}
    near = get_close_matches(_plain(name), plain, n=1)
    return f"; did you mean {plain[near[0]]!r}?" if near else ""


def _plain(name: object) -> str:
    """The name without capitals and with one kind of dash, as users mix them up."""
    return str(name).casefold().replace("-", "_")


def check_name(what: str, name: object, choices: Iterable[str]) -> None:
    """`name` is one of `choices`.

    Raises:
        ValueError: it is not; the message names the nearest and all that are possible.
    """
    names = tuple(choices)
    if name not in names:
        hint = nearest(name, names)
        raise ValueError(f"unknown {what} {name!r}{hint} (choose from {', '.join(names)})")
