"""Canaries pass through a private step as images do, and only those that are in leave a trace."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

from classification.config import Loss
from classification.data import Batch, ImageData
from classification.readers import FolderSplit, ResidentSplit
from classification.task import Classification
from knorm.training.mistakes import UserMistakeError
from privacy.canaries import (
    LOUD,
    MarkedNet,
    Watch,
    coins,
    differences,
    draw_canaries,
    loss_with_canaries,
    losses,
    totals,
    with_canaries,
)
from privacy.clipping import clipped_sums
from privacy.per_record import Recorder
from privacy.rules import RULES
from tests.privacy.known import SECRET

CLASSES, C, GRADIENTS = 3, 0.5, 20


def some_data(count=6):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return ImageData(
        splits={"train": ResidentSplit(pixels, torch.arange(count) % CLASSES)},
        classes=["a", "b", "c"],
        mean=torch.zeros(1, 1, 1),
        std=torch.ones(1, 1, 1),
        accelerator=SimpleNamespace(device=torch.device("cpu")),
        memory_format=torch.contiguous_format,
    )


def some_canaries(data):
    return draw_canaries(data, SECRET, images=8, gradients=GRADIENTS, seed=1)


def marked_net(count=GRADIENTS):
    torch.manual_seed(0)
    return MarkedNet(nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)), count, LOUD * C)


def batch_of(data, views=1):
    split = data.splits["train"]
    rows = torch.arange(len(split.labels)).repeat_interleave(views)
    labels = split.labels[rows]
    return Batch(data.inputs(split.images(rows)), labels, labels, len(rows))


def test_coins_are_fair_apart_and_the_secrets():
    image, gradient = (coins(SECRET, kind, 10_000) for kind in ("image", "gradient"))
    assert abs(image.mean() - 0.5) < 0.02
    assert abs((image == gradient).mean() - 0.5) < 0.02
    assert np.array_equal(image, coins(SECRET, "image", 10_000))


def test_those_that_are_in_stand_behind_the_training_images():
    data = some_data()
    canaries = some_canaries(data)
    split = with_canaries(data, canaries).splits["train"]
    images, numbers = canaries.images_in.nonzero()[0], canaries.gradients_in.nonzero()[0]
    assert 0 < len(images) < 8
    assert split.labels.tolist() == [
        *data.splits["train"].labels.tolist(),
        *canaries.labels[images].tolist(),
        *(CLASSES + numbers).tolist(),
    ]
    assert torch.equal(split.pixels[6 : 6 + len(images)], canaries.pixels[images])
    assert not split.pixels[6 + len(images) :].any()


def test_images_that_are_read_as_they_come_are_refused():
    data = some_data()
    streamed = FolderSplit(np.array([]), torch.zeros(0, dtype=torch.long), (4, 4), None)
    streamed.images = data.splits["train"].images
    with pytest.raises(UserMistakeError, match=r"give data\.resident true"):
        with_canaries(replace(data, splits={"train": streamed}), some_canaries(data))


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_gradient_canary_is_one_coordinate_of_the_clipping_norm(views, smoothing):
    data, net = some_data(), marked_net()
    canaries = some_canaries(data)
    crowd, task = with_canaries(data, canaries), Classification(Loss(label_smoothing=smoothing), 3)
    net.marks.data.normal_()  # whatever the weights have become
    batch = batch_of(crowd, views)
    recorder = Recorder(net, RULES, thin=True)
    with recorder.recording(batch.real // views) as tape:
        loss, _ = loss_with_canaries(task, GRADIENTS)(recorder, batch)
    (loss / views).backward()
    found = recorder.gradients(tape)
    marks = found["marks"].samples()
    own = crowd.splits["train"].labels - CLASSES
    for record, number in enumerate(own.tolist()):
        others = [found[name].samples()[record] for name in ("net.1.weight", "net.1.bias")]
        assert (number >= 0) == (not any(value.any() for value in others))
        assert marks[record].count_nonzero() == (number >= 0)
    sums = clipped_sums(found, "flat", C).sums["marks"].numpy()
    np.testing.assert_allclose(sums, C * canaries.gradients_in, rtol=1e-6)


def test_images_learn_as_without_canaries():
    data, net = some_data(), marked_net()
    batch, task = batch_of(data), Classification(Loss(), CLASSES)
    with_marks, _ = loss_with_canaries(task, GRADIENTS)(net, batch)
    plain, _ = task.loss(net.net, batch)
    assert torch.equal(with_marks, plain)


def test_the_watch_notes_what_every_step_releases():
    net = marked_net(3)
    optimizer = SGD(net.parameters(), lr=1.0, weight_decay=0.5)
    watch = Watch(net, optimizer)
    for step in range(2):
        net.marks.grad = torch.tensor([1.0, 2.0, 3.0]) + step
        optimizer.step()
    assert watch.released().tolist() == [[1, 2, 3], [2, 3, 4]]
    assert totals(watch.released()).tolist() == [3, 5, 7]


def test_differences_are_of_the_two_steps_with_the_same_noise():
    generator = torch.Generator().manual_seed(0)
    released = torch.randn(9, 50, generator=generator)
    released[7] = released[2]
    released[7, 4] += 1
    expected = np.zeros(50)
    expected[4] = 1
    np.testing.assert_allclose(differences(released), expected, atol=1e-6)
    assert differences(released[:1]).tolist() == [0] * 50


def test_losses_are_those_of_evaluation_in_batches_of_any_size():
    data = some_data()
    canaries, task = some_canaries(data), Classification(Loss(label_smoothing=0.3), CLASSES)
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, CLASSES)).train()
    one, other = (losses(net, canaries, data, task, size) for size in (3, 100))
    np.testing.assert_allclose(one, other, rtol=1e-6)
    inputs = data.inputs(canaries.pixels)
    expected = nn.functional.cross_entropy(net.eval()(inputs), canaries.labels, reduction="none")
    np.testing.assert_allclose(one, expected.detach(), rtol=1e-6)
