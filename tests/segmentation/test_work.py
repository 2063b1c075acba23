import pytest
import torch
from accelerate import Accelerator

from segmentation.classes import IGNORE
from segmentation.config import parse_recipe
from segmentation.data import load_data
from segmentation.work import SegmentationWork
from tests.segmentation.runs import quick


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    arguments = quick(tmp_path_factory.mktemp("work") / "run", "--augment.crop=[24, 40]")
    recipe = parse_recipe([*arguments, "--head_rate=5", "--model.options.aux=true"])
    data = load_data(recipe.data, Accelerator(cpu=True), channels_last=False)
    return SegmentationWork(recipe, data)


def test_a_rehearsal_has_few_images_of_every_split_but_the_training_set(work):
    assert work.sizes == {"train": 6, "val": 2, "test": 3}
    assert work.few(1).sizes == {"train": 6, "val": 1, "test": 1}


def test_made_up_images_have_the_crops_size_and_labels_of_every_kind(work):
    one, again, other = (work.made_up(9, seed) for seed in (1, 1, 2))
    assert one.inputs.shape == (9, 3, 24, 40)
    assert one.labels.shape == (9, 24, 40)
    assert one.real == 9
    assert set(one.labels.unique().tolist()) == {*range(19), IGNORE}
    assert torch.equal(one.inputs, again.inputs)
    assert not torch.equal(one.inputs, other.inputs)


def test_only_the_backbone_learns_at_the_rate_of_the_recipe(work):
    net = work.make_net(None)
    scales = {
        id(parameter): group.get("lr_scale", 1.0)
        for group in work.make_optimizer(net).param_groups
        for parameter in group["params"]
    }
    for name, parameter in net.named_parameters():
        assert scales[id(parameter)] == (1 if name.startswith("features.") else 5), name


def test_an_evaluation_leaves_the_net_as_it_was_and_tells_all_scores(work):
    net = work.make_net(None).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = work.evaluate(net, "val")
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert {*work.scores, "count"} <= found.numbers.keys()
    assert found.details.matrix.shape == (19, 20)
    assert len(found.details.examples) == 2


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "loss"),
        (["--loss.mean=batch"], "loss"),
        (["--model.options.aux=true"], "objective"),
        (["--model.options.aux=true", "--loss.aux=0"], "loss"),
        (["--loss.dice=0.5"], "objective"),
        (["--loss.label_smoothing=0.1"], "objective"),
        (["--loss.ohem_threshold=0"], "objective"),
        ([f"--loss.class_weights={[2.0] * 19}"], "objective"),
    ],
)
def test_only_plain_cross_entropy_is_logged_by_the_name_that_evaluation_gives_it(
    work, arguments, name, tmp_path
):
    one = work.of(parse_recipe([*quick(tmp_path), *arguments]))
    net, batch = one.make_net(None).train(), one.made_up(2, seed=0)
    _, sums = one.loss(net, batch)
    assert list(sums) == list(one.logged) == [name, "pixel_accuracy", "count"]
    assert list(one.loss(net, batch._replace(real=0))[1]) == list(one.logged)


def test_what_is_told_of_the_net_is_enough_to_make_it_and_its_inputs_again(work):
    facts = work.facts()
    assert (facts["num_classes"], facts["in_chans"]) == (19, 3)
    assert len(facts["classes"]) == len(facts["colors"]) == 19
    assert (facts["mean"], facts["std"]) == ([0.0] * 3, [1.0] * 3)
    assert work.example().shape == (1, 3, 32, 64)
