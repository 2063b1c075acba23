import math

import pytest
import torch
from torch import nn

from classification.config import Loss, parse_recipe
from classification.data import Batch
from classification.task import Classification, complete, score
from knorm.training.model_settings import Model
from knorm.training.nets import make_model


def batch_of(num_classes, count=11):
    labels = torch.randint(0, num_classes, (count,))
    return Batch(torch.randn(count, num_classes), labels, labels, count)


def test_the_training_loss_smooths_labels_and_evaluation_does_not():
    batch = batch_of(4)
    log_p = batch.inputs.log_softmax(dim=1)
    hard = -log_p.gather(1, batch.labels[:, None])[:, 0]
    task = Classification(Loss(label_smoothing=0.2), 4)
    loss, sums = task.loss(nn.Identity(), batch)
    torch.testing.assert_close(loss, (0.8 * hard - 0.2 * log_p.mean(dim=1)).sum())
    assert (sums["loss"], sums["count"]) == (loss, 11)
    torch.testing.assert_close(task.per_sample(nn.Identity(), batch)["loss"], hard)


def test_samples_that_keep_the_ranks_in_step_do_not_count():
    batch, task = batch_of(4), Classification(Loss(), 4)
    loss, sums = task.loss(nn.Identity(), batch._replace(real=3))
    first = Batch(*(tensor[:3] for tensor in batch[:3]), 3)
    assert torch.equal(loss, task.loss(nn.Identity(), first)[0])
    assert sums["count"] == 3
    none = task.loss(nn.Linear(4, 4), batch._replace(real=0))
    assert none[0].item() == 0
    none[0].backward()


@pytest.mark.parametrize("num_classes", [2, 5, 6, 10])
def test_top5_is_told_only_where_it_says_something(num_classes):
    task, batch = Classification(Loss(), num_classes), batch_of(num_classes)
    numbers = task.summary(task.per_sample(nn.Identity(), batch), batch.labels)
    assert ("top5" in numbers) == (num_classes > 5)
    correct = (batch.inputs.argmax(dim=1) == batch.labels).sum().item()
    assert (numbers["correct"], numbers["count"]) == (correct, 11)
    assert numbers["top1"] == correct / 11


def test_top5_counts_labels_among_the_five_highest():
    inputs = torch.arange(7.0).repeat(7, 1)
    batch = Batch(inputs, torch.arange(7), torch.arange(7), 7)
    values = Classification(Loss(), 7).per_sample(nn.Identity(), batch)
    assert values["top5"].tolist() == [False, False, True, True, True, True, True]


def test_the_confusion_matrix_agrees_with_the_accuracy():
    task, batch = Classification(Loss(), 6), batch_of(6, 101)
    values = task.per_sample(nn.Identity(), batch)
    matrix = task.confusion_matrix(values, batch.labels)
    assert matrix.diagonal().sum() == task.summary(values, batch.labels)["correct"]
    assert matrix.sum(dim=1).tolist() == batch.labels.bincount(minlength=6).tolist()


class Drawing(nn.Module):
    """Logits by the columns of an image, with noise."""

    def forward(self, inputs):
        return inputs[:, 0, 0] + torch.randn(len(inputs), inputs.shape[3])


def test_mirrored_evaluation_tells_the_mean_softmax_of_both_and_changes_nothing_else():
    labels = torch.randint(0, 7, (300,))
    batch = Batch(torch.randn(300, 1, 1, 7), labels, labels, 300)
    plain, both = (Classification(Loss(), 7, test_flip=flip) for flip in (False, True))
    torch.manual_seed(0)
    expected = plain.per_sample(Drawing(), batch)
    torch.manual_seed(0)
    values = both.per_sample(Drawing(), batch)
    assert all(torch.equal(values[name], expected[name]) for name in plain.names)
    numbers = both.summary(values, labels)
    assert plain.summary(expected, labels) == {k: v for k, v in numbers.items() if k != "top1_flip"}
    torch.manual_seed(0)
    net = Drawing()
    mean = net(batch.inputs).softmax(1) + net(batch.inputs.flip(3)).softmax(1)
    assert numbers["top1_flip"] == (mean.argmax(1) == labels).sum().item() / 300
    assert numbers["top1_flip"] != numbers["top1"]
    assert score(numbers) == score(plain.summary(expected, labels))


def test_the_loss_takes_probabilities_of_mixed_images():
    batch, task = batch_of(4), Classification(Loss(label_smoothing=0.1), 4)
    certain = batch._replace(targets=torch.eye(4)[batch.labels])
    torch.testing.assert_close(
        task.loss(nn.Identity(), certain)[0], task.loss(nn.Identity(), batch)[0]
    )
    half = batch._replace(targets=torch.full((11, 4), 0.25))
    expected = -batch.inputs.log_softmax(1).mean(1).sum()
    torch.testing.assert_close(task.loss(nn.Identity(), half)[0], expected)


def test_weights_are_a_function_of_the_seed():
    model = Model(name="knresnet13", options={"width": 0.25})

    def weights(seed):
        torch.manual_seed(seed + 100)
        net = make_model(model, num_classes=3, in_chans=1, seed=seed)
        return torch.cat([parameter.flatten() for parameter in net.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_an_option_cannot_be_given_twice():
    model = Model(name="knresnet13", norm="kernel", options={"norm": "group"})
    with pytest.raises(ValueError, match=r"model\.norm is given twice"):
        make_model(model, num_classes=3, in_chans=1, seed=0)


def test_better_is_more_correct_and_then_less_loss():
    scores = [
        score({"top1": top1, "loss": loss})
        for top1, loss in ((0.5, math.nan), (0.5, 2.0), (0.5, 1.0), (0.6, 9.0))
    ]
    assert scores == sorted(scores)


def test_a_net_of_timms_gets_classes_channels_and_the_size_of_the_images():
    pytest.importorskip("timm")
    arguments = ["--data.name=mnist", "--model.name=timm:vit_tiny_patch16_224"]
    arguments += ["--model.norm=null", "--model.dropout_p=null", "--model.options={depth: 1}"]
    recipe = parse_recipe(arguments)
    complete(recipe.model, recipe.data)
    assert recipe.name == "mnist-timm-vit_tiny_patch16_224"
    assert recipe.model.options == {"depth": 1, "img_size": 28}
    net = make_model(recipe.model, num_classes=7, in_chans=1, seed=0)
    assert net(torch.randn(2, 1, 28, 28)).shape == (2, 7)
    folder = ["--data.name=imagefolder", "--data.image_size=28", "--data.eval_size=32"]
    recipe = parse_recipe([*arguments, *folder])
    with pytest.raises(ValueError, match=r"images of one size, but data\.eval_size is 32"):
        complete(recipe.model, recipe.data)


def test_norm_and_options_of_a_net_of_timms_come_from_the_recipe(monkeypatch):
    pytest.importorskip("timm")
    given = []

    def swap_norm(model, kind, **options):
        given.append((kind, options))
        return model, None

    monkeypatch.setattr("knorm.models.in_timm.swap_norm", swap_norm)
    model = Model(name="timm:resnet10t", norm="kernel", dropout_p=0.1, options={"drop_rate": 0.2})
    net = make_model(model, num_classes=3, in_chans=1, seed=0)
    assert given == [("kernel", {"dropout_p": 0.1, "inplace": True})]
    assert (net.num_classes, net.conv1[0].in_channels, net.drop_rate) == (3, 1, 0.2)
