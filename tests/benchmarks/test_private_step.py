"""A way that raises or is wrong is told and not timed; memory is that of the tensors."""

import pytest
import torch
from torch import nn

from benchmarks.private_step import failure, render
from benchmarks.step_ways import PLAIN, PRIVATE, Way


@pytest.fixture
def case():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    return net, 5 * torch.randn(4, 3, 2, 2), torch.arange(4)


def raises(net, x, labels, sigma):
    raise RuntimeError("no rule\nfor this")


def test_a_way_is_right_wrong_or_raises(case):
    assert failure(PRIVATE[0], *case) == ""
    assert failure(PLAIN, *case).startswith("wrong by ")
    assert failure(Way("x", raises), *case) == "raises RuntimeError: no rule"


def test_the_page_has_numbers_or_the_failure():
    row = {"net": "net", "parameters": 1200, "failure": ""}
    numbers = {"seconds": 0.5, "time_ratio": 2.0, "lower_quartile": 1.9, "upper_quartile": 2.1,
               "peak_mib": 3.25, "peak_ratio": 1.5}  # fmt: skip
    rows = [row | {"way": "ours"} | numbers, row | {"way": "theirs", "failure": "raises X"}]
    settings = {"batch_size": 4, "size": 32, "threads": 1, "rounds": 3, "torch": "2", "opacus": "1"}
    text = render(settings | {"rows": rows, "command": "python"})
    assert "| net | 1,200 | ours | 0.500 | 2.00 | 1.90-2.10 | 3.2 | 1.50 |\n" in text
    assert "| net | 1,200 | theirs | - | - | - | - | - |\n" in text
    assert "\n- net, theirs: raises X\n\n```\npython\n```\n" in text
