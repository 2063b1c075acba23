"""Reports: what they say comes from the records of runs, and none of a stranger is in them."""

import json

import pytest
import yaml

from classification.study_file import Wish
from classification.study_report import page
from knorm.training.mistakes import UserMistakeError
from tests.classification.studies import call, made_up, write

TOPS = {(1, 0): 0.90, (1, 1): 0.92, (2, 0): 0.80, (2, 1): 0.84, (3, 0): 0.95}


@pytest.fixture
def study(tmp_path):
    """The file of the tiny study, most of its runs in the folder beside it."""
    file = write(tmp_path)
    made_up(file, TOPS)
    return file


def report_of(file, *options):
    call("report", file, *options)
    return (file.parent / "runs" / "tiny" / "report.md").read_text()


def cells(text, label):
    """The cells of a row of the table."""
    (line,) = (
        line for line in text.splitlines() if line.startswith((f"| `{label}`", f"| {label}"))
    )
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_tells_mean_and_deviation_beside_what_is_published(study):
    text = report_of(study)
    assert cells(text, "**baseline**") == [
        *("**baseline**", "bn", "0, 1", "91.00 ± 1.41", "92.00 ± 1.41", "91.30", "-0.30"),
        *("12,345", "2.5", "2.6", "0:00:30", "1024 ± 0"),
    ]
    row = cells(text, "norm=none")
    assert row[1:7] == ["plain", "0, 1", "82.00 ± 2.83", "83.00 ± 2.83", "87.00", "-5.00"]
    assert row[7] == "12,345 (published 33,000)"
    assert cells(text, "lr=0.1")[1:7] == ["", "0", "95.00", "96.00", "", ""]


def test_a_table_says_what_its_numbers_are_of(study):
    text = report_of(study)
    for words in (
        "# Norms of a small net",
        "**Not finished**: 1 of 6 runs are missing.",
        "Data: digits, at most 200 images of every split, 10 % of the training images held out.",
        "Epochs: 2. Whole study.",
        "cpu (x86_64), 1 process(es) of 1 thread(s); python 3.11.7, knorm 0.1.0, torch 2.15.0; "
        "commit 0123456789.",
        "Baseline: model.norm batch, optim.lr 0.05.",
        f"python -m classification.study run {study}",
        "**2 seed(s)**: small differences mean nothing.",
        "![curves by epoch](report-1-curves.png)",
    ):
        assert words in text


def test_a_small_budget_is_told_in_the_title_and_at_every_table(tmp_path):
    file = write(tmp_path, tables=["optim.lr"], baseline=None)
    folder = made_up(file, {(1, 0): 0.5, (3, 0): 0.6}, Wish("small"))
    call("report", file, "--budget", "small")
    text = (folder / "report.md").read_text()
    words = "mall budget: epochs 1; 1 seeds; only rows with model.norm batch"
    assert text.count(words) == 3
    assert "## optim.lr 0.05" in text
    assert "## optim.lr 0.1" in text
    assert f"run {file} --budget small\n" in text


def test_the_markdown_is_what_the_csv_gives(study, tmp_path):
    call("report", study, "--out", tmp_path / "docs" / "norms")
    out = tmp_path / "docs" / "norms"
    assert page(out) == (tmp_path / "docs" / "norms.md").read_text()
    assert {path.name for path in out.parent.iterdir()} == {
        *("norms.md", "norms.csv", "norms-1-bars.png", "norms-1-parameters.png"),
        "norms-1-curves.png",
    }
    (tmp_path / "docs" / "norms.head.md").write_text("JPEG copy.\n")
    assert page(out).startswith("# Norms of a small net\n\nJPEG copy.\n\nWhich norm")


def test_a_label_comes_from_the_run_and_not_from_its_folder_or_the_study(study):
    folder = study.parent / "runs" / "tiny"
    (folder / "norm=none").rename(folder / "norm=group")
    assert cells(report_of(study), "norm=none")[2] == "0, 1"


def test_a_run_of_no_row_is_refused_by_name(study, capsys):
    run = study.parent / "runs" / "tiny" / "norm=none" / "seed-1"
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["norm"] = "group"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    message = (
        "norm=none/seed-1 is no run of this study; of row 1 it differs in model.norm was group"
    )
    with pytest.raises(UserMistakeError, match=message):
        report_of(study)
    config["model"]["norm"], config["seed"] = "none", 7
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserMistakeError, match=r"seed-1 is a run of seed 7.*give --seeds 8"):
        report_of(study)


def test_a_run_from_before_a_setting_was_thought_of_is_still_known(study):
    run = study.parent / "runs" / "tiny" / "norm=none" / "seed-1"
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["test_flip"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert cells(report_of(study), "norm=none")[2] == "0, 1"


def test_options_that_the_study_was_run_with_are_remembered(tmp_path):
    file = write(tmp_path)
    folder = made_up(file, {(1, 0): 0.5}, Wish(overrides=["--epochs", "4"]))
    with pytest.raises(UserMistakeError, match="epochs was 4, now 2"):
        report_of(file)
    (folder / "study.json").write_text(json.dumps({"overrides": ["--epochs", "4"]}))
    assert f"run {file} --epochs 4\n" in report_of(file)


def test_without_a_finished_run_there_is_no_report(tmp_path):
    with pytest.raises(UserMistakeError, match="no run of the study is finished"):
        report_of(write(tmp_path))
