"""What users get wrong: one line that names it, exit code 2, nothing lost."""

import json
import os
import shutil
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from classification import data, evaluate, export, runs, train
from classification.config import parse_recipe
from knorm.training.lock import locked
from knorm.training.mistakes import run_program
from knorm.training.run_settings import settings_of
from tests.classification.runs import QUICK, run


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A working folder with recipes and trees that are wrong in one point each."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "key.yaml": "optim: {learning_rate: 0.1}",
        "section.yaml": "optim: 0.1",
        "value.yaml": "optim: {lr: fast}",
        "broken.yaml": "optim: {lr: 1",
        "twice.yaml": "epochs: 1\nepochs: 2",
    }.items():
        (tmp_path / name).write_text(text)
    for place in (
        "classes/train/cat",
        "classes/test/dog",
        "single/train/cat",
        "taken/file",
        "one/train/cat",
        "one/val/cat",
    ):
        (tmp_path / place).mkdir(parents=True)
    for name, processes in (("begun", 1), ("crowd", 4)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(settings_of(parse_recipe([])))
        environment = {"processes": processes, "versions": {"torch": "2"}, "device": "cpu"}
        environment |= {"python": "3", "threads": 1, "git": None}
        (tmp_path / name / "environment.json").write_text(json.dumps(environment))


FOLDER = ["--data.name=imagefolder", "--data.image_size=8"]
MISTAKES = {
    "an option that is not there": (["--optim.lrr=1"], "did you mean '--optim.lr'?"),
    "the long name of an option": (["--optim.learning_rate=1"], "did you mean '--optim.lr'?"),
    "a word for a number": (["--optim.lr=fast"], "--optim.lr: expected float, got 'fast'"),
    "a number out of range": (["--optim.lr=-1"], "optim.lr must be positive"),
    "a choice that is not there": (["--optim.name=sdg"], "did you mean 'sgd'?"),
    "half an epoch": (["--epochs=1.5"], "--epochs: expected int"),
    "no epoch": (["--epochs=0"], "epochs must lie between 1"),
    "an argument without an option": (["mnist"], "mnist: no option and no value of one"),
    "an option without its dashes": (["optim.lr=1"], "options begin with two dashes"),
    "a number for a section": (["--optim", "3"], "--optim: a section, so give its options"),
    "a key in a section": (["--optim={lr: 1, lrr: 2}"], "optim.lrr: no such option"),
    "threads without end": (["--launch.threads=100000"], "launch.threads must lie between 1"),
    "a wait without end": (["--launch.timeout=1e300"], "launch.timeout must lie between 0"),
    "a picture too large": (["--data.image_size=100000"], "data.image_size must lie between 1"),
    "copies without end": (["--augment.repeats=1000"], "augment.repeats must lie between 1"),
    "a crop beside the image": (["--augment.crop_padding=8"], "less than the side of the images"),
    "a set too large": (
        ["--data.name=synthetic", "--data.synthetic.image_size=100000"],
        "data.synthetic would keep",
    ),
    "an option without a value": (["--epochs"], "expected one argument"),
    "a recipe that is not there": (["--config=digit"], "did you mean 'digits'?"),
    "a file that is not there": (["--config=none.yaml"], "no such file"),
    "a key that is not there": (["--config=key.yaml"], "key.yaml: optim.learning_rate: no such"),
    "a value for a section": (["--config=section.yaml"], "section.yaml: optim: a section"),
    "a wrong type in a file": (["--config=value.yaml"], "value.yaml: optim.lr: expected float"),
    "a file that is no YAML": (["--config=broken.yaml"], "broken.yaml: line 1:"),
    "a key that stands twice": (["--config=twice.yaml"], "epochs stands twice"),
    "a net that is not there": (["--model.name=knresnet81"], "did you mean 'knresnet18'?"),
    "a net that timm has not": (["--model.name=timm:resnett50"], "did you mean 'timm:resnet50"),
    "an option timm's net has not": (
        ["--model.name=timm:resnet10t", "--model.options={}", "--model.stem=cifar"],
        "timm:resnet10t takes no option 'stem'",
    ),
    "an option the net has not": (["--model.options.widht=1"], "did you mean 'width'?"),
    "another net with this one's options": (["--model.name=resnet18"], "--model.options '{}'"),
    "a moment that never fades": (["--optim.betas=[0.9,1.0]"], "optim.betas must lie in [0, 1)"),
    "a value the net refuses": (["--model.options.width=0.3"], "take whole ones"),
    "a norm that is not there": (["--model.norm=kernl"], "did you mean 'kernel'?"),
    "a stem that is not there": (["--model.stem=cifr"], "did you mean 'cifar'?"),
    "a data set that is not there": (["--data.name=minst"], "did you mean 'mnist'?"),
    "all data for validation": (["--data.val_fraction=1"], "data.val_fraction must lie in [0, 1)"),
    "a size for images that have one": (["--data.image_size=8"], "data.image_size belongs to"),
    "a folder without splits": ([*FOLDER, "--data.root=nowhere"], "it holds none of them"),
    "a folder with one split": ([*FOLDER, "--data.root=single"], "it holds train"),
    "classes that differ": (
        [*FOLDER, "--data.root=classes"],
        "class folders cat (only in train), dog (only in test)",
    ),
    "one class only": ([*FOLDER, "--data.root=one"], "needs two class folders"),
    "a folder that is taken": (["--run_dir=taken"], "run_dir taken exists already"),
    "a name that is a path": (["--name=a/b"], "name must be a plain folder name"),
    "milestones without steps": (["--schedule.milestones=[1]"], "belongs to schedule.name"),
    "nothing but warm-up": (["--schedule.warmup_epochs=13"], "must not be more than epochs"),
    "passes without images": (["--accumulation=33"], "needs a batch_size of 33 or more"),
    "one class of patterns": (["--data.synthetic.classes=1"], "classes must lie between 2"),
    "an average that never moves": (["--ema_decay=1"], "ema_decay must lie between"),
    "a milestone after the end": (
        ["--schedule.name=multistep", "--schedule.milestones=[12]"],
        "schedule.milestones must lie between 0 and epochs 12",
    ),
    "a folder above": (["--name=.."], "name must be a plain folder name"),
    "a word for a list": (["--track=tensorboard"], "write '[tensorboard]'"),
    "the classes as an option": (["--model.options.num_classes=3"], "known from the data"),
    "capitals in a name": (["--model.name=KNResNet18"], "did you mean 'knresnet18'?"),
    "a batch of nothing": (["--batch_size=0"], "batch_size must lie between 1"),
    "a pass of nothing": (["--accumulation=0"], "accumulation must lie between 1"),
    "no seed": (["--seeds=0"], "seeds must lie between 1"),
    "an average of the future": (["--ema_decay=2"], "ema_decay must lie between 0 and 0.999"),
    "an average of no step": (["--ema_decay=0.9", "--ema_every=0"], "ema_every must lie between 1"),
    "now and then an average of nothing": (["--ema_every=2"], "ema_every needs an ema_decay"),
    "labels smoothed away": (["--loss.label_smoothing=2"], "label_smoothing must lie between"),
    "a policy that is not there": (["--augment.policy=cifar"], "did you mean 'cifar10'?"),
    "a mixture below zero": (["--augment.mixup=-1"], "augment.mixup must lie between"),
    "two ways to crop": (
        ["--augment.resized_crop=[0.5,1]", "--augment.crop_padding=2"],
        "are two ways to crop",
    ),
    "a hue for grey images": (["--augment.jitter.hue=0.1"], "needs images of 3 channels"),
    "a mean that nothing uses": (["--data.mean=[0.5]"], "data.scaling"),
    "two means for one channel": (
        ["--data.scaling=fixed", "--data.mean=[0.5,0.5]", "--data.std=[1,1]"],
        "data.mean",
    ),
    "a row that is not there": (["--config=kn-cifar100/knresnet18-b33"], "'knresnet18-b32'"),
    "a study without a row": (["--config=kn-cifar100"], "a study of 63 rows"),
    "an optimizer timm has not": (
        ["--optim.name=timm:lambb", "--optim.nesterov=false"],
        "did you mean 'timm:lamb'?",
    ),
    "a setting the optimizer has not": (["--optim.name=adam"], "optim.nesterov"),
    "a rate that nothing uses": (["--schedule.gamma=0.5"], "schedule.gamma"),
    "statistics that are not there": (["--model.eval_stats=plane"], "did you mean 'plain'?"),
    "a tracker that is not there": (["--track=[tensorbord]"], "did you mean 'tensorboard'?"),
    "half precision on a CPU": (
        ["--launch.mixed_precision=fp16", "--launch.cpu"],
        "fp16 needs a GPU",
    ),
    "to keep every zeroth epoch": (["--keep.every=0"], "keep.every must be positive"),
    "to save before the last save": (["--keep.minutes=-1"], "keep.minutes must lie between"),
    "to go on with nothing": (["--resume=nowhere"], "nowhere is no run folder"),
    "to go on with no name": (["--resume="], "--resume: give a folder that a run has made"),
    "to go on with the weights": (
        ["--resume=begun/last"],
        "--resume begun/last is no run folder: it holds no config.yaml; it lies in one, begun",
    ),
    "to go on with something else": (["--resume=auto", "--run_dir=taken"], "exists already"),
    "to go on in two folders": (["--resume=begun", "--run_dir=taken"], "differ; give one"),
    "to go on with other settings": (
        ["--resume=begun", "--epochs=3"],
        "begun was made with other settings: epochs was 12, now 3",
    ),
    "to go on with other processes": (
        ["--resume=crowd"],
        "crowd was made by 4 process(es), this is 1",
    ),
    "a penalty without a layer": (
        [
            "--model.name=tricks_net",
            "--model.options={conv_channels: [8]}",
            "--penalty.weight_l1=1",
        ],
        "penalty: TricksNet has no layer that it counts",
    ),
    "more processes than there are": (["--launch.processes=2"], "--num_processes 2"),
}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2_before_any_process_group(
    arguments, message, capsys, monkeypatch
):
    monkeypatch.setattr(runs, "start", lambda launch: pytest.fail("a process group was opened"))
    assert run_program(lambda: train.main(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not torch.distributed.is_initialized()


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("program", [evaluate, export])
def test_weights_are_not_taken_for_their_run(program, capsys):
    assert run_program(lambda: program.main(["begun/last"])) == 2
    line = "error: begun/last is no run folder: it holds no config.yaml; it lies in one, begun\n"
    assert capsys.readouterr().err == line


def test_norms_that_need_gpus_for_several_processes_are_refused_without(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = ["--model.norm=sync_batch", "--launch.cpu=true"]
    assert run_program(lambda: train.main(arguments)) == 2
    assert "between GPUs only" in capsys.readouterr().err


@pytest.fixture
def tree(tmp_path):
    """Images of two classes, as imagefolder wants them."""
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / "tree" / place).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / "tree" / place / f"{number}.png")
    return tmp_path / "tree"


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


def test_images_too_small_for_the_net_are_told_before_there_is_a_folder(tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = ["--data.name=synthetic", "--data.synthetic.image_size=2", "--model.name=resnet8"]
    arguments += ["--model.options={}", f"--run_dir={folder}"]
    assert run_program(lambda: train.main(arguments)) == 2
    assert "resnet8 cannot take images of 2 x 2" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.name=mnist"], r"data.name mnist needs torchvision: pip install 'knorm[vision]'"),
        ([], "data.name digits needs sklearn: pip install 'knorm[train]'"),
        (["--data.name=synthetic", "--augment.policy=cifar10"], "policy cifar10 needs torchvision"),
    ],
)
def test_a_missing_package_is_named_before_anything_starts(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(data, "find_spec", lambda name: name if name == "matplotlib" else None)
    assert run_program(lambda: train.main(arguments)) == 2
    assert message in capsys.readouterr().err


def test_pictures_that_cannot_be_drawn_are_told_before_the_run_and_not_after_it(
    monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run_program(lambda: train.main([])) == 2
    line = "error: a run's picture needs matplotlib: pip install 'knorm[train]'\n"
    assert capsys.readouterr().err == line


def test_other_images_are_not_evaluated_as_the_runs_own(tree, tmp_path, capsys):
    arguments = ["--data.name=imagefolder", f"--data.root={tree}", "--data.image_size=8"]
    run(tmp_path / "run", "--epochs=1", "--batch_size=2", *arguments)
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tree / "test/cat/0.png")
    assert run_program(lambda: evaluate.main([str(tmp_path / "run")])) == 2
    assert "the test split is not the one that" in capsys.readouterr().err


def test_several_runs_are_not_evaluated_as_one(tmp_path, capsys):
    run(tmp_path / "seeds" / "seed-0", "--epochs=1")
    (tmp_path / "seeds" / "config.yaml").write_text(settings_of(parse_recipe([])))
    assert run_program(lambda: evaluate.main([str(tmp_path / "seeds")])) == 2
    assert "holds several runs, give one of seed-0" in capsys.readouterr().err


def test_gradients_are_not_divided_behind_the_recipe(monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert run_program(lambda: train.main([])) == 2
    assert "give --accumulation" in capsys.readouterr().err


TREES = {
    "an image that is none": (lambda tree: (tree / "train/cat/1.png").write_text("x"), "cat/1.png"),
    "half an image": (
        lambda tree: (tree / "test/dog/2.png").write_bytes(
            (tree / "test/dog/2.png").read_bytes()[:40]
        ),
        "dog/2.png",
    ),
    "a class without images": (lambda tree: empty(tree / "train/dog"), "dog holds no images"),
}


@pytest.mark.parametrize("resident", ["true", "false"])
@pytest.mark.parametrize(("damage", "message"), TREES.values(), ids=TREES)
def test_a_broken_tree_is_one_line_that_names_the_place(
    tree, damage, message, resident, tmp_path, capsys
):
    damage(tree)
    arguments = ["--data.name=imagefolder", f"--data.root={tree}", "--data.image_size=8"]
    arguments += [f"--data.resident={resident}", "--batch_size=2", f"--run_dir={tmp_path / 'run'}"]
    assert run_program(lambda: train.main([*QUICK, "--epochs=1", *arguments])) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


def test_a_folder_that_another_job_is_using_is_left_alone(stopped, tmp_path, capsys):
    folder = shutil.copytree(stopped, tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.name != ".lock"}
    with locked(folder):
        assert run_program(lambda: train.main([f"--resume={folder}"])) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {folder} is in use by process {os.getpid()} on ")
    assert err.count("\n") == 1
    assert before == {path: path.read_bytes() for path in before}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped before its end, in which the test numbers are missing."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    run(folder, "--epochs=1", "--ema_decay=0.9")
    (folder / "result.json").unlink()
    return folder


def emptied(name):
    return lambda folder: (folder / name).write_text("")


def cut(name):
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def without(name, key):
    def damage(folder):
        content = json.loads((folder / name).read_text())
        del content[key]
        (folder / name).write_text(json.dumps(content))

    return damage


def without_file(name):
    return lambda folder: (folder / name).unlink()


DAMAGED = {
    "no settings": (emptied("config.yaml"), "config.yaml: must hold `option: value` lines"),
    "half the surroundings": (cut("environment.json"), "environment.json is damaged: no JSON"),
    "surroundings of nothing": (emptied("environment.json"), "environment.json is damaged: it is"),
    "no processes": (without("environment.json", "processes"), "lacks processes"),
    "no surroundings": (without_file("environment.json"), "environment.json cannot be read: No"),
    "no command": (without_file("command.txt"), "command.txt cannot be read: No such file"),
    "half a state": (cut("last/state.json"), "last/state.json is damaged: no JSON"),
    "no step": (without("last/state.json", "step"), "last/state.json is damaged: lacks step"),
    "half the weights": (cut("last/model.safetensors"), "last is damaged: "),
    "no moving average": (without_file("last/ema.safetensors"), "last is damaged: lacks ema"),
    "no moments": (without_file("last/optimizer.safetensors"), "last is damaged: lacks optim"),
    "the weights of another net": (
        lambda folder: save_file({"w": torch.ones(1)}, folder / "last/model.safetensors"),
        "last holds the weights of another net",
    ),
    "a result that is none": (
        lambda folder: (folder / "result.json").write_text("{}"),
        "result.json is damaged: lacks name; remove result.json of that folder and give the run's",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_run_folder_does_not_go_on_and_names_the_file(
    stopped, damage, message, tmp_path, capsys
):
    folder = shutil.copytree(stopped, tmp_path / "run")
    damage(folder)
    assert run_program(lambda: train.main([f"--resume={folder}"])) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
