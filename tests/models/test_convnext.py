import pytest
import torch
from torch import nn

from knorm.checkpoints import convert_torchvision_convnext_state_dict
from knorm.choices import NORM_KINDS
from knorm.kernel import KernelNorm2d, KNConv2d
from knorm.models import create_model
from knorm.models.convnext import ConvNeXt, ConvNeXtRow, LayerNorm2d, StochasticDepth

# 1000 classes: torchvision's nets; the authors' KNConvNeXts, counted from their code.
COUNTS = {
    "tiny": (28_589_128, 28_587_784),
    "small": (50_223_688, 50_222_344),
    "base": (88_591_464, 88_589_672),
    "large": (197_767_336, 197_764_648),
}
TOY = ConvNeXtRow((1, 1, 2, 1), (8, 16, 24, 32))


def meta_net(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


def toy_net(**options):
    torch.manual_seed(0)
    return ConvNeXt(TOY, num_classes=5, **options)


def num_params(net):
    return sum(p.numel() for p in net.parameters())


def norms_of(net, kind):
    return [name for name, module in net.named_modules() if isinstance(module, kind)]


@pytest.mark.parametrize("size", COUNTS)
def test_parameter_counts_are_torchvisions_and_the_authors(size):
    layer, kernel = COUNTS[size]
    assert num_params(meta_net(f"convnext_{size}")) == layer
    assert num_params(meta_net(f"convnext_{size}", norm="kernel")) == kernel
    published = meta_net(f"convnext_{size}", norm="kernel", norm_scope="downsampling")
    assert num_params(published) == kernel


@pytest.mark.parametrize("kind", NORM_KINDS)
def test_all_23_norms_of_the_tiny_net_or_three_of_them_are_of_the_kind(kind):
    for scope, replaced in (("downsampling", 3), ("all", 23)):
        net = meta_net("convnext_tiny", norm=kind, norm_scope=scope)
        layer_norms = norms_of(net, LayerNorm2d)
        assert len(layer_norms) == (23 if kind == "layer" else 23 - replaced)
        if kind == "kernel":
            assert len(norms_of(net, KNConv2d)) + len(norms_of(net, KernelNorm2d)) == replaced
        elif kind not in ("layer", "none"):
            found = norms_of(net, (nn.modules.batchnorm._NormBase, nn.GroupNorm))
            assert len(found) == (replaced if kind != "local_context" else 0)


def test_the_kernel_net_is_the_published_one_unless_asked_otherwise():
    net = meta_net("convnext_tiny", norm="kernel")
    assert norms_of(net, KNConv2d) == [f"features.downsampling{i}.conv" for i in (1, 2, 3)]
    first = net.features.downsampling1
    assert [*dict(first.named_children())] == ["act", "conv"]
    assert isinstance(first.act, nn.ReLU)
    conv = first.conv
    assert (conv.kernel_size, conv.stride, conv.padding) == ((2, 2), (2, 2), (0, 0))
    assert conv.dropout_p == 0.1
    assert conv.bias is not None
    everywhere = meta_net("convnext_tiny", norm="kernel", norm_scope="all")
    assert norms_of(everywhere, LayerNorm2d) == []
    assert norms_of(everywhere, KernelNorm2d) == ["features.norm"]
    assert num_params(everywhere) < num_params(net)
    assert norms_of(meta_net("convnext_tiny", norm="batch"), LayerNorm2d) == []


@pytest.mark.parametrize("size", COUNTS)
def test_torchvision_has_the_same_tensors(size):
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        theirs = models.get_model(f"convnext_{size}").state_dict()
    ours = meta_net(f"convnext_{size}").state_dict()
    converted = convert_torchvision_convnext_state_dict(theirs)
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in ours.items()}


def torchvision_toy(layer_scale):
    convnext = pytest.importorskip("torchvision.models.convnext")
    channels = [*TOY.channels, None]
    setting = [
        convnext.CNBlockConfig(channels[i], channels[i + 1], depth)
        for i, depth in enumerate(TOY.depths)
    ]
    torch.manual_seed(1)
    return convnext.ConvNeXt(setting, num_classes=5, layer_scale=layer_scale).eval()


def test_torchvision_weights_give_torchvision_outputs():
    theirs, ours = torchvision_toy(layer_scale=1.0), toy_net().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours.load_state_dict(convert_torchvision_convnext_state_dict(theirs.state_dict()))
    x = torch.randn(2, 3, 70, 64)
    with torch.no_grad():
        expected, out = theirs(x), ours(x)
    assert expected.std() > 0.1
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_the_authors_weights_give_the_outputs_of_their_net():
    theirs = torchvision_toy(layer_scale=1.0)
    ours = toy_net(norm="kernel", dropout_p=0.0).eval()
    for i in (2, 4, 6):  # ReLU, window normalization by hand, convolution
        theirs.features[i][0] = nn.Sequential(nn.ReLU(), NormalizedPatches())
    tensors = convert_torchvision_convnext_state_dict(theirs.state_dict())
    ours.load_state_dict(tensors)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


class NormalizedPatches(nn.Module):
    """Every 2x2 patch minus its mean, over its deviation."""

    def forward(self, x):
        patches = x.unfold(2, 2, 2).unfold(3, 2, 2)  # (N, C, H', W', 2, 2)
        var, mean = torch.var_mean(patches, (1, 4, 5), keepdim=True, correction=0)
        patches = (patches - mean) / (var + 1e-5).sqrt()
        return patches.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def test_a_key_of_another_net_is_named():
    with pytest.raises(ValueError, match=r"not a torchvision ConvNeXt: key 'layer1\.0\.conv1"):
        convert_torchvision_convnext_state_dict({"layer1.0.conv1.weight": torch.zeros(1)})


@pytest.mark.parametrize(("stem", "size"), [("imagenet", 8), ("cifar", 32)])
def test_the_small_stem_keeps_the_resolution(stem, size):
    net = meta_net("convnext_tiny", stem=stem)
    x = torch.empty(1, 3, 32, 32, device="meta")
    assert net.features.stem(x).shape == (1, 96, size, size)
    assert net.forward_features(x).shape == (1, 768, size // 8, size // 8)


def test_stochastic_depth_rises_to_its_rate_and_leaves_out_whole_samples():
    net = toy_net(stochastic_depth=0.4)
    rates = [module.p for module in net.modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    depth, x = StochasticDepth(0.4), torch.ones(2000, 2, 3, 3)
    kept = depth(x).flatten(1)
    assert torch.equal(kept.amin(1), kept.amax(1))
    assert set(kept[:, 0].tolist()) == {0.0, kept.max().item()}
    assert kept.max().item() == pytest.approx(1 / 0.6)
    assert (kept[:, 0] > 0).float().mean().item() == pytest.approx(0.6, abs=0.05)
    assert torch.equal(depth.eval()(x), x)


def test_weights_start_as_published():
    net = create_model("convnext_tiny", num_classes=10, norm="kernel", layer_scale=1e-3)
    for conv in (net.features.downsampling1.conv, net.features.stage3[0].body.expand):
        assert conv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not conv.bias.any()
    assert (net.features.stage1[0].scale == 1e-3).all()


WRONG = {
    "scope": ({"norm_scope": "al"}, r"unknown norm_scope 'al'; did you mean 'all'\?"),
    "depth": ({"stochastic_depth": 1.0}, r"stochastic_depth takes a number in \[0, 1\)"),
    "scale": ({"layer_scale": 0}, "layer_scale takes a positive number, got 0"),
    "stem": ({"stem": "7x7_stride2"}, r"unknown stem '7x7_stride2'.*\(choose from cifar, imagenet"),
    "norm option": (
        {"norm_options": {"epsilon": 1e-5}},
        r"unknown option of norm 'layer': 'epsilon'.*\(choose from eps, affine\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_raise_one_clear_line(case):
    options, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        meta_net("convnext_tiny", **options)
