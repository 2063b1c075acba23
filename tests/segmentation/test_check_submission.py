import numpy as np
import pytest

from knorm.training.mistakes import run_program
from segmentation.check_submission import main
from tests.segmentation.predictors import flag, save

NAME = "ulm_000000_000019_leftImg8bit.png"


@pytest.mark.parametrize(
    ("value", "code", "told"), [(7, 0, ""), (5, 2, f"{NAME}: the value 5 is the label id of no")]
)
def test_the_exit_code_is_2_where_anything_is_wrong(tmp_path, capsys, value, code, told):
    save(tmp_path / "images" / "ulm" / NAME, flag())
    save(tmp_path / "sent" / NAME, np.full((6, 9), value, dtype=np.uint8))
    arguments = [str(tmp_path / "sent"), f"--images={tmp_path / 'images'}"]
    assert run_program(lambda: main(arguments)) == code
    out, err = capsys.readouterr()
    assert out.startswith(told)
    assert err.count("\n") == 1


def test_mistakes_are_one_line_and_exit_code_2(capsys):
    assert run_program(lambda: main(["sent.zip"])) == 2
    assert "--images" in capsys.readouterr().err
