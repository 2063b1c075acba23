"""Which nets a short census takes, and that they are chosen once."""

import json

import pytest
from torch import nn

from benchmarks import swap_nets
from benchmarks.swap_nets import chosen, smallest_of_each
from knorm.training.mistakes import UserMistakeError

NETS = {
    "wide": lambda: nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64)),
    "narrow": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)),
    "bare": lambda: nn.Conv2d(3, 2, 1),
    "tokens": lambda: nn.LayerNorm(4),
    "test_tiny": lambda: nn.BatchNorm2d(1),
}
FAMILIES = dict.fromkeys(NETS, "convnets") | {"tokens": "transformers"}


@pytest.fixture
def built(monkeypatch):
    names = []

    def build(name):
        names.append(name)
        return NETS[name]()

    monkeypatch.setitem(swap_nets.BUILDERS, "zoo", build)
    monkeypatch.setattr(swap_nets, "library_version", lambda library: "1.0")
    return names


def test_the_smallest_net_with_a_batch_norm_stands_for_its_family(built, tmp_path):
    names = smallest_of_each("zoo", FAMILIES, tmp_path / "out" / "choice.json")
    assert names == ["narrow", "tokens"]
    assert "test_tiny" not in built


def test_the_choice_is_kept_for_a_version_beside_those_of_others(built, tmp_path, monkeypatch):
    record = tmp_path / "choice.json"
    record.write_text('{"other 2.0": ["x"]}')
    first = smallest_of_each("zoo", FAMILIES, record)
    built.clear()
    assert smallest_of_each("zoo", FAMILIES, record) == first
    assert built == []
    monkeypatch.setattr(swap_nets, "library_version", lambda library: "1.1")
    smallest_of_each("zoo", FAMILIES, record)
    assert built
    assert sorted(json.loads(record.read_text())) == ["other 2.0", "zoo 1.0", "zoo 1.1"]


def test_a_net_that_looks_at_its_weights_is_built_with_memory(built, tmp_path, monkeypatch):
    def looks(name):
        net = NETS["narrow"]()
        net[0].weight.max().item()
        return net

    monkeypatch.setitem(swap_nets.BUILDERS, "zoo", looks)
    assert smallest_of_each("zoo", {"a": "family"}, tmp_path / "choice.json") == ["a"]


def test_nets_are_chosen_by_patterns_or_as_the_smallest(built, tmp_path):
    record = tmp_path / "choice.json"
    assert chosen("zoo", "t*,wide,t*", FAMILIES, record) == ["tokens", "test_tiny", "wide"]
    assert chosen("zoo", "smallest", FAMILIES, record) == ["narrow", "tokens"]
    with pytest.raises(UserMistakeError, match="zoo has no net 'resnet'"):
        chosen("zoo", "resnet", FAMILIES, record)
