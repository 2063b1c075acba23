"""Private runs: the budget in every form, the same run on any processes, nothing forgotten."""

import json
import stat

import pytest
import torch
from safetensors.torch import load_file
from torch.optim import SGD

from knorm.training.mistakes import run_program
from knorm.training.run import Run
from privacy import train
from tests.classification.runs import TWO, launch
from tests.privacy.known import SECRET

SMALL = [
    "--data.limit=100",
    "--batch_size=20",
    "--epochs=2",
    "--model.options.width=0.25",
    "--privacy.physical_batch=8",
    "--privacy.delta=1e-3",
]
NOISE = ["--privacy.epsilon=null", "--privacy.noise_multiplier=0.8"]


def run(folder, *arguments, expect=0):
    assert run_program(lambda: train.main([*SMALL, *arguments, f"--run_dir={folder}"])) == expect
    return folder


def weights(folder):
    return load_file(folder / "last" / "model.safetensors")


def card(folder):
    return json.loads((folder / "privacy_card.json").read_text())


def dies_at(monkeypatch, owner, name, count):
    """`owner.name` raises at its call number `count`."""
    calls, plain = [], getattr(owner, name)

    def once(*args, **kwargs):
        calls.append(1)
        if len(calls) == count:
            raise RuntimeError("the power fails")
        return plain(*args, **kwargs)

    monkeypatch.setattr(owner, name, once)


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr("privacy.runs.of_run", lambda *_, **__: SECRET)


@pytest.mark.usefixtures("known")
def test_two_processes_and_other_chunks_make_the_same_weights(tmp_path):
    one = weights(run(tmp_path / "one", *NOISE, "--model.dropout_p=0.1"))
    more = [*SMALL, *NOISE, "--model.dropout_p=0.1", f"--run_dir={tmp_path / 'two'}"]
    launch(TWO, "tests.privacy.known_run", *more)
    plain = weights(run(tmp_path / "plain", *NOISE))
    other = run(tmp_path / "chunks", *NOISE, "--privacy.physical_batch=64", "--privacy.ghost=false")
    for name, value in weights(tmp_path / "two").items():
        torch.testing.assert_close(value, one[name], rtol=0, atol=1e-6)
        torch.testing.assert_close(weights(other)[name], plain[name], rtol=0, atol=1e-6)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("owner", "name", "count"),
    [(Run, "after_step", 3), (SGD, "step", 4), (Run, "record", 1)],
    ids=["between steps", "between ledger and weights", "between steps and log"],
)
def test_a_run_that_died_goes_on_to_the_same_bits(tmp_path, monkeypatch, owner, name, count):
    options = [*NOISE, "--keep.minutes=0", "--ema_decay=0.9", "--optim.momentum=0.5"]
    whole = run(tmp_path / "whole", *options)
    with monkeypatch.context() as patch:
        dies_at(patch, owner, name, count)
        with pytest.raises(RuntimeError, match="the power fails"):
            run(tmp_path / "died", *options)
    died = run(tmp_path / "died", *options, "--resume=auto")
    assert (died / "ledger.jsonl").read_bytes() == (whole / "ledger.jsonl").read_bytes()
    assert all(torch.equal(value, weights(whole)[key]) for key, value in weights(died).items())
    assert card(died) == card(whole)


def test_noise_is_calibrated_to_the_budget(tmp_path):
    given = card(run(tmp_path / "run", "--privacy.epsilon=5"))
    assert 4.9 < given["guarantee"]["epsilon"] <= 5
    assert given["mechanism"]["steps"] == 10
    assert given["mechanism"]["sampling_rate"] == "1/5"
    assert given["checked_before_training"]["largest_norm"] <= 1 + 1e-4


def test_a_run_stops_before_its_budget_is_passed(tmp_path):
    options = ["--privacy.epsilon=8", "--privacy.noise_multiplier=0.8", "--epochs=50"]
    given = card(run(tmp_path / "run", *options))
    assert 0 < given["mechanism"]["steps"] < 250
    assert given["guarantee"]["epsilon"] <= 8
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] == given["mechanism"]["steps"]
    assert len(rows) == -(-given["mechanism"]["steps"] // 5)


def test_the_secret_is_its_owners_and_in_no_other_file(tmp_path):
    folder = run(tmp_path / "run", *NOISE, "--epochs=1")
    assert stat.S_IMODE((folder / "secret.key").stat().st_mode) == 0o600
    key = (folder / "secret.key").read_text().split()[0]
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "secret.key":
            content = path.read_bytes()
            assert key.encode() not in content, path
            assert bytes.fromhex(key) not in content, path


def spoil(folder, what):
    ledger = folder / "ledger.jsonl"
    if what == "edited":
        ledger.write_text(ledger.read_text().replace('"step": 1', '"step": 7'))
    elif what == "ledger gone":
        ledger.unlink()
    elif what == "secret gone":
        (folder / "secret.key").unlink()


@pytest.mark.parametrize(
    ("what", "arguments", "message"),
    [
        ("edited", NOISE, "ledger.jsonl:3 is not the line that this run wrote"),
        ("ledger gone", NOISE, "ledger.jsonl is missing"),
        ("secret gone", NOISE, "secret.key is missing"),
        ("nothing", ["--privacy.epsilon=2"], "privacy.epsilon was None, now 2"),
        ("nothing", [*NOISE, "--privacy.max_norm=2"], "privacy.max_norm was 1.0, now 2"),
    ],
)
def test_a_run_that_was_meddled_with_does_not_go_on(
    tmp_path, monkeypatch, capsys, what, arguments, message
):
    with monkeypatch.context() as patch:
        dies_at(patch, Run, "after_step", 3)
        with pytest.raises(RuntimeError, match="the power fails"):
            run(tmp_path / "run", *NOISE, "--keep.minutes=0")
    spoil(tmp_path / "run", what)
    run(tmp_path / "run", *arguments, "--resume=auto", expect=2)
    assert message in capsys.readouterr().err


MISTAKES = {
    "no budget": (["--privacy.epsilon=null"], "give privacy.epsilon, privacy.noise_multiplier"),
    "no epsilon": (["--privacy.epsilon=0"], "privacy.epsilon must be positive"),
    "a delta of one": (["--privacy.delta=1"], "privacy.delta must lie in (0, 1)"),
    "a batch of more": (["--batch_size=101"], "batch_size 101 is more than the 100 training"),
    "too little": (
        ["--privacy.epsilon=0.001", "--privacy.noise_multiplier=1"],
        "the budget is too small",
    ),
    "batch norm": (["--model.norm=batch"], "mixes the images of a batch"),
    "mixup": (["--augment.mixup=0.2"], "augment.mixup mixes images"),
    "repeats": (["--augment.repeats=2"], "use privacy.views"),
    "accumulation": (["--accumulation=2"], "use privacy.physical_batch"),
    "clipped sums": (["--optim.clip_norm=1"], "privacy.max_norm clips every image"),
    "private scaling": (["--data.scaling=standard"], "use scale, or fixed with public numbers"),
    "fp16": (["--launch.mixed_precision=fp16"], "use bf16"),
    "more steps than epochs": (["--privacy.steps=99"], "more than epochs 2 make"),
    "a rehearsal": (["--dry_run"], "dry_run: private runs do not have it yet"),
    "several seeds": (["--seeds=2"], "seeds: private runs do not have it yet"),
    "a typo": (["--privacy.epsilom=1"], "did you mean '--privacy.epsilon'?"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line_and_no_run_becomes_a_plain_one(tmp_path, capsys, arguments, message):
    run(tmp_path / "run", *arguments, expect=2)
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
