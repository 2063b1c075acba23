"""Settings from recipes and the command line: dataclasses, YAML files, dotted overrides.

    --config recipe-or-file.yaml --config study/row --optim.lr 0.1 --print_config

Later arguments win, and keys inside a key of a free dictionary are set last. Names are checked
here, types by jsonargparse, values by the dataclasses' `__post_init__`; the first mistake is raised
as `UserMistakeError` with the nearest name.
"""

import re
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from knorm.training.free_keys import folded, is_dict, without_deep
from knorm.training.mistakes import UserMistakeError, did_you_mean, mistakes_of_the_user
from knorm.training.recipes import find_recipe, flat, parts_of, read_recipe

T = TypeVar("T")
BUILT_IN = {"config": str, "print_config": str, "help": str}
HELP = {"--help", "-h"}


def parse(
    cls: type[T],
    argv: Sequence[str],
    *,
    prog: str,
    recipes: Path,
    default: str,
    about: str | None = None,
) -> T:
    """A `cls` from command-line arguments; without `--config` it starts from recipe `default`.

    `about` introduces the text of `--help`.
    """
    arguments = with_files(argv, recipes, default)
    options = option_types(cls)
    check_arguments(arguments, options)
    arguments = with_switches(arguments, options)
    parser = make_parser(cls, prog)
    if HELP & set(arguments):
        print(help_text(parser, leaves(options), recipes / f"{default}.yaml", about))
        raise SystemExit(0)
    try:
        if "name" in options:
            arguments = [*named(argv, arguments, recipes), *arguments]
        arguments, deep = without_deep(arguments, options)
        words = [with_text(argument, options) for argument in arguments]
        namespace = parser.parse_args([*words, *folded(parser, words, deep)])
    except ArgumentError as error:
        raise UserMistakeError(in_one_line(str(error), options, arguments)) from error
    return instance(cls, parser, namespace)


def parse_content(cls: type[T], content: Any, argv: Sequence[str] = (), *, where: str) -> T:
    """A `cls` from what a YAML file would hold, and from options of the command line, which win.

    `where` is what mistakes in the content are told with.
    """
    options = option_types(cls)
    check_keys(flat(content, where), where, options)
    for argument in argv:
        if argument.split("=")[0].removeprefix("--") in BUILT_IN:
            raise UserMistakeError(f"{argument}: {where} takes single options, --option value")
    check_arguments(argv, options)
    parser = kept_parser(cls)
    try:
        given, deep = without_deep(with_switches(argv, options), options)
        words = [f"--config={yaml.safe_dump(content, sort_keys=False)}", *given]
        namespace = parser.parse_args([*words, *folded(parser, words, deep)])
    except ArgumentError as error:
        line = in_one_line(str(error), options, argv)
        raise UserMistakeError(line if line.startswith("--") else f"{where}: {line}") from error
    with told_with(where):
        return instance(cls, parser, namespace)


@contextmanager
def told_with(where: str) -> Iterator[None]:
    """Inside, a mistake of the user is told with the place where it stands."""
    try:
        yield
    except UserMistakeError as error:
        raise UserMistakeError(f"{where}: {error}") from error


@lru_cache(maxsize=4)
def kept_parser(cls: type) -> ArgumentParser:
    """`make_parser` for many recipes, since making it takes longer than parsing one."""
    return make_parser(cls, prog="")


def instance(cls: type[T], parser: ArgumentParser, namespace: Any) -> T:
    """What the parsed arguments say, as a `cls`."""
    with mistakes_of_the_user():
        settings = vars(parser.instantiate(namespace))
        settings.pop("config")
        return cls(**settings)


def make_parser(cls: type, prog: str) -> ArgumentParser:
    """jsonargparse's parser of the dataclass's options and of `--config`."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    usage = "%(prog)s [--config RECIPE] [--option value] ..."
    parser = ArgumentParser(prog=prog, usage=usage, exit_on_error=False)
    files = "recipe, study/row or YAML file, several allowed; later ones win"
    parser.add_argument("--config", action="config", help=files)
    parser.add_class_arguments(cls)
    return parser


def help_text(parser: ArgumentParser, names: list[str], recipe: Path, about: str | None) -> str:
    """All options, with the defaults that the recipe gives those with these `names`."""
    given = dict(flat(read_recipe(recipe), str(recipe)))
    parser.set_defaults({name: given[name] for name in names if name in given})
    parser.description = (
        f"{about or ''}\nDefaults are those of recipe {recipe.stem}, which stands for no --config."
    )
    parser.formatter_class = AsWritten
    return re.sub(r"required,\s+", "", parser.format_help())  # the recipe gives these


class AsWritten(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Help in which the introduction keeps its lines."""


def to_yaml(settings: Any) -> str:
    """A dataclass as YAML that `parse` reads back."""
    return yaml.safe_dump(to_dict(settings), sort_keys=False)


def to_dict(settings: Any) -> dict[str, Any]:
    """A dataclass as its YAML is read back: nested mappings, lists."""
    return {key: _plain(value) for key, value in asdict(settings).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def with_files(argv: Sequence[str], recipes: Path, default: str) -> list[str]:
    """The arguments with every `--config NAME` as `--config=path`, the default put in front."""
    arguments, rest = [], list(argv)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if name == "--config":
            if not equals and not rest:
                raise UserMistakeError("--config: name a recipe or a YAML file after it")
            argument = f"--config={find_recipe(value if equals else rest.pop(0), recipes)}"
        arguments.append(argument)
    if any(argument.split("=")[0] == "--config" for argument in arguments):
        return arguments
    return [f"--config={recipes / default}.yaml", *arguments]


def named(argv: Sequence[str], arguments: Sequence[str], recipes: Path) -> list[str]:
    """`--name` after the last recipe of ours that the user asks for, unless something gives one."""
    if not any(word.split("=")[0] == "--config" for word in argv):
        return []
    places = [Path(a.removeprefix("--config=")) for a in arguments if a.startswith("--config=")]
    ours = [place.stem for place in places if place.parent == recipes]
    return [f"--name={ours[-1]}"] if ours else []


def with_switches(arguments: Sequence[str], options: dict[str, Any]) -> list[str]:
    """The arguments with `=true` after a yes-or-no option that has no value."""
    followers = [*arguments, "--"][1:]
    return [
        f"{argument}=true"
        if options.get(argument.removeprefix("--")) is bool and follower.startswith("--")
        else argument
        for argument, follower in zip(arguments, followers, strict=True)
    ]


def with_text(argument: str, options: dict[str, Any]) -> str:
    """A `--config=file.yaml/row` with the YAML of that row; other arguments as they are."""
    option, _, place = argument.partition("=")
    if option != "--config" or Path(place).is_file():
        return argument
    recipe = {key: value for key, value in read_recipe(Path(place)).items() if key in options}
    return f"--config={yaml.safe_dump(recipe, sort_keys=False)}"


def option_types(cls: type) -> dict[str, Any]:
    """Dotted name -> type of all settings; a section's type is its dataclass."""
    options: dict[str, Any] = {}
    for name, kind in get_type_hints(cls).items():
        if get_origin(kind) is ClassVar:
            continue
        options[name] = kind
        if isinstance(kind, type) and is_dataclass(kind):
            nested = option_types(kind)
            options |= {f"{name}.{inner}": inner_kind for inner, inner_kind in nested.items()}
    return options


def check_arguments(arguments: Sequence[str], options: dict[str, Any]) -> None:
    """Every word is an option or the value of one, and every key of every file is an option."""
    words = list(arguments)
    while words:
        name, equals, value = words.pop(0).partition("=")
        if not name.startswith("--"):
            hint = "; options begin with two dashes" if known(name, options) else ""
            raise UserMistakeError(f"{name}{equals}{value}: no option and no value of one{hint}")
        if not equals and words and not words[0].startswith("--"):
            value = words.pop(0)
        name = name.removeprefix("--")
        if not known(name.rstrip("+"), options | BUILT_IN):
            hint = did_you_mean(f"--{name}", [f"--{leaf}" for leaf in leaves(options)])
            raise UserMistakeError(f"--{name}: no such option{hint}")
        if name == "config":
            for where, content in parts_of(Path(value)):
                check_keys(flat(content, where), where, options)
        elif is_dataclass(options.get(name)):
            check_keys(flat(section(name, value), f"--{name}", f"{name}."), f"--{name}", options)


def section(name: str, value: str) -> Any:
    """What the command line gives a whole section, `{option: value}`."""
    with suppress(yaml.YAMLError):
        content = yaml.safe_load(value)
        if isinstance(content, dict):
            return content
    raise UserMistakeError(
        f"--{name}: a section, so give its options one by one, --{name}.option value, "
        f"or '{{option: value}}', got {value!r}"
    )


def check_keys(items: Iterable[tuple[str, Any]], where: str, options: dict[str, Any]) -> None:
    """All dotted names are options, and those that are sections hold some."""
    for name, value in items:
        if not known(name, options):
            raise UserMistakeError(
                f"{where}: {name}: no such option{did_you_mean(name, leaves(options))}"
            )
        if is_dataclass(options.get(name)) and not isinstance(value, dict):
            raise UserMistakeError(
                f"{where}: {name}: a section, so write {name}: {{option: value}}"
            )


def known(name: str, options: dict[str, Any]) -> bool:
    """Whether `name` is an option or a key below one that holds free keys (a dict)."""
    parents = name.split(".")[:-1]
    above = [".".join(parents[: end + 1]) for end in range(len(parents))]
    return name in options or any(is_dict(options.get(parent)) for parent in above)


def leaves(options: dict[str, Any]) -> list[str]:
    """The names that take a value, i.e. no sections."""
    return [name for name, kind in options.items() if not is_dataclass(kind)]


def in_one_line(message: str, options: dict[str, Any], arguments: Sequence[str]) -> str:
    """jsonargparse's report in one line: where, what was expected and what came."""
    key = re.search(r'key "([\w.]+)"', message)
    value = re.search(r"(?:Got|Given) value: (.*)", message)
    if not (key and value and key[1] in options):
        return message
    kind, where = options[key[1]], origin(key[1], value[1], arguments)
    hint = did_you_mean(value[1], choices_of(kind)) or how_to_list(kind, value[1])
    return f"{where}{key[1]}: expected {describe(kind)}, got {value[1]!r}{hint}"


def how_to_list(kind: Any, value: str) -> str:
    """How a value is written as a list, for options that take one."""
    takes_lists = any(get_origin(part) in (list, tuple) for part in (kind, *get_args(kind)))
    return f"; write '[{value}]'" if takes_lists and not value.startswith("[") else ""


def origin(name: str, value: str, arguments: Sequence[str]) -> str:
    """`--` where the command line gives the option that value, `file: ` where a file does."""
    for argument in arguments:
        option, _, place = argument.partition("=")
        if option != "--config":
            continue
        if str(dict(flat(read_recipe(Path(place)), place)).get(name)) == value:
            return f"{place}: "
    return "--" if any(argument.startswith(f"--{name}") for argument in arguments) else ""


def choices_of(kind: Any) -> list[str]:
    """The words of a `Literal`, also inside a union."""
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    return [choice for part in get_args(kind) for choice in choices_of(part)]


def describe(kind: Any) -> str:
    """A type in words: `float or null`, `one of sgd, adam`."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if kind is type(None):
        return "null"
    if get_origin(kind) in (list, tuple, dict):
        return f"a {get_origin(kind).__name__}"
    parts = [describe(part) for part in get_args(kind)]
    return " or ".join(parts) if parts else getattr(kind, "__name__", str(kind))


def has_section(settings: Any, name: str) -> bool:
    """Whether settings read from a file have a section of that name."""
    return isinstance(settings, dict) and name in settings


def refuse_section(
    argv: Sequence[str], section: str, owner: str, why: str, *, recipes: Path, default: str
) -> None:
    """Raise `UserMistakeError` for settings of another program's section."""
    for word in with_files(argv, recipes, default):
        name, _, value = word.partition("=")
        if name.split(".")[0] == f"--{section}":
            raise UserMistakeError(f"{name} is for {owner}; {why}")
        if name == "--config" and has_section(read_recipe(Path(value)), section):
            raise UserMistakeError(f"{value} has a section {section}; train it with {owner}: {why}")
