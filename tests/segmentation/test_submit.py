import subprocess
import sys

import pytest

from knorm.training.mistakes import run_program
from segmentation.submit import parse_options


def test_a_run_is_written_and_a_file_is_checked():
    write = parse_options(["runs/one", "--images=test", "--scales", "1", "2"])
    assert (str(write.run_dir), write.check, write.scales) == ("runs/one", None, [1.0, 2.0])
    assert str(write.out) == "submission.zip"
    check = parse_options(["--images=test", "--check=sent.zip"])
    assert (check.run_dir, str(check.check)) == (None, "sent.zip")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--images"),
        (["--images=test"], "give either the folder of a run, to write, or --check FILE"),
        (["run", "--images=test", "--check=a.zip"], "give either the folder of a run"),
        (["run", "--imags=test", "--images=test"], "did you mean '--images'?"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, capsys):
    assert run_program(lambda: parse_options(arguments)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


@pytest.mark.parametrize("program", ["predict", "submit"])
def test_mistakes_do_not_wait_for_torch(program):
    code = (
        f"import sys; from segmentation.{program} import main\n"
        "try: main(['--optim.lrr=1'])\n"
        "except ValueError: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False"], done.stderr
