import json
import shutil

import pytest
import torch
from huggingface_hub import constants

from classification import export, exporting, hub
from classification.evaluation import load_net
from knorm.hub import HubModel
from knorm.training.mistakes import UserMistakeError, run_program
from tests.classification.test_export import folder, net_of  # noqa: F401  a fixture


@pytest.fixture
def shipped(folder, tmp_path):  # noqa: F811
    export.main([str(folder), "--hub_folder", str(tmp_path / "hub")])
    return tmp_path / "hub"


def test_the_folder_gives_the_logits_of_the_best_weights_bit_for_bit(folder, shipped):  # noqa: F811
    images = torch.rand(3, 1, 8, 8)
    loaded = HubModel.from_pretrained(shipped)
    assert torch.equal(loaded(images), net_of(folder, "best")(images))
    assert loaded.facts["classes"] == [str(digit) for digit in range(10)]
    assert loaded.facts["std"] != [1.0]


def test_the_card_tells_recipe_numbers_and_inputs(folder, shipped):  # noqa: F811
    card = (shipped / "README.md").read_text()
    result = json.loads((folder / "result.json").read_text())
    (top1,) = (
        row["value"]
        for row in result["results"]
        if (row["split"], row["weights"], row["metric"]) == ("test", "best", "top1")
    )
    for words in (
        "---\nlibrary_name: knorm\n",
        f"    - type: accuracy\n      value: {top1}\n",
        "resnet8 (norm kernel, dropout_p 0.1, width 0.125), trained on digits for 1 epochs",
        "Images are (N, 1, 8, 8) float32: (pixels / 255 - mean) / std",
        "| test | best | top1 |",
        "  scaling: standard",
    ):
        assert words in card
    assert "| last |" not in card


def test_a_folder_that_is_taken_and_a_run_without_result_are_refused(folder, shipped, tmp_path):  # noqa: F811
    with pytest.raises(UserMistakeError, match="exists already"):
        export.main([str(folder), "--hub_folder", str(shipped)])
    unfinished = shutil.copytree(folder, tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    with pytest.raises(UserMistakeError, match="no finished run"):
        export.main([str(unfinished), "--hub_folder", str(tmp_path / "new")])


def test_a_push_hands_over_the_card_and_its_failure_is_one_line(folder, monkeypatch, capsys):  # noqa: F811
    pushed = []

    def push_to_hub(model, repo, model_card_kwargs):
        pushed.append((repo, model_card_kwargs["text"]))
        if repo == "nobody/net":
            raise ConnectionError("no network")
        return f"https://hub/{repo}"

    monkeypatch.setattr(HubModel, "push_to_hub", push_to_hub)
    export.main([str(folder), "--push", "me/net"])
    assert capsys.readouterr().out == "https://hub/me/net\n"
    assert pushed[0][0] == "me/net"
    assert "# digits-resnet8" in pushed[0][1]
    with pytest.raises(UserMistakeError, match="nobody/net cannot be pushed: no network"):
        export.main([str(folder), "--push", "nobody/net"])


def test_a_hub_that_does_not_answer_is_one_line(folder, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert run_program(lambda: export.main([str(folder), "--push=me/net"])) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: me/net cannot be pushed: ")
    assert "refused" in err
    assert err.count("\n") == 1


def test_cards_name_the_first_classes_only(folder, monkeypatch):  # noqa: F811
    monkeypatch.setattr(hub, "MOST_NAMES", 3)
    recipe = load_net(folder).recipe
    facts = {
        "classes": list("abcde"),
        "shape": [1, 8, 8],
        "scaling": "x",
        "mean": [0.0],
        "std": [1.0],
    }
    assert "Classes: a, b, c and 2 more, see config.json." in hub.model_card(
        recipe, folder, "last", facts
    )


def test_a_swapped_net_is_shipped_as_it_is_and_its_card_says_so(folder):  # noqa: F811
    loaded = load_net(folder, swap="none", cpu=True)
    recipe, net, state = loaded.recipe, loaded.net, loaded.state
    images = torch.rand(3, 1, 8, 8)
    facts = exporting.facts_of(recipe, state, images)
    assert torch.equal(hub.hub_model(recipe, net, facts)(images), net.eval()(images))
    card = hub.model_card(recipe, folder, "best", facts)
    assert "resnet8 (norm kernel, dropout_p 0.1, width 0.125), norms swapped (kind none)" in card


def test_the_card_keeps_the_places_of_data_and_runs_to_itself(folder, tmp_path):  # noqa: F811
    config = (folder / "config.yaml").read_text()
    config = config.replace("weights: null", "weights: /home/me/runs/first")
    (tmp_path / "config.yaml").write_text(config.replace("root: data", "root: /home/me/data"))
    text = hub.public_recipe(tmp_path)
    assert "weights: first\n" in text
    assert "/home/me" not in text
