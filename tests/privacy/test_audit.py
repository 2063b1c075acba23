"""The program: what it writes, its exit codes, and the mistakes that it answers with a line."""

import json
import re
import subprocess
import sys

import pytest

from classification.work import ClassificationWork
from knorm.training.mistakes import run_program
from privacy import audit, step
from tests.privacy.audits import SETTINGS, linear
from tests.privacy.known import KEY

SMALL = [
    f"--{name}={value}"
    for name, value in (SETTINGS | {"epochs": 2, "canaries.gradients": 64}).items()
]


def program(folder, *arguments):
    return run_program(lambda: audit.main([*SMALL, *arguments, f"--run_dir={folder}"]))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(ClassificationWork, "make_net", linear)
    monkeypatch.setattr("privacy.secret.secrets.token_bytes", lambda count: KEY)  # same coins


@pytest.mark.usefixtures("quick")
def test_a_claim_that_stands_is_told_beside_the_bounds(tmp_path, capsys):
    assert program(tmp_path / "run") == 0
    folder = tmp_path / "run"
    report = json.loads((folder / "audit.json").read_text())
    assert report["at_least"] <= report["claimed"]["epsilon"]
    assert report["confidence"] == 0.95
    assert [row["canaries"] for row in report["attacks"]] == [64, 64, 16]
    assert all(0 < row["included"] < row["canaries"] for row in report["attacks"])
    text = (folder / "audit.md").read_text()
    assert "the claim stands" in text
    assert text in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "ledger.jsonl", "secret.key"}


@pytest.mark.usefixtures("quick")
def test_a_refuted_claim_is_exit_code_1_with_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "add_noise", lambda sums, *_: sums)
    with pytest.raises(SystemExit) as end:
        program(tmp_path / "run")
    line = end.value.code  # text, which Python prints before it ends with 1
    assert line.startswith("the claim is refuted: epsilon is at least")
    assert "\n" not in line
    assert "refuted" in (tmp_path / "run" / "audit.md").read_text()


@pytest.mark.usefixtures("quick")
def test_no_noise_claims_nothing_that_could_be_refuted(tmp_path):
    assert program(tmp_path / "run", "--privacy.noise_multiplier=0") == 0
    report = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert report["claimed"]["epsilon"] is None
    assert report["at_least"] > 1.5


MISTAKES = {
    "too few canaries": (["--canaries.gradients=7"], "canaries.gradients must lie between 8 and"),
    "no significance": (["--canaries.significance=0"], r"significance must lie in \(0, 0.5\)"),
    "several runs": (["--seeds=2"], "one run from its beginning; leave seeds out"),
    "a rehearsal": (["--dry_run"], "leave dry_run out"),
    "another run to go on": (["--resume=auto"], "leave resume out"),
    "a misspelt option": (["--canaries.gradient=9"], "did you mean '--canaries.gradients'"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_one_line(tmp_path, capsys, arguments, message):
    assert program(tmp_path / "run", *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
    assert not (tmp_path / "run").exists()


def test_mistakes_do_not_wait_for_torch():
    code = "import sys; from privacy.audit import main\ntry: main(['--canaries.gradient=9'])\n"
    code += "except ValueError: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False"], done.stderr
