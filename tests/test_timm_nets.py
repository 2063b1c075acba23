"""What timm asks of every net of its own, asked of ours, with weights and gradients.

What needs no numbers (configs, shapes) is asked in test_timm_bridge.py. TorchScript is left out:
torch has given it up, and kernel layers pass keyword arguments on, which it cannot; torch.export
and ONNX take its place (tests/kernel/test_layers.py, tests/classification/test_export.py).
"""

import math

import pytest
import torch

timm = pytest.importorskip("timm")
feature_extraction = pytest.importorskip("torchvision.models.feature_extraction")

from timm.models import get_notrace_functions, get_notrace_modules  # noqa: E402

from knorm.timm_bridge import SHAPES, timm_name  # noqa: E402
from tests.nets import SHALLOW  # noqa: E402

NAMES = [timm_name(name) for name in SHAPES if name in SHALLOW]
NUM_CLASSES, SIZE = 42, 64


@pytest.fixture(scope="module", params=NAMES)
def net(request):
    """Each net in turn, made once for all that is asked of it."""
    torch.manual_seed(0)
    return timm.create_model(request.param, num_classes=NUM_CLASSES)


def images(net, count):
    """Random ones of the smallest size that the net takes, or of 64 pixels."""
    cfg = net.pretrained_cfg
    _, side, _ = cfg.get("min_input_size") or (3, min(SIZE, cfg["input_size"][1]), None)
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def check_gradients(net, out):
    """All parameters get one, whole and finite."""
    assert out.shape == (2, NUM_CLASSES)
    out.mean().backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    net.zero_grad()
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def traced(net):
    """The net as a graph, its last node given back; timm names what is not to be looked into."""
    options = {
        "leaf_modules": get_notrace_modules(),
        "autowrap_functions": get_notrace_functions(),
        "param_shapes_constant": True,
    }
    _, nodes = feature_extraction.get_graph_node_names(
        net, tracer_kwargs=options, suppress_diff_warning=True
    )
    return feature_extraction.create_feature_extractor(
        net, [nodes[-1]], tracer_kwargs=options, suppress_diff_warning=True
    )


def test_features_and_logits_are_finite_and_checkpointing_changes_none(net):
    x = images(net, 1)
    with torch.no_grad():
        out = net.eval()(x)
        last, maps = net.forward_intermediates(x)
        assert torch.equal(last, net.forward_features(x))
        assert out.shape == (1, NUM_CLASSES)
        assert out.isfinite().all()
        info = net.feature_info
        assert len(maps) == len(info) >= 3
        for found, level in zip(maps, info, strict=True):
            assert found.shape[:2] == (1, level["num_chs"])
            assert max(found.shape[2:]) <= math.ceil(x.shape[2] / level["reduction"]) + 1
            assert found.isfinite().all()
        net.set_grad_checkpointing()
        torch.testing.assert_close(net(x), out)
        torch.testing.assert_close(net.forward_intermediates(x)[0], last)
    net.set_grad_checkpointing(False)


def test_every_parameter_gets_a_gradient(net):
    check_gradients(net, net.train()(images(net, 2)))


def test_the_graph_of_fx_gives_the_same_and_learns(net):
    graph, x = traced(net.eval()), images(net, 2)
    with torch.inference_mode():
        (out,) = graph(x).values()
        assert torch.equal(out, net(x))
    (out,) = graph.train()(x).values()
    check_gradients(graph, out)


@pytest.mark.parametrize("num_classes", [5, 0])
def test_pretrained_weights_load_with_other_channels_and_classes(net, num_classes):
    overlay = {"state_dict": net.state_dict()}
    options = {"in_chans": 1, "num_classes": num_classes, "pretrained_cfg_overlay": overlay}
    other = timm.create_model(net.pretrained_cfg["architecture"], pretrained=True, **options)
    first = f"{net.pretrained_cfg['first_conv']}.weight"
    theirs, ours = net.state_dict(), other.state_dict()
    torch.testing.assert_close(ours.pop(first), theirs[first].sum(1, keepdim=True))
    kept = [name for name in ours if not name.startswith("fc.")]
    assert all(torch.equal(ours[name], theirs[name]) for name in kept)
    assert other.num_classes == num_classes


def test_pretrained_weights_load_into_the_features_alone(net):
    overlay = {"state_dict": net.state_dict()}
    name = net.pretrained_cfg["architecture"]
    features = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, features_only=True
    )
    x = images(net, 1)
    with torch.no_grad():
        _, maps = net.eval().forward_intermediates(x)
        assert all(map(torch.equal, features.eval()(x), maps))
