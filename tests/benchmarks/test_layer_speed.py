import pytest
import torch

from benchmarks import layer_case, layer_speed
from benchmarks.layer_case import BASE, NAIVE, OURS, VARIANTS, Shape, Size, check_naive, shapes_of
from benchmarks.layer_page import draw, render

SMALL = Size(("knresnet13",), 2, 8, 8, {"stem": "cifar", "width": 0.125})


@pytest.fixture(scope="module")
def record():
    torch.manual_seed(0)
    made = {"dtype": torch.float32}
    return {
        "command": "python -m this",
        "size": "small",
        "image": [8, 8],
        "batch_size": 2,
        "device": "cpu",
        "dtype": "float32",
        "channels_last": False,
        "threads": 1,
        "rounds": 1,
        "torch": "2",
        "layers": layer_speed.layers(SMALL, made, torch.contiguous_format, rounds=1),
        "nets": layer_speed.whole_nets(SMALL, made, torch.contiguous_format, 1, compiled=False),
    }


def test_every_convolution_of_the_net_is_found_with_its_size():
    found = shapes_of(SMALL)
    assert all(shape.out[0] in (8, 4, 2, 1) for shape in found)
    assert max(shape.height for shape in found) == 8
    assert sum(found.values()) >= 10


def test_a_shape_in_words_and_its_output():
    shape = Shape(3, 8, 3, 2, 1, 9, 8)
    assert str(shape) == "3-8, 3x3 / 2 on 9x8"
    assert shape.out == layer_case.conv_of(shape)(torch.zeros(1, 3, 9, 8)).shape[2:]


def test_naive_code_that_gives_something_else_is_found_out(monkeypatch):
    shape = Shape(3, 5, 3, 2, 1, 9, 8)
    check_naive(shape)
    monkeypatch.setattr(layer_case, "EPS", 1e-2)
    with pytest.raises(AssertionError):
        check_naive(shape)


def test_windows_that_do_not_fit_into_memory_are_left_out(monkeypatch):
    shape = Shape(64, 64, 3, 1, 1, 512, 1024)
    assert layer_case.fits(NAIVE, shape, 1)
    assert not layer_case.fits(NAIVE, shape, 8)
    assert layer_case.fits(OURS, shape, 8)


def test_every_shape_is_measured_in_every_way(record):
    assert len(record["layers"]) == len(shapes_of(SMALL))
    for row in record["layers"]:
        assert set(row["found"]) == set(VARIANTS)
        assert row["found"][BASE]["step"]["time_ratio"] == row["found"][BASE]["saved"]["ratio"] == 1
        assert row["found"][NAIVE]["saved"]["bytes"] > row["found"][OURS]["saved"]["bytes"]


def test_the_page_has_all_tables_and_the_picture_is_drawn(record, tmp_path):
    text = render(record)
    assert text.count(record["layers"][0]["shape"]) == 4
    assert "| knresnet13 | KNConv |" in text
    del record["layers"][0]["found"][NAIVE]
    assert "too large" in render(record)
    draw(record, tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
