import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from knorm.kan import FORMS, KANConv2d
from knorm.models import create_model
from knorm.models.kan_nets import CONVS

# Trainable parameters of every configuration of the source's two studies, of its own code.
TABLE = (Path(__file__).parent.parent / "golden" / "zoo_params.csv").read_text().splitlines()
ROWS = [
    row
    for row in csv.DictReader(line for line in TABLE if not line.startswith("#"))
    if row["origin"] == "torch-conv-kan"
]
NAMES = {
    "SimpleConv": "plain",
    "SimpleKANConv": "kan",
    "SimpleFastKANConv": "fastkan",
    "SimpleKALNConv": "kaln",
    "SimpleKACNConv": "kacn",
    "SimpleKAGNConv": "kagn",
    "SimpleWavKANConv": "wavkan",
}
NORMS = {"BatchNorm2d": "batch", "InstanceNorm2d": "instance"}


def options_of(row):
    """Depth and options of a row of the published table."""
    config = dict(word.split("=") for word in row["config"].split())
    assert config.pop("head") == "linear"
    depth = int(config.pop("layers"))
    options = {
        "conv": NAMES[row["model"]],
        "in_chans": int(row["in_channels"]),
        "num_classes": int(row["num_classes"]),
        "widths": [int(width) for width in config.pop("widths").split("-")],
        "groups": int(config.pop("groups")),
        "norm": NORMS[config.pop("norm")],
        "norm_options": {"affine": config.pop("affine") == "True"},
        "allow_constant": True,
    }
    names = {"grid": "grid_size"}
    options["basis_options"] = {names.get(name, name): int(n) for name, n in config.items()}
    return depth, options


def meta_net(depth, **options):
    with torch.device("meta"):
        return create_model(f"kannet{depth}", **options)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['model']}-{row['config']}")
@pytest.mark.parametrize("published", [False, True])
def test_parameter_counts_are_the_published_ones(row, published):
    depth, options = options_of(row)
    net = meta_net(depth, published=published, **options)
    counted = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert counted == int(row["expected_trainable_params"])


def test_every_published_row_is_there():
    assert len(ROWS) == 141


@pytest.mark.parametrize("depth", [4, 8])
@pytest.mark.parametrize("study", ["prelim", "updated"])
def test_a_study_has_its_widths(depth, study):
    rows = [options_of(row) for row in ROWS if row["model"] == "SimpleKANConv"]
    known = {tuple(options["widths"]) for found, options in rows if found == depth}
    net = meta_net(depth, widths=study, conv="kan")
    convs = [m for m in net.features.modules() if isinstance(m, KANConv2d)]
    assert tuple(conv.out_channels for conv in convs) in known
    assert (study == "updated") == (
        [c.out_channels for c in convs] == [c.out_channels for c in kan_convs(meta_net(depth))]
    )


def kan_convs(net):
    return [m for m in net.modules() if isinstance(m, KANConv2d)]


@pytest.mark.parametrize(("depth", "sizes"), [(4, [32, 16, 8, 8]), (8, [32, 16, 8, 8, 8, 4, 4, 4])])
def test_maps_have_the_published_sizes(depth, sizes):
    net, x, found = meta_net(depth, conv="kaln"), torch.empty(2, 3, 32, 32, device="meta"), []
    for layer in net.features:
        x = layer(x)
        found.append(x.shape[-1])
    assert found == sizes


def test_dropout_stands_from_the_second_layer_on_and_before_the_classifier():
    for conv in CONVS:
        net = meta_net(4, conv=conv, drop=0.2, head_drop=0.3)
        drops = [m.p for m in net.features.modules() if isinstance(m, nn.Dropout2d)]
        assert drops == [0, 0.2, 0.2, 0.2]
        assert net.head_drop == 0.3
    published = meta_net(8, conv="kacn", drop=0.2, published=True)
    assert {conv.drop.p for conv in kan_convs(published)} == {0.2}


def test_published_layers_have_the_published_defects_unless_told_otherwise():
    assert kan_convs(meta_net(4, conv="kaln"))[0].scaling == "tanh"
    assert kan_convs(meta_net(4, conv="kaln", published=True))[0].scaling == "batch"
    told = meta_net(4, conv="kaln", published=True, scaling="none")
    assert kan_convs(told)[0].scaling == "none"
    options = {"conv": "kacn", "published": True, "basis_options": {"degree": 5}}
    basis = kan_convs(meta_net(4, **options))[0].basis.basis
    assert (basis.form, basis.degree) == ("acos", 5)


@pytest.mark.parametrize("conv", FORMS)
def test_an_activation_takes_the_place_of_the_convolutions_own(conv):
    acts = {type(layer.act) for layer in kan_convs(meta_net(4, conv=conv, activation="mish"))}
    assert acts == {nn.Mish}


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("norm", ["batch", "kernel", "layer"])
def test_every_parameter_gets_a_finite_gradient(conv, norm):
    torch.manual_seed(0)
    net = create_model("kannet4", conv=conv, norm=norm, widths=[8, 8, 8, 8], groups=2)
    x = torch.randn(2, 3, 16, 16)
    net(x).logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


PER_INSTANCE = [
    {"norm": "instance"},
    {"norm": "instance", "norm_options": {"affine": False}},
    {"norm": "group", "norm_options": {"groups": 8}},
    {"norm": "local_context", "norm_options": {"channels_per_group": 1}},
]


@pytest.mark.parametrize("options", PER_INSTANCE)
@pytest.mark.parametrize(
    "conv", [{"conv": "kacn"}, {"conv": "wavkan"}, {"conv": "plain", "activation": "none"}]
)
def test_d2_a_norm_of_each_channel_right_before_pooling_is_refused(conv, options):
    given = {**conv, **options, "widths": [8, 8, 8, 8]}
    with pytest.raises(ValueError, match=r"right before global pooling .* cannot learn"):
        create_model("kannet4", **given)
    torch.manual_seed(0)
    net = create_model("kannet4", allow_constant=True, **given)
    features = net.forward_head(net.forward_features(torch.randn(4, 3, 16, 16)), pre_logits=True)
    kept = features[:, features.abs().amin(0) > 1e-4]  # channels that dropout left in all images
    torch.testing.assert_close(kept, kept[:1].expand_as(kept), atol=1e-4, rtol=0)


@pytest.mark.parametrize("conv", CONVS)
def test_d2_other_nets_with_that_norm_are_built(conv):
    activation = "own" if FORMS.get(conv) and conv not in ("kacn", "wavkan") else "relu"
    net = create_model("kannet4", conv=conv, norm="instance", activation=activation)
    assert net.num_features == 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conv": "fastkann"}, "unknown conv 'fastkann'; did you mean 'fastkan'"),
        ({"widths": "preliminary"}, "did you mean 'prelim'"),
        ({"widths": [1, 2, 3]}, "widths takes 4 numbers or a name"),
        ({"groups": 3}, "groups=3 does not divide in_channels=32"),
        ({"basis_options": {"degre": 3}, "conv": "kacn"}, "did you mean 'degree'"),
        ({"basis_options": {"degree": 99}, "conv": "kacn"}, "degree takes a whole number from 1"),
        ({"basis_options": {"degree": 3}, "conv": "plain"}, "conv 'plain' has no basis"),
        ({"drop": 1}, "drop takes a number in"),
        ({"activation": "reluu"}, "did you mean 'relu'"),
        ({"published": True, "init": "publshed"}, "did you mean 'published'"),
    ],
)
def test_a_mistake_is_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        create_model("kannet4", **options)
    assert "\n" not in str(error.value)
