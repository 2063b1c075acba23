"""The user's mistakes: one line on standard error, exit code 2."""

import errno
import os
import re
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from typing import Any, NoReturn

from knorm.choices import nearest
from knorm.training.interrupt import Interrupted
from knorm.training.packages import extra_of, how_to_install


class UserMistakeError(ValueError):
    """What was asked for cannot be done; the message says the rule, the value and the way out."""


class OneRankMistakeError(UserMistakeError):
    """A mistake that one process alone meets, such as a damaged file, and has to tell."""


class DivergedError(UserMistakeError):
    """The loss is no number any more."""


class InUseError(UserMistakeError):
    """Another job is at work in the folder."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`knorm.choices.nearest`, for which optim.learning_rate also is like optim.lr."""
    choices = list(choices)
    short = [choice for choice in choices if _initials(choice) == _initials(word)]
    return nearest(short[0] if short else word, choices)


def _initials(name: str) -> str:
    """optim.learning_rate -> optim.lr, optim.lr -> optim.lr."""
    *section, last = name.removeprefix("--").split(".")
    words = last.split("_")
    short = "".join(word[:1] for word in words) if len(words) > 1 else last
    return ".".join([*section, short])


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a finite number above 0."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive, got {value}")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name} must lie between {low} and {high}, got {value}")


def check_unused(section: str, settings: Any, users: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError where a setting was changed that `settings.name` makes no use of.

    `users` tells for each such setting which names use it.
    """
    for name, default in defaults_of(settings).items():
        value = getattr(settings, name)
        if name in users and settings.name not in users[name] and value != default:
            raise ValueError(
                f"{section}.{name} belongs to {section}.name {' or '.join(users[name])}, "
                f"got {value} with {settings.name}; its default, {default}, leaves it out"
            )


def defaults_of(settings: Any) -> dict[str, Any]:
    """The defaults of a dataclass by name; settings that must be given have none."""
    return {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(settings)
    }


class OneLineParser(ArgumentParser):
    """argparse for programs with few options: its errors are the user's mistakes."""

    def parse_args(self, args=None, namespace=None) -> Namespace:  # type: ignore[override]
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            names = [name for action in self._actions for name in action.option_strings]
            self.error(f"unknown argument {unknown[0]}{did_you_mean(unknown[0], names)}")
        return options

    def error(self, message: str) -> NoReturn:
        raise UserMistakeError(message)


@contextmanager
def mistakes_of_the_user() -> Iterator[None]:
    """Around code that judges settings: its ValueError and TypeError are the user's mistakes."""
    try:
        yield
    except UserMistakeError:
        raise
    except (ValueError, TypeError) as error:
        raise UserMistakeError(str(error)) from error


def run_program(main: Callable[[], object]) -> int:
    """The exit code of `main`: 0 done, 2 the user's mistake, 128 + signal when interrupted.

    Anything else goes through with its traceback, which makes Python exit with 1.
    """
    try:
        main()
    except Interrupted as stop:
        return stop.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        line = line_for(error)
        if line is None:
            raise
        return tell(line, alone=isinstance(error, OneRankMistakeError | OSError))
    return 0


NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ENTRY = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
NOT_DETERMINISTIC = re.compile(
    r"(\S+) does not have a deterministic implementation"
)  # torch's words


def line_for(error: Exception) -> str | None:
    """What to tell the user, if the error is one that a user can mend."""
    if isinstance(error, UserMistakeError):
        return str(error)
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        place = f" for {error.filename}" if error.filename else ""
        return (
            f"no space left on the disk{place}; what was saved before is whole: free some and "
            "give the same command with --resume auto"
        )
    if isinstance(error, OSError) and error.errno in NO_ENTRY and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and error.name and extra_of(error.name):
        return f"{error.name} is missing: {how_to_install(error.name)}"
    operation = NOT_DETERMINISTIC.match(str(error)) if isinstance(error, RuntimeError) else None
    if operation:
        return (
            f"launch.deterministic: {operation[1]} has no deterministic form on this device; "
            "do without it or without launch.deterministic"
        )
    return None


HEAD_START = 5.0  # seconds


def tell(line: str, *, alone: bool) -> int:
    """Print the user's mistake, once for all processes unless one met it `alone`; its exit code.

    The others wait, because a launcher ends all processes as soon as one has left.
    """
    if alone or os.environ.get("RANK", "0") == "0":
        print("error:", " ".join(line.split()), file=sys.stderr, flush=True)
    else:
        time.sleep(HEAD_START)
    return 2
