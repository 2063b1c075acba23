import pytest

from segmentation.classes import (
    CAMVID,
    CITYSCAPES,
    CITYSCAPES_LABELS,
    IGNORE,
    TRAIN_IDS,
    UNKNOWN,
    lookup_table,
)

NINETEEN = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def test_cityscapes_evaluates_nineteen_of_its_labels():
    assert CITYSCAPES.to_file == tuple(NINETEEN)
    assert CITYSCAPES.num_classes == 19
    table = lookup_table(CITYSCAPES.file_values)
    assert [table[value] for value in NINETEEN] == list(range(19))
    assert {table[value] for value in {*range(34), 255} - {*NINETEEN}} == {IGNORE}
    assert set(table[34:255]) == {UNKNOWN}


def test_train_ids_are_the_train_numbers_themselves():
    table = lookup_table(TRAIN_IDS)
    assert list(table[:19]) == list(range(19))
    assert set(table[19:255]) == {UNKNOWN}
    assert table[255] == IGNORE


def test_cityscapes_labels_are_the_published_ones():
    assert [label.id for label in CITYSCAPES_LABELS] == [*range(34), -1]
    assert CITYSCAPES.names[:4] == ("road", "sidewalk", "building", "wall")
    assert CITYSCAPES.colors[CITYSCAPES.names.index("train")] == (0, 80, 100)
    assert dict(zip(CITYSCAPES.names, CITYSCAPES.categories, strict=True))["rider"] == "human"
    assert sorted(set(CITYSCAPES.categories)) == [
        *("construction", "flat", "human", "nature", "object", "sky", "vehicle")
    ]


def test_cityscapes_labels_are_those_of_the_official_scripts():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    for ours, theirs in zip(CITYSCAPES_LABELS, labels, strict=True):
        assert ours == (theirs.id, theirs.name, theirs.trainId, theirs.category, theirs.color)


def test_camvid_has_eleven_classes_and_a_void():
    table = lookup_table(CAMVID.file_values)
    assert list(table[:12]) == [*range(11), IGNORE]
    assert set(table[12:]) == {UNKNOWN}
    assert CAMVID.to_file == tuple(range(11))
    assert len(set(CAMVID.colors)) == CAMVID.num_classes == 11
