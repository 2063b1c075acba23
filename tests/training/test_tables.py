from knorm.training.tables import columns, markdown


def test_a_markdown_table_has_a_rule_below_its_head():
    assert markdown(["", "b"], [["1", "2"]]) == "|  | b |\n| --- | --- |\n| 1 | 2 |"


def test_columns_are_as_wide_as_their_widest_cell():
    table = columns(["name", "size"], [["a", "1,000"], ["longer", "2"]])
    assert table == "name     size\na       1,000\nlonger      2"
    assert columns(["name", "note"], [["a", "b"]], left=2) == "name  note\na     b"
