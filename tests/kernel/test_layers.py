"""The modules: torch's conventions, determinism, and every transformation they must survive."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from knorm.choices import STATS
from knorm.kernel import layers

CONVS = {
    1: (layers.KNConv1d, nn.Conv1d),
    2: (layers.KNConv2d, nn.Conv2d),
    3: (layers.KNConv3d, nn.Conv3d),
}
NORMS = {1: layers.KernelNorm1d, 2: layers.KernelNorm2d, 3: layers.KernelNorm3d}
LAYERS = {
    "KNConv2d": lambda **options: layers.KNConv2d(4, 6, 3, padding=1, **options),
    "KernelNorm2d": lambda **options: layers.KernelNorm2d(2, padding=1, **options),
}


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=LAYERS)
def layer(request):
    torch.manual_seed(0)
    return LAYERS[request.param]()


@pytest.mark.parametrize("dims", CONVS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False, "groups": 2, "stride": 2, "padding": 1},
        {"padding": "same", "dilation": 2, "padding_mode": "circular"},
    ],
    ids=str,
)
def test_a_convolutions_state_dict_loads_and_the_output_shape_is_its(dims, options):
    kn_class, conv_class = CONVS[dims]
    conv, kn = conv_class(4, 6, 3, **options), kn_class(4, 6, 3, **options)
    assert list(kn.state_dict()) == list(conv.state_dict())
    kn.load_state_dict(conv.state_dict())
    torch.testing.assert_close(kn.weight, conv.weight)
    x = images(2, 4, *(7, 8, 9)[:dims])
    assert kn(x).shape == conv(x).shape
    assert kn(x[0]).shape == conv(x[0]).shape


@pytest.mark.parametrize("dims", NORMS)
def test_kernel_norm_takes_a_batch_or_a_sample(dims):
    norm = NORMS[dims](2, 2, 1)
    x = images(3, 4, *(6, 7, 8)[:dims])
    norm.eval()
    out = norm(x)
    assert out.shape[2:] == tuple(2 * ((s + 2 - 2) // 2 + 1) for s in x.shape[2:])
    torch.testing.assert_close(norm(x[1]), out[1], rtol=0, atol=0)


def test_padding_pairs_are_height_then_width_as_in_torch():
    assert layers.KNConv2d(3, 2, 3, padding=(1, 0))(images(1, 3, 8, 8)).shape == (1, 2, 8, 6)
    assert layers.KernelNorm2d(1, padding=(1, 0))(images(1, 3, 8, 8)).shape == (1, 3, 10, 8)


def test_layers_are_made_on_the_device_and_in_the_dtype_asked_for():
    conv = layers.KNConv2d(3, 4, 3, device="meta", dtype=torch.bfloat16)
    assert conv.weight.device.type == "meta"
    assert conv.weight.dtype == conv.bias.dtype == torch.bfloat16
    assert conv(torch.empty(2, 3, 9, 9, device="meta", dtype=torch.bfloat16)).shape == (2, 4, 7, 7)


def test_evaluation_is_deterministic_and_training_is_not(layer):
    x = images(2, 4, 8, 8)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    state = torch.get_rng_state()
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", LAYERS)
def test_eval_stats_choose_between_three_statistics(name):
    x = images(2, 4, 8, 8).abs()
    torch.manual_seed(0)
    modes = {mode: LAYERS[name](eval_stats=mode, dropout_p=0.3).eval() for mode in STATS}
    weights = modes["plain"].state_dict()
    for mode in modes.values():
        mode.load_state_dict(weights)
    plain = LAYERS[name](dropout_p=0.0)
    plain.load_state_dict(weights)
    torch.testing.assert_close(modes["plain"](x), plain(x), rtol=0, atol=0)
    assert not torch.equal(modes["sampled"](x), modes["sampled"](x))
    passes = torch.stack([modes["sampled"](x) for _ in range(400)]).mean(0)
    distance = {m: (modes[m](x) - passes).square().mean() for m in ("expected", "plain")}
    assert distance["expected"] < distance["plain"] / 4


@pytest.mark.parametrize("training", [True, False])
def test_no_sample_depends_on_another_bit_for_bit(layer, training):
    layer.train(training)
    x = images(4, 4, 8, 8)
    changed = torch.cat((x[:1], images(3, 4, 8, 8, seed=1) * 100))
    torch.manual_seed(0)
    out = layer(x)
    torch.manual_seed(0)
    assert torch.equal(layer(changed)[0], out[0])


def test_output_keeps_channels_last(layer):
    x = images(2, 4, 8, 8).to(memory_format=torch.channels_last)
    layer.eval()
    out = layer(x)
    torch.testing.assert_close(out, layer(x.contiguous()))
    if isinstance(layer, layers.KNConv2d):
        assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_the_dtype_and_gradients_of_a_convolution(layer, dtype):
    x = images(2, 4, 8, 8).requires_grad_()
    with torch.autocast("cpu", dtype):
        out = layer(x)
    assert out.dtype == (dtype if isinstance(layer, layers.KNConv2d) else torch.float32)
    out.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in [x, *layer.parameters()])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.double])
def test_layers_work_in_every_floating_dtype(layer, dtype):
    assert layer.to(dtype)(images(2, 4, 8, 8).to(dtype)).dtype == dtype


def test_per_sample_gradients_by_vmap_equal_one_backward_per_sample(layer):
    layer.eval()
    x, params = images(5, 4, 8, 8), dict(layer.named_parameters())

    def loss(params, sample):
        return functional_call(layer, params, (sample,)).pow(3).sum()

    gradients, inputs = vmap(grad(loss, argnums=(0, 1)), in_dims=(None, 0))(params, x)
    for i in range(5):
        sample = x[i].clone().requires_grad_()
        expected = torch.autograd.grad(loss(params, sample), [*params.values(), sample])
        for actual, wanted in zip([*gradients.values(), inputs], expected, strict=True):
            torch.testing.assert_close(actual[i], wanted, rtol=1e-4, atol=1e-3)


def test_vmap_draws_a_dropout_of_its_own_for_every_sample(layer):
    x = images(1, 4, 8, 8).expand(2, -1, -1, -1)
    torch.manual_seed(0)
    first, second = vmap(layer, randomness="different")(x)
    assert not torch.equal(first, second)
    channels_last = x.contiguous().to(memory_format=torch.channels_last)
    assert vmap(layer, randomness="different")(channels_last).shape == (2, *first.shape)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_without_graph_breaks_they_give_the_same(layer, dynamic):
    torch.compiler.reset()
    layer.dropout_p = 0.0
    compiled = torch.compile(layer, fullgraph=True, dynamic=dynamic)
    for shape in [(2, 4, 8, 8), (3, 4, 10, 7)] if dynamic else [(2, 4, 8, 8)]:
        x = images(*shape)
        grads = []
        for function in (compiled, layer):
            source = x.clone().requires_grad_()
            out = function(source)
            grads.append((out, *torch.autograd.grad(out.pow(3).sum(), source)))
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)
    layer.dropout_p = 0.3
    x = images(2, 4, 8, 8)
    assert not torch.equal(compiled(x), compiled(x))


def test_exported_with_dynamic_sizes_they_give_the_same(layer):
    layer.eval()
    sizes = {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    program = torch.export.export(layer, (images(2, 4, 8, 8),), dynamic_shapes=(sizes,))
    x = images(3, 4, 11, 9)
    torch.testing.assert_close(program.module()(x), layer(x))


@pytest.mark.filterwarnings("ignore")
def test_onnxruntime_agrees(layer, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    layer.eval()
    x = images(2, 4, 8, 8)
    torch.onnx.export(layer, (x,), tmp_path / "layer.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "layer.onnx")
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), layer(x).detach(), rtol=1e-4, atol=1e-4)


def test_a_copy_is_its_equal(layer):
    layer.eval()
    assert torch.equal(copy.deepcopy(layer)(images(1, 4, 8, 8)), layer(images(1, 4, 8, 8)))


def test_repr_shows_every_setting_that_is_not_the_default():
    conv = layers.KNConv2d(
        4,
        6,
        3,
        groups=2,
        eval_stats="plain",
        bounded=False,
        group_stats=True,
        padding_mode="reflect",
    )
    for word in (
        "groups=2",
        "dropout_p=0.05",
        "'plain'",
        "bounded=False",
        "group_stats",
        "reflect",
    ):
        assert word in repr(conv)
    assert repr(layers.KernelNorm2d(2, padding="same", padding_mode="reflect")) == (
        "KernelNorm2d(kernel_size=(2, 2), stride=(1, 1), padding='same', padding_mode=reflect, "
        "dropout_p=0.1, eps=1e-05)"
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: layers.KNConv2d(3, 4, 3, dropout_p=1.5), "dropout_p"),
        (lambda: layers.KNConv2d(3, 4, 3, eval_stats="mean"), "expected"),
        (lambda: layers.KNConv2d(3, 4, 3, groups=2), "divisible by groups"),
        (lambda: layers.KernelNorm2d(3, 2, "same"), "stride 1"),
        (lambda: layers.KernelNorm2d((3, 3, 3)), "kernel_size takes an int or 2 ints"),
        (lambda: layers.KernelNorm2d(0), "kernel_size takes .* from 1 up, got 0"),
        (lambda: layers.KernelNorm2d(3.0), "kernel_size takes .*got 3.0"),
        (lambda: layers.KernelNorm2d(2, 0), "stride takes .* from 1 up"),
        (lambda: layers.KernelNorm2d(2, 1, -1), "padding takes .* from 0 up, got -1"),
        (lambda: layers.KernelNorm2d(eps=-1), "eps must be"),
        (lambda: layers.KernelNorm2d(dropout_p="a"), "dropout_p must be"),
        (lambda: layers.KernelNorm2d(padding_mode="mirror"), "reflect"),
    ],
)
def test_a_mistake_is_named_when_the_layer_is_made(make, words):
    with pytest.raises(ValueError, match=words):
        make()
