"""Every norm kind from one call; wrong names and impossible numbers get one clear line."""

import pytest
import torch
from torch import nn

import knorm
from knorm.norms import NORM_KINDS, LocalContextNorm, conv_unit, make_conv, make_norm

SPACES = {1: (8,), 2: (6, 8), 3: (4, 6, 8)}
KINDS_OF_DIMS = [
    (kind, dims)
    for kind in NORM_KINDS
    for dims in SPACES
    if (kind, dims) not in {("local_context", 1), ("local_context", 3)} and kind != "sync_batch"
]


@pytest.mark.parametrize(("kind", "dims"), KINDS_OF_DIMS)
def test_every_kind_keeps_the_shape_and_lets_gradients_through(kind, dims):
    x = torch.randn(2, 8, *SPACES[dims], requires_grad=True)
    options = {"groups": 4} if kind == "group" else {}
    out = make_norm(kind, 8, dims=dims, **options)(x)
    assert out.shape == x.shape
    (gradient,) = torch.autograd.grad(out.pow(3).sum(), x)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("kind", "reduced"),
    [("layer", (1, 2, 3)), ("instance", (2, 3)), ("batch", (0, 2, 3)), ("kernel", (1,))],
)
def test_a_kind_centres_over_its_own_dimensions(kind, reduced):
    options = {"dropout_p": 0.0} if kind == "kernel" else {}
    x = torch.randn(3, 8, 5, 5, dtype=torch.double) * 3 + 2
    out = make_norm(kind, 8, **options).double()(x)
    expected = x - x.mean(reduced, keepdim=True)
    expected = expected / (x.var(reduced, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(out, expected)


def test_group_norm_groups_channels_and_layer_is_one_group():
    x = torch.randn(2, 64, 5, 5)
    assert make_norm("group", 64).num_groups == 32
    torch.testing.assert_close(make_norm("layer", 64)(x), make_norm("group", 64, groups=1)(x))


@pytest.mark.parametrize("kind", NORM_KINDS)
def test_every_kind_is_made_on_a_device_and_in_a_dtype(kind):
    norm = make_norm(kind, 64, device="meta", dtype=torch.double)
    assert all(p.device.type == "meta" and p.dtype == torch.double for p in norm.parameters())


@pytest.mark.parametrize("kind", NORM_KINDS)
def test_affine_and_epsilon_reach_every_kind_that_has_them(kind):
    options = {} if kind in ("kernel", "none") else {"affine": False}
    if kind != "none":
        options["eps"] = 1e-3
    norm = make_norm(kind, 64, **options)
    assert not list(norm.parameters())
    assert getattr(norm, "eps", 1e-3) == 1e-3


def test_local_context_norm_is_its_definition_window_by_window():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 12, 15, dtype=torch.double) + 3
    norm = LocalContextNorm(4, channels_per_group=2, window_size=(5, 8), dtype=torch.double)
    out = norm(x)
    for i, j in [(0, 0), (5, 7), (11, 14), (2, 3), (9, 11)]:
        top, left = min(max(i - 2, 0), 12 - 5), min(max(j - 3, 0), 15 - 8)
        for group in (slice(0, 2), slice(2, 4)):
            window = x[:, group, top : top + 5, left : left + 8]
            mean = window.mean((1, 2, 3))[:, None]
            var = window.var((1, 2, 3), correction=0)[:, None]
            expected = (x[:, group, i, j] - mean) / (var + 1e-5).sqrt()
            torch.testing.assert_close(out[:, group, i, j], expected)


def test_local_context_norm_of_a_small_image_is_one_window():
    x = torch.randn(2, 8, 9, 9)
    grouped = make_norm("group", 8, groups=4)
    torch.testing.assert_close(LocalContextNorm(8)(x), grouped(x), rtol=1e-4, atol=1e-5)


def test_local_context_norm_has_a_gradient_that_passes_finite_differences():
    norm = LocalContextNorm(2, window_size=3, dtype=torch.double)
    x = torch.randn(1, 2, 4, 5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(norm, x)


@pytest.mark.parametrize("kind", NORM_KINDS)
def test_a_unit_is_a_convolution_with_its_norm(kind):
    unit = conv_unit(kind, 3, 64, 3, 2, 1)
    if kind == "kernel":
        assert type(unit) is knorm.KNConv2d
    elif kind == "none":
        assert type(unit) is nn.Conv2d
    else:
        assert [name for name, _ in unit.named_children()] == ["conv", "norm"]
        assert type(unit.norm) is type(make_norm(kind, 64))
    conv = unit if kind in ("kernel", "none") else unit.conv
    assert (conv.bias is not None) == (kind in ("kernel", "none"))
    assert unit.eval()(torch.randn(2, 3, 8, 8)).shape == (2, 64, 4, 4)


def test_options_reach_the_norm_or_the_kernel_normalized_convolution():
    kernel_options = {"dropout_p": 0.4, "eval_stats": "plain"}
    batch = conv_unit("batch", 3, 8, 3, norm_options={"momentum": 0.3})
    assert batch.norm.momentum == 0.3
    kernel = conv_unit("kernel", 3, 8, 3, kernel_options=kernel_options)
    assert (kernel.dropout_p, kernel.eval_stats) == (0.4, "plain")
    assert make_conv("kernel", 3, 8, 3, bias=False).bias is None
    assert isinstance(make_conv("group", 4, 8, 3, dims=1, groups=2), nn.Conv1d)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: make_norm("bacth", 8), "unknown norm 'bacth'; did you mean 'batch'.*sync_batch"),
        (lambda: conv_unit("bn", 3, 8, 3), "choose from batch, sync_batch, group"),
        (lambda: make_norm("group", 48), "groups=32 does not divide 48.*possible: 1, 2, 3.*24, 48"),
        (lambda: make_norm("group", 8, groups=0), "possible: 1, 2, 4, 8"),
        (lambda: make_norm("local_context", 9), "possible: 1, 3, 9"),
        (lambda: make_norm("local_context", 8, dims=3), "2 spatial dimensions, not 3"),
        (lambda: make_norm("batch", 8, momentun=2), "did you mean 'momentum'.*track_running_stats"),
        (lambda: make_norm("group", 8, num_groups=2), "did you mean 'groups'"),
        (lambda: make_norm("group", 8, groups=2.0), "possible: 1, 2, 4, 8"),
        (lambda: make_norm("none", 8, eps=1), "unknown option of norm 'none': 'eps'"),
        (lambda: make_norm("batch", 8, dims=4), "dims must be 1, 2 or 3"),
        (lambda: make_norm("batch", -4), "channels takes a whole number"),
        (lambda: conv_unit("kernel", 3, 8, 3, dims=0), "dims must be 1, 2 or 3"),
        (lambda: conv_unit("kernel", 3, 8, 3, norm_options={"eps": 1}), "has no norm to take"),
        (
            lambda: make_conv("kernel", 3, 8, 3, kernel_options={"foo": 1}),
            "unknown option of KNConv",
        ),
    ],
)
def test_a_mistake_is_named_with_what_is_possible(make, words):
    with pytest.raises(ValueError, match=words):
        make()
