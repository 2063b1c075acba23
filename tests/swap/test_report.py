"""The report is data first, and a table when printed."""

from torch import nn

from knorm.swap.report import Report, Row, count_parameters, join_notes


def test_the_table_counts_and_names():
    rows = (
        Row("bn1", "BatchNorm2d", "GroupNorm", ("weight", "bias")),
        Row("", "LayerNorm", "as it was", note="its channels come last"),
    )
    text = str(Report("group", rows, 1000, 1000))
    assert text.splitlines()[0] == "group: 1 replaced, 1 as they were; 1,000 -> 1,000 parameters"
    assert "bn1" in text
    assert "weight, bias" in text
    assert "(model)" in text
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_shared_parameters_count_once():
    layer = nn.Linear(3, 3)
    assert count_parameters(nn.Sequential(layer, layer)) == 12


def test_empty_notes_are_left_out():
    assert join_notes("", "a", "", "b") == "a; b"
