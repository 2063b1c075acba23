import pytest
import torch

from benchmarks import kan_cost
from benchmarks.kan_naive import NAIVE, naive
from knorm.models import create_model


@pytest.fixture
def nets(monkeypatch):
    torch.manual_seed(0)
    small = {"widths": (4, 4, 4, 4), "num_classes": 10}
    monkeypatch.setattr(
        kan_cost, "create_model", lambda name, **given: create_model(name, **given | small)
    )
    return kan_cost.make_nets("kannet4", ("plain", *NAIVE))


def images(count=2):
    return torch.randn(count, 3, 12, 12), torch.randint(10, (count,))


def test_naive_nets_give_the_same_and_another_function_is_found_out(nets):
    kan_cost.check_naive(nets, *images())
    layer = nets["kan, naive: recursion"].features.layer2
    layer.basis.order -= 1
    with pytest.raises((AssertionError, RuntimeError)):
        kan_cost.check_naive(nets, *images())


def test_naive_copies_leave_the_net_as_it_is(nets):
    assert type(nets["kan"].features.stem.basis).__name__ == "BasisBranch"
    assert type(naive(nets["kan"]).features.stem.basis).__name__ == "Recursion"


def test_a_record_becomes_a_table(nets):
    rows = kan_cost.measure(nets, *images(), rounds=1)
    known = {"model": "kannet4", "batch_size": 2, "image_size": 12, "threads": 1, "torch": "2"}
    text = kan_cost.render({**known, "rounds": 1, "command": "none", "rows": rows})
    assert [row["conv"] for row in rows] == [*nets]
    assert text.count("\n| kan |") == 2
    assert "convolutions alone take" in text
