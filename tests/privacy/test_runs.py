"""Private runs: the budget in every form, the same run on any processes, nothing forgotten."""

import json
import re
import stat
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.optim import SGD

from classification import train as plain_train
from classification.work import ClassificationWork
from knorm.cli import report
from knorm.training.mistakes import run_program
from knorm.training.run import Run
from privacy import train
from privacy.config import parse_recipe
from privacy.origin import origin_of
from privacy.runs import cut_of
from privacy.secret import Secret
from privacy.spending import budget_of
from tests.classification.runs import TWO, evaluated, launch, value
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
    for name, tensor in weights(tmp_path / "two").items():
        torch.testing.assert_close(tensor, one[name], rtol=0, atol=1e-6)
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
    assert all(torch.equal(tensor, weights(whole)[key]) for key, tensor in weights(died).items())
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
    elif what == "rate edited":
        config = (folder / "config.yaml").read_text()
        assert "  lr: 2.0\n" in config
        (folder / "config.yaml").write_text(config.replace("  lr: 2.0\n", "  lr: 0.1\n"))


@pytest.mark.parametrize(
    ("what", "arguments", "message"),
    [
        ("edited", NOISE, "ledger.jsonl:3 is not the line that this run wrote"),
        ("ledger gone", NOISE, "ledger.jsonl is missing"),
        ("secret gone", NOISE, "secret.key is missing"),
        ("rate edited", [*NOISE, "--optim.lr=0.1"], "settings is another one; a run goes on only"),
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


QUICK = [*NOISE, "--epochs=1", "--privacy.checks=false"]


def test_norms_over_the_batch_are_refused_without_checks_too(tmp_path, capsys):
    run(tmp_path / "run", *QUICK, "--model.norm=batch", expect=2)
    assert "mixes the images of a batch" in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with best weights and a moving average."""
    options = ["--data.val_fraction=0.3", "--data.limit=60", "--ema_decay=0.9", "--test_flip"]
    return run(tmp_path_factory.mktemp("finished") / "run", *QUICK, *options)


def test_no_hash_of_the_training_images_leaves_the_run(finished):
    assert "data" not in json.loads((finished / "result.json").read_text())
    for state in finished.glob("*/state.json"):
        assert set(json.loads(state.read_text())["fingerprints"]) == {"val", "test"}


@pytest.mark.parametrize(
    ("option", "is_other"),
    [
        ("--optim.lr=0.1", True),
        ("--data.limit=99", True),
        ("--launch.mixed_precision=bf16", True),
        ("--data.root=elsewhere", False),
        ("--launch.threads=2", False),
        ("--keep.minutes=1", False),
    ],
)
def test_the_ledger_seals_what_the_sums_depend_on(option, is_other):
    device = SimpleNamespace(device=torch.device("cpu"))
    train = SimpleNamespace(fingerprint=lambda: "images")
    data: Any = SimpleNamespace(splits={"train": train}, accelerator=device)
    recipes = (parse_recipe([*SMALL, *NOISE, *options]) for options in ([], [option]))
    one, other = (
        origin_of(ClassificationWork(recipe, data), 8, SECRET)["settings"] for recipe in recipes
    )
    assert (one != other) is is_other


def test_what_depends_on_places_is_drawn_by_the_secret():
    """By a public seed, one image less would change the augmentation of all after it."""
    recipe = parse_recipe([*SMALL, *NOISE, "--augment.flip=true"])
    budget = budget_of(recipe, 100)
    secrets = [Secret(bytes([value]) * 32) for value in (1, 1, 2)]
    one, again, other = (cut_of(recipe, budget, secret, 8).seed for secret in secrets)
    assert one == again != other
    assert recipe.seed not in (one, other)


def test_evaluation_repeats_the_numbers_of_a_private_run(finished, capsys):
    result = json.loads((finished / "result.json").read_text())
    for kept in ("best", "last"):
        numbers = evaluated(capsys, finished, f"--weights={kept}")
        for name in ("top1", "loss", "top1_flip"):
            assert numbers[name] == value(result, "test", kept, name)
    report.main([str(finished)])
    assert f"{100 * value(result, 'test', 'last', 'top1'):.2f}" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["--config={}/config.yaml", "--resume={}"])
def test_a_private_run_is_never_trained_plainly(finished, capsys, way):
    assert run_program(lambda: plain_train.main([way.format(finished)])) == 2
    err = capsys.readouterr().err
    assert re.search(
        "config.yaml has a section privacy; train it with python -m privacy.train", err
    )
    assert err.count("\n") == 1
    assert run_program(lambda: plain_train.main(["--privacy.epsilon=1"])) == 2
    assert "--privacy.epsilon is for python -m privacy.train" in capsys.readouterr().err


def test_training_that_begins_with_weights_moves_only_what_is_to_be_trained(finished, tmp_path):
    begun = [f"--model.weights={finished}", "--privacy.trained=[fc.*]", "--optim.momentum=0.5"]
    tuned = run(tmp_path / "tuned", *QUICK, "--privacy.checks=true", *begun)
    source = load_file(finished / "best" / "ema.safetensors")
    moved = {name for name, tensor in weights(tuned).items() if not tensor.equal(source[name])}
    assert moved == {"fc.weight", "fc.bias"}
    given = card(tuned)
    assert given["checked_before_training"]["parameters"] == 2
    assert given["mechanism"]["trained"] == "fc.*"
    assert any(
        f"the first weights, those of {finished.name}:" in line for line in given["not_covered"]
    )
    assert json.loads((tuned / "source.json").read_text())["weights"] == "best"


def test_every_seed_is_a_run_with_a_secret_and_all_cost_more_together(tmp_path, capsys):
    folder = run(tmp_path / "runs", *QUICK, "--seeds=2", "--data.limit=40")
    one, two = (folder / f"seed-{seed}" for seed in (0, 1))
    assert (one / "secret.key").read_text() != (two / "secret.key").read_text()
    assert len((two / "ledger.jsonl").read_text().splitlines()) == 1 + 2
    alone, together = card(one)["guarantee"]["epsilon"], card(folder)["guarantee_of_all"]["epsilon"]
    assert alone == card(two)["guarantee"]["epsilon"] < together < 2 * alone
    text = (folder / "seeds.md").read_text()
    assert "publishing all 2, or what was chosen or averaged from them, costs" in text
    assert "seeds 0, 1" in text
    out = capsys.readouterr().out
    assert text in out
    assert re.search(r"cost   epsilon [\d.]+, all 2 runs together [\d.]+, at delta", out)
    kept = (one / "ledger.jsonl").read_bytes()
    run(folder, *QUICK, "--seeds=2", "--data.limit=40", "--resume=auto")
    assert capsys.readouterr().out.count("is finished already") == 2
    assert (one / "ledger.jsonl").read_bytes() == kept


def test_a_rehearsal_says_the_cost_and_keeps_nothing(tmp_path, capsys):
    run(tmp_path / "run", *QUICK, "--dry_run")
    out = capsys.readouterr().out
    assert re.search(r"cost   epsilon [\d.]+ at delta 0.001 \(pld\)  noise 0.8", out)
    assert "dry run passed" in out
    assert not list(tmp_path.iterdir())


def test_a_delta_of_one_image_is_warned_of_and_stands_on_the_card(tmp_path, capsys):
    folder = run(tmp_path / "run", *QUICK, "--privacy.delta=0.01")
    line = "delta 0.01 is not below 1 / 100 images"
    assert f"warning: {line}" in capsys.readouterr().err
    assert card(folder)["warnings"][0].startswith(line)
    assert line in (folder / "privacy_card.md").read_text()


def test_an_accountant_that_refuses_stands_on_the_card_in_words(tmp_path):
    options = ["--privacy.accountant=rdp", "--privacy.noise_multiplier=0.05"]
    given = card(run(tmp_path / "run", *QUICK, *options))
    assert given["guarantee"]["epsilon"] > 500
    assert given["epsilon_by_accountant"]["pld"].startswith("pld stops at an epsilon of 500")
    text = (tmp_path / "run" / "privacy_card.md").read_text()
    assert "| prv | prv stops at an epsilon of 500" in text


@pytest.mark.usefixtures("known")
def test_a_run_short_of_memory_is_that_of_smaller_chunks_and_goes_on_so(tmp_path, monkeypatch):
    short = [*NOISE, "--privacy.physical_batch=null", "--model.dropout_p=0.1", "--keep.minutes=0"]
    given = run(tmp_path / "given", *short, "--privacy.physical_batch=4")
    with monkeypatch.context() as patch:
        patch.setattr("privacy.physical.fits", lambda records, *_: records <= 4)
        dies_at(patch, Run, "after_step", 3)
        with pytest.raises(RuntimeError, match="the power fails"):
            run(tmp_path / "found", *short)
    found = run(tmp_path / "found", *short, "--resume=auto")  # with room for more
    assert all(torch.equal(tensor, weights(given)[key]) for key, tensor in weights(found).items())


def test_sharded_nets_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    run(tmp_path / "run", *NOISE, expect=2)
    assert "FSDP, but a private step needs the whole net" in capsys.readouterr().err


MISTAKES = {
    "a batch of more": (["--batch_size=101"], "batch_size 101 is more than the 100 training"),
    "too little": (
        ["--privacy.epsilon=0.001", "--privacy.noise_multiplier=1"],
        "the budget is too small",
    ),
    "no claim": (
        ["--privacy.epsilon=null", "--privacy.noise_multiplier=0.01"],
        "pld stops at an epsilon of 500",
    ),
    "batch norm": (["--model.norm=batch"], "mixes the images of a batch"),
    "mixup": (["--augment.mixup=0.2"], "augment.mixup mixes images"),
    "more steps than epochs": (["--privacy.steps=99"], "more than epochs 2 make"),
    "nothing trained": (["--privacy.trained=[fc.wait]"], "no parameter fc.wait; did you mean 'fc"),
    "a typo": (["--privacy.epsilom=1"], "did you mean '--privacy.epsilon'?"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line_and_no_run_becomes_a_plain_one(tmp_path, capsys, arguments, message):
    run(tmp_path / "run", *arguments, expect=2)
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
