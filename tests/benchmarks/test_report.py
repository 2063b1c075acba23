from benchmarks.report import publish, republished


def page(record):
    return f"# {record['title']}\n"


def test_a_record_and_its_page_are_written_beside_each_other(tmp_path, capsys):
    publish({"title": "x"}, page, None)
    assert list(tmp_path.iterdir()) == []
    publish({"title": "x"}, page, tmp_path / "out")
    assert capsys.readouterr().out == "# x\n# x\n"
    assert (tmp_path / "out.md").read_text() == republished(page, tmp_path / "out") == "# x\n"
