import pytest
import torch
from torch import nn

from knorm.models import create_model


def convs(name):
    with torch.device("meta"):
        net = create_model(name, stem="cifar")
    block = net.features.layer2[0].body
    return [(m.in_channels, m.out_channels, m.groups, m.stride[0]) for m in block.modules()
            if isinstance(m, nn.Conv2d)]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnext18", [(64, 256, 1, 2), (256, 128, 32, 1)]),
        ("resnext50", [(256, 256, 1, 1), (256, 256, 32, 2), (256, 512, 1, 1)]),
        ("widerresnet14", [(128, 256, 1, 2), (256, 256, 1, 1)]),
    ],
)
def test_blocks_are_laid_out_as_published(name, expected):
    assert convs(name) == expected
