import pytest

from knorm.cli import report
from knorm.training.mistakes import UserMistakeError


def test_what_is_asked_for_reaches_the_comparison_and_is_printed(monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setattr(report, "compare", lambda *args: asked.append(args) or "a table\n")
    report.main([str(tmp_path), "--by", "model.norm", "--out", str(tmp_path / "out")])
    assert asked == [([tmp_path], "model.norm", tmp_path / "out")]
    assert capsys.readouterr().out == "a table\n"


def test_a_folder_that_holds_no_run_is_the_users_mistake(tmp_path):
    with pytest.raises(UserMistakeError, match="no finished run"):
        report.main([str(tmp_path)])
