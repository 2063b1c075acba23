from classification.study_status import STATES
from knorm.training.files import write_text
from tests.classification.studies import call, made_up, write


def lines_of(file, capsys, *options):
    capsys.readouterr()
    call("status", file, *options)
    return capsys.readouterr().out.splitlines()


def test_status_counts_the_runs_of_every_row_and_guesses_what_is_left(tmp_path, capsys):
    file = write(tmp_path)
    folder = made_up(file, {(1, 0): 0.9, (1, 1): 0.9, (2, 0): 0.9, (2, 1): 0.8})
    begun = folder / "norm=none" / "seed-1"
    (begun / "result.json").unlink()
    text = (begun / "metrics.jsonl").read_text().replace('"epoch": 2', '"epoch": 1')
    write_text(begun / "metrics.jsonl", text)
    failed = folder / "norm=batch-lr=0.1" / "seed-0"
    failed.mkdir(parents=True)
    write_text(failed / "failed.txt", "the loss left all bounds\n")
    lines = lines_of(file, capsys)
    assert lines[0] == "tiny: Norms of a small net"
    assert lines[2].split() == ["row", *STATES, "so", "far", "left"]
    assert lines[3].split() == ["1", "baseline", "2", "-", "-", "-", "0:01:20", "0:00:00"]
    # one run of 40 s, half of another in 30 s: a whole one takes 70 / 1.5 s
    assert lines[4].split() == ["2", "norm=none", "1", "1", "-", "-", "0:01:10", "0:00:23"]
    assert lines[5].split() == ["3", "lr=0.1", "-", "-", "1", "1", "-", "~0:01:26"]
    assert lines[6].startswith("0:02:30 so far, 0:01:49 left")


def test_status_of_a_study_that_has_not_begun(tmp_path, capsys):
    lines = lines_of(write(tmp_path), capsys, "--budget", "small")
    assert lines[1] == "small budget: epochs 1; 1 seed; only rows with model.norm batch"
    assert "0:00:00 so far, unknown left" in lines[-1]
    assert len(lines) == 4 + 2 + 1
