import pytest
import yaml

from knorm.cli import main, recipes
from knorm.training.mistakes import UserMistakeError


def printed(capsys, *arguments):
    main.main(["recipes", *arguments])
    return capsys.readouterr().out


def test_recipes_are_listed_with_the_numbers_that_they_aim_at(capsys):
    out = printed(capsys)
    assert "digits" in out
    row = next(line for line in out.splitlines() if "kn-cifar100/knresnet18-b32 " in line)
    assert row.split() == ["kn-cifar100/knresnet18-b32", "79.29", "±", "0.02"]
    assert "TMLR 02/2024, Table 1" in out


def test_a_pattern_picks_some(capsys):
    out = printed(capsys, "kn-imagenet/*50*")
    names = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert [name for name in names if "/" in name] == [
        f"kn-imagenet/{name}"
        for name in ("resnet50-layer", "resnet50-group", "resnet50-batch", "knresnet50")
    ]


def test_a_name_prints_the_whole_recipe(capsys):
    out = printed(capsys, "kn-cifar100/knresnet18-b32")
    assert "# published: 79.29 ± 0.02" in out
    options = yaml.safe_load(out)
    assert (options["optim"]["lr"], options["batch_size"], options["epochs"]) == (0.05, 32, 150)


def test_every_pipeline_has_its_own_of_a_name(capsys):
    pipelines = ("classification", "segmentation", "privacy")
    heads = [f"python -m {name}.train --config RECIPE" for name in pipelines]
    assert [line for line in printed(capsys).splitlines() if "--config" in line] == heads
    plain, private = printed(capsys, "digits").split("\n\n")
    assert "python -m classification.train --config digits" in plain
    assert "python -m privacy.train --config digits" in private
    assert yaml.safe_load(private)["privacy"]
    assert "privacy" not in yaml.safe_load(plain)


def test_the_recipes_of_segmentation_are_listed_and_shown(capsys):
    assert "  scenes" in printed(capsys).splitlines()
    shown = printed(capsys, "scenes")
    assert "# python -m segmentation.train --config scenes" in shown
    assert yaml.safe_load(shown)["data"]["name"] == "scenes"


def test_mistakes_are_named(tmp_path, monkeypatch):
    with pytest.raises(UserMistakeError, match="no recipe matches 'digit'; did you mean 'digits'"):
        main.main(["recipes", "digit"])
    monkeypatch.setattr(recipes, "CHECKOUT", tmp_path)
    with pytest.raises(UserMistakeError, match="work in a checkout"):
        main.main(["recipes"])
