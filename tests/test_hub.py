import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from knorm.hub import HubModel

OPTIONS = {"num_classes": 3, "in_chans": 1, "norm": "kernel", "width": 0.125}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(1)
    HubModel("knresnet13", OPTIONS, {"classes": ["a", "b", "c"]}).save_pretrained(tmp_path)
    return tmp_path


def test_a_net_comes_back_bit_for_bit(folder):
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    torch.manual_seed(1)
    saved = HubModel("knresnet13", OPTIONS).eval()
    loaded = HubModel.from_pretrained(folder)
    images = torch.rand(4, 1, 16, 16)
    assert not loaded.training
    assert torch.equal(loaded(images), saved(images))
    assert loaded.facts == {"classes": ["a", "b", "c"]}


def test_the_config_says_how_to_build_the_net(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config == {
        "model": "knresnet13",
        "options": OPTIONS,
        "facts": {"classes": ["a", "b", "c"]},
        "swap": None,
    }


def test_a_swapped_net_comes_back_as_it_was(tmp_path):
    options = OPTIONS | {"norm": "batch"}
    net = HubModel("knresnet13", options, swap={"kind": "kernel", "fold": True}).eval()
    net.save_pretrained(tmp_path)
    images = torch.rand(4, 1, 16, 16)
    assert torch.equal(HubModel.from_pretrained(tmp_path)(images), net(images))


def test_weights_that_do_not_fit_exactly_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop("net.fc.bias")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"net\.fc\.bias"):
        HubModel.from_pretrained(folder)


def test_pickles_are_not_read():
    with pytest.raises(ValueError, match="is a pickle"):
        HubModel._load_as_pickle(None, "pytorch_model.bin", "cpu", True)


def test_what_json_would_change_is_refused():
    with pytest.raises(ValueError, match="options must be what JSON can hold"):
        HubModel("knresnet13", OPTIONS | {"norm_options": {"eps": torch.tensor(1.0)}})


@pytest.mark.parametrize(
    ("model", "options", "tag"),
    [
        ("knresnet13", OPTIONS, "image-classification"),
        ("fcn", {"backbone": "resnet8", "head_channels": 8}, "image-segmentation"),
    ],
)
def test_the_card_says_what_the_net_does(model, options, tag):
    assert HubModel(model, options).generate_model_card().data.pipeline_tag == tag


def test_the_card_is_the_text_that_is_given(tmp_path):
    text = "---\nlibrary_name: knorm\n---\n# Mine"
    HubModel("knresnet13", OPTIONS).save_pretrained(tmp_path, model_card_kwargs={"text": text})
    assert (tmp_path / "README.md").read_text() == text
