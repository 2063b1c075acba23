"""Nets and losses for which no guarantee would hold are found before training."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from classification.data import Batch
from knorm import KNConv2d
from knorm.training.mistakes import UserMistakeError
from privacy.checks import prove
from privacy.config import Privacy

PRIVACY = Privacy(delta=1e-5, noise_multiplier=1.0, max_norm=0.5)


def make_batch(records, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(records, 2, 8, 8, generator=generator)
    labels = torch.randint(0, 3, (records,), generator=generator)
    return Batch(images, labels, labels, records)


def summed(model, batch):
    return F.cross_entropy(model(batch.inputs), batch.targets, reduction="sum"), {}


def net_with(layer):
    torch.manual_seed(0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return nn.Sequential(nn.Conv2d(2, 4, 3), layer, nn.ReLU(inplace=True), head)


class Disguised(nn.Module):
    """A batch norm that is no `BatchNorm2d` and has neither parameters nor buffers."""

    def forward(self, x):
        return (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)


class Crossed(nn.Module):
    """Activations in which the records stand one beside the other instead of one after another."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        rows = x.flatten(2).permute(2, 0, 1).reshape(-1, 4)  # place by place
        return self.fc(rows).view(-1, len(x), 4).permute(1, 2, 0).reshape(x.shape)


GOOD = {
    "kernel norm": KNConv2d(4, 4, 3, dropout_p=0.3),
    "group norm": nn.GroupNorm(2, 4),
    "instance norm": nn.InstanceNorm2d(4, affine=True),
    "zeros": nn.Conv2d(4, 4, 1),
}


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize("name", GOOD)
def test_what_keeps_records_apart_passes(name, ghost):
    net = net_with(GOOD[name])
    nn.init.zeros_(net[3][2].weight)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.get_rng_state()
    proof = prove(net, summed, make_batch, Privacy(delta=1e-5, epsilon=1, ghost=ghost))
    assert proof.largest_difference < 1e-4
    assert 0.5 < proof.largest_norm <= 1 + 1e-5
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.BatchNorm2d(4), r"1 \(BatchNorm2d\) mixes the images"),
        (nn.BatchNorm2d(4, affine=False), r"1 \(BatchNorm2d\) mixes the images"),
        (nn.SyncBatchNorm(4), r"1 \(SyncBatchNorm\) mixes the images"),
        (nn.InstanceNorm2d(4, track_running_stats=True), r"1 \(InstanceNorm2d\) mixes the images"),
        (Disguised(), r"depends on the other images of the batch: 1 \(Disguised\) mixes them"),
        (Crossed(), "depends on the other images|do not add up"),
    ],
)
def test_norms_over_the_batch_are_named_in_any_disguise(layer, message):
    with pytest.raises(UserMistakeError, match=message):
        prove(net_with(layer), summed, make_batch, PRIVACY)


def batch_mean_of_valid(model, batch):
    """The mean over the labels that count, as with an index that is ignored."""
    labels = batch.targets.masked_fill(batch.inputs.mean((1, 2, 3)) > 0, -100)
    return F.cross_entropy(model(batch.inputs), labels, ignore_index=-100), {}


def weighted_mean(model, batch):
    weight = torch.tensor([1.0, 5.0, 20.0])
    return F.cross_entropy(model(batch.inputs), batch.targets, weight=weight), {}


def hardest(model, batch):
    losses = F.cross_entropy(model(batch.inputs), batch.targets, reduction="none")
    return losses.topk(2).values.sum(), {}


def mixed_up(model, batch):
    return summed(model, batch._replace(inputs=(batch.inputs + batch.inputs.flip(0)) / 2))


@pytest.mark.parametrize("loss_of", [batch_mean_of_valid, weighted_mean, hardest, mixed_up])
def test_losses_that_mix_records_are_found(loss_of):
    net = net_with(nn.GroupNorm(2, 4))
    with pytest.raises(UserMistakeError, match="the loss mixes them"):
        prove(net, loss_of, make_batch, PRIVACY)


def test_what_cannot_be_followed_is_named():
    class Sly(nn.Conv2d):
        def forward(self, input):  # noqa: A002
            return super().forward(input) * float(self.weight.mean().numpy())

    with pytest.raises(UserMistakeError, match=r"1 \(Sly\) uses its parameters in a way that"):
        prove(net_with(Sly(4, 4, 1)), summed, make_batch, PRIVACY)


class Rough(nn.Module):
    """Rounding in float32 becomes a hundredth of the gradient: by records a product rounds else."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.randn(144, 144) / 12)

    def forward(self, x):
        return torch.sin(3e4 * (x.flatten(1) @ self.mix)).view_as(x)


def test_rounding_is_told_from_wrong_gradients_in_float64():
    net = net_with(Rough())
    proof = prove(net, summed, make_batch, PRIVACY)
    assert proof.largest_difference < 1e-7  # below what float32 can show
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())


class Crowd(nn.Module):
    """A net in which `how` many records there are, or which of them it is, counts."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        return x * self.how(x)


CROWDS = {
    "size": lambda x: len(x) / 4,
    "place": lambda x: (1.0 + torch.arange(len(x)) % 2).to(x.dtype)[:, None, None, None],
    "many": lambda x: x.mean() if len(x) > 4 else 1.0,
}


@pytest.mark.parametrize("how", CROWDS)
def test_what_counts_the_records_is_found(how):
    with pytest.raises(UserMistakeError, match="how many others the batch has"):
        prove(net_with(Crowd(CROWDS[how])), summed, make_batch, PRIVACY)


def test_a_mean_over_the_batch_is_no_sum():
    def mean(model, batch):
        return F.cross_entropy(model(batch.inputs), batch.targets), {}

    with pytest.raises(UserMistakeError, match="which must be a sum"):
        prove(net_with(nn.GroupNorm(2, 4)), mean, make_batch, PRIVACY)


class Remembers(nn.InstanceNorm2d):
    """Every image by its own statistics in training, and a buffer that keeps a mean of them."""

    def __init__(self, channels):
        super().__init__(channels)
        self.register_buffer("seen", torch.zeros(channels))

    def forward(self, input):  # noqa: A002
        self.seen.lerp_(input.detach().mean((0, 2, 3)), 0.1)
        return super().forward(input)


def test_buffers_that_learn_of_the_images_are_named():
    with pytest.raises(UserMistakeError, match=r"1\.seen changes with the images"):
        prove(net_with(Remembers(4)), summed, make_batch, PRIVACY)


class Drawn(nn.Module):
    """Random numbers that no rate turns off."""

    def forward(self, x):
        return x + torch.randn_like(x)


@pytest.mark.parametrize(("layer", "told"), [(Drawn(), False), (nn.Dropout(0.5), True)])
def test_draws_that_cannot_be_turned_off_are_told(layer, told):
    assert prove(net_with(layer), summed, make_batch, PRIVACY).without_one is told
