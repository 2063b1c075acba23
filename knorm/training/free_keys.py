"""Options that are dictionaries of free keys: one key inside a key is changed, the others stay.

    --model.options.backbone_options.width 0.5

jsonargparse alone would take the value for text and drop what else the inner dictionary holds.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, get_origin

import yaml
from jsonargparse import ArgumentParser

from knorm.training.mistakes import UserMistakeError

Deep = tuple[str, list[str], str]  # an option that is a dictionary, keys below it, a value


def without_deep(arguments: Sequence[str], options: dict[str, Any]) -> tuple[list[str], list[Deep]]:
    """The arguments, and apart those that name a key inside a key of a dictionary."""
    rest, deep, words = list[str](), list[Deep](), list(arguments)
    while words:
        word = words.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        option = next((o for o in options if name.startswith(f"{o}.") and is_dict(options[o])), "")
        keys = name.removeprefix(f"{option}.").split(".")
        if not option or len(keys) == 1:
            rest.append(word)
            continue
        if not equals:
            if not words or words[0].startswith("--"):
                raise UserMistakeError(f"--{name}: expected one argument")
            value = words.pop(0)
        deep.append((option, keys, value))
    return rest, deep


def folded(parser: ArgumentParser, words: Sequence[str], deep: Sequence[Deep]) -> list[str]:
    """`--option.key={...}` for what is deep, with all that `words` put there beside it."""
    if not deep:
        return []
    namespace = parser.parse_args([w for w in words if w.split("=")[0] != "--print_config"])
    for option, keys, value in deep:
        held = namespace[option]
        for key in keys[:-1]:
            inner = held.get(key) or {}
            if not isinstance(inner, dict):
                name = ".".join([option, *keys])
                raise UserMistakeError(f"--{name}: {key} is {inner!r}, which holds nothing")
            held[key] = dict(inner)
            held = held[key]
        held[keys[-1]] = value
        with suppress(yaml.YAMLError):
            held[keys[-1]] = yaml.safe_load(value)
    changed = {f"{option}.{keys[0]}": namespace[option][keys[0]] for option, keys, _ in deep}
    return [f"--{name}={yaml.safe_dump(v, default_flow_style=True)}" for name, v in changed.items()]


def is_dict(kind: Any) -> bool:
    """Whether an option of that type holds free keys."""
    return get_origin(kind) is dict
