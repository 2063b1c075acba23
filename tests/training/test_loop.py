import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from knorm.training.interrupt import Interrupted
from knorm.training.loop import SoFar, Trainer, Window, gradient_step, timed, train_epoch
from knorm.training.progress import Progress


def make_trainer(net, *, seed=0, rate=0.1):
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(net, SGD(net.parameters(), lr=9.0))
    return Trainer(
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        rate_at=lambda step: rate / (step + 1),
        seed=seed,
        steps_per_epoch=1,
        steps=1000,
    )


def squares(model, batch):
    """The sum of squares, so that the gradient of a weight w and inputs 1 is 2w."""
    losses = model(batch).square().flatten()
    return losses.sum(), {"loss": losses.sum(), "count": losses.new_full((), len(losses))}


def train(trainer, batches, **options):
    progress = Progress(epochs=1, steps=len(batches), unit="number", enabled=False)
    trainer.steps_per_epoch = len(batches)
    windows = [
        batch if isinstance(batch, Window) else Window([batch], len(batch)) for batch in batches
    ]
    return train_epoch(trainer, windows, gradient_step(trainer, squares, **options), progress)


def one_weight(value):
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, value)
    return net


def test_every_step_uses_the_rate_of_its_number():
    trainer = make_trainer(one_weight(1.0))
    train(trainer, [torch.ones(4, 1)] * 2)
    assert trainer.net.weight.item() == pytest.approx((1 - 0.1 * 2) * (1 - 0.05 * 2))
    assert (trainer.epoch, trainer.step) == (1, 2)


def test_the_means_weigh_samples_not_batches():
    trainer = make_trainer(one_weight(1.0), rate=0.0)
    means = train(trainer, [torch.ones(4, 1), torch.full((1, 1), 6.0)])
    assert means["loss"] == pytest.approx((4 * 1 + 36) / 5)
    assert means["seconds"] > 0
    assert 0 <= means["data_wait"] <= 1


def test_the_whole_gradient_is_clipped():
    trainer = make_trainer(one_weight(1.0))
    train(trainer, [torch.ones(1, 1)], clip_norm=0.5)
    assert trainer.net.weight.item() == pytest.approx(1 - 0.1 * 0.5)


def test_dropout_is_a_function_of_seed_and_step():
    def weights(seed, before):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Dropout(), nn.Linear(8, 1))
        torch.manual_seed(before)  # what was drawn before does not matter
        train(make_trainer(net, seed=seed), [torch.ones(4, 8)] * 3)
        return net[1].weight.detach().clone()

    assert torch.equal(weights(1, before=5), weights(1, before=6))
    assert not torch.equal(weights(1, before=5), weights(2, before=5))


def test_a_run_stops_after_a_whole_step():
    trainer = make_trainer(one_weight(1.0))
    trainer.stop(2, None)
    with pytest.raises(Interrupted):
        train(trainer, [torch.ones(1, 1)] * 5)
    assert trainer.step == 1


def test_passes_of_unequal_sizes_make_the_gradient_of_the_whole_window():
    whole, cut = (make_trainer(nn.Linear(3, 1)) for _ in range(2))
    cut.net.load_state_dict(whole.net.state_dict())
    samples = torch.randn(5, 3)
    train(whole, [samples])
    train(cut, [Window(list(samples.split(2)), 5)])
    torch.testing.assert_close(cut.net.state_dict(), whole.net.state_dict())


def test_the_moving_average_follows_every_step_and_is_what_gets_evaluated():
    trainer = make_trainer(one_weight(1.0))
    trainer.ema = AveragedModel(trainer.net, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    train(trainer, [torch.ones(1, 1)] * 2)
    first = 1 - 0.1 * 2
    second = first * (1 - 0.05 * 2)
    assert trainer.net.weight.item() == pytest.approx(second)
    assert trainer.evaluated.weight.item() == pytest.approx((first + second) / 2)


def test_the_moving_average_may_follow_only_some_steps_the_first_among_them():
    trainer, weights = make_trainer(one_weight(1.0)), []
    trainer.ema = AveragedModel(trainer.net, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    trainer.ema_every = 3
    for _ in range(5):  # as in a run that stops and goes on
        train(trainer, [torch.ones(1, 1)])
        weights.append(trainer.net.weight.item())
    assert trainer.ema.n_averaged == 2
    assert trainer.evaluated.weight.item() == pytest.approx((weights[0] + weights[3]) / 2)


def test_the_speed_so_far_counts_the_step_that_has_just_ended(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("knorm.training.loop.time.perf_counter", lambda: float(next(clock)))
    so_far, trainer, rows = SoFar(), make_trainer(one_weight(1.0)), []
    for window in timed([Window([torch.ones(4, 1)], 4)] * 2, so_far):
        so_far.add({"count": torch.tensor(len(window.batches[0]))}, trainer.accelerator)
        rows.append(so_far.row())
    assert [row["seconds"] for row in rows] == [2, 5]  # each waits 1 s, works 1 s; 1 s to go on
    assert rows[1]["samples_per_second"] == 8 / 5
    assert rows[1]["data_wait"] == 2 / 5
