"""Nets of timm and torchvision, one of each family: they are swapped to every kind and learn."""

import importlib

import pytest
import torch

import knorm
from knorm.swap.forms import find_norms

KINDS = ("group", "layer", "instance", "kernel", "none")
TIMM = {  # each to this kind and to "kernel"; all to all is the business of the census
    "group": (
        "resnet10t",
        "seresnext26t_32x4d",
        "res2net50_14w_8s",
        "repvgg_a0",
        "mixnet_s",
        "hrnet_w18_small",
    ),
    "layer": (
        "resnet14t",
        "skresnet18",
        "regnety_002",
        "tf_efficientnet_b0",
        "dla46_c",
        "resnetv2_50x1_bit",
    ),
    "instance": (
        "ecaresnet26t",
        "resnest14d",
        "mobilenetv3_small_050",
        "ghostnet_050",
        "fastvit_t8",
        "repvit_m0_9",
    ),
    "none": (
        "rexnetr_200",
        "mobilenetv4_conv_small",
        "cs3darknet_focus_s",
        "ese_vovnet19b_dw",
        "convnext_atto",
        "resnetv2_50",
    ),
    "kernel": (
        "mobileone_s0",
        "tinynet_e",
        "densenet121",
        "mobilevit_xxs",
        "efficientvit_b0",
    ),
}
CHECKED_ALONE = ("resnet10t", "mobilenetv3_small_050", "tf_efficientnet_b0", "resnest14d")


def first(out):
    """The main output."""
    if isinstance(out, dict):
        return out["out"]
    return out[0] if isinstance(out, tuple | list) else out


def assert_learns(net, x):
    """Every norm is gone that sees the batch, and the loss has finite gradients."""
    assert not any(norm.form.sees_batch for norm in find_norms(net))
    first(net.train()(x)).square().mean().backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for kind, names in TIMM.items() for name in names]
)
def test_a_net_of_timm_is_swapped_and_learns(name, kind):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, num_classes=5)
    for wanted in {kind, "kernel"}:
        net, report = knorm.swap_norm(model, wanted)
        assert not all(row.stays for row in report.rows)
        assert_learns(net, torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CHECKED_ALONE)
def test_no_sample_of_a_net_of_timm_sees_another(name, kind):
    timm = pytest.importorskip("timm")
    net, _ = knorm.swap_norm(timm.create_model(name, num_classes=5).eval(), kind)
    x = torch.randn(2, 3, 48, 48)
    other = torch.stack([x[0], torch.randn(3, 48, 48)])
    assert torch.equal(net(x)[0], net(other)[0])


@pytest.mark.parametrize("kind", ["batch", "group", "layer", "instance", "local_context", "kernel"])
@pytest.mark.parametrize("name", ["resnet8", "preact_resnet18", "densenet20x16", "convnext_tiny"])
def test_a_net_of_ours_that_is_swapped_to_its_own_kind_gives_the_same_bits(name, kind):
    everywhere = {"norm_scope": "all"} if (name, kind) == ("convnext_tiny", "kernel") else {}
    net = knorm.create_model(name, num_classes=5, norm=kind, **everywhere).eval()
    same, report = knorm.swap_norm(net, kind)
    x = torch.randn(2, 3, 64, 64)
    assert all(row.stays for row in report.rows)
    assert torch.equal(same(x), net(x))


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "densenet121", "dla46_c"])
def test_a_net_of_timm_that_is_swapped_to_its_own_kind_gives_the_same_bits(name):
    timm = pytest.importorskip("timm")
    net = timm.create_model(name, num_classes=5)
    x = torch.randn(4, 3, 64, 64)
    net(x)
    same, _ = knorm.swap_norm(net.eval(), "batch")
    assert torch.equal(same(x), net(x))


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "tf_efficientnet_b0"])
def test_folding_a_net_of_timm_keeps_its_outputs(name):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, num_classes=5).double()
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.momentum = 1.0
    x = torch.randn(4, 3, 64, 64, dtype=torch.double)
    with torch.no_grad():
        model.train()(x)
        expected = model.eval()(x)
        net, report = knorm.swap_norm(model, "none", fold=True)
        torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9)
    assert all("folded into" in row.note for row in report.rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0"])
def test_a_classifier_of_torchvision_is_swapped_and_learns(name, kind):
    models = pytest.importorskip("torchvision.models")
    net, _ = knorm.swap_norm(models.get_model(name, num_classes=5), kind)
    assert_learns(net, torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_a_segmentation_net_of_torchvision_is_swapped_and_learns(name):
    models = pytest.importorskip("torchvision.models")
    model = models.get_model(name, weights_backbone=None, num_classes=5)
    for kind in ("kernel", "instance"):
        net, _ = knorm.swap_norm(model, kind)
        assert_learns(net, torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize("name", ["resnet10t", "efficientnet_b0", "regnety_002", "knorm_resnet18"])
def test_a_new_classifier_leaves_the_last_features_normalized(name):
    timm = pytest.importorskip("timm")
    importlib.import_module("knorm.timm_bridge")
    net, _ = knorm.swap_norm(timm.create_model(name, num_classes=5).eval(), "kernel")
    x = torch.randn(1, 3, 64, 64)
    before = net.forward_head(net.forward_features(x), pre_logits=True)
    net.reset_classifier(7)
    assert torch.equal(net.forward_head(net.forward_features(x), pre_logits=True), before)
    assert net(x).shape == (1, 7)
