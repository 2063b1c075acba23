"""Kernel normalization and folding: which convolution takes up which norm, and what comes out."""

import pytest
import torch
from torch import nn

import knorm
from knorm.swap import swap_norm
from knorm.swap.layers import AdaptedKNConv2d, PositionNorm, ScaleShift


def trained(net, *shape):
    """In evaluation, with running statistics and affine parts that are not those of a new net."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    for _ in range(3):
        net(torch.randn(shape) * 2 + 1)
    return net.eval()


def small_net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8, eps=1e-3),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, 2, groups=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )


class PreAct(nn.Module):
    """Norm and activation before every convolution; defined in another order than used."""

    def __init__(self):
        super().__init__()
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(8)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        y = self.conv1(torch.relu(self.norm1(x)))
        return x + self.conv2(torch.relu(self.norm2(y)))


def test_a_convolution_and_its_norm_become_one_kernel_convolution():
    net = small_net()
    swapped, report = swap_norm(net, "kernel", inplace=True, dropout_p=0.1)
    assert [type(swapped[i]) for i in (0, 1, 3, 4)] == [knorm.KNConv2d, nn.Identity] * 2
    assert (swapped[0].eps, swapped[3].eps) == (1e-3, 1e-5)
    assert swapped[0].bias is not None
    assert swapped[0].dropout_p == 0.1
    assert not swapped[3].group_stats
    assert report.rows[0].note == "taken up by 0"
    assert [row.kept for row in report.rows[:2]] == [("0.weight",), ("3.weight", "3.bias")]
    assert report.parameters_after == report.parameters_before - 2 * (8 + 6) + 8


def test_the_last_features_are_normalized_before_pooling():
    swapped, report = swap_norm(small_net(), "kernel")
    act, norm = swapped[5]
    assert (type(act), type(norm)) == (nn.ReLU, knorm.KernelNorm2d)
    assert norm.kernel_size == (1, 1)
    assert norm.dropout_p == 0.25
    assert (report.rows[-1].name, report.rows[-1].became) == ("5", "ReLU + KernelNorm2d")
    assert str(report).startswith("kernel: 2 replaced, 0 as they were")


def test_where_a_layer_with_weights_gives_to_the_pooling_they_keep_their_names():
    net = nn.Sequential(*small_net()[:5], nn.PReLU(), nn.AdaptiveAvgPool2d(1))
    swapped, report = swap_norm(net, "kernel")
    assert type(swapped[5]) is nn.PReLU
    assert report.rows[-1].note.endswith("(a pooling in its place would not)")
    norm, pool = swapped[6]
    assert (type(norm), type(pool)) == (knorm.KernelNorm2d, nn.AdaptiveAvgPool2d)


class Attention(nn.Module):
    """Channels weighed by what linear layers make of their means (squeeze and excitation)."""

    def __init__(self, channels):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, channels)

    def forward(self, x):
        weights = self.fc(self.pool(x).flatten(1)).sigmoid()
        return (x * weights[:, :, None, None]).mean((2, 3))


def test_the_pooling_of_an_attention_is_not_that_of_the_net():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), Attention(6))
    swapped, report = swap_norm(net, "kernel")
    assert type(swapped[3].pool) is nn.AdaptiveAvgPool2d
    assert report.rows[-1].became == "KNConv2d + KernelNorm2d"


@pytest.mark.parametrize("layer", [nn.Flatten(), nn.Conv2d(6, 6, 1)])
def test_without_a_last_pooling_the_last_norm_normalizes_its_features_once_more(layer):
    net = nn.Sequential(*small_net()[:6], nn.AdaptiveAvgPool2d(1), layer)
    if isinstance(layer, nn.Flatten):
        net = nn.Sequential(*small_net()[:6], layer)
    swapped, report = swap_norm(net, "kernel")
    assert type(swapped[4]) is knorm.KernelNorm2d
    assert report.rows[-1].became == "KNConv2d + KernelNorm2d"


def test_the_swapped_net_is_the_net_made_of_the_layers_by_hand():
    net = small_net()
    swapped, _ = swap_norm(net, "kernel")
    by_hand = nn.Sequential(
        knorm.KNConv2d(3, 8, 3, padding=1, eps=1e-3),
        nn.ReLU(),
        knorm.KNConv2d(8, 6, 3, 2, groups=2),
        nn.ReLU(),
        knorm.KernelNorm2d(dropout_p=0.25),
        *net[6:],
    )
    by_hand[0].load_state_dict({"weight": net[0].weight, "bias": torch.zeros(8)})
    by_hand[2].load_state_dict(net[3].state_dict())
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(swapped.eval()(x), by_hand.eval()(x), rtol=0, atol=0)


def test_a_norm_before_its_convolution_stands_as_a_kernel_norm():
    swapped, report = swap_norm(PreAct(), "kernel")
    notes = {row.name: row.note for row in report.rows}
    assert type(swapped.norm1) is knorm.KernelNorm2d
    assert "goes elsewhere too" in notes["norm1"]
    assert notes["norm2"].startswith("taken up by conv1")
    assert type(swapped.conv2) is nn.Conv2d


def test_a_shared_norm_is_replaced_at_every_place():
    norm = nn.BatchNorm2d(8)
    net = nn.Sequential(nn.Conv2d(8, 8, 1), norm, nn.Conv2d(8, 8, 1), norm)
    swapped, report = swap_norm(net, "kernel")
    assert swapped[1] is swapped[3]
    assert type(swapped[1]) is knorm.KernelNorm2d
    assert "more than once" in report.rows[0].note
    grouped, _ = swap_norm(net, "group")
    assert grouped[1] is grouped[3]


def test_tokens_are_normalized_over_their_channels():
    net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU())
    swapped, report = swap_norm(net, "kernel")
    assert type(swapped[1]) is PositionNorm
    assert swapped[1].channels_last
    assert report.rows[0].note == "its channels come last"
    swapped(torch.randn(3, 5, 4)).sum().backward()


@pytest.mark.parametrize("kind", ["kernel", "none"])
def test_norms_that_torch_evaluates_in_one_call_with_others_stay(kind):
    net = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 8), nn.LayerNorm(8)
    )
    swapped, report = swap_norm(net.eval(), kind)
    assert [row.stays for row in report.rows] == [True, True, False]
    assert "TransformerEncoderLayer" in report.rows[0].note
    assert swapped(torch.randn(3, 5, 8)).isfinite().all()


class ReadsNorm(nn.Module):
    """Takes the scale of its norm for something else too."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(x) * self.norm.weight.mean()


class Heads(nn.Module):
    """A head that is there in training only."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.aux = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x):
        x = self.trunk(x)
        return (x, self.aux(x)) if self.training else x


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_does_not_change_which_convolutions_take_norms_up(mode):
    swapped, _ = swap_norm(Heads().train(mode), "kernel")
    assert [type(part[0]) for part in (swapped.trunk, swapped.aux)] == [knorm.KNConv2d] * 2


def test_a_kernel_norm_keeps_its_geometry():
    norm = knorm.KernelNorm2d(2, 2)
    swapped, report = swap_norm(nn.Sequential(norm, nn.BatchNorm2d(4)), "kernel", eps=1e-2)
    assert swapped[0].kernel_size == (2, 2)
    assert report.rows[0].note == "kernel already"


def test_special_convolutions_keep_their_ways():
    layers = pytest.importorskip("timm.layers")
    net = nn.Sequential(
        layers.Conv2dSame(3, 4, 3, 2),
        nn.BatchNorm2d(4),
        layers.StdConv2d(4, 4, 3),
        nn.BatchNorm2d(4),
    )
    swapped, _ = swap_norm(net, "kernel")
    assert [type(swapped[i]) for i in (0, 2)] == [AdaptedKNConv2d] * 2
    assert swapped(torch.randn(2, 3, 11, 11)).shape == net(torch.randn(2, 3, 11, 11)).shape


@pytest.mark.parametrize("make", [small_net, lambda: nn.Sequential(nn.Conv2d(3, 8, 1), PreAct())])
def test_folding_batch_norms_away_changes_nothing_in_evaluation(make):
    net = trained(make(), 4, 3, 9, 9)
    swapped, report = swap_norm(net, "none", fold=True)
    x = torch.randn(4, 3, 9, 9)
    expected = net(x)
    assert (swapped(x) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert not [m for m in swapped.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(row.kept == ("scale", "shift") for row in report.rows)


def test_behind_linear_layers_and_alone_scale_and_shift_stand():
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6))
    for shape in ((8, 6), (8, 6, 6)):  # of the second a batch norm takes dimension 1
        swapped, report = swap_norm(trained(net, *shape), "none", fold=True)
        x = torch.randn(shape)
        torch.testing.assert_close(swapped(x), net(x))
        assert [type(m) for m in swapped] == [ScaleShift, nn.Linear, ScaleShift]
        assert report.rows[1].note.startswith("stands alone: the Linear before it may give (N, L")


@pytest.mark.parametrize("learns", [True, False])
def test_a_frozen_norm_that_stands_as_scale_and_shift_goes_on_not_learning(learns):
    net = trained(nn.Sequential(nn.BatchNorm1d(6)), 8, 6).requires_grad_(learns)
    swapped, _ = swap_norm(net, "none", fold=True)
    assert {p.requires_grad for p in swapped.parameters()} == {learns}


class ByMode(nn.Module):
    """The convolution's output goes elsewhere too, in evaluation."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) if self.training else self.norm(y) + y


def test_a_norm_is_folded_only_where_evaluation_uses_it_as_training_does():
    net = trained(ByMode(), 4, 3, 5, 5)
    swapped, report = swap_norm(net, "none", fold=True)
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(swapped(x), net(x))
    assert report.rows[0].note == "stands alone: in evaluation its input goes elsewhere too"
    with pytest.raises(ValueError, match=r"fold: no norm .* that a convolution takes up"):
        swap_norm(net, "kernel", fold=True)


def test_folding_into_a_kernel_convolution_keeps_scale_and_shift():
    net = trained(small_net(), 4, 3, 9, 9)
    swapped, report = swap_norm(net, "kernel", fold=True)
    scale = net[1].weight * (net[1].running_var + net[1].eps).rsqrt()
    torch.testing.assert_close(swapped[0].weight, net[0].weight * scale.view(-1, 1, 1, 1))
    torch.testing.assert_close(swapped[0].bias, net[1].bias - net[1].running_mean * scale)
    assert report.rows[0].note == "taken up by 0, scale and shift folded in"
    assert report.rows[0].kept[-2:] == ("scale", "shift")


class Shortcut(nn.Module):
    """A pre-activation block whose activation works in place."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.act = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return x + self.conv(self.act(self.norm(x)))


@pytest.mark.parametrize("kind", ["none", "kernel"])
def test_an_activation_in_place_does_not_reach_past_a_norm_that_is_gone(kind):
    net, _ = swap_norm(nn.Sequential(nn.Conv2d(3, 3, 1), Shortcut()), kind)
    x = torch.randn(2, 3, 4, 4)
    outputs = net.eval()(x)
    net[1].act.inplace = False
    assert torch.equal(net(x), outputs)


@pytest.mark.parametrize(
    ("net", "kind", "options", "words"),
    [
        (
            nn.LayerNorm(4),
            "group",
            {},
            "no norm of the model can become 'group'.*channels come last",
        ),
        (
            nn.Sequential(nn.GroupNorm(2, 4)),
            "none",
            {"fold": True},
            "fold: no norm is a batch norm",
        ),
        (
            nn.Sequential(nn.ConvTranspose2d(3, 4, 1), nn.BatchNorm2d(4)),
            "kernel",
            {"fold": True},
            "fold: no norm .* that a convolution takes up",
        ),
        (ReadsNorm(), "none", {}, "norm: another module's forward reads its weight.*modules="),
        (nn.Sequential(nn.BatchNorm2d(3)), "local_context", {}, "0: channels_per_group=2 does not"),
    ],
)
def test_what_cannot_be_is_one_clear_line(net, kind, options, words):
    with pytest.raises(ValueError, match=words):
        swap_norm(net, kind, **options)
