import pytest
import torch
from torch import nn

from knorm import create_model, list_models, swap_norm
from knorm.training.cost import count_parameters
from knorm.training.features import features_are_constant

INPUTS = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MOST = 2_000_000  # parameters of a small net
CONVMIXER = {"dim": 16, "depth": 2}


def small_nets():
    """The registered nets of up to two million parameters."""
    with torch.device("meta"):
        return [n for n in list_models() if count_parameters(create_model(n, stem="cifar")) < MOST]


@pytest.mark.parametrize("norm", ["batch", "group", "layer", "kernel"])
@pytest.mark.parametrize("name", small_nets())
def test_ordinary_nets_tell_images_apart(name, norm):
    net = create_model(name, norm=norm, num_classes=10, stem="cifar")
    last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.zeros_(last.weight)  # a head of zeros gives equal logits of features that differ
    assert not features_are_constant(net, INPUTS)


@pytest.mark.parametrize("activation", [None, "none"])
@pytest.mark.parametrize("conv", ["plain", "kan", "fastkan", "kaln", "kacn", "kagn", "wavkan"])
def test_what_a_kan_net_refuses_at_construction_is_what_is_found(conv, activation):
    options = {"conv": conv, "norm": "instance", "widths": [4, 4, 4, 4]}
    options |= {"activation": activation} if activation else {}
    try:
        create_model("kannet4", **options)
        refused = False
    except ValueError:
        refused = True
    net = create_model("kannet4", allow_constant=True, **options)
    assert features_are_constant(net, INPUTS) is refused


def test_a_norm_of_single_channels_before_pooling_is_found_also_after_a_swap():
    net = create_model("convmixer", norm="batch", **CONVMIXER)
    assert not features_are_constant(net, INPUTS)
    swapped, _ = swap_norm(net, "instance")
    assert features_are_constant(swapped, INPUTS)
    assert features_are_constant(create_model("convmixer", norm="instance", **CONVMIXER), INPUTS)
    assert not features_are_constant(create_model("resnet8", norm="instance"), INPUTS)


def test_the_net_and_the_random_state_stay_as_they_are():
    net = create_model("convmixer", norm="kernel", eval_stats="sampled", **CONVMIXER)
    net.features[0].eval()
    modes = [module.training for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    features_are_constant(net, INPUTS)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in net.modules()] == modes
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(module._forward_hooks for module in net.modules())


def test_a_net_without_a_linear_layer_or_float64_is_not_judged():
    assert not features_are_constant(nn.Conv2d(3, 4, 1), INPUTS)

    class Halves(nn.Module):
        def forward(self, x):
            return torch.ones(2, 1, dtype=torch.float16) @ x

    assert not features_are_constant(Halves(), INPUTS)
