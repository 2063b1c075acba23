import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import LBFGS, SGD, Adam, AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from knorm.training import checkpoint
from knorm.training.loop import SoFar, Trainer, Window, gradient_step, train_epoch
from knorm.training.progress import Progress
from knorm.training.settings import Optim
from knorm.training.state import (
    capture,
    check_resumable,
    load_optimizer,
    optimizer_state,
    restore,
)

OPTIMIZERS = {
    "sgd": lambda p: SGD(p, lr=0.1),
    "momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: Adam(p, lr=0.1, amsgrad=True),
    "adamw": lambda p: AdamW(p, lr=0.1, betas=(0.8, 0.9)),
}


def make_trainer(make_optimizer):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1))
    accelerator = Accelerator(cpu=True)
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    optimizer = make_optimizer([{"params": net.parameters(), "weight_decay": 0.01}])
    model, optimizer = accelerator.prepare(net, optimizer)
    return Trainer(
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        rate_at=lambda step: 0.1 / (step + 1),
        seed=3,
        steps_per_epoch=6,
        steps=1000,
        ema=ema,
    )


def loss_of(model, batch):
    losses = model(batch).square().flatten()
    return losses.sum(), {"loss": losses.sum(), "count": losses.new_full((), len(losses))}


def steps(trainer, first, end):
    windows = [Window([torch.randn(5, 3, generator=generator(k))], 5) for k in range(first, end)]
    progress = Progress(epochs=1, steps=6, unit="number", enabled=False)
    return train_epoch(trainer, windows, gradient_step(trainer, loss_of), progress)


def generator(step):
    return torch.Generator().manual_seed(step)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_trainer_from_a_file_goes_on_bit_for_bit(make_optimizer, tmp_path):
    whole, stopped, later = (make_trainer(make_optimizer) for _ in range(3))
    row = steps(whole, 0, 6)

    def kill():
        if stopped.step == 4:
            tensors, state = capture(stopped)
            checkpoint.save(tmp_path / "last", tensors, state | {"step": stopped.step})
            raise Killed

    windows = [Window([torch.randn(5, 3, generator=generator(k))], 5) for k in range(6)]
    progress = Progress(epochs=1, steps=6, unit="number", enabled=False)
    with pytest.raises(Killed):
        train_epoch(stopped, windows, gradient_step(stopped, loss_of), progress, kill)
    restore(later, checkpoint.load(tmp_path / "last", ("model", "ema", "optimizer")))
    assert (later.current_epoch, later.steps_into(1)) == (1, 4)
    again = steps(later, 4, 6)
    assert (again["loss"], later.step) == (row["loss"], 6)
    for one, other in ((whole.net, later.net), (whole.ema, later.ema)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    expected, found = (optimizer_state(trainer.optimizer) for trainer in (whole, later))
    assert expected[1] == found[1]
    assert expected[0].keys() == found[0].keys()
    assert all(torch.equal(expected[0][name], found[0][name]) for name in expected[0])


def test_an_epoch_that_is_trained_but_not_recorded_is_still_under_way():
    trainer = make_trainer(OPTIMIZERS["sgd"])
    trainer.step = 6
    assert trainer.current_epoch == 2
    trainer.so_far.sums = {"count": torch.ones(())}
    assert (trainer.current_epoch, trainer.steps_into(1)) == (1, 6)


@pytest.mark.filterwarnings("ignore:It is highly recommended:UserWarning")
def test_an_optimizer_that_cannot_be_saved_is_found_before_training():
    pytest.importorskip("timm")
    check_resumable(Optim(lr=0.1, name="timm:lamb"))
    with pytest.raises(TypeError, match=r"Kron keeps a list as Q, which cannot be saved"):
        check_resumable(Optim(lr=0.1, name="timm:kron"))


def test_tensors_of_parameter_groups_come_back():
    one, other = (SGD([nn.Parameter(torch.ones(2))], lr=0.1) for _ in range(2))
    one.param_groups[0]["step"] = torch.tensor(7.0)
    load_optimizer(other, *optimizer_state(one))
    assert other.param_groups[0]["step"] == 7


def test_sums_that_are_no_numbers_stay_so():
    sums = {"loss": None, "count": 3.0}
    so_far = SoFar.restored({"sums": sums, "seconds": 1.0, "waited": 0.0}, torch.device("cpu"))
    assert so_far.sums["loss"].isnan()


def test_an_optimizer_whose_state_needs_pickling_is_refused():
    weight = nn.Parameter(torch.ones(1))
    optimizer = LBFGS([weight])

    def closure():
        weight.grad = weight.detach().clone()
        return weight.square().sum()

    optimizer.step(closure)
    with pytest.raises(TypeError, match=r"LBFGS keeps a .* cannot be saved without pickling"):
        optimizer_state(optimizer)
