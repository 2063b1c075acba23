import pytest

from knorm.training import files
from knorm.training.mistakes import UserMistakeError


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


SHAPE = {"name": str, "rows": [{"value": float | int | None}]}
WHOLE = '{"name": "a", "rows": [{"value": 1}, {"value": 0.5}, {"value": null, "more": 2}]}'
DAMAGE = {
    "empty": (b"", "it is empty"),
    "cut off": (WHOLE[:30].encode(), "no JSON, "),
    "no text": (b"\xff\xfe\x00", "it is no text"),
    "a list": (b"[]", "is a list, not a dict"),
    "a key is missing": (b'{"name": "a"}', "lacks rows"),
    "a word for a list": (b'{"name": "a", "rows": "b"}', "rows is a str, not a list"),
    "deep in it": (b'{"name": "a", "rows": [{"value": 1}, {}]}', "rows.1 lacks value"),
    "a word for a number": (
        b'{"name": "a", "rows": [{"value": "b"}]}',
        "rows.0.value is a str, not a float | int | None",
    ),
}


@pytest.mark.parametrize(("content", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_json_is_told_with_its_file_the_reason_and_the_way_out(tmp_path, content, reason):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(UserMistakeError) as caught:
        files.read_json(path, SHAPE, "give up")
    assert str(caught.value).startswith(f"{path} is damaged: {reason}")
    assert str(caught.value).endswith("; give up")


def test_whole_json_comes_back_and_a_missing_file_is_named(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(WHOLE)
    assert files.read_json(path, SHAPE)["rows"][1] == {"value": 0.5}
    with pytest.raises(UserMistakeError, match=r"none.json cannot be read: No such file"):
        files.read_json(tmp_path / "none.json", dict)


def test_damage_to_a_file_of_json_lines_is_told_with_the_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n')
    assert files.read_json_lines(path, {"epoch": int}) == [{"epoch": 1}, {"epoch": 2}]
    path.write_text('{"epoch": 1}\n{"epo')
    with pytest.raises(UserMistakeError, match="damaged: line 2: no JSON"):
        files.read_json_lines(path, {"epoch": int})
