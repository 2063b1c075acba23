import pytest

from classification.study_published import PublishedTable
from tests.classification.studies import NAMES, ours

LINES = [
    {"net": "a", "depth": "4", "metric": "acc", "value": "0.5"},
    {"net": "a", "depth": "8", "metric": "acc", "value": "0.6"},
    {"net": "a", "depth": "8", "metric": "size", "value": "12"},
    {"net": "b", "depth": "8", "metric": "acc", "value": "0.7"},
]


def test_the_line_of_a_row_is_found_and_made_percent():
    table = PublishedTable(LINES, "t.csv", "acc", factor=100, parameters="size")
    standing = table.standing({"net": "a", "depth": 8})
    assert (standing.name, standing.percent, standing.parameters) == ("a, 8", 60.0, 12)
    assert PublishedTable(LINES, "t.csv", "acc", where={"net": "b"}).standing({}).percent == 0.7


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"net": "a"}, "t.csv has 2 lines of .*; tell them apart by depth or value"),
        ({"net": "c"}, "t.csv has no such line: net 'c'; there are a, b"),
        ({"nett": "a"}, "t.csv has no column 'nett'; did you mean 'net'?"),
    ],
)
def test_a_line_that_cannot_be_told_is_refused(wanted, message):
    with pytest.raises(ValueError, match=message):
        PublishedTable(LINES, "t.csv", "acc").standing(wanted)


@pytest.mark.parametrize("name", NAMES)
def test_published_numbers_of_our_studies_are_percent(name):
    study = ours(name, None)
    standings = [row.standing for row in study.rows if row.standing]
    assert all(0.9 < standing.percent < 100 for standing in standings)
    if name != "norms-batch-size":  # its table rounds them
        assert all(standing.parameters for standing in standings)
