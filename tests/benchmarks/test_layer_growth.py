import pytest
import torch

from benchmarks import layer_growth
from benchmarks.layer_case import OURS, Shape


def test_operations_and_bytes_are_those_of_the_passes():
    count = layer_growth.counted(Shape(2, 3, 3, 1, 1, 4, 5), batch_size=7)
    x, y = 7 * 2 * 20, 7 * 3 * 20
    assert count == {"operations": 6 * y * 2 * 9, "bytes": 4 * (10 * x + 8 * y)}


@pytest.fixture
def record(monkeypatch):
    monkeypatch.setattr(
        layer_growth, "SWEEPS", {"image": (4, 8), "channels": (2,), "batch": (1, 2)}
    )
    monkeypatch.setattr(layer_growth, "POINT", {"image": 4, "channels": 2, "batch": 2})
    monkeypatch.setattr(layer_growth, "LARGE", 2**10)
    monkeypatch.setattr(layer_growth, "SIDE", 8)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    records = []
    monkeypatch.setattr(layer_growth, "publish", lambda record, *_: records.append(record))
    layer_growth.main(rounds=1)
    return records[0]


def test_every_point_is_measured_and_told_with_its_limit(record, tmp_path):
    assert [row["image"] for row in record["sweeps"]["image"]] == [4, 8]
    assert [row["batch"] for row in record["sweeps"]["batch"]] == [1, 2]
    row = record["sweeps"]["image"][1]
    speed = record["speed"]
    assert row["limit"] == max(row[kind] / speed[kind] for kind in ("bytes", "operations"))
    assert row["found"][OURS]["saved"] > 0
    text = layer_growth.render(record)
    assert text.count("| KNConv, ms |") == 3
    layer_growth.draw(record, tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
