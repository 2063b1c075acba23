import pytest
import torch
from torch import nn

from knorm.checkpoints import (
    convert_torchvision_fcn_state_dict,
    convert_torchvision_resnet_state_dict,
)
from knorm.models import create_model
from knorm.norms import LocalContextNorm

# 19 classes: Nasirigerdeh et al. 2024, Table 3, and its code; the others counted by hand from it.
COUNTS = {18: 13_546_579, 34: 23_654_739, 50: 32_955_987}
HEAD_512 = 3 * 3 * 512 * 512 + 512 * 19 + 19


def meta_net(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


def num_params(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("norm", ["batch", "group", "layer", "local_context"])
@pytest.mark.parametrize("depth", COUNTS)
def test_parameter_counts_are_the_published_ones(depth, norm):
    assert num_params(meta_net(f"fcn_resnet{depth}", norm=norm)) == COUNTS[depth]


def test_local_context_is_as_in_the_paper():
    net = meta_net("fcn_resnet18", norm="local_context")
    norms = [m for m in net.modules() if isinstance(m, LocalContextNorm)]
    assert {(m.channels_per_group, m.window_size) for m in norms} == {(2, (227, 227))}
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("norm", ["kernel", "none"])
def test_without_an_affine_norm_the_head_has_biases(norm):
    net = meta_net("fcn_resnet18", norm=norm)
    trunk = num_params(meta_net("resnet18", norm=norm, num_classes=0))
    assert num_params(net) == trunk + HEAD_512 + 512


def test_the_named_nets_are_the_generic_one():
    for depth in (18, 34, 50, 101, 152):
        named = meta_net(f"fcn_resnet{depth}", norm="group").state_dict()
        generic = meta_net("fcn", backbone=f"resnet{depth}", norm="group").state_dict()
        assert {k: v.shape for k, v in named.items()} == {k: v.shape for k, v in generic.items()}


@pytest.mark.parametrize("aux", [False, True])
def test_torchvision_weights_give_torchvision_logits(aux):
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    torch.manual_seed(0)
    theirs = segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=4, aux_loss=aux
    )
    ours = create_model("fcn_resnet50", num_classes=4, output_stride=8, aux=aux)
    ours.load_state_dict(convert_torchvision_fcn_state_dict(theirs.state_dict()))
    x = torch.randn(2, 3, 49, 70)
    for net in (theirs, ours):
        net.train()
        net.apply(lambda m: setattr(m, "p", 0.0) if isinstance(m, nn.Dropout) else None)
    with torch.no_grad():
        expected, out = theirs(x), ours(x)
        for key in expected:
            torch.testing.assert_close(out[key] if aux else out, expected[key])
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x)["out"])


def test_a_trunk_of_torchvision_loads():
    models = pytest.importorskip("torchvision.models")
    theirs = models.resnet18(num_classes=10)
    net = create_model("fcn_resnet18", output_stride=8)
    net.load_features(convert_torchvision_resnet_state_dict(theirs.state_dict()))
    assert torch.equal(net.features.layer4[1].body.unit2.conv.weight, theirs.layer4[1].conv2.weight)


@pytest.mark.parametrize("norm", ["kernel", "batch", "none"])
def test_a_finer_map_has_the_pixels_of_the_coarser_one_and_those_between(norm):
    torch.manual_seed(0)
    coarse = create_model("fcn_resnet18", norm=norm).eval()
    x = torch.randn(1, 3, 97, 70)
    for stride in (8, 16):
        fine = create_model("fcn_resnet18", norm=norm, output_stride=stride).eval()
        fine.load_state_dict(coarse.state_dict())
        step = 32 // stride
        with torch.no_grad():
            (few,), (many,) = coarse.features(x), fine.features(x)
        torch.testing.assert_close(many[..., ::step, ::step], few, rtol=1e-3, atol=1e-4)
