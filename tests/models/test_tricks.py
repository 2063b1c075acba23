import pytest
import torch
from torch import nn

from knorm.kernel import KNConv2d
from knorm.models import create_model
from knorm.models.common import ACTIVATIONS

SMALL = {"num_classes": 10, "conv_channels": [4, 8], "dense": [6]}


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def layers(block):
    """The kinds of layers in the order in which they run."""
    return [type(m).__name__ for m in block.modules() if not [*m.children()]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["Conv2d", "ReLU", "MaxPool2d"]),
        ({"norm": "batch"}, ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]),
        (
            {"norm": "batch", "norm_after_act": True},
            ["Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"],
        ),
        ({"drop": 0.1}, ["Conv2d", "ReLU", "Dropout2d", "MaxPool2d"]),
        ({"norm": "kernel"}, ["KNConv2d", "ReLU", "MaxPool2d"]),
    ],
)
def test_a_block_is_laid_out_as_published(options, expected):
    net = create_model("tricks_net", **options)
    assert [layers(block) for name, block in net.features.named_children() if name != "norm"] == [
        expected
    ] * 3


def test_all_convolutions_have_biases_and_hidden_layers_drop_before_they_activate():
    net = create_model("tricks_net", norm="batch", residual=True, dense=[8, 4], dense_drop=0.5)
    assert all(m.bias is not None for m in net.modules() if isinstance(m, nn.Conv2d))
    assert layers(net.hidden) == ["Linear", "Dropout", "ReLU"] * 2


@pytest.mark.parametrize("after", [False, True])
def test_the_residual_net_equals_its_formula(after):
    net = create_model("tricks_net", norm="batch", residual=True, norm_after_act=after, **SMALL)
    x = images = torch.randn(3, 3, 16, 16)

    def norm(x):
        return (x - x.mean((0, 2, 3), keepdim=True)) / (
            x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5
        ).sqrt()

    for block in list(net.features.children())[:2]:
        conv1, conv2, conv3 = (m for m in block.modules() if isinstance(m, nn.Conv2d))
        if after:
            x = norm((conv2(norm(conv1(x).relu())) + conv3(x)).relu())
        else:
            x = (norm(conv2(norm(conv1(x)).relu())) + conv3(x)).relu()
        x = nn.functional.max_pool2d(x, 2)
    expected = net.fc(net.hidden.linear1(x.flatten(1)).relu())
    torch.testing.assert_close(net.train()(images), expected)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_step_with_any_activation_lowers_the_loss_of_its_batch(activation, residual):
    net = create_model(
        "tricks_net", norm="batch", activation=activation, residual=residual, **SMALL
    )
    x, target = torch.randn(8, 3, 16, 16), torch.arange(8)
    losses = []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(2):
        loss = nn.functional.cross_entropy(net(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]


def test_the_shortcut_of_a_kernel_normalized_net_is_a_plain_convolution():
    net = create_model("tricks_net", norm="kernel", residual=True)
    assert sum(isinstance(m, KNConv2d) for m in net.modules()) == 6
    assert type(net.features.block2.unit.shortcut) is nn.Conv2d


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conv_channels": []}, "conv_channels takes a list of whole numbers"),
        ({"conv_channels": 32}, "conv_channels takes a list of whole numbers, got 32"),
        ({"dense": [64, 0]}, "dense takes a whole number, at least 1, got 0"),
        ({"residual": "yes"}, "residual takes True or False, got 'yes'"),
        ({"drop": 1.0}, "drop takes a number in"),
        ({"norm_after_act": True}, "norm_after_act moves norms; norm 'none' has none to move"),
        ({"norm_after_act": True, "norm": "kernel"}, "norm 'kernel' has none to move"),
    ],
)
def test_mistakes_raise_one_clear_line(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("tricks_net", **options)
