"""Claims that hold for every net that labels pixels."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from knorm.choices import NORM_KINDS
from knorm.kernel import KernelNorm2d, KNConv2d
from knorm.models import create_model, list_models, model_options
from knorm.models.common import Level, sequence
from knorm.models.segmenter import FeatureMaps, init_head

NAMES = list_models(task="segmentation")

# A small case of each family: model, options.
SMALL = {
    "fcn": ("fcn", {"backbone": "resnet8", "head_channels": 32}),
    "fcn_resnet": ("fcn_resnet18", {}),
    "fcn_knresnet": ("fcn_knresnet18", {}),
    "deeplab": ("deeplabv3plus", {"backbone": "resnet18", "head_channels": 32}),
}
INDEPENDENT = ("group", "layer", "instance", "kernel", "local_context", "none")
COMMON = ("num_classes", "in_chans", "norm", "stem", "activation", "dropout_p", "eval_stats", "aux")


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def small_net(family, **options):
    name, family_options = SMALL[family]
    return create_model(name, num_classes=5, **family_options, **options)


def meta_net(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(33, 65), (70, 41), (96, 64)])
def test_the_output_has_the_inputs_size_whatever_it_is(name, size):
    assert set(COMMON) <= set(model_options(name))
    net = meta_net(name, num_classes=7, in_chans=4).eval()
    assert net(torch.empty(2, 4, *size, device="meta")).shape == (2, 7, *size)
    assert "stem" in repr(net)


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "fcn_resnet152"])
def test_output_stride_bounds_the_stride_of_the_last_map(name, stride):
    net = meta_net(name, output_stride=stride).eval()
    last = net.features(torch.empty(1, 3, 97, 130, device="meta"))[-1]
    assert last.shape[2:] == (-(-97 // stride), -(-130 // stride))


@pytest.mark.parametrize("name", NAMES)
def test_an_auxiliary_head_speaks_in_training_alone(name):
    net = meta_net(name, num_classes=4, aux=True)
    x = torch.empty(2, 3, 65, 70, device="meta")
    out = net(x)
    assert {key: value.shape for key, value in out.items()} == {
        "out": (2, 4, 65, 70),
        "aux": (2, 4, 65, 70),
    }
    assert net.eval()(x).shape == (2, 4, 65, 70)
    assert isinstance(meta_net(name, num_classes=4)(x), torch.Tensor)


@pytest.mark.parametrize("family", SMALL)
def test_the_auxiliary_head_reads_the_level_before_the_last(family):
    net = small_net(family, aux=True)
    maps = net.features(torch.randn(1, 3, 64, 64))
    first = next(m for m in net.aux_classifier.modules() if isinstance(m, nn.Conv2d))
    assert maps[-2].shape[1] == first.in_channels
    assert first.out_channels == first.in_channels // 4
    assert maps[-2].shape[-1] >= maps[-1].shape[-1]
    with_aux, without = (list(m.state_dict()) for m in (net, small_net(family)))
    assert [key for key in with_aux if not key.startswith("aux_classifier.")] == without


@pytest.mark.parametrize("norm", NORM_KINDS)
@pytest.mark.parametrize("family", SMALL)
def test_every_parameter_gets_a_finite_gradient_and_a_step_lowers_the_loss(family, norm):
    net = small_net(family, norm=norm, aux=True, dropout_p=0.0, final_dropout_p=0.0)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x, labels = torch.randn(2, 3, 64, 70), torch.randint(5, (2, 64, 70))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)

    def loss():
        return sum(F.cross_entropy(logits, labels) for logits in net(x).values())

    before = loss()
    before.backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    assert [name for name, g in gradients.items() if g is None or not g.isfinite().all()] == []
    optimizer.step()
    with torch.no_grad():
        assert loss() < before


@pytest.mark.parametrize("norm", INDEPENDENT)
@pytest.mark.parametrize("family", SMALL)
def test_an_image_does_not_depend_on_the_others_bit_for_bit(family, norm):
    net, x = small_net(family, norm=norm).eval(), torch.randn(2, 3, 65, 64)
    other = torch.stack([x[0], 100 * torch.rand_like(x[1])])
    with torch.inference_mode():
        first, second = net(x), net(other)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


@pytest.mark.parametrize("family", SMALL)
def test_options_reach_every_kernel_layer(family):
    options = {"norm": "kernel", "eval_stats": "plain", "dropout_p": 0.02, "final_dropout_p": 0.3}
    net = small_net(family, aux=True, norm_options={"eps": 1e-3}, **options)
    convs = [m for m in net.modules() if isinstance(m, KNConv2d)]
    norms = [m for m in net.modules() if isinstance(m, KernelNorm2d)]
    assert {m.dropout_p for m in convs} == {0.02}
    assert {m.dropout_p for m in norms} == {0.3}
    assert {(m.eval_stats, m.eps) for m in convs + norms} == {("plain", 1e-3)}
    bare = [m for m in net.modules() if isinstance(m, nn.Conv2d) and not isinstance(m, KNConv2d)]
    assert [conv.out_channels for conv in bare] == [5, 5]


@pytest.mark.parametrize("family", SMALL)
def test_the_first_logits_are_near_zero(family):
    net = small_net(family).eval()
    with torch.no_grad():
        assert net(torch.randn(2, 3, 64, 64)).std() < 0.5


def test_feature_maps_are_those_of_the_levels_in_their_order():
    layers = sequence(a=nn.Conv2d(3, 4, 1), b=nn.MaxPool2d(2), c=nn.Conv2d(4, 5, 1))
    net = FeatureMaps(layers, [Level("features.a", 4, 1), Level("features.c", 5, 2)])
    x = torch.randn(1, 3, 8, 8)
    first, last = net(x)
    assert torch.equal(first, layers.a(x))
    assert torch.equal(last, layers(x))
    assert net.state_dict().keys() == layers.state_dict().keys()


def test_only_the_last_convolution_of_a_head_starts_small():
    head = sequence(unit=nn.Conv2d(64, 128, 3), act=nn.ReLU(), conv=nn.Conv2d(128, 19, 1))
    init_head(head)
    assert head.unit.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.05)
    assert head.conv.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not head.conv.bias.any()


def test_features_take_the_weights_of_a_classification_net():
    source = create_model("resnet8", num_classes=3, norm="group")
    net = small_net("fcn", norm="group")
    net.load_features(source.state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(net.features(x)[-1], source.forward_features(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("features.stem.unit.bias"), "lacks features.stem.unit.bias"),
        (
            lambda tensors: tensors.update({"features.more": torch.zeros(1)}),
            "has features.more, which the net has not",
        ),
        (
            lambda tensors: tensors.update({"features.stem.unit.bias": torch.zeros(3)}),
            r"features.stem.unit.bias is \(3,\) in the state dict, \(64,\) in the net",
        ),
    ],
)
def test_weights_of_another_net_are_one_line(change, message):
    tensors = create_model("resnet8", num_classes=3, norm="kernel").state_dict()
    change(tensors)
    with pytest.raises(ValueError, match=message):
        small_net("fcn", norm="kernel").load_features(tensors)


WRONG = {
    "name": ({"name": "fcn_resnet19"}, "unknown model 'fcn_resnet19'; did you mean 'fcn_resnet1"),
    "option": ({"auxx": True}, "fcn_knresnet18 takes no option 'auxx'; did you mean 'aux'"),
    "aux": ({"aux": 0.4}, "aux takes True or False, got 0.4"),
    "aux of fcn": ({"name": "fcn_resnet18", "aux": "yes"}, "aux takes True or False, got 'yes'"),
    "num_classes": ({"num_classes": 0}, "num_classes takes a whole number, at least 1, got 0"),
    "num_classes of fcn": ({"name": "fcn", "num_classes": 0}, "num_classes takes a whole number"),
    "norm": ({"name": "fcn_resnet18", "norm": "btach"}, "unknown norm 'btach'; did you mean 'b"),
    "output_stride": ({"output_stride": 4}, "output_stride takes 8, 16 or 32, got 4"),
    "output_stride of fcn": (
        {"name": "fcn_resnet18", "output_stride": 64},
        "output_stride takes 8, 16 or 32, got 64",
    ),
    "head_channels": ({"name": "fcn", "head_channels": 0}, "head_channels takes a whole number"),
    "groups": (
        {"name": "fcn_resnet18", "norm": "group", "norm_options": {"groups": 48}},
        "groups=48 does not divide 64 channels",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_raise_one_clear_line(case):
    options, message = WRONG[case]
    with torch.device("meta"), pytest.raises(ValueError, match=message) as raised:
        create_model(**{"name": "fcn_knresnet18"} | options)
    assert "\n" not in str(raised.value)
