import json
import signal
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pytest

from knorm.training.mistakes import UserMistakeError
from privacy import ledger
from privacy.ledger import FILE, Ledger, Mechanism
from privacy.secret import Secret
from tests.privacy.known import KEY, SECRET

MECHANISM = Mechanism(
    sampling_rate=Fraction(4096, 50_000),
    noise_multiplier=1.1,
    clip_norm=1.5,
    delta=1e-5,
    unit="one image",
    accountant="prv",
)


def kept(folder, steps):
    """A ledger of that many steps."""
    made = Ledger.begin(folder, MECHANISM, SECRET)
    for step in range(steps):
        made.append(step)
    return made


def resumed(folder, applied_steps=0, mechanism=MECHANISM, secret=SECRET):
    return Ledger.resume(folder, mechanism, secret, applied_steps)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_ledger_goes_on_where_it_was(tmp_path, steps):
    made = kept(tmp_path, steps)
    again = resumed(tmp_path, steps)
    assert made.steps == again.steps == steps
    assert again.history == [(0.08192, 1.1, steps)]
    again.append(steps)
    assert resumed(tmp_path, steps + 1).steps == steps + 1


def test_the_first_line_tells_the_mechanism_and_the_others_a_step_each(tmp_path):
    kept(tmp_path, 2)
    first, *steps = map(json.loads, (tmp_path / FILE).read_text().splitlines())
    assert first.pop("seal")
    assert first == {
        "mechanism": "Gaussian on a Poisson sample",
        "sampling_rate": "256/3125",
        "noise_multiplier": 1.1,
        "clip_norm": 1.5,
        "delta": 1e-5,
        "unit": "one image",
        "neighbours": "one unit added or removed",
        "accountant": "prv",
        "secret": SECRET.commitment,
    }
    assert [step["step"] for step in steps] == [0, 1]
    assert KEY.hex() not in (tmp_path / FILE).read_text()


def test_a_step_is_on_the_disk_when_append_returns(tmp_path, monkeypatch):
    made, synced = kept(tmp_path, 0), []
    monkeypatch.setattr(ledger.os, "fsync", lambda _: synced.append((tmp_path / FILE).read_text()))
    made.append(0)
    assert synced == [(tmp_path / FILE).read_text()]
    assert synced[0].count("\n") == 2


def test_a_line_that_may_have_been_written_counts_when_the_run_goes_on(tmp_path, monkeypatch):
    made = kept(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(ledger.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            made.append(1)
    assert made.steps == 1
    assert resumed(tmp_path).steps == 2


def test_steps_done_again_are_not_counted_twice(tmp_path):
    made = kept(tmp_path, 5)
    text = made.path.read_text()
    again = resumed(tmp_path, applied_steps=2)
    for step in (2, 3, 4):
        again.append(step)
    assert again.steps == 5
    assert again.path.read_text() == text
    again.append(5)
    assert resumed(tmp_path, 6).steps == 6


def test_no_step_is_left_out(tmp_path):
    with pytest.raises(ValueError, match="step 3 cannot follow the 2 steps"):
        kept(tmp_path, 2).append(3)


def test_wherever_a_crash_cuts_the_file_no_step_is_lost(tmp_path):
    made = kept(tmp_path, 3)
    whole = made.path.read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole) + 1):
        made.path.write_bytes(whole[:size])
        begun = whole[first:size].count(b"\n") + (whole[size - 1 : size] != b"\n")
        assert resumed(tmp_path, begun).steps == begun
        assert whole.startswith(made.path.read_bytes())
        assert made.path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("zeros", [1, 500])
@pytest.mark.parametrize("left", [0, 20])
def test_a_line_that_a_power_cut_left_as_zeros_counts(tmp_path, left, zeros):
    made = kept(tmp_path, 3)
    whole = made.path.read_bytes()
    two = whole[: whole.rindex(b"\n", 0, -1) + 1]
    made.path.write_bytes(whole[: len(two) + left] + b"\0" * zeros)
    assert resumed(tmp_path).steps == 3
    assert made.path.read_bytes() == whole


def edit(number, change):
    """A change of one of the lines, counted from 1."""

    def apply(lines):
        return [*lines[: number - 1], *change(lines[number - 1]), *lines[number:]]

    return apply


EDITS = {  # of a ledger of 4 steps, with the line to be named
    "another step": (edit(3, lambda line: [line.replace('"step": 1', '"step": 9')]), 3),
    "another seal": (
        edit(4, lambda line: [line[:-4] + ("0" if line[-4] != "0" else "1") + '"}\n']),
        4,
    ),
    "another seal at the end": (edit(5, lambda line: [line.replace('"seal": "', '"seal": "f')]), 5),
    "another seal in front": (edit(1, lambda line: [line.replace('"seal": "', '"seal": "f')]), 1),
    "a line left out": (edit(3, lambda line: []), 3),
    "a line twice": (edit(3, lambda line: [line, line]), 4),
    "lines exchanged": (lambda lines: [*lines[:2], lines[3], lines[2], lines[4]], 3),
    "an empty line": (edit(2, lambda line: [line, "\n"]), 3),
    "an empty line at the end": (edit(5, lambda line: [line, "\n"]), 6),
    "other line ends": (edit(2, lambda line: [line.replace("\n", "\r\n")]), 2),
    "other spaces": (edit(2, lambda line: [line.replace(": ", ":")]), 2),
    "a step made up": (edit(5, lambda line: [line, '{"step": 4, "seal": "00"}\n']), 6),
    "a half line made up": (edit(5, lambda line: [line, '{"step": 5']), 6),
    "words behind": (edit(5, lambda line: [line, "and so on"]), 6),
    "a line cut in the middle": (edit(3, lambda line: [line[:20]]), 3),
    "no first line": (edit(1, lambda line: []), 1),
    "half a first line alone": (lambda lines: [lines[0][:30]], 1),
    "nothing at all": (lambda lines: [], 1),
    "no JSON": (edit(1, lambda line: ["knorm\n"]), 1),
    "a number in front": (edit(1, lambda line: ["5\n"]), 1),
    "less noise told": (edit(1, lambda line: [line.replace("1.1", "9.1")]), 1),
    "another fraction told": (edit(1, lambda line: [line.replace("256/", "1/")]), 1),
}


@pytest.mark.parametrize(("change", "number"), EDITS.values(), ids=EDITS.keys())
def test_an_edited_ledger_is_refused_with_its_line(tmp_path, change, number):
    made = kept(tmp_path, 4)
    lines = made.path.read_text().splitlines(keepends=True)
    text = "".join(change(lines))
    assert text != "".join(lines)
    made.path.write_bytes(text.encode())
    with pytest.raises(UserMistakeError, match=f"{FILE}:{number}[: ]") as mistake:
        resumed(tmp_path)
    assert "\n" not in str(mistake.value)
    assert made.path.read_bytes() == text.encode()


def test_lines_cut_off_at_the_end_are_missed(tmp_path):
    made = kept(tmp_path, 4)
    made.path.write_text("".join(made.path.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(UserMistakeError, match=f"{FILE}:3: .* 2 steps, .* weights have had 4"):
        resumed(tmp_path, applied_steps=4)


def test_a_missing_ledger_is_named(tmp_path):
    with pytest.raises(UserMistakeError, match=f"{FILE} is missing"):
        resumed(tmp_path)


def test_a_ledger_is_never_begun_anew(tmp_path):
    text = kept(tmp_path, 2).path.read_text()
    with pytest.raises(UserMistakeError, match="is there already"):
        kept(tmp_path, 0)
    assert (tmp_path / FILE).read_text() == text


OTHERS = {
    "sampling_rate": (Fraction(4096, 50_001), "256/3125, but this run has 4096/50001"),
    "noise_multiplier": (1.2, "1.1, but this run has 1.2"),
    "clip_norm": (1.0, "1.5, but this run has 1.0"),
    "delta": (1e-6, "1e-05, but this run has 1e-06"),
    "unit": ("one city", "one image, but this run has one city"),
    "accountant": ("pld", "prv, but this run has pld"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_goes_on_with_its_own_mechanism_alone(tmp_path, name):
    kept(tmp_path, 2)
    value, message = OTHERS[name]
    with pytest.raises(UserMistakeError, match=f"{FILE}:1: {name} is {message}"):
        resumed(tmp_path, mechanism=replace(MECHANISM, **{name: value}))


def test_a_run_goes_on_with_its_own_secret_alone(tmp_path):
    kept(tmp_path, 2)
    with pytest.raises(UserMistakeError, match=f"{FILE}:1: secret is {SECRET.commitment}"):
        resumed(tmp_path, secret=Secret(bytes(32)))


def test_steps_belong_to_the_first_line_above_them(tmp_path):
    quiet = replace(MECHANISM, noise_multiplier=9.1)
    (tmp_path / "quiet").mkdir()
    first = Ledger.begin(tmp_path / "quiet", quiet, SECRET).path.read_text()
    made = kept(tmp_path, 3)
    made.path.write_text(first + "".join(made.path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(UserMistakeError, match=f"{FILE}:2 is not the line"):
        resumed(tmp_path, mechanism=quiet)


MEDDLING = {
    "another process went on": lambda path: resumed(path.parent).append(2),
    "it was cut": lambda path: path.write_text(""),
    "it was removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("meddle", MEDDLING.values(), ids=MEDDLING.keys())
def test_a_ledger_that_changed_meanwhile_stops_the_run(tmp_path, meddle):
    made = kept(tmp_path, 2)
    meddle(made.path)
    with pytest.raises(UserMistakeError, match=f"{FILE}:3: .*another process"):
        made.append(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_multiplier": -1.0}, "noise_multiplier must be positive"),
        ({"noise_multiplier": float("nan")}, "noise_multiplier must be positive"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"),
        ({"clip_norm": float("inf")}, "clip_norm must be positive"),
        ({"delta": 1.5}, "delta must lie between"),
    ],
)
def test_a_mechanism_that_is_none_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(MECHANISM, **change)


PROGRAM = """
import itertools, sys
from pathlib import Path
from privacy.ledger import Ledger
from tests.privacy.known import SECRET
from tests.privacy.test_ledger import MECHANISM

kept = Ledger.begin(Path(sys.argv[1]), MECHANISM, SECRET)
for step in itertools.count():
    kept.append(step)
    print(step, flush=True)
"""


def test_a_killed_process_has_counted_every_step_that_it_released(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        released = 20 + len(process.stdout.readlines())
    assert released <= resumed(tmp_path, released).steps <= released + 1
