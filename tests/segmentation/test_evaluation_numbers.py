import json

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from segmentation.classes import CAMVID, IGNORE
from segmentation.evaluation_numbers import Evaluated, evaluate_images
from segmentation.inference_config import Inference
from segmentation.metrics import confusion_matrix
from tests.classification.runs import TWO, launch
from tests.segmentation import awkward_images
from tests.segmentation.awkward_images import (
    COUNTS,
    SETTINGS,
    K,
    evaluated,
    make_images,
    make_net,
)


def test_awkward_images_give_the_very_same_numbers_at_1_2_and_3_processes(capsys):
    program = "tests.segmentation.awkward_images"
    awkward_images.main()
    alone = json.loads(capsys.readouterr().out)
    assert set(alone) == {f"{name} {count}" for name in SETTINGS for count in COUNTS}
    for num_processes in ("2", "3"):
        out = launch([*TWO, "--num_processes", num_processes], program)
        assert json.loads(out) == alone


def test_every_pixel_with_a_label_counts_once():
    net, images = nn.Conv2d(3, K, 1), make_images()
    found = evaluate_images(
        Accelerator(cpu=True),
        net,
        images,
        lambda images: images.float() / 255,
        num_images=len(images),
        num_classes=K,
        settings=Inference(),
        seed=0,
    )
    matrix = torch.zeros(K, K + 1, dtype=torch.long)
    for number, pixels, labels in images:
        logits, labels = net(pixels[None].float() / 255).detach(), labels.long()
        predicted = logits[0].argmax(0)
        matrix += confusion_matrix(predicted, labels, K)
        valid = labels != IGNORE
        values = {name: column[number].item() for name, column in found.images.items()}
        if number == 3:
            assert values == {"loss": 0, "accuracy": 0, "pixels": 0}
        else:
            loss = F.cross_entropy(logits, labels[None], ignore_index=IGNORE)
            assert values["loss"] == pytest.approx(loss.item(), rel=1e-6)
            assert values["accuracy"] == (predicted == labels)[valid].double().mean()
            assert values["pixels"] == valid.sum()
    assert torch.equal(found.matrix, matrix)
    assert found.matrix.sum() == sum((labels != IGNORE).sum() for _, _, labels in images)


def test_the_first_images_are_kept_as_they_were_counted():
    for count, kept, there in ((5, 9, 5), (5, 2, 2), (5, 0, 0)):
        found = evaluated(Accelerator(cpu=True), make_net(), count, SETTINGS["windows"], kept)
        assert len(found.first) == there
    found = evaluated(Accelerator(cpu=True), make_net(), 5, SETTINGS["windows"], 5)
    pairs = zip(found.first, make_images(), strict=False)
    matrices = [confusion_matrix(predicted, labels, K) for predicted, (_, _, labels) in pairs]
    assert torch.equal(found.matrix, sum(matrices))


def test_evaluation_leaves_torchs_random_numbers_and_the_nets_mode_alone():
    net, accelerator = make_net().train(), Accelerator(cpu=True)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = evaluated(accelerator, net, 5, SETTINGS["windows"])
    assert torch.equal(torch.rand(2), expected)
    assert net.training
    assert not net[1].num_batches_tracked
    again = evaluated(accelerator, net.eval(), 5, SETTINGS["windows"])
    assert not net.training
    assert torch.equal(first.matrix, again.matrix)
    for name, column in first.images.items():
        assert torch.equal(column, again.images[name])


def test_the_loss_of_a_split_is_the_mean_over_images_with_labels():
    matrix = torch.eye(11, 12, dtype=torch.long)
    images = {"loss": [2.0, 0.0, 4.0], "accuracy": [1.0, 0.0, 0.0], "pixels": [5.0, 0.0, 1.0]}
    found = Evaluated(matrix, {name: torch.tensor(column) for name, column in images.items()})
    assert found.numbers(CAMVID) == {
        "loss": 3.0,
        "miou": 1.0,
        "pixel_accuracy": 1.0,
        "mean_accuracy": 1.0,
    }


def test_a_chance_of_0_makes_no_loss_infinite_and_a_net_without_sense_is_told():
    accelerator, images = Accelerator(cpu=True), make_images()[:1]
    for weight, known in ((1e9, True), (float("nan"), False)):
        net = nn.Conv2d(3, K, 1)
        nn.init.constant_(net.weight, 0)
        net.bias.data = torch.tensor([weight, 0.0, 0.0, 0.0])
        found = evaluate_images(
            accelerator,
            net,
            images,
            lambda images: images.float(),
            num_images=1,
            num_classes=K,
            settings=Inference(),
            seed=0,
        )
        assert found.images["loss"].isfinite().all() == known
