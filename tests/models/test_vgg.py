import pytest
import torch
from torch import nn

from knorm.models import create_model


def layers(stage):
    return [type(m).__name__ for m in stage.modules() if not [*m.children()]]


@pytest.mark.parametrize(
    ("name", "depths"),
    [
        ("vgg11", [1, 1, 2, 2, 2]),
        ("vgg13", [2, 2, 2, 2, 2]),
        ("vgg16", [2, 2, 3, 3, 3]),
        ("vgg19", [2, 2, 4, 4, 4]),
    ],
)
def test_features_are_those_of_torchvision(name, depths):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    ours = create_model(name, num_classes=2).eval()
    theirs = models.get_model(f"{name}_bn", num_classes=2).eval()
    tensors = [v for k, v in theirs.state_dict().items() if k.startswith("features.")]
    names = [k for k in ours.state_dict() if k.startswith("features.")]
    ours.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.forward_features(x), theirs.features(x))
    counts = [sum(isinstance(m, nn.Conv2d) for m in stage.modules()) for stage in ours.features]
    assert [counts[0] + counts[1], *counts[2:]] == depths


def test_blocks_of_vgglike_drop_between_convolutions_alone():
    net = create_model("vgglike", num_classes=10, layers=3)
    unit = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert layers(net.features.stem) == unit
    assert net.features.stem.unit.conv.kernel_size == (5, 5)
    block = [*unit, "Dropout2d", *unit, "Dropout2d", *unit, "MaxPool2d"]
    assert [layers(block) for block in list(net.features)[1:]] == [block] * 3
    assert layers(net.hidden) == ["Linear", "Dropout", "ReLU"]
    assert {m.p for m in net.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)} == {0.2}


@pytest.mark.parametrize(("blocks", "side"), [(1, 16), (3, 4), (5, 1)])
def test_vgglike_flattens_the_map_of_cifar_images_as_it_is(blocks, side):
    net = create_model("vgglike", width=2, blocks=blocks, num_classes=3).eval()
    features = net.forward_features(torch.randn(1, 3, 32, 32))
    assert features.shape[2:] == (side, side)
    assert torch.equal(net.pool(features), features)
    assert net.hidden.linear1.in_features == 2 * 2**blocks * side**2
