from knorm.training.tables import columns, markdown, mean_and_sd, spread


def test_a_markdown_table_has_a_rule_below_its_head():
    assert markdown(["", "b"], [["1", "2"]]) == "|  | b |\n| --- | --- |\n| 1 | 2 |"


def test_columns_are_as_wide_as_their_widest_cell():
    table = columns(["name", "size"], [["a", "1,000"], ["longer", "2"]])
    assert table == "name     size\na       1,000\nlonger      2"
    assert columns(["name", "note"], [["a", "b"]], left=2) == "name  note\na     b"


def test_one_value_has_no_deviation_and_none_no_mean():
    assert mean_and_sd([0.5]) == (0.5, None)
    assert [spread(values, 2) for values in ([], [0.5], [1, 3])] == ["-", "0.50", "2.00 ± 1.41"]
