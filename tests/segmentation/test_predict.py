import sys
from types import SimpleNamespace

import pytest

from knorm.training.mistakes import run_program
from segmentation.predict import main, parse_options
from tests.segmentation.predictors import flag, painter, save


def test_the_net_of_a_run_is_asked_as_the_options_say(tmp_path, monkeypatch, capsys):
    asked = []

    def load_predictor(options):
        asked.append(options)
        return painter()

    evaluation = SimpleNamespace(load_predictor=load_predictor)
    monkeypatch.setitem(sys.modules, "segmentation.evaluation", evaluation)
    image, out = save(tmp_path / "photo.bmp", flag()), tmp_path / "out"
    main(["runs/one", str(image), f"--out={out}", "--weights=last", "--cpu", "--flip"])
    (options,) = asked
    assert (str(options.run_dir), options.weights, options.cpu) == ("runs/one", "last", True)
    assert (options.flip, options.whole, options.crop) == (True, None, None)
    assert (out / "masks" / "photo.png").exists()
    assert "1 images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run_dir, images"),
        (["run", "photo.png", "--alpha=2"], "--alpha must lie between 0 and 1, got 2.0"),
        (["run", "photo.png", "--scalse=2"], "did you mean '--scales'?"),
        (["run", "photo.png", "--crop", "3"], "--crop: expected 2 arguments"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, capsys):
    assert run_program(lambda: parse_options(arguments)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
