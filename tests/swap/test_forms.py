"""Norms are recognised by their classes, with what they say of themselves."""

import importlib

import pytest
from torch import nn

from knorm.swap.forms import FORMS, find_norms, is_unknown_batch_norm


def library_class(package, name):
    """The class, or a skip where the package is not installed."""
    homes = {
        "torch": ("torch.nn",),
        "timm": ("timm.layers", "timm.layers.norm", "timm.layers.norm_act"),
        "torchvision": ("torchvision.ops", "torchvision.models.convnext"),
        "knorm": ("knorm", "knorm.swap.layers", "knorm.models.convnext"),
    }
    pytest.importorskip(package)
    for home in homes[package]:
        module = importlib.import_module(home)
        if hasattr(module, name):
            return getattr(module, name)
    raise AssertionError(f"{package} has no {name}")


def make(package, name, channels=8):
    """A norm of that class."""
    cls = library_class(package, name)
    first = {("torch", "GroupNorm"): (2,)}
    if name.startswith("KernelNorm"):
        return cls()
    if name == "PositionNorm":
        return cls(dropout_p=0.05, eps=1e-5)
    options = {"groups": 2} if name.startswith("EvoNorm2dS") else {}
    if (package, name) in {("timm", "GroupNorm"), ("timm", "GroupNormAct")}:
        options = {"num_groups": 2}
    return cls(*first.get((package, name), ()), channels, **options)


ROWS = [pytest.param(*key, id=".".join(key)) for key in FORMS]


@pytest.mark.parametrize(("package", "name"), ROWS)
def test_every_row_is_a_class_that_is_found_with_its_channels(package, name):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), make(package, name))
    (norm,) = find_norms(net)
    assert norm.name == "1"
    assert norm.form is FORMS[package, name]
    assert norm.channels == (None if FORMS[package, name].family == "kernel" else 8)


def test_a_subclass_counts_as_its_base_unless_it_has_a_forward_of_its_own():
    class Same(nn.BatchNorm2d):
        pass

    class Other(nn.BatchNorm2d):
        def forward(self, input):  # noqa: A002
            return super().forward(input) + 1

    assert [norm.kind for norm in find_norms(Same(4))] == ["batch"]
    assert list(find_norms(Other(4))) == []
    assert is_unknown_batch_norm(Other(4))
    assert not is_unknown_batch_norm(Same(4))


def test_a_group_norm_of_one_group_is_of_kind_layer():
    kinds = [
        norm.kind for norm in find_norms(nn.Sequential(nn.GroupNorm(1, 4), nn.GroupNorm(2, 4)))
    ]
    assert kinds == ["layer", "group"]


def test_a_norm_over_more_than_the_channels_does_not_say_their_number():
    (norm,) = find_norms(nn.LayerNorm((8, 4, 4)))
    assert norm.channels is None
