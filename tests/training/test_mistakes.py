import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from knorm.training import mistakes
from knorm.training.interrupt import Interrupted
from knorm.training.mistakes import (
    OneLineParser,
    OneRankMistakeError,
    UserMistakeError,
    check_positive,
    check_range,
    check_unused,
    did_you_mean,
    mistakes_of_the_user,
    run_program,
)


def raiser(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code"),
    [
        (lambda: None, 0),
        (raiser(UserMistakeError("no\nsuch  thing")), 2),
        (raiser(Interrupted(2)), 130),
        (raiser(Interrupted(15)), 143),
        (raiser(KeyboardInterrupt()), 130),
    ],
)
def test_a_program_ends_with_the_code_of_what_happened(main, code):
    assert run_program(main) == code


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_program(raiser(ZeroDivisionError()))


def test_a_mistake_is_one_line_and_only_the_first_process_prints_it(capsys, monkeypatch):
    run_program(raiser(UserMistakeError("no\nsuch  thing")))
    assert capsys.readouterr().err == "error: no such thing\n"
    waited = []
    monkeypatch.setattr(mistakes.time, "sleep", waited.append)
    monkeypatch.setenv("RANK", "1")
    assert run_program(raiser(UserMistakeError("no such thing"))) == 2
    assert capsys.readouterr().err == ""
    assert waited == [mistakes.HEAD_START]


def test_an_operation_that_is_not_deterministic_is_named_in_one_line(capsys):
    def main():
        torch.zeros(2).put_(torch.tensor([0, 0]), torch.ones(2))

    torch.use_deterministic_algorithms(True)
    try:
        assert run_program(main) == 2
    finally:
        torch.use_deterministic_algorithms(False)
    err = capsys.readouterr().err
    assert err.startswith("error: launch.deterministic: put_ has no deterministic form")
    assert err.count("\n") == 1


def test_other_errors_of_a_program_go_through():
    with pytest.raises(RuntimeError, match="out of memory"):
        run_program(raiser(RuntimeError("out of memory")))


@pytest.mark.parametrize("error", [ValueError, TypeError, UserMistakeError])
def test_where_settings_are_judged_their_errors_are_the_users(error):
    with pytest.raises(UserMistakeError, match="so"), mistakes_of_the_user():
        raise error("so")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("optim.lrr", "optim.lr"),
        ("optim.learning_rate", "optim.lr"),
        ("--batch_sise", "--batch_size"),
        ("zzz", None),
    ],
)
def test_the_nearest_name_is_suggested(word, meant):
    hint = did_you_mean(word, ["optim.name", "optim.lr", "epochs", "--image_size", "--batch_size"])
    assert hint == (f"; did you mean {meant!r}?" if meant else "")


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_positive_means_finite_and_above_zero(value):
    with pytest.raises(ValueError, match="size must be positive"):
        check_positive("size", value)


def test_a_range_includes_its_ends_and_no_nan():
    check_range("part", 0, 0, 1)
    check_range("part", 1, 0, 1)
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="part must lie between 0 and 1"):
            check_range("part", value, 0, 1)


def test_a_small_program_suggests_the_argument_that_was_meant():
    parser = OneLineParser()
    parser.add_argument("--weights", choices=("a", "b"))
    with pytest.raises(UserMistakeError, match="--wieghts; did you mean '--weights'"):
        parser.parse_args(["--wieghts", "a"])
    with pytest.raises(UserMistakeError, match="invalid choice: 'c'"):
        parser.parse_args(["--weights", "c"])


def test_a_typing_mistake_waits_for_no_slow_library():
    folder = Path(mistakes.__file__).parent
    modules = ", ".join(f"knorm.training.{path.stem}" for path in folder.glob("[a-z]*.py"))
    slow = {"torchmetrics", "torchvision", "matplotlib", "sklearn", "classification"}
    code = f"import sys, {modules}; print(*sorted({slow!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(("kind", "lines"), [(UserMistakeError, 0), (OneRankMistakeError, 1)])
def test_what_one_rank_alone_meets_it_also_tells(monkeypatch, capsys, kind, lines):
    def program():
        raise kind("image.png is damaged")

    monkeypatch.setenv("RANK", "1")
    assert run_program(program) == 2
    assert capsys.readouterr().err.count("error: image.png is damaged\n") == lines


def test_a_missing_package_is_named_with_the_extra_that_brings_it(capsys):
    assert run_program(raiser(ModuleNotFoundError("none", name="onnxscript"))) == 2
    line = "error: onnxscript is missing: pip install 'knorm[export]'\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("name", ["knorm.nothing", "nothing", "accelerate.nothing", None])
def test_an_import_of_what_never_was_keeps_its_traceback(name):
    with pytest.raises(ModuleNotFoundError):
        run_program(raiser(ModuleNotFoundError("none", name=name)))


PROGRAMS = [
    ("classification.train", "jsonargparse", [], "train"),
    ("classification.study", "yaml", [], "train"),
    ("classification.train", "accelerate", [], "train"),
    ("classification.evaluate", "accelerate", ["nowhere"], "train"),
    ("knorm.cli.main", "yaml", ["report", "nowhere"], "train"),
]


@pytest.mark.parametrize(("program", "package", "arguments", "extra"), PROGRAMS)
def test_every_program_tells_a_missing_package_in_one_line(program, package, arguments, extra):
    code = f"import sys, runpy; sys.modules[{package!r}] = None; sys.argv[1:] = {arguments!r};"
    code += f"runpy.run_module({program!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == f"error: {package} is missing: pip install 'knorm[{extra}]'\n"
    assert done.returncode == 2


def test_a_setting_that_nothing_uses_is_refused_with_the_way_out():
    settings = SimpleSchedule(name="constant", gamma=0.5)
    with pytest.raises(ValueError, match=r"s\.name steps, got 0\.5 .*0\.1, leaves it"):
        check_unused("s", settings, {"gamma": ["steps"]})
    check_unused("s", SimpleSchedule(name="steps", gamma=0.5), {"gamma": ["steps"]})
    check_unused("s", SimpleSchedule(name="constant"), {"gamma": ["steps"], "epochs": ["steps"]})


@dataclass
class SimpleSchedule:
    """A choice and settings of one of its choices."""

    name: str
    gamma: float = 0.1
    epochs: list[int] = field(default_factory=list)
