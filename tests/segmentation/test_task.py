import math

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from knorm.training.loop import Window
from segmentation.classes import IGNORE
from segmentation.data import Batch
from segmentation.loss_config import Loss
from segmentation.losses import Criterion
from segmentation.task import loss_of, score, weighed

K = 3


def made(count, real=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, K, 5, 6, generator=generator)
    labels = torch.randint(0, K, (count, 5, 6), generator=generator)
    labels[0, 2:] = IGNORE
    return Batch(inputs, labels, count if real is None else real)


class TwoHeads(nn.Module):
    """The input as logits of one head, its half as those of the other."""

    def forward(self, x):
        return {"out": x, "aux": x / 2}


@pytest.mark.parametrize("net", [nn.Identity(), TwoHeads()])
def test_images_that_keep_the_ranks_in_step_do_not_count(net):
    criterion, batch = Criterion(Loss(), K), made(5, real=3)
    loss, sums = loss_of(criterion, net, batch)
    alone, same = loss_of(criterion, net, Batch(batch.inputs[:3], batch.labels[:3], 3))
    assert torch.equal(loss, alone)
    assert all(torch.equal(sums[name], same[name]) for name in same)
    assert sums["count"] == 3


def test_the_logged_accuracy_is_the_main_heads_mean_over_images():
    batch = made(4)
    _, sums = loss_of(Criterion(Loss(), K), TwoHeads(), batch)
    expected = 0.0
    for logits, labels in zip(batch.inputs, batch.labels, strict=True):
        known = labels != IGNORE
        expected += (logits.argmax(0) == labels)[known].double().mean().item()
    assert sums["pixel_accuracy"].item() == pytest.approx(expected)


def test_a_rank_without_images_has_no_loss_and_gradients_of_0():
    net = nn.Conv2d(K, K, 1)
    loss, sums = loss_of(Criterion(Loss(), K), net, made(2, real=0))
    loss.backward()
    assert loss.item() == 0
    assert not net.weight.grad.any()
    logged = loss_of(Criterion(Loss(), K), net, made(2))[1]
    assert list(sums) == list(logged)
    assert not any(value.item() for value in sums.values())


def test_every_pass_of_a_window_knows_the_mean_weight_of_its_images():
    accelerator = Accelerator(cpu=True)
    batches = [made(2), made(3, real=1, seed=1)]
    window, weights = Window(batches, 3), (1.0, 2.0, 0.5)
    criterion = Criterion(Loss(mean="batch", class_weights=weights), K)
    counted = torch.cat([batch.labels[: batch.real] for batch in batches])
    known = counted[counted != IGNORE]
    expected = torch.tensor(weights)[known].sum() / 3
    for batch in weighed(window, criterion, accelerator).batches:
        torch.testing.assert_close(batch.mean_weight, expected)
    whole = torch.cat([batch.inputs[: batch.real] for batch in batches])
    mean = nn.CrossEntropyLoss(torch.tensor(weights), ignore_index=IGNORE)(whole, counted)
    losses = [
        loss_of(criterion, nn.Identity(), batch)[0]
        for batch in weighed(window, criterion, accelerator).batches
    ]
    torch.testing.assert_close(sum(losses) / 3, mean)


@pytest.mark.parametrize("settings", [Loss(), Loss(mean="batch", ohem_threshold=0.5)])
def test_a_window_stays_as_it_is_where_no_weight_is_needed(settings):
    window = Window([made(2)], 2)
    assert weighed(window, Criterion(settings, K), Accelerator(cpu=True)) is window


def test_better_is_a_higher_mean_iou_and_then_less_loss():
    scores = [
        score({"miou": miou, "loss": loss})
        for miou, loss in ((0.5, math.nan), (0.5, 2.0), (0.5, 1.0), (0.6, 9.0))
    ]
    assert scores == sorted(scores)
