"""What was wrong with the published layers, by the numbers of issue D1 to D16 of their study.

D1, D14 and D16 (penalties) are in tests/training/test_penalties.py, D2 (a norm before pooling) in
tests/models/test_kan_nets.py, D10 (constant functions) in test_bases.py.
"""

import gc
import math
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from classification.config import parse_recipe
from knorm.kan import FORMS, KANConv2d, make_basis
from knorm.models import create_model
from knorm.training.mistakes import UserMistakeError
from knorm.training.profile import saved_bytes

MIB = 2**20


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def published(form):
    """Options of a layer with the published defects."""
    return {"form": form, "init": "published", **FORMS[form].published}


class Watch(TorchDispatchMode):
    """Every operation's name, and the most elements that any gave."""

    def __init__(self):
        super().__init__()
        self.operations, self.most = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        self.operations.append(func.overloadpacket.__name__)
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.most = max(self.most, tensor.untyped_storage().nbytes() // 4)
        return out


@pytest.mark.parametrize("size", [5.0, 10.0, 1e4])
def test_d3_chebyshev_layers_have_finite_gradients_at_large_inputs(size):
    layer = KANConv2d(2, 4, 3, padding=1, form="kacn", norm="none")
    x = torch.cat([torch.full((1, 2, 4, 4), size), torch.full((1, 2, 4, 4), -size)])
    x.requires_grad_()
    layer(x).sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_d3_slopes_of_chebyshev_polynomials_stay_below_the_squared_degree():
    u = torch.tensor([1.0, 1 - 2e-7, -1.0]).view(1, 1, -1).requires_grad_()
    slopes = {}
    for form in ("recurrence", "acos"):
        last = make_basis("chebyshev", degree=3, form=form).values(u)[:, :, -1]
        slopes[form] = torch.autograd.grad(last.sum(), u)[0].flatten()
    torch.testing.assert_close(slopes["recurrence"], torch.full((3,), 9.0), rtol=1e-4, atol=0)
    assert (slopes["acos"][[0, 2]] == 0).all()  # the clamp takes the gradient away instead


@pytest.mark.parametrize("form", FORMS)
def test_d4_an_image_has_the_same_output_alone_and_among_others(form):
    layer = KANConv2d(2, 4, 3, padding=1, form=form).eval()
    image, outlier = torch.randn(1, 2, 5, 5), 50 * torch.randn(3, 2, 5, 5)
    torch.testing.assert_close(layer(torch.cat([image, outlier]))[:1], layer(image))


def test_d4_legendre_layers_are_finite_on_constant_images_and_the_published_are_not():
    image, outlier = torch.zeros(1, 2, 5, 5), torch.full((1, 2, 5, 5), 9.0)
    assert KANConv2d(2, 4, 3, form="kaln")(image).isfinite().all()
    as_published = KANConv2d(2, 4, 3, **published("kaln")).eval()
    assert as_published(image).isnan().all()
    together = as_published(torch.cat([image, outlier]))[:1]
    assert not torch.equal(together, as_published(torch.cat([image, -outlier]))[:1])


@pytest.mark.parametrize("form", FORMS)
def test_d5_layers_keep_no_input_alive(form):
    layer = KANConv2d(2, 4, 3, form=form)
    kept = []
    for number in range(4):
        x = torch.randn(1, 2, 5, 5, requires_grad=True)
        kept.append(weakref.ref(x))
        layer.train(number % 2 == 0)(x).sum().backward()
        del x
    gc.collect()
    assert [ref() for ref in kept] == [None] * 4


@pytest.mark.parametrize(("conv", "most"), [("kan", 3), ("wavkan", 6), ("kagn", 3), ("fastkan", 3)])
def test_d6_d7_a_net_keeps_few_activations_of_an_image(conv, most):
    net = create_model("kannet4", num_classes=10, conv=conv)
    x, target = torch.randn(2, 3, 32, 32), torch.zeros(2, dtype=torch.long)
    assert saved_bytes(net, x, target) / 2 / MIB <= most


def test_d7_wavelets_of_all_pairs_of_channels_never_exist_at_once():
    layer = KANConv2d(32, 64, 3, padding=1, form="wavkan")
    x = torch.randn(4, 32, 16, 16, requires_grad=True)
    with Watch() as watch:
        layer(x).sum().backward()
    assert watch.most < 64 * x.numel() / 8


@pytest.mark.parametrize("form", FORMS)
def test_d8_groups_take_no_more_operations_than_one(form):
    seen = []
    for groups in (1, 4):
        layer = KANConv2d(8, 8, 3, padding=1, form=form, groups=groups)
        with Watch() as watch:
            layer(torch.randn(2, 8, 6, 6)).sum().backward()
        seen.append(len(watch.operations))
    assert seen[1] <= seen[0] + 4


@pytest.mark.parametrize("form", ["kan", "fastkan", "kaln", "kacn", "kagn"])
def test_d9_weights_of_the_basis_begin_with_the_variance_of_their_inputs_number(form):
    layer = KANConv2d(32, 64, 3, form=form, groups=2)
    fan = layer.basis.weight[0].numel()
    assert layer.basis.weight.std().item() == pytest.approx(1 / math.sqrt(fan), rel=0.03)


@pytest.mark.parametrize(
    ("form", "too_small"), [("kaln", math.sqrt(32)), ("kagn", math.sqrt(32)), ("kacn", 48.0)]
)
def test_d9_published_weights_began_too_small(form, too_small):
    ours, theirs = (
        KANConv2d(32, 64, 3, groups=2, **{"form": form, **options})
        for options in ({}, published(form))
    )
    ratio = ours.basis.weight.std() / theirs.basis.weight.std()
    expected = too_small
    if form == "kacn":  # 1 over all inputs in the place of 1 over the root of the group's
        expected = 2 * math.sqrt(ours.basis.weight[0].numel())
    assert ratio.item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("degree", [3, 6])
def test_d9_all_numbers_of_gram_polynomials_act_and_none_is_multiplied(degree):
    x = torch.linspace(-0.9, 0.9, 24, dtype=torch.float64).view(2, 3, 4)
    slopes = {}
    for start in ("gram", "published"):
        basis = make_basis("gram", degree=degree, start=start, silu=False)
        numbers = torch.zeros(degree + 1, dtype=torch.float64, requires_grad=True)
        jacobian = torch.autograd.functional.jacobian(lambda n, b=basis: b.values(x, n), numbers)
        slopes[start] = jacobian.abs().flatten(0, -2).amax(0)
    assert (slopes["gram"] > 0).all()
    assert slopes["gram"].max() <= 1
    assert (slopes["published"][[0, -1]] == 0).all()
    assert slopes["published"].max() > (25 if degree == 3 else 400)


def test_d11_splines_answer_to_nearly_all_normal_inputs():
    x = torch.randn(1, 1, 100_000)
    answered = {}
    for name, options in {"ours": {}, "published": {"grid_range": (-1, 1)}}.items():
        values = make_basis("spline", **options).values(x)
        answered[name] = (values.sum(2) > 1 - 1e-4).float().mean().item()
    assert answered["ours"] > 0.997
    assert answered["published"] < 0.7


def test_d11_inputs_may_be_scaled_into_the_grid():
    layer = KANConv2d(1, 2, 1, form="kan", scaling="tanh", basis_options={"grid_range": (-1, 1)})
    seen = layer.basis.basis.values(layer._basis_input(torch.full((1, 1, 2, 2), 30.0)))
    torch.testing.assert_close(seen.sum(2), torch.ones(1, 1, 2, 2))


def test_d13_there_is_no_quantized_evaluation_that_does_nothing():
    with pytest.raises(UserMistakeError, match="quantize: no such option"):
        parse_recipe(["--quantize=true"])
