import pytest

from knorm.training.mistakes import run_program
from segmentation.submit import parse_options


def test_options_are_those_of_evaluation_and_where_to_read_and_write():
    options = parse_options(["runs/one", "--images=test", "--scales", "1", "2", "--weights=last"])
    assert (str(options.run_dir), options.weights, options.scales) == ("runs/one", "last", [1, 2])
    assert (str(options.images), str(options.out)) == ("test", "submission.zip")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run_dir, --images"),
        (["run"], "--images"),
        (["run", "--imags=test", "--images=test"], "did you mean '--images'?"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, capsys):
    assert run_program(lambda: parse_options(arguments)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
