"""The private step: plain training without noise, the same run on any number of chunks."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from torch.optim import SGD

from classification.data import Batch
from knorm import KNConv2d
from knorm.training.loop import Trainer, Window, train_epoch
from knorm.training.progress import Progress
from privacy.config import Privacy
from privacy.ledger import Ledger, Mechanism
from privacy.noise import gaussian
from privacy.step import Mechanics, private_step
from tests.privacy.known import SECRET

RECORDS, EXPECTED = 12, 10
GENEROUS = 1e9  # a bound that no gradient reaches


def make_net():
    torch.manual_seed(1)
    return nn.Sequential(
        KNConv2d(2, 4, 3, dropout_p=0.0), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3)
    )


def data():
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(RECORDS, 2, 6, 6, generator=generator)
    return images, torch.arange(RECORDS) % 3


def loss_of(model, batch):
    logits = model(batch.inputs)
    loss = F.cross_entropy(logits, batch.targets, reduction="sum")
    correct = logits.detach().argmax(1) == batch.labels
    return loss, {"loss": loss, "top1": correct.sum(), "count": loss.new_full((), batch.real)}


def windows(chunks, steps, views=1):
    images, labels = data()
    for _ in range(steps):
        parts = torch.arange(RECORDS).split(chunks) if chunks else []
        rows = [part.repeat_interleave(views) for part in parts]
        yield Window([Batch(images[r], labels[r], labels[r], len(r)) for r in rows], RECORDS)


def make_trainer(net, rate=0.5):
    return Trainer(
        accelerator=Accelerator(cpu=True),
        model=net,
        optimizer=SGD(net.parameters(), lr=rate, momentum=0.5),
        rate_at=lambda step: rate,
        seed=0,
        steps_per_epoch=3,
        steps=3,
    )


def train(folder, *, noise=0.0, chunks=5, steps=3, **settings):
    privacy = Privacy(delta=1e-5, noise_multiplier=noise, **settings)
    mechanism = Mechanism(
        sampling_rate=Fraction(1, 2),
        noise_multiplier=noise,
        clip_norm=privacy.max_norm,
        delta=1e-5,
        unit="one image",
        accountant="pld",
    )
    net, folder = make_net(), folder / f"{len(list(folder.iterdir()))}"
    folder.mkdir()
    trainer = make_trainer(net)
    mechanics = Mechanics(
        privacy=privacy,
        noise_multiplier=noise,
        expected_batch=EXPECTED,
        logged=("loss", "top1", "count"),
        secret=SECRET,
        ledger=Ledger.begin(folder, mechanism, SECRET),
    )
    progress = Progress(epochs=1, steps=steps, unit="img", enabled=False)
    step = private_step(trainer, loss_of, mechanics)
    row = train_epoch(trainer, windows(chunks, steps, privacy.views), step, progress)
    return net, row, mechanics.ledger


def plainly():
    """Weights after ordinary training on the same batches, divided by the expected number."""
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.5, momentum=0.5)
    images, labels = data()
    for _ in range(3):
        loss = F.cross_entropy(net(images), labels, reduction="sum") / EXPECTED
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def assert_equal(one, other, tolerance=1e-6):
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
def test_without_noise_and_bound_it_is_plain_training(tmp_path, ghost, clipping):
    net, row, _ = train(tmp_path, max_norm=GENEROUS, ghost=ghost, clipping=clipping)
    assert_equal(net, plainly())
    assert row["dropped"] == 0


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize("chunks", [1, 4, RECORDS])
def test_how_many_images_are_computed_at_once_changes_nothing(tmp_path, chunks, ghost):
    settings = {"noise": 0.7, "max_norm": 0.1}
    one, *_ = train(tmp_path, chunks=5, **settings)
    other, *_ = train(tmp_path, chunks=chunks, ghost=ghost, **settings)
    assert_equal(one, other)


def test_views_that_are_equal_are_one_view(tmp_path):
    one, *_ = train(tmp_path, max_norm=0.1)
    other, *_ = train(tmp_path, max_norm=0.1, views=3)
    assert_equal(one, other)


def test_an_empty_step_is_noise_alone_and_counts(tmp_path):
    net, _, ledger = train(tmp_path, noise=2.0, max_norm=0.5, chunks=None, steps=1)
    for (name, after), before in zip(net.named_parameters(), make_net().parameters(), strict=True):
        noise = gaussian(SECRET, 0, name, after.shape, 1.0).float()
        torch.testing.assert_close(after, before - 0.5 * noise / EXPECTED)
    assert ledger.steps == 1


def test_the_ledger_has_a_step_before_the_weights_do(tmp_path, monkeypatch):
    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(SGD, "step", die)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, noise=1.0)
    lines = next(tmp_path.glob("*/ledger.jsonl")).read_text().splitlines()
    assert len(lines) == 2  # the mechanism, and the step that was never taken


def test_an_image_that_is_no_number_is_left_out_and_counted(tmp_path, monkeypatch):
    without = replace(Privacy(delta=1e-5, noise_multiplier=0.0), max_norm=0.1)
    images, labels = data()
    images[3] = torch.nan
    monkeypatch.setattr("tests.privacy.test_step.data", lambda: (images, labels))
    net, row, _ = train(tmp_path, max_norm=without.max_norm)
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert row["dropped"] == pytest.approx(1 / RECORDS)
    assert math.isfinite(row["loss"])  # one image must not stop a run


def test_numbers_over_training_images_can_be_kept_back(tmp_path):
    _, row, _ = train(tmp_path, noise=1.0, train_metrics=False)
    assert row.keys() == {"seconds", "samples_per_second", "data_wait"}
    assert row["samples_per_second"] == pytest.approx(3 * EXPECTED / row["seconds"])
