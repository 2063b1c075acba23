"""Nets are checked before they are timed, and the page says how time was told."""

import pytest
import torch
from torch import nn

from benchmarks import segmentation_speed
from benchmarks.segmentation_case import BASE, WORKS, Shapes, in_windows, memory_of
from benchmarks.segmentation_speed import by_hand, check, render
from segmentation.inference import probabilities

CPU = torch.device("cpu")
SHAPES = Shapes(size=(24, 40), crop=(16, 24), batch_size=2, windows=3, device=CPU)


def small_net():
    torch.manual_seed(0)
    return nn.Conv2d(3, 19, 3, padding=1)


def test_another_net_than_the_published_one_is_not_timed():
    with pytest.raises(AssertionError, match="fcn_resnet18"):
        check({BASE: small_net()})


def test_windows_are_compared_with_a_plain_loop(monkeypatch):
    net, image = small_net().eval(), SHAPES.pixels(1, SHAPES.size)
    settings = in_windows(SHAPES)
    expected = by_hand(net, image, SHAPES.crop, settings.steps)
    torch.testing.assert_close(probabilities(net, image, settings, 19), expected)
    base = BASE._replace(parameters=sum(p.numel() for p in net.parameters()))
    monkeypatch.setattr(segmentation_speed, "probabilities", lambda *asked: torch.zeros(1))
    with pytest.raises(AssertionError):
        check({base: net})


def test_every_work_does_what_it_says():
    net = small_net()
    before = net.weight.detach().clone()
    train, *infer = [work.of(net, SHAPES) for work in WORKS]
    train()
    assert net.training
    assert not torch.equal(net.weight, before)
    for ask in infer:
        assert ask().shape == (1, 19, 24, 40)
        assert not net.training
    assert [work.images(SHAPES) for work in WORKS] == [2, 1, 1]


def test_memory_is_that_of_one_work(monkeypatch):
    sent = []
    sender = type("Sender", (), {"send": lambda self, row: sent.append(row)})()
    readings = iter([100, 350])
    monkeypatch.setattr("benchmarks.segmentation_case.peak_memory", lambda device: next(readings))
    monkeypatch.setattr("benchmarks.segmentation_case.make", lambda net, device: small_net())
    memory_of(sender, "0", "1", SHAPES, torch.get_num_threads())
    assert sent == [{"bytes": 250}]


@pytest.mark.parametrize(
    ("device", "unit", "memory"),
    [("cpu (x86_64)", "CPU s", "resident"), ("cuda (NVIDIA X)", "s", "tensors took")],
)
def test_the_page_says_what_was_measured(device, unit, memory):
    row = {"work": "training step", "model": "net", "norm": "batch", "seconds": 2.0,
           "images_per_second": 0.5, "time_ratio": 1.5, "time_ratios": [1.4, 1.5, 1.75],
           "peak_mib": 1234.5, "peak_ratio": 1.25}  # fmt: skip
    sizes = {"height": 24, "width": 40, "crop_height": 16, "crop_width": 24, "count": 4}
    settings = {"batch_size": 2, "windows": 3, "threads": 1, "rounds": 3, "cores": 2, "load": 4.26}
    told = {"device": device, "torch": "2", "checked": 18, "command": "python"}
    text = render(sizes | settings | told | {"rows": [row]})
    assert f"| work | net | norm | {unit} | images / {unit} |" in text
    assert "| net | batch | 2.00 | 0.500 | 1.50 | 1.40 - 1.75 | 1,234 | 1.25 |" in text
    assert memory in text
    assert "2 cores of the machine under a load of 4.3" in text
