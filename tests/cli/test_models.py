import pytest

from knorm.cli import models
from knorm.cli.nets import Usual
from knorm.training.mistakes import UserMistakeError


def test_nets_are_listed_with_their_sizes_for_small_and_large_images(capsys):
    models.main(["resnet18"])
    head, row = capsys.readouterr().out.splitlines()
    assert head == "model     CIFAR M params  CIFAR GMACs  ImageNet M params  ImageNet GMACs"
    assert row.split() == ["resnet18", "11.17", "0.555", "11.69", "1.814"]


def test_nets_for_segmentation_have_a_table_of_their_own(capsys):
    models.main(["*resnet18"])
    classify, label = capsys.readouterr().out.split("\n\n")
    assert "fcn" not in classify
    head, *rows = label.splitlines()
    assert head.split("  ")[-1] == "Cityscapes GMACs"
    assert [row.split()[:2] for row in rows] == [
        ["fcn_knresnet18", "13.53"],
        ["fcn_resnet18", "13.55"],
    ]


def test_a_pattern_without_a_net_is_the_users_mistake():
    with pytest.raises(
        UserMistakeError, match="no model matches 'knresnet81'; did you mean 'knresnet18'"
    ):
        models.main(["knresnet81"])


def test_a_net_that_does_not_take_such_images_has_a_dash():
    assert models.size_of("knresnet18", Usual(8, "imagenet", 10, "tiny")) == ("-", "-")
