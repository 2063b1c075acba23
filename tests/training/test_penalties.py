from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from classification.config import Loss, Penalty, parse_recipe
from classification.data import Batch
from classification.task import Classification
from knorm.models import create_model
from knorm.models.kan_nets import CONVS
from knorm.training import penalties
from knorm.training.loop import Window, gradient_step
from knorm.training.mistakes import UserMistakeError
from knorm.training.penalties import Amounts, layers_of, watched, weight_penalty

ALL = {"weight_l1": 0.03, "weight_l2": 0.02, "activation_l1": 0.7, "activation_l2": 0.4}


def small_net(conv="kagn", **options):
    torch.manual_seed(0)
    given = {"norm": "layer", "widths": [4, 4, 4, 8], "drop": 0.0, "head_drop": 0.0} | options
    return create_model("kannet4", num_classes=3, in_chans=1, conv=conv, **given).double()


def batch_of(count, real=None):
    generator = torch.Generator().manual_seed(count)
    images = torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 3, (count,), generator=generator)
    return Batch(images, labels, labels, count if real is None else real)


def task_of(**amounts):
    return Classification(Loss(), 3, penalty=Penalty(**amounts))


def gradients(net, loss):
    net.zero_grad()
    loss.backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in net.named_parameters()
    }


def kernels(net):
    """Weights of convolutions from the second layer on, by hand."""
    return {
        name: p
        for name, p in net.named_parameters()
        if name.startswith("features.layer") and name.endswith("weight") and p.dim() >= 3
    }


@pytest.mark.parametrize("conv", CONVS)
def test_d1_penalties_of_weights_change_the_gradient_by_exactly_theirs(conv):
    net, batch = small_net(conv), batch_of(5)
    without = gradients(net, task_of().loss(net, batch)[0])
    found = gradients(net, task_of(weight_l1=0.3, weight_l2=0.2).loss(net, batch)[0])
    assert kernels(net)
    for name, p in net.named_parameters():
        own = 5 * (0.3 * p.detach().sign() + 0.4 * p.detach()) if name in kernels(net) else 0
        torch.testing.assert_close(found[name], without[name] + own)


@pytest.mark.parametrize("conv", CONVS)
def test_penalties_of_activations_change_the_gradient_by_exactly_theirs(conv):
    net, batch = small_net(conv), batch_of(5)
    without = gradients(net, task_of().loss(net, batch)[0])
    found = gradients(net, task_of(activation_l1=0.3, activation_l2=0.2).loss(net, batch)[0])
    x, own = batch.inputs, 0.0
    for name, layer in net.features.named_children():
        x = layer(x)
        if name != "stem":
            own = own + (0.3 * x.abs() + 0.2 * x**2).mean((1, 2, 3)).sum()
    expected = gradients(net, own)
    for name in found:
        torch.testing.assert_close(found[name], without[name] + expected[name])


def stepped(cuts):
    """The gradient of an optimizer step on nine samples, cut into passes for each process."""
    net, batch, task = small_net(), batch_of(9), task_of(**ALL)
    accelerator, totals, first = Accelerator(cpu=True), {}, 0
    for passes in cuts:
        parts = []
        for count in passes:
            images, labels = batch.inputs[first : first + count], batch.labels[first:][:count]
            parts.append(Batch(images, labels, labels, count))
            first += count
        optimizer = SimpleNamespace(step=lambda: None, zero_grad=lambda: None)
        trainer = SimpleNamespace(accelerator=accelerator, model=net, optimizer=optimizer)
        net.zero_grad()
        gradient_step(trainer, task.loss)(Window(parts, 9))
        for name, p in net.named_parameters():
            totals[name] = totals.get(name, 0) + p.grad.clone()
    assert first == 9
    return totals


@pytest.mark.parametrize("cuts", [[[4, 5]], [[3, 3, 3]], [[2, 2], [2, 3]], [[4], [5]]])
def test_a_step_has_the_penalty_once_into_whatever_it_is_cut(cuts):
    # ranks: their gradients are each scaled by the number of ranks and averaged, i.e. summed
    torch.testing.assert_close(stepped(cuts), stepped([[9]]))


def test_samples_that_keep_the_ranks_in_step_bring_no_penalty():
    net, task = small_net(), task_of(**ALL)
    loss, sums = task.loss(net, batch_of(4, real=0))
    assert loss.item() == sums["penalty"].item() == 0
    first = Batch(*(tensor[:2] for tensor in batch_of(4)[:3]), 2)
    torch.testing.assert_close(task.loss(net, batch_of(4, real=2))[0], task.loss(net, first)[0])


def test_the_log_tells_the_penalty_apart_from_the_loss():
    net, batch = small_net(), batch_of(4)
    plain, sums = task_of().loss(net, batch)
    assert "penalty" not in sums
    loss, sums = task_of(**ALL).loss(net, batch)
    torch.testing.assert_close(sums["loss"], plain)
    torch.testing.assert_close(sums["loss"] + sums["penalty"], loss)


def test_d14_nothing_is_kept_of_evaluation_or_after_a_step():
    net, task = small_net(), task_of(**ALL)
    task.loss(net, batch_of(4))[0].backward()
    assert not any(m._forward_hooks for m in net.modules())
    expected = task.loss(net, batch_of(4))[0]
    with torch.no_grad():
        task.per_sample(net.eval(), batch_of(64))
    torch.testing.assert_close(task.loss(net.train(), batch_of(4))[0], expected)


def test_d16_the_factors_of_absolute_values_and_of_squares_are_their_own():
    net, batch = small_net(), batch_of(4)

    def penalty(**amounts):
        return task_of(**amounts).loss(net, batch)[1]["penalty"]

    for name, amount in ALL.items():
        torch.testing.assert_close(penalty(**{name: 2 * amount}), 2 * penalty(**{name: amount}))
    together = sum(penalty(**{name: amount}) for name, amount in ALL.items())
    torch.testing.assert_close(penalty(**ALL), together)


def test_layers_are_found_in_nets_that_are_wrapped():
    net = small_net()
    assert layers_of(nn.Sequential(net)) == layers_of(net) == [*net.features][1:]
    assert len(layers_of(create_model("resnet18", stem="imagenet"))) == 4
    with watched(layers_of(net)) as seen:
        net(batch_of(2).inputs)
    assert len(seen.activations) == 3


def test_nets_whose_layers_are_unknown_or_sharded_are_refused(monkeypatch):
    with pytest.raises(UserMistakeError, match="penalty is for nets of"):
        layers_of(nn.Linear(2, 2))
    with pytest.raises(UserMistakeError, match="penalty: TricksNet has no layer that it counts"):
        layers_of(create_model("tricks_net", conv_channels=(8,)))
    monkeypatch.setattr(penalties, "is_sharded", lambda net: True)
    with pytest.raises(UserMistakeError, match="penalty needs whole weights"):
        layers_of(small_net())


def test_no_amounts_no_penalty():
    assert not Amounts()
    assert weight_penalty(layers_of(small_net()), Amounts()) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--penalty.weight_l1=-1"], "penalty.weight_l1"),
        (["--penalty.weigth_l1=1"], "did you mean '?--penalty.weight_l1"),
        (["--penalty.activation_l2=1", "--launch.compile"], "see nothing of a compiled net"),
    ],
)
def test_a_mistake_is_told_by_name(arguments, message):
    with pytest.raises(UserMistakeError, match=message):
        parse_recipe(arguments)
