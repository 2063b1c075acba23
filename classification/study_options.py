"""The command line of studies: `run|status|report STUDY`, and what may follow it."""

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from classification.study_file import Wish, find_study, known_studies, read_study
from classification.study_records import ASKED
from classification.study_rows import Study
from knorm.choices import check_name
from knorm.training.files import read_json
from knorm.training.mistakes import OneLineParser, UserMistakeError, mistakes_of_the_user

Command = Literal["run", "status", "report"]
COMMANDS: tuple[Command, ...] = ("run", "status", "report")


class Asked(NamedTuple):
    """What the command line asks for."""

    command: Command
    study: Study
    folder: Path
    """of the study's runs"""
    overrides: Sequence[str]
    """options of recipes that all rows are given"""
    out: Path
    """where the report goes, without its ending"""
    dry_run: bool


def parse(argv: Sequence[str], about: str) -> Asked:
    """What is asked for, and the study as read; `about` introduces --help."""
    words, rest = list(argv[:2]), list(argv[2:])
    with mistakes_of_the_user():
        check_name("command", words[0], COMMANDS)
    command: Command = words[0]  # pyright: ignore[reportAssignmentType]
    if words[1:] in (["--help"], ["-h"]):
        words, rest = [command, ""], ["--help"]
    options, overrides = parser_of(command, about).parse_known_args(rest)
    if len(words) == 1 or words[1].startswith("-"):
        raise UserMistakeError(f"{command}: name a study after it, or its file: {known_studies()}")
    file = find_study(words[1])
    name = file.stem if options.budget is None else f"{file.stem}-{options.budget}"
    folder = options.run_dir / name
    if command != "run" and not overrides and (folder / ASKED).is_file():
        overrides = read_json(folder / ASKED, {"overrides": [str]})["overrides"]
    only = dict(map(setting, options.only))
    study = read_study(file, Wish(options.budget, only, options.seeds, overrides))
    out = getattr(options, "out", None) or folder / "report"
    return Asked(command, study, folder, overrides, out, getattr(options, "dry_run", False))


def parser_of(command: Command, about: str) -> OneLineParser:
    """The options that follow the study's name."""
    parser = OneLineParser(
        prog=f"python -m classification.study {command} STUDY",
        usage="%(prog)s [options] [--option-of-the-recipe value ...]",
        description=about,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--budget", help="one of the study's budgets, such as small")
    parser.add_argument(
        "--run_dir", type=Path, default=Path("runs"), help="folder of studies; default: runs"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        help="rows that the file gives this setting; several allowed",
    )
    parser.add_argument("--seeds", type=int, help="runs of each row; default: the study's")
    if command == "run":
        parser.add_argument("--dry_run", action="store_true", help="check all rows, train none")
    if command == "report":
        parser.add_argument(
            "--out", type=Path, help="write OUT.md, OUT.csv and pictures; default: report beside"
        )
    return parser


def setting(word: str) -> tuple[str, Any]:
    """`data.name=mnist` as name and value."""
    name, equals, value = word.partition("=")
    if not equals:
        raise UserMistakeError(f"--only {word}: give SETTING=VALUE, such as data.name=mnist")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserMistakeError(f"--only {word}: {value!r} is no value of a setting") from error
