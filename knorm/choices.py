"""One line for a name that is not among the possible ones."""

from collections.abc import Iterable
from difflib import get_close_matches


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
