import pytest
import torch
from torch import nn

from knorm.models import create_model


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def test_mini_net_equals_its_formula():
    net, images = create_model("mini_net", num_classes=3).eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        x = net.features.stem(images)
        for block in (net.features.block1, net.features.block2):
            conv, norm = (m for m in block.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d))
            x = x + norm(conv(x)).relu()
        torch.testing.assert_close(net(images), net.fc(x.mean((2, 3))))


def test_recres11_adds_nine_branches_to_one_map():
    net, images = create_model("recres11", num_classes=3).eval(), torch.randn(1, 3, 2, 2)
    with torch.no_grad():
        x = net.features.stem(images)
        branches = [
            branch.norm(nn.functional.leaky_relu(branch.conv(x)))
            for branch in net.features.branches.branches
        ]
        assert len(branches) == 9
        assert x.shape == (1, 384, 4, 4)
        expected = net.fc((x + sum(branches)).mean((2, 3)))
        torch.testing.assert_close(net(images), expected)
