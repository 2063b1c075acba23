"""Reports: what they say comes from the records of runs, and none of a stranger is in them."""

import csv
import json

import pytest
import yaml

from classification import study_report
from classification.study_file import Wish
from classification.study_render import render
from classification.study_report import page
from knorm.training.mistakes import UserMistakeError
from tests.classification.studies import TINY, call, made_up, write

TOPS = {(1, 0): 0.90, (1, 1): 0.92, (2, 0): 0.80, (2, 1): 0.84, (3, 0): 0.95}


@pytest.fixture
def study(tmp_path):
    """The file of the tiny study, most of its runs in the folder beside it."""
    file = write(tmp_path)
    made_up(file, TOPS)
    return file


@pytest.fixture
def plain(tmp_path):
    """The same without pictures."""
    file = write(tmp_path, pictures=[])
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
        "**2 seeds**: small differences mean nothing.",
        "![curves by epoch](report-1-curves.png)",
    ):
        assert words in text


def test_a_small_budget_is_told_in_the_title_and_at_every_table(tmp_path):
    file = write(tmp_path, tables=["optim.lr"], baseline=None)
    tops = {(1, 0): 0.5, (3, 0): 0.6}
    folder = made_up(file, tops, Wish("small"), "--budget small")
    call("report", file, "--budget", "small")
    text = (folder / "report.md").read_text()
    words = "mall budget: epochs 1; 1 seed; only rows with model.norm batch"
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
    folder = made_up(file, {(1, 0): 0.5}, Wish(overrides=["--epochs", "4"]), "--epochs 4")
    with pytest.raises(UserMistakeError, match="epochs was 4, now 2"):
        report_of(file)
    (folder / "study.json").write_text(json.dumps({"overrides": ["--epochs", "4"]}))
    assert f"run {file} --epochs 4\n" in report_of(file)


def test_without_a_finished_run_there_is_no_report(tmp_path):
    with pytest.raises(UserMistakeError, match="no run of the study is finished"):
        report_of(write(tmp_path))


ALIKE = {
    "recipe": TINY["recipe"] | {"model": {"name": "kannet4", "norm": "batch"}},
    "rows": [
        {"set": {"model.name": "kannet8", "model.options.head_drop": 0.0, "batch_size": 21}},
        {"set": {"model.name": "kannet4", "model.options.head_drop": 0.0}},
        {"set": {"model.name": "kannet4"}},
        {"set": {"model.name": "kannet4", "model.options.head_drop": None}},
    ],
    "baseline": {"batch_size": 21},
    "published": None,
    "budgets": None,
    "pictures": [],
}


def test_rows_of_one_label_stay_apart_and_tell_what_they_differ_in(tmp_path):
    file = write(tmp_path, **ALIKE)
    made_up(file, {(number, seed): 0.1 * number for number in (1, 2, 3, 4) for seed in (0, 1)})
    text = report_of(file)
    labels = [f"batch_size=32, head_drop={value}" for value in ("0.0", "default")]
    for number, label in enumerate([*labels, "head_drop=null, batch_size=32"], start=2):
        row = cells(text, f"model=kannet4, {label}")
        assert row[1:3] == ["0, 1", f"{10 * number}.00 ± 0.00"]
    with (tmp_path / "runs" / "tiny" / "report.csv").open() as csv_file:
        lines = list(csv.DictReader(csv_file))
    same = [line | {"row": "same"} for line in lines]
    assert render(same, out=tmp_path / "x").count("| `same` |") == 3


def test_the_commands_are_those_with_which_the_runs_were_made(plain):
    text = report_of(plain, "--only", "model.norm=batch")
    assert f"```\npython -m classification.study run {plain}\n```" in text
    run = plain.parent / "runs" / "tiny" / "norm=none" / "seed-1"
    with (run / "command.txt").open("a") as file:
        file.write(f"python -m classification.study run {plain} --seeds 2 --run_dir=here\n")
    assert "Runs of 2 commands are in this table:\n\n```\npython" in report_of(plain)
    assert f"run {plain} --seeds 2\n```" in report_of(plain)


def test_runs_on_other_data_are_no_seeds_of_one_row(plain):
    runs = [plain.parent / "runs" / "tiny" / "norm=none" / f"seed-{seed}" for seed in (0, 1)]
    data = {"name": "digits", "num_classes": 10, "images": {"train": 9, "test": 9}, "hash": "ab"}
    note(runs[0] / "result.json", data=data)
    report_of(plain)  # the other was made before runs told this
    note(runs[1] / "result.json", data=data | {"hash": "cd"})
    with pytest.raises(UserMistakeError, match=r"seed-1 had different data, hash ab and cd: move"):
        report_of(plain)
    note(runs[1] / "result.json", data=data)
    for run, digest in zip(runs, ("ef", "01"), strict=True):
        (run / "last").mkdir()
        (run / "last" / "state.json").write_text(json.dumps({"fingerprints": {"test": digest}}))
    with pytest.raises(UserMistakeError, match="different data, test images ef and 01"):
        report_of(plain)


def note(file, **more):
    """More keys in a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


def test_a_table_without_the_baseline_says_so(plain):
    assert "No baseline" not in report_of(plain)
    text = report_of(plain, "--only", "model.norm=none")
    assert "No baseline: no row here has model.norm batch, optim.lr 0.05." in text
    assert "Part of the study: only rows with model.norm none." in text


@pytest.fixture
def titles(monkeypatch):
    """By its picture's end, the title that was drawn."""
    found = {}
    for name in ("draw_bars", "draw_against", "draw_compared"):

        def drawn(what, path, title, *_, name=name):
            found[name] = title

        monkeypatch.setattr(study_report, name, drawn)
    return found


def test_pictures_are_titled_with_data_epochs_and_budget(study, titles):
    report_of(study, "--seeds", "2")
    words = "digits, at most 200 images of every split, 10 % of the training images held out"
    assert titles == dict.fromkeys(titles, f"{words}; epochs 2\nwhole study")
    assert len(titles) == 3
