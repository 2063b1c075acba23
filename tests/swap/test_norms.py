"""What stands in the place of every known norm, for every kind, and what it keeps."""

import pytest
import torch
from torch import nn

import knorm
from knorm.choices import NORM_KINDS
from knorm.swap import swap_norm
from knorm.swap.forms import FORMS, find_norms
from knorm.swap.layers import Copy
from knorm.swap.norms import default_groups, scale_and_shift
from tests.swap.test_forms import ROWS, make

KINDS = [kind for kind in NORM_KINDS if kind != "sync_batch"]  # which needs a GPU


def input_for(norm):
    form = norm.form
    if form.tokens:
        return torch.randn(4, 5, 8, requires_grad=True)
    return torch.randn(4, 8, *[5] * (form.num_dims or 2), requires_grad=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("package", "name"), ROWS)
def test_every_known_norm_becomes_every_kind_or_stays_with_the_reason(package, name, kind):
    (norm,) = find_norms(make(package, name))
    x = input_for(norm)
    if kind == "local_context" and norm.form.num_dims in (1, 3) and norm.kind != "kernel":
        with pytest.raises(ValueError, match=r"the model itself.*2 spatial dimensions"):
            swap_norm(norm.module, kind)
        return
    net = nn.ModuleList([norm.module, nn.BatchNorm2d(8)])  # one that can become anything
    swapped, report = swap_norm(net, kind)
    out = swapped[0](x * 1)  # an activation may work in place
    assert out.shape == x.shape
    (gradient,) = torch.autograd.grad(out.pow(3).sum(), x)
    assert gradient.isfinite().all()
    row = report.rows[0]
    assert row.was == name
    if row.stays:
        assert row.note == f"{kind} already" or not norm.form.sees_batch
        assert type(swapped[0]) is type(norm.module)
    elif kind not in ("kernel", "none") and getattr(norm.module, "weight", None) is not None:
        assert "weight" in row.kept


@pytest.mark.parametrize("kind", ["group", "layer", "instance", "kernel", "none"])
@pytest.mark.parametrize(("package", "name"), ROWS)
def test_no_sample_sees_another_after_the_swap(package, name, kind):
    (norm,) = find_norms(make(package, name))
    net, _ = swap_norm(nn.ModuleList([norm.module, nn.BatchNorm2d(8)]), kind)
    net.apply(lambda module: setattr(module, "dropout_p", 0.0))
    x = input_for(norm).detach()
    other = torch.cat([x[:1], torch.randn_like(x[1:])])
    assert torch.equal(net[0](x)[0], net[0](other)[0])


@pytest.mark.parametrize("kind", ["group", "layer", "instance"])
def test_the_new_norm_keeps_weights_and_epsilon_and_the_same_parameters(kind):
    norm = nn.BatchNorm2d(8, eps=1e-3)
    swapped, report = swap_norm(nn.Sequential(norm), kind, inplace=True)
    assert swapped[0].weight is norm.weight
    assert swapped[0].bias is norm.bias
    assert swapped[0].eps == 1e-3
    assert report.rows[0].kept == ("weight", "bias")


def test_without_keep_affine_scale_and_shift_start_anew_and_without_affine_there_are_none():
    norm = nn.BatchNorm2d(8)
    nn.init.constant_(norm.weight, 3)
    swapped, report = swap_norm(nn.Sequential(norm), "layer", keep_affine=False, eps=0.1)
    assert bool((swapped[0].weight == 1).all())
    assert (swapped[0].eps, report.rows[0].kept) == (0.1, ())
    bare, report = swap_norm(nn.Sequential(norm), "group", affine=False)
    assert (report.parameters_before, report.parameters_after) == (16, 0)
    assert bare[0].weight is None


@pytest.mark.parametrize(
    ("package", "name"), [key for key, form in FORMS.items() if form.family in NORM_KINDS]
)
def test_the_same_kind_changes_nothing(package, name):
    (norm,) = find_norms(make(package, name))
    norm.module.to(torch.double)
    state = {
        key: torch.randn_like(v, dtype=torch.double) for key, v in norm.module.state_dict().items()
    }
    norm.module.load_state_dict({key: value.abs() for key, value in state.items()})
    net, report = swap_norm(nn.Sequential(norm.module), norm.kind)
    assert type(net[0]) is type(norm.module)
    assert net[0].extra_repr() == norm.module.extra_repr()
    torch.testing.assert_close(net[0].state_dict(), norm.module.state_dict(), rtol=0, atol=0)
    assert report.rows[0].note == f"{norm.kind} already"


def test_running_statistics_go_over_between_batch_and_frozen_and_sync():
    norm = nn.BatchNorm2d(8, momentum=0.3)
    norm(torch.randn(4, 8, 3, 3))
    sync, report = swap_norm(nn.Sequential(norm), "sync_batch")
    torch.testing.assert_close(sync[0].state_dict(), norm.state_dict())
    assert sync[0].momentum == 0.3
    assert "running_var" in report.rows[0].kept
    back, _ = swap_norm(sync, "batch")
    assert type(back[0]) is nn.BatchNorm2d
    torch.testing.assert_close(back[0].state_dict(), norm.state_dict())


def test_a_frozen_norm_becomes_a_batch_norm_with_the_same_evaluation():
    frozen = make("torchvision", "FrozenBatchNorm2d")
    frozen.weight.uniform_(0.5, 2)
    frozen.running_mean.normal_()
    frozen.running_var.uniform_(0.5, 2)
    net, _ = swap_norm(nn.Sequential(frozen).eval(), "batch")
    x = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(net(x), frozen(x))
    assert len(list(net.parameters())) == 2


def test_activation_and_dropout_within_a_norm_stay():
    layers = pytest.importorskip("timm.layers")
    norm = layers.BatchNormAct2d(8, act_layer=nn.SiLU, drop_layer=nn.Dropout)
    net, report = swap_norm(nn.Sequential(norm), "group")
    assert [type(m) for m in net[0]] == [nn.GroupNorm, nn.Dropout, nn.SiLU]
    bare, _ = swap_norm(nn.Sequential(norm), "none")
    assert [type(m) for m in bare[0]] == [Copy, nn.Dropout, nn.SiLU]
    after_conv, _ = swap_norm(nn.Sequential(nn.Conv2d(3, 8, 1), norm), "none")
    assert [type(m) for m in after_conv[1]] == [nn.Dropout, nn.SiLU]
    assert report.rows[0].became == "GroupNorm + Dropout + SiLU"


@pytest.mark.parametrize(
    ("name", "act", "note"),
    [
        ("FilterResponseNormTlu2d", "Threshold", "its threshold stays"),
        ("EvoNorm2dS0", "Gate", "its gate stays"),
        ("EvoNorm2dS1", "SiLU", ""),
        ("EvoNorm2dB0", "ReLU", "one with the norm: ReLU in its place"),
    ],
)
def test_an_activation_that_is_part_of_the_norm_is_told(name, act, note):
    _, report = swap_norm(nn.Sequential(make("timm", name)), "layer")
    assert report.rows[0].became == f"GroupNorm + {act}"
    assert note in report.rows[0].note


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (2, 1), (7, 1), (24, 12), (32, 16), (48, 24), (64, 32)]
)
def test_the_default_groups_divide_and_hold_two_channels_or_more(channels, groups):
    assert default_groups(channels) == groups


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (24, 1), (48, 3), (64, 4), (1024, 32)])
def test_a_group_of_a_vector_holds_16_channels_or_more(channels, groups):
    for norm in (nn.BatchNorm1d(channels), nn.SyncBatchNorm(channels)):
        net, _ = swap_norm(nn.Sequential(nn.Linear(3, channels), nn.ReLU(), norm), "group")
        assert net[2].num_groups == groups


def test_groups_that_do_not_divide_are_named_with_those_that_do():
    net = nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(12))
    with pytest.raises(ValueError, match=r"1: groups=8 does not divide 12.*could be 1, 2, 4$"):
        swap_norm(net, "group", groups=8)
    swapped, _ = swap_norm(net, "group", groups=4)
    assert [norm.num_groups for norm in swapped] == [4, 4]


def test_group_norms_with_other_groups_are_regrouped_and_keep_their_weights():
    net = nn.Sequential(nn.GroupNorm(2, 8), nn.GroupNorm(4, 8))
    swapped, report = swap_norm(net, "group", groups=4, inplace=True)
    assert [norm.num_groups for norm in swapped] == [4, 4]
    assert [row.stays for row in report.rows] == [False, True]


@pytest.mark.parametrize("affine", [True, False])
def test_scale_and_shift_are_what_a_batch_norm_does_in_evaluation(affine):
    module = nn.BatchNorm2d(8, affine=affine).double()
    module(torch.randn(4, 8, 3, 3, dtype=torch.double) * 3 + 1)
    (norm,) = find_norms(module.eval())
    x = torch.randn(2, 8, 3, 3, dtype=torch.double)
    scale, shift = (tensor.view(8, 1, 1) for tensor in scale_and_shift(norm))
    torch.testing.assert_close(x * scale + shift, module(x))


class Response(nn.LayerNorm):
    """A norm with a way of its own."""

    def forward(self, input):  # noqa: A002
        return super().forward(input) + input


class OwnNorm2d(Response):
    pass


def test_every_norm_has_a_row_and_what_stays_says_why():
    net = nn.Sequential(
        nn.BatchNorm2d(4), knorm.KNConv2d(4, 4, 1), OwnNorm2d(4), Response(4), nn.BatchNorm2d(4)
    )
    _, report = swap_norm(net, "none", modules=lambda name, module: name != "0")
    assert [row.note for row in report.rows] == [
        "left out by modules=",
        "its norm is one with the convolution",
        "a norm of unknown form",
        "a norm of unknown form",
        "",
    ]
    assert [row.stays for row in report.rows] == [True] * 4 + [False]
    assert str(report).startswith("none: 1 replaced, 4 as they were")
    _, report = swap_norm(net, "kernel", modules="*[01]")
    assert report.rows[1].note == "kernel already"


def test_a_net_of_kernel_convolutions_alone_is_refused_by_their_name():
    net = knorm.create_model("knresnet18", num_classes=5)
    with pytest.raises(ValueError, match=r"can become 'group'; .*: its norm is one with the conv"):
        swap_norm(net, "group")
    _, report = swap_norm(net, "kernel")
    assert all(row.stays for row in report.rows)


def test_every_form_that_sees_the_batch_is_known_to():
    names = {name for (_, name), form in FORMS.items() if form.sees_batch}
    assert {"BatchNorm1d", "SyncBatchNorm", "BatchNormAct2d", "EvoNorm2dB0"} <= names
    assert not names & {"FrozenBatchNorm2d", "GroupNorm", "EvoNorm2dS0"}


@pytest.mark.parametrize("like", [nn.Conv2d(3, 8, 1), nn.Linear(3, 8)])
def test_a_norm_without_tensors_gets_the_device_and_type_of_what_stands_before_it(like):
    net = nn.Sequential(like, nn.InstanceNorm2d(8)).to("meta", torch.bfloat16)
    swapped, _ = swap_norm(net, "group")
    assert {(p.device.type, p.dtype) for p in swapped.parameters()} == {("meta", torch.bfloat16)}


@pytest.mark.parametrize("norm", [nn.SyncBatchNorm(8), nn.GroupNorm(2, 8)])
def test_a_norm_behind_a_linear_layer_is_one_for_vectors_in_a_net_of_convolutions_too(norm):
    start = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    net = nn.Sequential(*start, nn.Linear(4, 8), nn.ReLU(), norm)
    swapped, _ = swap_norm(net, "batch")
    assert type(swapped[6]) is nn.BatchNorm1d
    with pytest.raises(ValueError, match=r"^6: norm 'local_context' is for 2 spatial dimensions"):
        swap_norm(net, "local_context")


def test_a_net_of_linear_layers_goes_to_group_norm_and_back():
    net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8))
    back, _ = swap_norm(swap_norm(net, "group")[0], "batch")
    assert type(back[1]) is nn.BatchNorm1d
