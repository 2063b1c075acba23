"""Images of any size: filled up where the net could not take them, else refused before training."""

import pytest
from PIL import Image

from knorm.training.mistakes import run_program
from segmentation import evaluate, predict, train
from tests.segmentation.runs import QUICK, quick
from tests.segmentation.trees import pairs, random_image, random_labels, save

LARGE = ["--model.stem=imagenet", "--augment.crop=[32, 32]"]  # a net that takes 29 pixels or more


def test_images_smaller_than_the_net_takes_are_filled_up_in_every_program(tmp_path):
    root, folder = pairs(tmp_path / "pairs"), tmp_path / "run"
    save(root / "test/images/thin.png", random_image(sides=(7, 100)))
    save(root / "test/masks/thin.png", random_labels((0, 1), sides=(7, 100)))
    options = ["--data.name=pairs", f"--data.pairs.classes={root}/classes.txt", *LARGE]
    options += [f"--data.root={root}", f"--run_dir={folder}", "--epochs=1"]
    assert run_program(lambda: train.main([*QUICK, *options])) == 0
    asked = [str(folder), "--cpu", "--scales", "0.25", "1"]
    assert run_program(lambda: evaluate.main(asked)) == 0
    thin = str(root / "test/images/thin.png")
    out = tmp_path / "out"
    assert run_program(lambda: predict.main([str(folder), thin, "--cpu", f"--out={out}"])) == 0
    with Image.open(out / "masks" / "thin.png") as mask:
        assert mask.size == (100, 7)


WINDOWS = "fcn cannot take windows (inference.crop) of 8 x 8"


def test_windows_smaller_than_the_net_takes_are_told_by_every_program(tmp_path, capsys):
    given = quick(tmp_path / "run", *LARGE, "--epochs=1", "--examples=0")
    assert run_program(lambda: train.main([*given, "--inference.crop=[8, 8]"])) == 2
    assert WINDOWS in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    train.main(given)
    photo = str(next((tmp_path / "data").rglob("*_leftImg8bit.png")))
    for main, more in ((evaluate.main, []), (predict.main, [photo])):
        asked = [str(tmp_path / "run"), *more, "--cpu", "--crop", "8", "8"]
        capsys.readouterr()
        assert run_program(lambda main=main, asked=asked: main(asked)) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert WINDOWS in err


SWIN = """
model: {name: fcn, options: {backbone: 'timm:swin_tiny_patch4_window7_224'}}
optim: {lr: 0.1}
epochs: 1
batch_size: 2
launch: {cpu: true}
"""


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        ("[32, 32]", "fcn cannot take images of 32 x 32: "),
        ("[224, 224]", "fcn cannot take whole images, without inference.crop, of 224 x 256: "),
    ],
)
def test_a_net_of_one_size_is_told_before_there_is_a_folder(crop, message, tmp_path, capsys):
    (tmp_path / "swin.yaml").write_text(SWIN)
    folder = tmp_path / "run"
    given = [f"--config={tmp_path / 'swin.yaml'}", *quick(folder)[len(QUICK) :]]
    given += ["--data.scenes.width=256", f"--augment.crop={crop}"]
    assert run_program(lambda: train.main(given)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
    assert not folder.exists()


def test_a_net_that_cannot_take_the_crop_is_told_before_there_is_a_folder(tmp_path, capsys):
    arguments = quick(tmp_path / "run", "--augment.crop=[1, 1]")
    assert run_program(lambda: train.main(arguments)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "fcn cannot take images of 1 x 1" in err
    assert not (tmp_path / "run").exists()
