import pytest

from knorm.training import files


def test_a_failure_while_writing_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    files.write_text(path, "old\n")
    monkeypatch.setattr(files.os, "replace", lambda *_: pytest.fail("replaced"))
    monkeypatch.setattr(files, "flush", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        files.write_text(path, "new\n")
    assert path.read_text() == "old\n"


def test_a_text_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    for text in ("one\r\n", "two\n"):
        files.write_text(tmp_path / "a.txt", text)
        assert (tmp_path / "a.txt").read_bytes() == text.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
