import pytest
import torch
from accelerate import Accelerator
from torch import nn

from knorm.training.evaluate import evaluate
from knorm.training.sampling import evaluation_share


class Noisy(nn.Module):
    """Draws in evaluation, as nets with sampled statistics do."""

    def forward(self, x):
        return x + torch.rand_like(x)


def run(net, inputs, *, batch_size=8, seed=0):
    accelerator = Accelerator(cpu=True)
    share = evaluation_share(len(inputs), batch_size, 0, 1)
    batches = ((number, samples, inputs[samples]) for number, samples in share)
    return evaluate(
        accelerator,
        net,
        batches,
        lambda net, batch: {"out": net(batch), "double": 2 * batch},
        names=("out", "double"),
        num_samples=len(inputs),
        seed=seed,
    )


@pytest.mark.parametrize("num_samples", [1, 7, 101])
def test_every_sample_counts_once_and_keeps_its_place(num_samples):
    inputs = torch.randn(num_samples)
    values = run(nn.Identity(), inputs)
    assert torch.equal(values["out"], inputs.double())
    assert torch.equal(values["double"], 2 * inputs.double())


def test_nets_that_draw_repeat_their_numbers_for_a_seed():
    inputs, net = torch.zeros(20), Noisy()
    first = run(net, inputs, seed=1)["out"]
    assert torch.equal(run(net, inputs, seed=1)["out"], first)
    assert not torch.equal(run(net, inputs, seed=2)["out"], first)
    assert first.unique().numel() == 20


def test_evaluation_leaves_torchs_random_numbers_and_the_nets_mode_alone():
    net = nn.Sequential(Noisy(), nn.Dropout()).train()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run(net, torch.zeros(9))
    assert torch.equal(torch.rand(2), expected)
    assert net.training
