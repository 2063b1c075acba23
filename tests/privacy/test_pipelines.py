"""Private segmentation: images as the unit, gradients their own, the whole way of a run."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import knorm
from knorm.training.mistakes import run_program
from privacy import train
from privacy.card import not_covered_here
from privacy.checks import prove, without_draws
from privacy.config import Privacy, PrivateRecipe, PrivateSegmentation, kind_of, parse_recipe
from privacy.origin import origin_of
from privacy.per_record import Recorder, trainable
from privacy.pipelines import PIPELINES, pipeline_of
from privacy.rules import RULES
from segmentation import train as plain_train
from segmentation.classes import IGNORE
from segmentation.data import Batch
from segmentation.loss_config import Loss
from segmentation.losses import Criterion
from segmentation.task import loss_of
from tests.classification.runs import TWO, launch, value
from tests.privacy.known import SECRET
from tests.segmentation.runs import evaluated

PRIVATE = [
    "--config=scenes",
    "--data.scenes={train: 8, val: 3, test: 1, height: 32, width: 64}",
    "--data.val_fraction=0.25",
    "--model.options={backbone: knresnet13, backbone_options: {width: 0.125}, head_channels: 8}",
    "--epochs=2",
    "--batch_size=2",
    "--examples=1",
    "--launch.cpu=true",
    "--privacy={epsilon: null, noise_multiplier: 0.8, delta: 1.0e-2, physical_batch: 2}",
]


def private(folder, *arguments):
    return [*PRIVATE, f"--data.root={folder.parent / 'data'}", f"--run_dir={folder}", *arguments]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A private run, its checks before training among it."""
    folder = tmp_path_factory.mktemp("private") / "run"
    train.main(private(folder))
    return folder


def test_a_private_run_of_scenes_trains_evaluates_and_has_its_card(finished, capsys):
    result = json.loads((finished / "result.json").read_text())
    for kept in ("best", "last"):
        numbers = evaluated(capsys, finished, f"--weights={kept}")
        for name in ("miou", "pixel_accuracy", "loss"):
            assert numbers[name] == value(result, "test", kept, name)
    card = json.loads((finished / "privacy_card.json").read_text())
    assert card["guarantee"]["unit"] == "one training image"
    assert 0 < card["guarantee"]["epsilon"] < 100
    assert card["mechanism"]["training_images"] == 6
    assert card["mechanism"]["sampling_rate"] == "1/3"
    assert card["mechanism"]["steps"] == len(_ledger(finished)) - 1 == 6
    proof = card["checked_before_training"]
    assert proof["without_one"]
    assert proof["largest_norm"] <= 1 + 1e-4
    assert proof["parameters"] == len(load_file(finished / "last" / "model.safetensors"))
    assert (finished / "examples.png").exists()
    for state in finished.glob("*/state.json"):
        assert set(json.loads(state.read_text())["fingerprints"]) == {"val", "test"}


def _ledger(folder):
    return (folder / "ledger.jsonl").read_text().splitlines()


@pytest.mark.parametrize("way", ["--config={}/config.yaml", "--resume={}"])
def test_it_is_never_trained_plainly(finished, capsys, way):
    assert run_program(lambda: plain_train.main([way.format(finished)])) == 2
    err = capsys.readouterr().err
    assert "has a section privacy; train it with python -m privacy.train" in err
    assert err.count("\n") == 1


def test_it_is_taken_up_by_its_folder_alone(finished, capsys):
    train.main([f"--resume={finished}"])
    assert "is finished already" in capsys.readouterr().out


KINDS = {
    "nothing": ([], PrivateRecipe),
    "a recipe": (["--config", "scenes"], PrivateSegmentation),
    "a recipe that classifies": (["--config=digits"], PrivateRecipe),
    "a data set": (["--data.name=scenes"], PrivateSegmentation),
    "a data set in two words": (["--data.name", "camvid"], PrivateSegmentation),
    "a section": (["--data={name: scenes}"], PrivateSegmentation),
    "a section in two words": (["--data", "{name: pairs}"], PrivateSegmentation),
    "a section without a name": (["--data={root: here}"], PrivateRecipe),
    "the last word": (["--config=scenes", "--data.name=mnist"], PrivateRecipe),
    "a data set that is not there": (["--data.name=nowhere"], PrivateRecipe),
}


@pytest.mark.parametrize("case", KINDS)
def test_the_data_set_says_which_pipeline(case):
    arguments, kind = KINDS[case]
    assert kind_of(arguments) is kind


def test_a_data_set_without_a_recipe_begins_with_its_pipelines_own():
    for arguments in (["--data.name=scenes"], ["--data={name: scenes}"], ["--config=scenes"]):
        recipe = parse_recipe(arguments, kind_of(arguments))
        assert isinstance(recipe, PrivateSegmentation)
        assert pipeline_of(recipe) is PIPELINES[PrivateSegmentation]
    assert pipeline_of(parse_recipe([])) is PIPELINES[PrivateRecipe]


MISTAKES = {
    "a mean over the batch": (["--loss.mean=batch"], "loss.mean divides by the pixels of the whol"),
    "batch norm": (["--model.norm=batch"], "mixes the images of a batch"),
    "batch norm unchecked": (["--model.norm=batch", "--privacy.checks=false"], "mixes the images"),
    "passes": (["--accumulation=2"], "accumulation splits no private step"),
    "steps": (["--steps=5", "--epochs=null"], "steps is for ordinary runs; use privacy.steps"),
    "scaling": (["--data.scaling=standard"], "tells mean and deviation of the training images"),
    "a typo": (["--loss.ohem=0.7"], "--loss.ohem: no such option"),
    "an option of classification": (["--augment.mixup=0.5"], "augment.mixup: no such option"),
    "weights of some classes": (["--loss.class_weights=[1, 2]"], "has 2 numbers for 19 classes"),
    "a net that classifies": (["--model.name=knresnet18"], "unknown model 'knresnet18'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case, tmp_path, capsys):
    arguments, message = MISTAKES[case]
    assert run_program(lambda: train.main(private(tmp_path / "run", *arguments))) == 2
    err = capsys.readouterr().err.splitlines()
    assert message in err[-1]
    assert [line for line in err[:-1] if not line.startswith("warning: delta")] == []
    assert not (tmp_path / "run").exists()


FOREIGN = {
    "by a backbone's file": ["--backbone_weights=net.safetensors"],
    "by timm": ["--model.options.backbone_options={pretrained: true}"],
}


@pytest.mark.parametrize("case", FOREIGN)
def test_weights_of_others_stand_on_the_card(case):
    arguments = ["--config=scenes", *FOREIGN[case]]
    (line,) = not_covered_here(parse_recipe(arguments, PrivateSegmentation))
    assert line.startswith("the first weights, ")
    assert not_covered_here(parse_recipe(["--config=scenes"], PrivateSegmentation)) == []


@pytest.mark.parametrize(
    ("option", "is_other"),
    [
        ("--head_rate=2", True),
        ("--loss.dice=1", True),
        ("--augment.flip=true", True),
        ("--data.root=elsewhere", False),
        ("--examples=0", False),
    ],
)
def test_the_ledger_seals_what_the_sums_depend_on(option, is_other):
    settings = []
    for more in ([], [option]):
        work = SimpleNamespace(
            recipe=parse_recipe(["--config=scenes", *more], PrivateSegmentation),
            accelerator=SimpleNamespace(device=torch.device("cpu")),
            fingerprint=lambda split: "images",
        )
        settings.append(origin_of(work, 8, SECRET)["settings"])
    assert (settings[0] != settings[1]) is is_other


LOSSES = {
    "plain": Loss(),
    "hard pixels": Loss(ohem_threshold=0.7, ohem_min_kept=20),
    "dice": Loss(dice=1.0, label_smoothing=0.1),
    "class weights": Loss(class_weights=(1.0, 0.0, 3.0)),
}
COMMON = {"num_classes": 3, "head_channels": 4, "dropout_p": 0.1}
COMMON |= {"backbone": "knresnet13", "backbone_options": {"width": 0.125}}
DEEPLAB = {"stem": "imagenet", "output_stride": None}
NETS = {
    "fcn": ("fcn", {"norm": "kernel"}),
    "fcn, group, aux": ("fcn", {"norm": "group", "norm_options": {"groups": 2}, "aux": True}),
    "fcn, aux": ("fcn", {"norm": "kernel", "aux": True}),
    "deeplabv3plus": ("deeplabv3plus", {"norm": "kernel"} | DEEPLAB),
    "deeplabv3plus, layer, aux": ("deeplabv3plus", {"norm": "layer", "aux": True} | DEEPLAB),
}


def net_of(name):
    model, options = NETS[name]
    torch.manual_seed(0)
    return knorm.create_model(model, **COMMON, **options)


def made(count, seed, side=33):
    """Images of which the first has few labels; where there are more than two, the second none."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, side, side, generator=generator)
    labels = torch.randint(0, 3, (count, side, side), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = IGNORE
    labels[0, 4:] = IGNORE
    if count > 2:
        labels[1] = IGNORE
    return Batch(images, labels, count)


def total(net, batch, loss):
    return loss_of(Criterion(loss, 3), net, batch)[0]


@pytest.mark.parametrize("thin", [False, True], ids=["by records", "thin"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_are_those_of_each_image_alone(name, thin):
    loss = Loss(ohem_threshold=0.7, ohem_min_kept=20, dice=0.5)
    net, batch = without_draws(net_of(name).double().train()), made(4, 1)
    batch = batch._replace(inputs=batch.inputs.double())
    recorder = Recorder(net, RULES, thin=thin)
    with recorder.recording(4) as tape:
        whole = total(recorder, batch, loss)
    whole.backward()
    found, parameters = recorder.gradients(tape), dict(trainable(net))
    assert found.keys() == parameters.keys()
    for image in range(4):
        alone = Batch(batch.inputs[image, None], batch.labels[image, None], 1)
        expected = torch.autograd.grad(total(net, alone, loss), list(parameters.values()))
        assert any(gradient.any() for gradient in expected) == (image != 1)
        for key, gradient in zip(parameters, expected, strict=True):
            close = {"rtol": 1e-8, "atol": 1e-10 * float(gradient.abs().max()) + 1e-15}
            torch.testing.assert_close(found[key].samples()[image], gradient, **close)
            norm = gradient.square().sum()
            torch.testing.assert_close(found[key].squared_norms()[image], norm, **close)


@pytest.mark.parametrize("case", LOSSES)
def test_losses_of_images_pass_the_proof(case):
    proof = prove(
        net_of("fcn, aux"),
        lambda net, batch: loss_of(Criterion(LOSSES[case], 3), net, batch),
        lambda count, seed: made(count, seed, side=16),
        Privacy(epsilon=1, delta=1e-3),
    )
    assert proof.without_one
    assert proof.largest_norm <= 1 + 1e-4


@pytest.mark.parametrize("loss", [Loss(mean="batch"), Loss(mean="batch", dice=1.0)])
def test_a_loss_that_mixes_images_does_not(loss):
    with pytest.raises(ValueError, match="depends on the other images of the batch: the loss mixe"):
        prove(
            net_of("fcn"),
            lambda net, batch: loss_of(Criterion(loss, 3), net, batch),
            lambda count, seed: made(count, seed, side=16),
            Privacy(epsilon=1, delta=1e-3),
        )


def test_two_processes_make_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("privacy.runs.of_run", lambda *_, **__: SECRET)
    more = ["--privacy.checks=false", "--examples=0", "--model.dropout_p=0.1"]
    train.main(private(tmp_path / "one", *more))
    launch(TWO, "tests.privacy.known_run", *private(tmp_path / "two", *more))
    one, two = (
        load_file(tmp_path / name / "last" / "model.safetensors") for name in ("one", "two")
    )
    for name, tensor in two.items():
        torch.testing.assert_close(tensor, one[name], rtol=0, atol=1e-6)
