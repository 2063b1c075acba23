import pytest
from torch import nn

from knorm.cli import describe
from knorm.models.resnet import ResNetOptions
from knorm.training.mistakes import UserMistakeError


def test_a_net_is_told_with_its_options_norms_and_stages(capsys):
    describe.main(["knresnet13", "--norm", "kernel", "--in_chans", "1", "--option", "width=0.25"])
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert out.startswith(
        "knresnet13  num_classes 10  in_chans 1  stem cifar  norm kernel  width 0.25"
    )
    assert lines["norms:"][1] == "batch,"
    assert lines["dropout_p"][2:5] == ["dropout", "of", "the"]
    assert lines["features.stem"][1:3] == ["16x32x32", "160"]
    assert lines["fc"][1:3] == ["10", "2,570"]
    assert lines["all"][1] == "129,818"
    assert float(lines["all"][3]) > 0


def test_both_counts_of_multiplications_are_told(capsys):
    describe.main(["resnetlike"])
    lines = capsys.readouterr().out.splitlines()
    (total,) = (line.split() for line in lines if line.startswith("all"))
    assert total[2] == "69.44"
    assert "mult-adds as torchinfo counts 69.88 M an image, 8.95 G a batch of 128" in lines


def test_a_net_for_segmentation_is_told_for_images_of_streets(capsys):
    describe.main(["deeplabv3plus", "--option", "backbone=resnet18"])
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert out.startswith("deeplabv3plus  num_classes 19  in_chans 3  backbone resnet18")
    assert lines["backbone"] == ["backbone", "resnet50"]  # the default
    assert lines["output_stride"][1] == "16"
    assert lines["features.layer4"][1] == "512x32x32"
    assert lines["classifier"][1] == "19x128x128"


def test_options_are_told_as_their_class_documents_them():
    meanings = describe.attribute_docstrings(ResNetOptions)
    assert meanings["output_stride"].startswith("most input pixels per feature pixel")
    assert meanings["in_chans"] == "channels of the input"


def test_options_without_such_a_class_are_named():
    assert describe.option_table(nn.ReLU(), ("norm", "width"), {}) == "options: norm, width"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["knresnet81"], "did you mean 'knresnet18'"),
        (["resnet18", "--norm", "kernl"], "did you mean 'kernel'"),
        (["resnet18", "--option", "widht=1"], "takes no option 'widht'"),
        (["knresnet13", "--option", "width"], "--option width: takes NAME=VALUE"),
        (["knresnet13", "--option", "stem=cifar"], "--option stem=cifar: is given twice"),
        (["resnet18", "--image_size", "0"], "image_size must be positive"),
        (["knresnet18", "--stem", "imagenet"], "do not fit into the padded input"),
    ],
)
def test_a_mistake_is_told_before_anything_else(arguments, message, capsys):
    with pytest.raises(UserMistakeError, match=message):
        describe.main(arguments)
    assert capsys.readouterr().out == ""


def test_images_too_small_for_the_net_are_one_line():
    with pytest.raises(UserMistakeError, match="image_size 2 is too small"):
        describe.main(["resnet8", "--image_size", "2"])
