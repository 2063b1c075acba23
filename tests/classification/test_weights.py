"""Runs that begin with the weights of another, norms swapped or not."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import knorm
from classification import train
from classification.config import load_recipe
from classification.evaluation import load_net
from classification.weights import first_weights
from knorm.training.mistakes import run_program
from knorm.training.nets import make_model
from knorm.training.run import Run
from tests.classification.runs import evaluated, run, value


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run with batch norm, and with a moving average of its weights."""
    folder = tmp_path_factory.mktemp("runs") / "base"
    run(folder, "--model.norm=batch", "--epochs=2", "--ema_decay=0.5", "--data.limit=100")
    return folder


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory):
    """A run that went on from there with kernel normalization."""
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    tune(base, folder, *KERNEL)
    return folder


KERNEL = ["--model.swap=kernel", "--model.swap_options.fold=true", "--keep.minutes=0"]


def tune(base, folder, *arguments):
    """A run of an epoch, in the folder, that begins with the weights of `base`."""
    given = ["--epochs=1", "--ema_decay=null", "--optim.lr=0.001", f"--model.weights={base}"]
    train.main([f"--config={base}/config.yaml", *given, f"--run_dir={folder}", *arguments])


def images():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def logits(net):
    with torch.no_grad():
        return net.eval()(images())


def first_net(base, **settings):
    """The net that a run with these settings begins with."""
    recipe = load_recipe(base)
    for name, setting in {"weights": str(base), **settings}.items():
        setattr(recipe.model, name, setting)
    weights = first_weights(recipe)
    return make_model(recipe.model, num_classes=10, in_chans=1, seed=5, weights=weights)


KINDS = {
    "as it was": (None, {}),
    "group": ("group", {"groups": 4}),
    "layer": ("layer", {}),
    "instance": ("instance", {}),
    "none": ("none", {}),
    "none, folded": ("none", {"fold": True}),
    "kernel, folded": ("kernel", {"fold": True}),
}


@pytest.mark.parametrize("case", KINDS)
def test_a_run_begins_with_the_net_that_swap_norm_makes_of_the_evaluated_one(case, base):
    kind, options = KINDS[case]
    net = load_net(base).net
    if kind == "kernel":
        net, _ = knorm.swap_norm(net, kind, dropout_p=0.1, **options)  # the recipe's
    elif kind:
        net, _ = knorm.swap_norm(net, kind, **options)
    begun = first_net(base, swap=kind, swap_options=options)
    assert torch.equal(logits(begun), logits(net))
    swapped = load_net(base, swap=kind, swap_options=options).net
    assert torch.equal(logits(swapped), logits(net))


def test_the_moving_average_is_what_a_run_begins_with(base):
    average = load_file(base / "best" / "ema.safetensors")
    net = first_net(base).state_dict()
    assert all(torch.equal(net[name], tensor) for name, tensor in average.items())


def test_settings_of_kernel_normalization_reach_swapped_nets(base):
    net = first_net(base, swap="kernel", dropout_p=0.03, eval_stats="plain")
    conv = net.get_submodule("features.stem.unit.conv")
    assert (conv.dropout_p, conv.eval_stats) == (0.03, "plain")
    assert load_net(base, swap="kernel", eval_stats="sampled").net.features.norm.eval_stats == (
        "sampled"
    )


def test_a_tuned_run_says_where_it_began_and_repeats_its_numbers(base, tuned, capsys):
    source = json.loads((tuned / "source.json").read_text())
    state = json.loads((base / "best" / "state.json").read_text())
    assert (source["run"], source["weights"]) == (str(base), "best")
    told = ("epoch", "step", "seed", "classes", "fingerprints")
    assert {name: source[name] for name in told} == {name: state[name] for name in told}
    file = (base / "best" / "ema.safetensors").read_bytes()
    assert source["sha256"] == hashlib.sha256(file).hexdigest()
    assert (tuned / "swap.txt").read_text().startswith("kernel: 13 replaced, 0 as they were")
    numbers = evaluated(capsys, tuned, "--weights=last")
    result = json.loads((tuned / "result.json").read_text())
    assert numbers["loss"] == value(result, "test", "last", "loss")
    assert numbers["swap"] == "kernel"


def test_a_run_without_weights_or_swap_has_neither_file(base):
    assert not (base / "source.json").exists()
    assert not (base / "swap.txt").exists()


def test_a_swapped_net_can_be_tuned_further(tuned, tmp_path, capsys):
    assert torch.equal(logits(first_net(tuned)), logits(load_net(tuned).net))
    capsys.readouterr()
    tune(tuned, tmp_path / "again")
    assert f"weights of {tuned}  norms swapped to kernel" in capsys.readouterr().out


class Killed(BaseException):
    """Ends a run as a kill would."""


def test_a_killed_run_goes_on_without_the_one_it_began_with(base, tuned, tmp_path, monkeypatch):
    after_step = Run.after_step

    def die(run, trainer):
        after_step(run, trainer)
        if trainer.step == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "after_step", die)
        with pytest.raises(Killed):
            tune(base, tmp_path / "killed", *KERNEL)
    base.rename(base.with_name("away"))
    try:
        train.main([f"--resume={tmp_path / 'killed'}"])
    finally:
        base.with_name("away").rename(base)
    killed, whole = (
        load_file(run / "last/model.safetensors") for run in (tmp_path / "killed", tuned)
    )
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


MISTAKES = {
    "no folder": (["--model.weights=nowhere"], "model.weights: nowhere is no run folder"),
    "several runs": (["--model.weights=many"], "many holds several runs, give one of seed-0"),
    "nothing saved": (["--model.weights=bare"], "bare/last holds no model.safetensors"),
    "another net": (["--model.name=resnet8"], "a net with model.name knresnet13, not resnet8"),
    "another norm": (
        ["--model.norm=group"],
        "model.norm batch, not group; --model.norm batch --model.swap group swaps them",
    ),
    "no norm": (["--model.norm=null"], "model.norm batch, not null; --config "),
    "another width": (["--model.options.width=0.5"], "/config.yaml gives them as they were"),
    "other classes": (
        ["--data.name=synthetic", "--data.synthetic.classes=7", "--data.synthetic.channels=1"],
        "are of a net for 10 classes, synthetic has 7",
    ),
    "other channels": (["--data.name=synthetic"], "a net for 1 channels, synthetic has 3"),
    "swapped already": (
        ["--model.weights=swapped", "--model.swap=group"],
        "model.swap kernel, not group; its norms are swapped already: take the run that it began",
    ),
    "no kind": (["--model.swap_options.fold=true"], "belongs to model.swap, which is not given"),
    "kind": (["--model.swap=kernl"], "did you mean 'kernel'?"),
    "option": (["--model.swap=group", "--model.swap_options.grups=4"], "did you mean 'groups'?"),
    "groups": (["--model.swap=group", "--model.swap_options.groups=7"], "groups=7 does not divide"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line_and_exit_code_2(case, base, tuned, tmp_path, monkeypatch, capsys):
    arguments, message = MISTAKES[case]
    monkeypatch.chdir(tmp_path)
    for folder in ("many/seed-0", "many", "bare"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(base / "config.yaml", tmp_path / folder)
    (tmp_path / "bare" / "last").mkdir()
    (tmp_path / "swapped").symlink_to(tuned)
    config = [f"--config={base}/config.yaml", f"--model.weights={base}"]
    assert run_program(lambda: train.main([*config, *arguments, "--run_dir=new"])) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_rehearsal_begins_with_the_weights_too(base, capsys):
    arguments = [f"--config={base}/config.yaml", f"--model.weights={base}", "--model.swap=kernel"]
    train.main([*arguments, "--dry_run"])
    assert "dry run passed" in capsys.readouterr().out


def test_a_net_of_timms_is_tuned_with_other_norms(tmp_path):
    pytest.importorskip("timm")
    data = ["--data.name=synthetic", "--data.synthetic.image_size=32", "--data.synthetic.train=64"]
    begin = ["--model.name=timm:test_resnet", "--model.norm=null", "--model.options={}"]
    more = ["--model.stem=null", "--model.dropout_p=null", "--data.synthetic.test=20"]
    run_dir = tmp_path / "base"
    train.main([*data, *begin, *more, "--epochs=1", "--schedule.warmup_epochs=0",
                f"--run_dir={run_dir}"])  # fmt: skip
    tune(run_dir, tmp_path / "kernel", "--model.swap=kernel", "--model.dropout_p=0.02")
    net = load_net(tmp_path / "kernel").net
    assert net.get_submodule("conv1.0").dropout_p == 0.02
