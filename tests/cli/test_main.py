import subprocess
import sys

import pytest

import knorm
from knorm.cli import main as cli
from knorm.training.mistakes import run_program


def test_help_and_a_mistyped_command_wait_for_nothing_slow():
    program = (
        "import sys, knorm; from knorm.cli import main; from knorm.training.mistakes import *;"
        "main.main(['--help']); code = run_program(lambda: main.main(['modles']));"
        "print(code, *sorted({'torch', 'numpy', 'yaml', 'rich'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "2"
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)
    assert done.stderr == "error: knorm modles: no such command; did you mean 'models'?\n"


def test_every_public_name_is_found_when_it_is_asked_for():
    assert all(getattr(knorm, name) is not None for name in (*knorm.__all__, "models", "kernel"))
    assert set(knorm.__all__) <= set(dir(knorm))
    with pytest.raises(AttributeError, match="no attribute 'KernelNorm4d'"):
        _ = knorm.KernelNorm4d


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_says_what_it_takes(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert f"knorm {name}" in capsys.readouterr().out


def test_the_exit_code_of_a_mistake_is_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["knorm", "describe"])
    assert cli.run() == 2
    assert "the following arguments are required: model" in capsys.readouterr().err
    assert run_program(lambda: cli.main(["models", "zzz"])) == 2
