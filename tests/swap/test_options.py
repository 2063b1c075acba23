"""What is asked for is checked before anything is done."""

import pytest
import torch
from torch import nn

from knorm.swap import swap_norm
from knorm.swap.options import SwapOptions, norms_to_swap


class Split(nn.BatchNorm2d):
    def forward(self, input):  # noqa: A002
        return super().forward(input)


def net(**more):
    return nn.ModuleDict({"stem": nn.BatchNorm2d(4), "head": nn.LayerNorm(4), **more})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "bacth"}, "did you mean 'batch'"),
        ({"kind": "layer", "groups": 2}, "groups concerns kind 'group', not 'layer'"),
        ({"kind": "group", "groups": True}, "groups takes a whole number"),
        ({"kind": "group", "groups": 0}, "groups takes a whole number"),
        ({"kind": "group", "dropout_p": 0.1}, "dropout_p concerns kind 'kernel'"),
        ({"kind": "none", "eval_stats": "plain"}, "eval_stats concerns kind 'kernel'"),
        ({"kind": "kernel", "eval_stats": "plane"}, "did you mean 'plain'"),
        ({"kind": "kernel", "dropout_p": 1.0}, r"dropout_p must be in \[0, 1\)"),
        ({"kind": "group", "fold": True}, "fold concerns kind 'kernel' or 'none'"),
        ({"kind": "kernel", "affine": False}, "affine=False concerns norms that stand"),
        ({"kind": "kernel", "keep_affine": False}, "keep_affine=False concerns norms that stand"),
        ({"kind": "group", "eps": float("nan")}, "eps must be a number from 0 up"),
        ({"kind": "group", "eps": float("inf")}, "eps must be a number from 0 up"),
        ({"kind": "none", "eps": 1e-3}, "eps concerns norms"),
        ({"kind": "layer", "eps": -1.0}, "eps must be a number from 0 up"),
        ({"kind": "layer", "affine": 1}, "affine takes True or False, got 1"),
    ],
)
def test_an_option_that_cannot_be_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        SwapOptions(**options)


@pytest.mark.parametrize(
    ("p", "final"), [(None, 0.25), (0.02, 0.1), (0.05, 0.25), (0.2, 0.25), (0.4, 0.4), (0.0, 0.0)]
)
def test_the_last_features_have_five_times_the_dropout_up_to_a_quarter(p, final):
    assert SwapOptions(kind="kernel", dropout_p=p).final_dropout_p == pytest.approx(final)


@pytest.mark.parametrize(
    ("modules", "names"),
    [
        (None, ["stem", "head"]),
        ("st*", ["stem"]),
        (["head", "stem"], ["stem", "head"]),
        ({"head", "stem"}, ["stem", "head"]),
        (lambda name, module: isinstance(module, nn.LayerNorm), ["head"]),
    ],
)
def test_modules_selects_norms_by_pattern_or_predicate(modules, names):
    assert [norm.name for norm in norms_to_swap(net(), modules)] == names


@pytest.mark.parametrize(
    ("model", "modules", "words"),
    [
        (nn.Sequential(nn.Conv2d(3, 3, 1)), None, r"the model \(Sequential\) has no norm"),
        (net(), "stm", "no norm is named 'stm'; did you mean 'stem'"),
        (net(), lambda name, module: False, "selects none of the 2 norms"),
        (net(), [], "selects no norm"),
        (net(), 3, "takes patterns of names or a function, got 3"),
        (Split(4), None, "the model itself: Split keeps running statistics"),
        (net(), [3], "takes patterns of names or a function, got 3"),
        (net(odd=Split(4)), None, "odd: Split keeps running statistics.*modules="),
        (net(odd=nn.LazyBatchNorm2d()), None, "odd: LazyBatchNorm2d has no shape yet"),
    ],
)
def test_a_selection_that_cannot_be_is_named(model, modules, words):
    with pytest.raises(ValueError, match=words), torch.no_grad():
        norms_to_swap(model, modules)


def test_a_function_is_asked_once_for_each_norm():
    asked = []
    norms_to_swap(net(), lambda name, module: asked.append(name) or True)
    assert asked == ["stem", "head"]


def test_a_norm_of_unknown_form_may_be_left_out():
    assert len(norms_to_swap(net(odd=Split(4)), ["stem", "head"])) == 2


def test_all_kernel_layers_evaluate_by_the_statistics_asked_for():
    layers = [nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1)]
    swapped, _ = swap_norm(nn.Sequential(*layers), "kernel", eval_stats="plain")
    stats = [module.eval_stats for module in swapped.modules() if hasattr(module, "eval_stats")]
    assert stats == ["plain"] * 3
