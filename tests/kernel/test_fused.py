"""The passes against the composition: outputs and every gradient, and what is kept for them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from knorm import KNConv2d
from knorm.choices import STATS
from knorm.kernel import fused_ops, kernel_norm, kn_conv
from tests.kernel import cases

LAYOUTS = ("contiguous", "channels last", "strided", "unbatched", "empty batch")
TOLERANCE = {torch.double: 1e-10, torch.float: 1e-5}


def laid_out(x, layout):
    """The tensor, or one of its samples, in another place of the memory."""
    if layout == "channels last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "strided":
        return torch.stack((x, x), -1)[..., 0]
    if layout == "unbatched":
        return x[0]
    return x[:0] if layout == "empty batch" else x


def results(function, inputs, seed=5):
    """The output and the gradient of every input."""
    inputs = [t.detach().requires_grad_() for t in inputs]
    torch.manual_seed(seed)
    out = function(*inputs)
    weights = torch.randn(out.shape, dtype=torch.double).to(out.dtype)
    return out.detach(), *torch.autograd.grad((out * weights).sum(), inputs)


def composed(function, *args):
    """`results` without the passes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_ops, "serves", lambda *tensors: False)
        return results(function, *args)


def assert_same(function, inputs):
    """Near the composition in float64: within the tolerance, or as near as the composition is."""
    found, plain = results(function, inputs), composed(function, inputs)
    exact = composed(function, [t.double() for t in inputs])
    for actual, other, wanted in zip(found, plain, exact, strict=True):
        assert actual.dtype == other.dtype
        if wanted.numel():
            bound = TOLERANCE[actual.dtype] * max(1, float(wanted.abs().max()))
            bound = max(bound, 3 * float((other - wanted).abs().max()))
            torch.testing.assert_close(actual.double(), wanted, rtol=0, atol=bound)
        assert actual.shape == wanted.shape


@settings(max_examples=150)
@given(
    cases.geometries(),
    st.sampled_from(LAYOUTS),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from(STATS),
    st.sampled_from([0.0, 0.05, 0.4]),
    st.booleans(),
    st.booleans(),
)
def test_the_passes_give_what_the_composition_gives(
    case, layout, dtype, stats, p, bounded, has_bias
):
    inputs = [t.detach() for t in cases.tensors(case, dtype)]
    inputs[0] = laid_out(inputs[0], layout)
    options = {"dropout_p": p, "stats": stats, "bounded": bounded, **cases.conv_options(case)}
    options["eps"] = 1e-5 if dtype == torch.double else 0.1  # small units may hardly vary

    def function(x, weight, bias=None):
        return kn_conv(x, weight, bias, **options)

    assert_same(function, inputs if has_bias else inputs[:2])


@settings(max_examples=100)
@given(
    cases.geometries(),
    st.sampled_from(LAYOUTS),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from(STATS),
    st.sampled_from([0.0, 0.4]),
    st.booleans(),
)
def test_so_they_do_for_units_side_by_side(case, layout, dtype, stats, p, bounded):
    x = laid_out(cases.tensors(case | {"dilation": 1}, dtype)[0].detach(), layout)
    options = {name: case[name] for name in ("kernel_size", "stride", "padding", "padding_mode")}
    options |= {"dropout_p": p, "stats": stats, "bounded": bounded, "num_dims": len(case["space"])}
    options["eps"] = 1e-5 if dtype == torch.double else 0.1
    assert_same(lambda x: kernel_norm(x, **options), [x])


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_many_channels_and_blocks_of_pixels_change_nothing(layout, dtype):
    torch.manual_seed(0)
    x = laid_out(torch.randn(3, 96, 40, 37, dtype=dtype) + 0.5, layout)
    weight = torch.randn(80, 96, 3, 3, dtype=dtype) / 30
    assert_same(lambda x, w: kn_conv(x, w, padding=1, dropout_p=0.05), (x, weight))
    assert_same(lambda x: kernel_norm(x, 3, 2, 1, num_dims=2, dropout_p=0.05), (x,))


def test_a_sparse_image_is_bounded_alike_with_its_gradients():
    torch.manual_seed(0)
    x = torch.rand(4, 1, 9, 9).double() * (torch.rand(4, 1, 9, 9) < 0.05)
    weight = torch.randn(2, 1, 3, 3).double()
    for p in (0.2, 0.6):
        assert_same(lambda x, w, p=p: kn_conv(x, w, padding=1, dropout_p=p), (x, weight))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_no_more_is_kept_for_the_backward_pass_than_by_convolution_and_batch_norm(layout):
    kernel = KNConv2d(16, 32, 3, padding=1, dropout_p=0.05)
    batch = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32))
    x = torch.randn(4, 16, 20, 20).to(memory_format=layout).requires_grad_()
    sizes = []
    for net in (kernel, batch):
        kept = {}

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            net(x)
        sizes.append(sum(kept.values()))
    assert sizes[0] <= sizes[1]


def test_nothing_is_kept_where_nothing_is_differentiated():
    calls = []
    conv = KNConv2d(4, 4, 3)
    with (
        torch.no_grad(),
        torch.autograd.graph.saved_tensors_hooks(lambda t: calls.append(t), lambda t: t),
    ):
        conv(torch.randn(1, 4, 5, 5))
    assert calls == []


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_what_needs_no_gradient_gets_none_and_the_others_theirs(frozen):
    tensors = {"x": torch.randn(2, 4, 6, 6), "weight": torch.randn(3, 4, 3, 3)}
    tensors |= {"bias": torch.randn(3)}
    grads = {}
    for which in ("", frozen):
        leaves = {name: t.clone().requires_grad_(name != which) for name, t in tensors.items()}
        kn_conv(leaves["x"], leaves["weight"], leaves["bias"]).pow(2).sum().backward()
        grads[which] = {name: leaf.grad for name, leaf in leaves.items()}
    assert grads[frozen].pop(frozen) is None
    for name, grad in grads[frozen].items():
        torch.testing.assert_close(grad, grads[""][name])


def test_a_second_backward_pass_gives_the_same_again():
    x, weight = torch.randn(2, 4, 6, 6).requires_grad_(), torch.randn(3, 4, 3, 3)
    out = kn_conv(x, weight, dropout_p=0.3).square().sum()
    (first,), (second,) = (torch.autograd.grad(out, x, retain_graph=True) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("mean", [1000, 100_000])
def test_gradients_keep_their_digits_at_a_large_mean(mean):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 64, 12, 12) + mean, torch.randn(8, 64, 3, 3)
    function = lambda x, w: kn_conv(x, w, padding=1, dropout_p=0.05)  # noqa: E731
    found = results(function, (x, weight))
    exact = results(function, (x.double(), weight.double()))
    for actual, wanted in zip(found, exact, strict=True):
        assert (actual - wanted).abs().max() <= 2e-6 * wanted.abs().max()
