"""Nineteen defects of DP-SGD as it is commonly put together: the claim that each of them breaks.

Every claim is tried on the obvious assembly of Opacus and Accelerate, where it must fail, and on
ours, where it must hold. Where another test holds ours to it, that test is named.
"""

import ast
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import GradientState
from torch import nn
from torch.optim import SGD

from classification.data import Batch
from knorm.training.loop import Trainer, Window
from knorm.training.mistakes import UserMistakeError
from privacy import accounting
from privacy.checks import refuse_batch_statistics
from privacy.config import Privacy, PrivateRecipe, parse_recipe
from privacy.per_record import Recorder
from privacy.rules import RULES
from privacy.sampler import PoissonSampling
from privacy.step import Mechanics, private_step
from tests.privacy import naive
from tests.privacy.known import SECRET
from tests.privacy.nets import Flat, Tokens

pytestmark = pytest.mark.filterwarnings("ignore")  # those of Opacus
CRASHES = {  # where the obvious assembly does not even begin; elsewhere the claim is false
    "B11 a loss by pixels": (RuntimeError, "only for scalar outputs"),
    "B16 few orders": (ValueError, "budget is too low"),
    "B19 a norm without bias": (AttributeError, "'requires_grad'"),
    "B19 tokens and buffers": (NotImplementedError, "has buffers"),
    "B19 sums in place": (RuntimeError, "modified inplace"),
}
LABELS = torch.arange(4) % 3


def loss_of(logits, _=None):
    labels = LABELS[: len(logits)].view(-1, *[1] * (logits.dim() - 2))
    losses = F.cross_entropy(
        logits, labels.expand(len(logits), *logits.shape[2:]), reduction="none"
    )
    return losses.flatten(1).mean(1).sum() if logits.dim() > 2 else losses.sum()


def images(*shape):
    return torch.randn(4, *(shape or (2, 6, 6)), generator=torch.Generator().manual_seed(0))


def gradients(net, x, loss_of):
    recorder = Recorder(net, RULES, thin=True)
    with recorder.recording(len(x)) as tape:
        loss = loss_of(recorder(x))
    loss.backward()
    return {name: part.samples() for name, part in recorder.gradients(tape).items()}


def summed_gradients(net, x, loss_of):
    return {name: grads.sum(0, keepdim=True) for name, grads in gradients(net, x, loss_of).items()}


def exact(make_net, x=None, *, summed=False):
    """The claim that gradients are those of torch, record by record or all together."""

    def claim(found_by):
        torch.manual_seed(0)
        net, inputs = make_net(), images() if x is None else x
        found = found_by(net, inputs, loss_of)
        total = torch.autograd.grad(loss_of(net(inputs)), list(net.parameters()))
        for (name, _), grad in zip(net.named_parameters(), total, strict=True):
            assert (found[name].sum(0) - grad).norm() <= 1e-4 * grad.norm(), name
            assert summed or len(found[name]) == len(inputs)

    return claim


def net_of(*layers, channels=4):
    return lambda: nn.Sequential(*(layer() for layer in layers), nn.Tanh(), Flat(channels))


class ChannelsLastNorm(nn.Module):
    """A layer norm over channels as ConvNeXt has it, which leaves channels_last behind."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Pixels(nn.Module):
    """A class for every pixel, by a linear layer on channels that come last."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3)

    def forward(self, x):
        return self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Added(nn.Module):
    """A shortcut that is added in place, as in timm's residual blocks."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        x = self.one(x)
        y = self.two(x)
        y += x
        return y


def conv():
    return nn.Conv2d(2, 4, 3)


def refuses(net, *_):
    try:
        refuse_batch_statistics(net)
    except UserMistakeError:
        return True
    return False


def hidden_batch_norm_is_refused(refuses):
    net = net_of(conv, lambda: nn.BatchNorm2d(4, affine=False))()
    assert refuses(net, images(), loss_of)


def dealt(records, rate, steps):
    sampling = PoissonSampling(
        num_samples=records, sampling_rate=Fraction(rate), steps=steps, secret=SECRET
    )
    return [list(sampling.shares(rank, 2)) for rank in range(2)]


def prepared(*args):
    return naive.dealt(*args, prepared=True)


def batches_are_as_large_as_coins_make_them(dealt):
    sizes = [len(a) + len(b) for a, b in zip(*dealt(200, 0.25, 600), strict=True)]
    assert torch.tensor(sizes).float().var() < 1.5 * 200 * 0.25 * 0.75


def all_ranks_make_all_steps(dealt):
    assert [len(steps) for steps in dealt(40, 0.05, 100)] == [100, 100]


def no_record_is_in_a_step_twice(dealt):
    for one, other in zip(*dealt(100, 0.2, 30), strict=True):
        assert not set(one.tolist()) & set(other.tolist())


def ranks_have_the_same_weights(ranks):
    one, other = ranks()
    assert torch.equal(one, other)


def ranks_meet_as_often(dealt):
    """Once for every backward pass, of which a rank makes as many as it has chunks of 4."""
    one, other = (
        [-(-len(share) // 4) for share in steps] for steps in dealt(60, 0.25, 30, seeds=(0, 1))
    )
    assert one == other


def masking_other_images_changes_nothing(found_by):
    def first(masked):
        labels = torch.zeros(4, 6, 6, dtype=torch.long)
        labels[1:, :masked] = 255
        torch.manual_seed(0)
        net = nn.Conv2d(2, 3, 1)
        mean = nn.CrossEntropyLoss(ignore_index=255)
        return found_by(net, images(), lambda logits: mean(logits, labels))["weight"][0]

    assert torch.allclose(first(0), first(5), rtol=1e-3)


def weights_stay_numbers(weights):
    assert weights().isfinite().all()


def an_empty_step_has_no_record(empty):
    assert len(empty()) == 0


def an_abandoned_step_leaves_nothing(left):
    assert left() == []


def rate_of_recipe(batch_size, records):
    return parse_recipe([f"--batch_size={batch_size}"], PrivateRecipe).sampling_rate(records)


def the_rate_is_the_one_asked_for(rate_of):
    assert rate_of(4096, 50_000) == pytest.approx(4096 / 50_000, rel=1e-12)


BUDGET = {"delta": 1e-5, "sampling_rate": 0.01, "steps": 100}


def noise_of_ours(epsilon):
    return accounting.noise_multiplier_for("rdp", epsilon=epsilon, **BUDGET)


def a_small_budget_has_its_noise(noise_for):
    noise = noise_for(0.1)
    assert 0 < accounting.epsilon("rdp", noise_multiplier=noise, **BUDGET) <= 0.1


def taken(x, accelerator=None):
    """What a private step without noise moves the weights of a linear layer by, and its C."""
    net = nn.Linear(x.shape[1], 3)
    trainer = Trainer(
        accelerator=accelerator or Accelerator(cpu=True),
        model=net,
        optimizer=SGD(net.parameters(), lr=1.0),
        rate_at=lambda step: 1.0,
        seed=0,
        steps_per_epoch=1,
        steps=1,
    )
    privacy = Privacy(delta=1e-5, noise_multiplier=0.0, max_norm=1.0)
    mechanics = Mechanics(
        privacy=privacy,
        noise_multiplier=0.0,
        expected_batch=4,
        logged=("loss", "top1", "count"),
        secret=SECRET,
        ledger=None,
    )
    before = net.weight.detach().clone()

    def logged(model, batch):
        loss = loss_of(model(batch.inputs))
        return loss, {"loss": loss, "top1": loss, "count": loss.new_full((), batch.real)}

    batch = Batch(x, LABELS[: len(x)], LABELS[: len(x)], len(x))
    private_step(trainer, logged, mechanics)(Window([batch], len(x)))
    return float((net.weight - before).norm()), privacy.max_norm


def no_number_is_a_share_of_the_true_batch(step):
    """One record among one or two moves the next bound by a fraction of the public batch, 4."""
    small, large = 1e-3 * images(8)[:1], 100 * images(8)[:1]
    (_, one), (_, two) = step(small), step(torch.cat([small, large]))
    assert abs(one - two) <= 1 / 4


def private_norm(x, accelerator):
    return taken(x, accelerator)[0]


def accumulation_leaves_gradients_alone(norm):
    found = []
    for steps in (1, 8):
        torch.manual_seed(0)
        found.append(
            norm(0.1 * images(8), Accelerator(cpu=True, gradient_accumulation_steps=steps))
        )
        GradientState._reset_state()
    assert found[0] == pytest.approx(found[1], rel=1e-5)


DEFECTS = {  # claim, what breaks it, what holds it
    "B1 channels_last": (
        exact(net_of(conv), images().to(memory_format=torch.channels_last)),
        naive.gradients,
        gradients,
    ),
    "B2 channels_last within": (
        exact(net_of(conv, ChannelsLastNorm, lambda: nn.Conv2d(4, 4, 3))),
        naive.gradients,
        gradients,
    ),
    "B3 padding mode": (
        exact(net_of(lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"))),
        naive.gradients,
        gradients,
    ),
    "B4 batch norm unseen": (hidden_batch_norm_is_refused, naive.refuses, refuses),
    "B5 one mask for all ranks": (batches_are_as_large_as_coins_make_them, naive.dealt, dealt),
    "B6 empty batches skipped": (all_ranks_make_all_steps, naive.dealt, dealt),
    "B7 every rank steps alone": (
        ranks_have_the_same_weights,
        naive.weights_of_two_ranks,
        "test_runs.test_two_processes_and_other_chunks_make_the_same_weights",
    ),
    "B8 a prepared loader": (no_record_is_in_a_step_twice, prepared, dealt),
    "B9 as many backward passes": (
        ranks_meet_as_often,
        naive.dealt,
        "test_runs.test_two_processes_and_other_chunks_make_the_same_weights",
    ),
    "B10 mean over valid pixels": (
        masking_other_images_changes_nothing,
        naive.gradients,
        "test_checks.test_losses_that_mix_records_are_found",
    ),
    "B11 a loss by pixels": (
        exact(Pixels, summed=True),
        naive.ghost_gradients,
        summed_gradients,
    ),
    "B12 no number": (
        weights_stay_numbers,
        naive.weights_after_nan,
        "test_step.test_an_image_that_is_no_number_is_left_out_and_counted",
    ),
    "B13 a made-up record": (
        an_empty_step_has_no_record,
        naive.empty_batch,
        "test_step.test_an_empty_step_is_noise_alone_and_counts",
    ),
    "B14 a stop within a step": (
        an_abandoned_step_leaves_nothing,
        naive.left_after_break,
        "test_runs.test_a_run_that_died_goes_on_to_the_same_bits",
    ),
    "B15 rounded sampling rate": (
        the_rate_is_the_one_asked_for,
        naive.sampling_rate,
        rate_of_recipe,
    ),
    "B16 few orders": (a_small_budget_has_its_noise, naive.noise_for, noise_of_ours),
    "B17 the true batch size": (no_number_is_a_share_of_the_true_batch, naive.adapted, taken),
    "B18 scaled losses": (accumulation_leaves_gradients_alone, naive.norm, private_norm),
    "B19 a norm without bias": (
        exact(lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(72, bias=False), nn.Linear(72, 3))),
        naive.gradients,
        gradients,
    ),
    "B19 sums in place": (exact(net_of(Added, channels=2)), naive.gradients, gradients),
    "B19 tokens and buffers": (exact(Tokens), naive.gradients, gradients),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_the_obvious_assembly_fails(name):
    claim, broken, _ = DEFECTS[name]
    error, message = CRASHES.get(name, (AssertionError, ""))
    with pytest.raises(error, match=message):
        claim(broken)


@pytest.mark.parametrize("name", DEFECTS)
def test_ours_holds(name):
    claim, _, ours = DEFECTS[name]
    if not isinstance(ours, str):
        claim(ours)
        return
    file, test = ours.split(".")
    tree = ast.parse((Path(__file__).parent / f"{file}.py").read_text())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_none_is_left_out():
    assert {name.split()[0] for name in DEFECTS} == {f"B{number}" for number in range(1, 20)}
