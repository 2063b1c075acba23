import pytest
import torch
from torch import nn

from knorm.choices import NORM_KINDS
from knorm.kan import FORMS, KANConv1d, KANConv2d, KANConv3d
from tests.kan.golden import LAYERS, golden_input, golden_layer

CLASSES = {1: KANConv1d, 2: KANConv2d, 3: KANConv3d}


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def count(layer):
    return sum(p.numel() for p in layer.parameters() if p.requires_grad)


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: f"{case['layer']}-{case['norm']}")
def test_outputs_and_counts_are_those_of_the_published_layers(case):
    layer = golden_layer(case)
    expected = torch.tensor(case["output"], dtype=torch.float64).view(case["shape"])
    torch.testing.assert_close(layer(golden_input()), expected, rtol=0, atol=2e-6)
    assert count(layer) == case["trainable_params"]


COUNTS = {  # after q = K C O / G parameters of a plain convolution, at the bases' default sizes
    "kan": lambda q, c, o, g: 9 * q + g + 2 * o,
    "fastkan": lambda q, c, o, g: 9 * q + 2 * c,
    "kaln": lambda q, c, o, g: 5 * q + 2 * o,
    "kacn": lambda q, c, o, g: 4 * q + 2 * o,
    "kagn": lambda q, c, o, g: 5 * q + 4 + 2 * o,
    "wavkan": lambda q, c, o, g: 2 * q + 2 * o * c // g + o * o // g + 2 * o,
}


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_parameters_are_as_many_as_the_formulas_say(form, dims, groups):
    layer = CLASSES[dims](8, 12, 3, groups=groups, form=form)
    assert count(layer) == COUNTS[form](3**dims * 8 * 12 // groups, 8, 12, groups)


def alone(layer, group):
    """The same layer for one of its groups, with that group's weights."""
    groups, form = layer.groups, layer.form_name
    inputs, outputs = layer.in_channels // groups, layer.out_channels // groups
    single = CLASSES[layer.num_dims](
        inputs, outputs, layer.kernel_size, *layer.geometry[:3], form=form, dtype=torch.float64
    )
    own = {
        name: value if "coefficients" in name or not value.dim() else value.chunk(groups)[group]
        for name, value in layer.state_dict().items()
    }
    single.load_state_dict(own)
    return single


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_groups_are_layers_side_by_side(form, dims):
    options = {"stride": 2, "padding": 2, "dilation": 2, "groups": 3, "form": form}
    layer = CLASSES[dims](6, 9, 3, dtype=torch.float64, **options)
    nn.init.normal_(layer.basis.weight)
    x = torch.randn(2, 6, *[7, 6, 5][:dims], dtype=torch.float64)
    parts = [alone(layer, g)(part) for g, part in enumerate(x.chunk(3, 1))]
    torch.testing.assert_close(layer(x), torch.cat(parts, 1))


@pytest.mark.parametrize("norm", NORM_KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_every_norm_kind_trains(form, norm):
    options = {"groups": 4} if norm == "group" else {}
    layer = KANConv2d(4, 8, 3, padding=1, form=form, norm=norm, norm_options=options, drop=0.2)
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    layer(x).square().sum().backward()
    gradients = [x.grad, *(p.grad for p in layer.parameters())]
    assert all(g is not None and g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_has_the_size_of_a_convolution(form):
    options = {"stride": (2, 1), "padding": (1, 3), "dilation": (1, 2)}
    x = torch.randn(2, 4, 9, 8)
    layer = KANConv2d(4, 6, (3, 4), form=form, **options)
    assert layer(x).shape == nn.Conv2d(4, 6, (3, 4), **options)(x).shape


def test_dropout_drops_whole_channels_in_training_only():
    layer = KANConv2d(4, 32, 3, padding=1, form="kan", drop=0.5)
    x = torch.randn(2, 4, 6, 6)
    kept = layer(x).abs().sum((2, 3)) > 0
    assert 0 < kept.sum() < kept.numel()
    assert (layer.eval()(x).abs().sum((2, 3)) > 0).all()


def test_another_activation_takes_the_place_of_the_forms():
    assert isinstance(KANConv2d(4, 4, 3, form="kaln").act, nn.SiLU)
    assert isinstance(KANConv2d(4, 4, 3, form="kaln", act=nn.ReLU()).act, nn.ReLU)


@pytest.mark.parametrize("form", FORMS)
def test_layers_print(form):
    assert f"form={form!r}" in repr(KANConv2d(4, 6, 3, form=form))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "kangn"}, "unknown KAN convolution 'kangn'; did you mean 'kagn'"),
        ({"scaling": "tanhh"}, "did you mean 'tanh'"),
        ({"init": "publish"}, "did you mean 'published'"),
        ({"groups": 3}, "groups=3 does not divide in_channels=4"),
        ({"groups": 0}, "groups takes a whole number from 1 up, got 0"),
        ({"drop": 1.0}, "drop takes a number in \\[0, 1\\), got 1.0"),
        ({"norm": "bach"}, "did you mean 'batch'"),
        ({"basis_options": {"gridsize": 4}}, "did you mean 'grid_size'"),
        ({"basis_options": {"degree": 3}}, "unknown option of basis 'spline': 'degree'"),
        ({"basis_options": {"grid_size": 0}}, "grid_size takes a whole number from 1"),
        (
            {"form": "kacn", "basis_options": {"constant": "no"}},
            "constant takes True or False, got 'no'",
        ),
        ({"form": "kagn", "basis_options": {"silu": 0}}, "silu takes True or False, got 0"),
        (
            {"form": "wavkan", "basis_options": {"channel_window": 1}},
            "channel_window takes True or False, got 1",
        ),
        ({"act": "relu"}, r"act takes a module, such as nn.ReLU\(\), got 'relu'"),
        ({"padding": "same"}, "padding takes an int or 2 ints from 0 up, got 'same'"),
    ],
)
def test_a_mistake_is_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        KANConv2d(4, 6, 3, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(4, 5, 5), (2, 3, 5, 5), (2, 4, 5)])
def test_an_input_of_another_shape_is_one_line(form, shape):
    message = rf"KANConv2d takes \(N, 4, H, W\), got \({', '.join(map(str, shape))}\)"
    with pytest.raises(ValueError, match=message):
        KANConv2d(4, 6, 3, form=form)(torch.zeros(shape))


def test_the_expected_shape_is_told_in_any_dimension():
    with pytest.raises(ValueError, match=r"KANConv1d takes \(N, 4, L\), got \(4, 9\)"):
        KANConv1d(4, 6, 3)(torch.zeros(4, 9))
    with pytest.raises(ValueError, match=r"KANConv3d takes \(N, 4, D, H, W\), got \(4, 9\)"):
        KANConv3d(4, 6, 3)(torch.zeros(4, 9))
