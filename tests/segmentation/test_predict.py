import json
import zipfile

import numpy as np
import pytest
import torch

from knorm.training.mistakes import run_program
from segmentation import evaluate, predict, submit, train
from segmentation.classes import CITYSCAPES, IGNORE
from segmentation.metrics import confusion_matrix, summary
from segmentation.predict import parse_options
from tests.segmentation.predictors import pixels

RECIPE = """
data: {name: scenes, scenes: {train: 8, val: 3, test: 2, height: 32, width: 64}, val_fraction: 0.25}
model: {name: fcn, norm: group, options: {backbone: knresnet13, backbone_options: {width: 0.25}}}
optim: {lr: 0.05}
epochs: 1
batch_size: 4
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with data and a run."""
    root = tmp_path_factory.mktemp("root")
    (root / "recipe.yaml").write_text(RECIPE)
    run = [f"--config={root / 'recipe.yaml'}", f"--data.root={root / 'data'}"]
    train.main([*run, f"--run_dir={root / 'run'}", "--launch.cpu=true"])
    return root


def folder_of(root, kind, split):
    (found,) = (root / "data").rglob(f"{kind}/{split}")
    return found


def test_predictions_have_the_numbers_of_evaluation(root, capsys):
    run, images = str(root / "run"), folder_of(root, "leftImg8bit", "val")
    capsys.readouterr()
    evaluate.main([run, "--cpu"])
    told = json.loads(capsys.readouterr().out)
    predict.main([run, str(images), f"--out={root / 'out'}", "--cpu"])
    matrix = torch.zeros(19, 20, dtype=torch.long)
    for path in images.rglob("*.png"):
        name = path.relative_to(images)
        _, mask = pixels(root / "out" / "masks" / name)
        label = path.name.replace("leftImg8bit", "gtFine_labelIds")
        _, ids = pixels(folder_of(root, "gtFine", "val") / name.parent / label)
        truth = np.array([CITYSCAPES.file_values.get(value, IGNORE) for value in range(256)])[ids]
        matrix += confusion_matrix(torch.from_numpy(mask), torch.from_numpy(truth), 19)
    found = summary(matrix, CITYSCAPES)
    assert matrix.sum()
    assert {name: told[name] for name in found} == found


def test_a_run_makes_a_submission_for_images_without_labels(root, capsys):
    images = folder_of(root, "leftImg8bit", "test")
    out = root / "submission.zip"
    submit.main([str(root / "run"), f"--images={images}", f"--out={out}", "--cpu", "--flip"])
    with zipfile.ZipFile(out) as archive:
        assert len(archive.namelist()) == 2
    assert "nothing is wrong" in capsys.readouterr().err


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
