"""Claims that hold for every net, whatever its family."""

import pytest
import torch

from knorm.choices import NORM_KINDS
from knorm.models import create_model
from tests.nets import SHALLOW

# A small case of each family: model, options, image size.
SMALL = {
    "resnet": ("resnet18", {}, 64),
    "preact_resnet": ("preact_resnet18", {}, 64),
    "kan_nets": ("kannet4", {"conv": "kagn", "widths": (8, 8, 8, 16)}, 16),
    "knresnet": ("knresnet18", {"stem": "cifar"}, 16),
    "knresnet13": ("knresnet13", {"width": 0.25}, 32),
    "resnet8": ("resnet8", {"width": 0.25}, 32),
    "densenet": ("densenet20x16", {}, 16),
    "wide_resnet": ("wide_resnet16_4", {"width": 0.25}, 16),
    "convnext": ("convnext_tiny", {"norm_scope": "all"}, 64),
    "tricks": ("tricks_net", {"residual": True}, 32),
    "resnext": ("resnext10", {"stem": "cifar", "identity_skip": False}, 16),
    "vgg": ("vgg11", {}, 32),
    "vgglike": ("vgglike", {"width": 8}, 32),
    "densenetlike": ("densenetlike", {"growth": 4, "layers": 2, "chunks": 1}, 16),
    "densenet_bc": ("densenet121", {"stem": "cifar"}, 16),
    "convmixer": ("convmixer", {"dim": 8, "depth": 2}, 16),
    "mini_net": ("mini_net", {}, 16),
    "recres11": ("recres11", {}, 4),
    "resnetlike": ("resnetlike", {"width": 8}, 16),
    "resnextlike": ("resnextlike", {"width": 8, "chunks": 2, "cardinality": 4}, 16),
}
INDEPENDENT = ("group", "layer", "instance", "kernel", "none")


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def small_net(family, **options):
    name, family_options, size = SMALL[family]
    net = create_model(name, num_classes=10, **family_options, **options)
    return net, torch.randn(2, 3, size, size)


@pytest.mark.parametrize("norm", NORM_KINDS)
@pytest.mark.parametrize("family", SMALL)
def test_every_parameter_gets_a_finite_gradient_in_training(family, norm):
    net, x = small_net(family, norm=norm)
    out = net(x)
    assert out.shape == (2, 10)
    out.logsumexp(1).sum().backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    assert [name for name, g in gradients.items() if g is None or not g.isfinite().all()] == []


@pytest.mark.parametrize("norm", INDEPENDENT)
@pytest.mark.parametrize("family", SMALL)
def test_a_sample_does_not_depend_on_the_others_bit_for_bit(family, norm):
    net, x = small_net(family, norm=norm)
    other = torch.stack([x[0], 100 * torch.rand_like(x[1])])
    with torch.inference_mode():
        first, second = net.eval()(x), net(other)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        *[(name, "layer") for name in SHALLOW],
        *[(name, norm) for name in ("knresnet34", "knresnet50") for norm in NORM_KINDS],
    ],
)
def test_forward_is_the_head_of_the_features(name, norm):
    with torch.device("meta"):
        net = create_model(name, norm=norm, in_chans=1, num_classes=5, activation="silu").eval()
        features = net.forward_features(torch.empty(2, 1, 160, 160))
    assert features.shape[:2] == (2, net.num_features)
    assert net.forward_head(features).shape == (2, net.num_classes) == (2, 5)


@pytest.mark.parametrize("family", SMALL)
def test_evaluation_repeats_itself_unless_dropout_is_sampled(family):
    for stats, repeats in (("expected", True), ("plain", True), ("sampled", False)):
        net, x = small_net(family, norm="kernel", eval_stats=stats)
        with torch.inference_mode():
            assert torch.equal(net.eval()(x), net(x)) is repeats


@pytest.mark.parametrize("family", SMALL)
def test_no_classes_give_the_pooled_features(family):
    net, x = small_net(family)
    name, options, _ = SMALL[family]
    bare = create_model(name, num_classes=0, **options)
    bare.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("fc.")})
    with torch.inference_mode():
        torch.testing.assert_close(net.fc(bare.eval()(x)), net.eval()(x))


@pytest.mark.parametrize(
    ("name", "stem", "norm"),
    [
        *[(name, "imagenet", "none") for name in SHALLOW],
        *[(name, "cifar", "kernel") for name, _, _ in SMALL.values()],
    ],
)
def test_feature_info_tells_what_comes_out_where(name, stem, norm):
    with torch.device("meta"):
        net = create_model(name, norm=norm, stem=stem).eval()
        x, seen = torch.empty(1, 3, 128, 128), {}
        for child, layer in net.features.named_children():
            x = seen[f"features.{child}"] = layer(x)
    assert len(net.feature_info) >= 2
    assert seen[net.feature_info[-1]["module"]] is x
    assert net.feature_info[-1]["num_chs"] == net.num_features
    before = 1
    for level in net.feature_info:
        _, channels, height, _ = seen[level["module"]].shape
        assert channels == level["num_chs"]
        assert abs(height - 128 / level["reduction"]) <= 2  # paddings
        assert level["reduction"] >= before
        before = level["reduction"]


@pytest.mark.parametrize("name", [name for name, _, _ in SMALL.values()])
def test_nets_print(name):
    with torch.device("meta"):
        assert "features" in repr(create_model(name, norm="kernel"))
